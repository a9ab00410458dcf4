"""What the planner writes into status is declared in the schema: the API server drops the rest without a word."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.unit.api.cases import ROUTES, Case, make_resource, make_route_resource, valid_cases

from fairlead.api.llmdeployment import LLMDeploymentStatus
from fairlead.api.resource import Finding, LLMDeployment, LLMRoute
from fairlead.api.routestatus import LLMRouteStatus
from fairlead.api.validation import parse_llmdeployment, parse_llmroute
from fairlead.engines.loader import EngineCatalog
from fairlead.facts.observed import Observed, OperatorFacts
from fairlead.facts.route import RouteFacts
from fairlead.planning.deployment import plan_deployment, plan_invalid
from fairlead.planning.route import plan_invalid_route, plan_route
from fairlead.providers.loader import ProviderCatalog

NOW = datetime(2026, 11, 25, tzinfo=UTC)


@pytest.mark.parametrize("case", valid_cases(), ids=str)
def test_status_of_every_valid_object_is_declared(case: Case) -> None:
    parsed = parse_llmdeployment(case.resource)
    assert isinstance(parsed, LLMDeployment)
    status = plan_deployment(parsed, Observed(), EngineCatalog.builtin(), OperatorFacts(), NOW).status
    LLMDeploymentStatus.model_validate(status, by_alias=True, by_name=False)
    assert len(status["conditions"]) >= 6


def test_status_of_an_invalid_object_is_declared() -> None:
    findings = (Finding("spec.model.source", "is wrong", "write it anew"),)
    status = plan_invalid(make_resource("vllm", {}), findings, Observed(), NOW).status
    LLMDeploymentStatus.model_validate(status, by_alias=True, by_name=False)


@pytest.mark.parametrize("case", valid_cases(ROUTES), ids=str)
def test_status_of_every_valid_route_is_declared(case: Case) -> None:
    parsed = parse_llmroute(case.resource)
    assert isinstance(parsed, LLMRoute)
    status = plan_route(parsed, Observed(), RouteFacts(), OperatorFacts(), ProviderCatalog.builtin(), NOW).status
    LLMRouteStatus.model_validate(status, by_alias=True, by_name=False)
    assert len(status["conditions"]) >= 6


def test_status_of_an_invalid_route_is_declared() -> None:
    findings = (Finding("spec.models", "is wrong", "write it anew"),)
    status = plan_invalid_route(make_route_resource("local", {}), findings, Observed(), RouteFacts(), NOW).status
    LLMRouteStatus.model_validate(status, by_alias=True, by_name=False)
