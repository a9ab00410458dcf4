"""The Python verdict on a resource of either kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.api.names import LLMROUTE
from fairlead.api.resource import Finding, LLMDeployment, LLMRoute
from fairlead.api.validation import parse_llmdeployment, parse_llmroute


def parse(resource: Mapping[str, Any]) -> LLMDeployment | LLMRoute | tuple[Finding, ...]:
    """What is no LLMRoute is taken for an LLMDeployment."""
    return parse_llmroute(resource) if resource.get("kind") == LLMROUTE else parse_llmdeployment(resource)
