"""What a route's plan may know of an LLMDeployment and of a provider's Secret, read from the objects as they are.

The operator reads them from its cache, `fairlead render` and `explain` from files: what they understand must be the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from fairlead.api.names import ANNOTATION_HOSTS, LABEL_USE
from fairlead.api.resource import LLMDeployment
from fairlead.api.validation import parse_llmdeployment
from fairlead.facts.route import LocalDeployment, SecretFacts
from fairlead.policy.locality import find_leak

__all__ = ["describe_deployment", "describe_secret"]


def describe_deployment(raw: Mapping[str, Any], port: int | None, local_images: Iterable[str]) -> LocalDeployment:
    """An LLMDeployment as the API server has it, which need not be valid. `port`: that of its headless Service, None unless that is
    there and its own."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    name = str(metadata["name"])
    spec = raw.get("spec") or {}
    parsed = parse_llmdeployment({**raw, "status": {}})
    leak = find_leak(parsed.spec, local_images) if isinstance(parsed, LLMDeployment) else "its spec is invalid"
    return LocalDeployment(
        name=name,
        served_model=str((spec.get("model") or {}).get("name") or name),
        port=port,
        ready=int(status.get("readyReplicas") or 0),
        desired=0 if spec.get("suspend") else int(spec.get("replicas", 1)),
        is_confidential=not leak,
        why_not=leak,
    )


def describe_secret(metadata: Mapping[str, Any], keys: Collection[str] | None = None) -> SecretFacts:
    """A provider's Secret by its metadata alone: what it may be used for, and to which hosts it may be sent."""
    hosts = str((metadata.get("annotations") or {}).get(ANNOTATION_HOSTS, ""))
    return SecretFacts(
        name=str(metadata["name"]),
        use=str((metadata.get("labels") or {}).get(LABEL_USE, "")),
        hosts=frozenset(part.strip().lower() for part in hosts.split(",")) - {""},
        keys=None if keys is None else frozenset(keys),
    )
