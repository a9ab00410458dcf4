"""The Python verdict on the table of cases. tests/cluster/test_crd.py asks the real API server about the same objects."""

from __future__ import annotations

import pytest
from tests.unit.api.cases import Case, invalid_cases, valid_cases

from fairlead.api.resource import LLMDeployment
from fairlead.api.validation import parse_llmdeployment


@pytest.mark.parametrize("case", valid_cases(), ids=str)
def test_valid_object_is_accepted(case: Case) -> None:
    parsed = parse_llmdeployment(case.resource)
    assert isinstance(parsed, LLMDeployment), [str(finding) for finding in parsed]


@pytest.mark.parametrize("case", invalid_cases(), ids=str)
def test_invalid_object_is_refused_where_it_is_wrong(case: Case) -> None:
    findings = parse_llmdeployment(case.resource)
    assert isinstance(findings, tuple), "accepted"
    assert sorted({finding.path for finding in findings}) == sorted(case.paths), [str(finding) for finding in findings]
    assert any(case.says in str(finding) for finding in findings), [str(finding) for finding in findings]
    assert all(finding.message and finding.remedy for finding in findings)


def test_table_is_as_large_as_promised() -> None:
    valid, invalid = valid_cases(), invalid_cases()
    assert len(valid) >= 60
    assert len(invalid) >= 150
    assert len({case.name for case in valid + invalid}) == len(valid) + len(invalid)
