"""The Python verdict on the tables of cases. tests/cluster/test_crd.py asks the real API server about the same objects."""

from __future__ import annotations

import pytest
from tests.unit.api.bounds import bound_cases, spec_schema, walked
from tests.unit.api.cases import DEPLOYMENTS, ROUTES, TABLES, Case, Table, both, case_id
from tests.unit.api.parsing import parse

from fairlead.api.resource import LLMDeployment, LLMRoute
from fairlead.api.validation import check_structure

BOUNDS = [case for table in TABLES for case in bound_cases(table)]


@pytest.mark.parametrize("case", both("valid"), ids=case_id)
def test_valid_object_is_accepted(case: Case) -> None:
    parsed = parse(case.resource)
    assert isinstance(parsed, LLMDeployment | LLMRoute), [str(finding) for finding in parsed]


@pytest.mark.parametrize("case", both("invalid"), ids=case_id)
def test_invalid_object_is_refused_where_it_is_wrong(case: Case) -> None:
    findings = parse(case.resource)
    assert isinstance(findings, tuple), "accepted"
    assert sorted({finding.path for finding in findings}) == sorted(case.paths), [str(finding) for finding in findings]
    assert any(case.says in str(finding) for finding in findings), [str(finding) for finding in findings]
    assert all(finding.message and finding.remedy for finding in findings)
    told = "".join(str(finding) for finding in findings)
    assert "None would work" not in told
    assert "VERYSECRET" not in told


@pytest.mark.parametrize("case", BOUNDS[::40], ids=case_id)
def test_a_mistake_in_metadata_hides_none_in_the_spec(case: Case) -> None:
    findings = parse({**case.resource, "metadata": {"name": "one", "label": {}}})
    assert isinstance(findings, tuple), "accepted"
    assert {finding.path for finding in findings} == {"metadata.label", *case.paths}


@pytest.mark.parametrize("case", BOUNDS, ids=case_id)
def test_what_is_out_of_bounds_is_refused_by_the_structure_alone(case: Case) -> None:
    findings = check_structure(case.resource)
    assert isinstance(findings, tuple), "accepted"
    assert {finding.path for finding in findings} == set(case.paths), [str(finding) for finding in findings]
    assert all(finding.message and finding.remedy for finding in findings)
    assert "None" not in "".join(str(finding) for finding in findings)


def test_bounds_of_a_route_are_all_tried() -> None:
    def paths(schema: dict[str, object], path: str) -> set[str]:
        found = {path}
        for name, below in schema.get("properties", {}).items():  # type: ignore[attr-defined]
            found |= paths(below, f"{path}.{name}")
        for below in (schema.get("items"), schema.get("additionalProperties")):
            if isinstance(below, dict):
                found |= paths(below, f"{path}[*]")
        return found

    assert paths(spec_schema(ROUTES), "spec") - walked(ROUTES) == set()


@pytest.mark.parametrize(
    ("table", "least_valid", "least_invalid"), [(DEPLOYMENTS, 60, 150), (ROUTES, 60, 150)], ids=str
)
def test_table_is_as_large_as_promised(table: Table, least_valid: int, least_invalid: int) -> None:
    valid, invalid = table.rows("valid"), table.rows("invalid")
    assert len(valid) >= least_valid
    assert len(invalid) >= least_invalid
    assert len({case.name for case in valid + invalid}) == len(valid) + len(invalid)
