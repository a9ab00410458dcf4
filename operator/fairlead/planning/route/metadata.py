"""Metadata of an LLMRoute's children, and what status says of a name that is taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.api.names import LLMROUTE, make_gateway_labels
from fairlead.api.resource import Metadata
from fairlead.facts.observed import ObjectKey
from fairlead.planning import ownership
from fairlead.planning.ownership import is_ours

__all__ = ["describe_taken", "is_ours", "make_metadata"]


def make_metadata(owner: Metadata, name: str, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    """As `ownership.make_owned_metadata`, with the labels of a gateway."""
    return ownership.make_owned_metadata(LLMROUTE, owner, name, make_gateway_labels(owner.name), annotations)


def describe_taken(key: ObjectKey, live: Mapping[str, Any]) -> str:
    """As `ownership.describe_taken`, for an LLMRoute."""
    return ownership.describe_taken(LLMROUTE, key, live)
