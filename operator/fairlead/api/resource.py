"""A custom resource from the API server or a file, parsed: metadata that decisions need, and a valid spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fairlead.api.llmdeployment import LLMDeploymentSpec
from fairlead.api.route import LLMRouteSpec


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a CR.

    `path` is in the CR's own terms (`spec.quantization.weights`, `spec.files[0].path`), `message` says what is wrong,
    `remedy` what would work.
    """

    path: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" + (f"; {self.remedy}" if self.remedy else "")


@dataclass(frozen=True, slots=True)
class Metadata:
    """The part of a CR's metadata that fairlead reads. A CR from a file has uid "" and generation 1."""

    name: str
    namespace: str
    uid: str = ""
    generation: int = 1
    annotations: Mapping[str, str] = field(default_factory=dict)
    deletion_timestamp: str | None = None

    @classmethod
    def of(cls, resource: Mapping[str, Any]) -> Metadata:
        """Read from a JSON object; missing parts get the defaults above, a missing namespace is `default`."""
        metadata = resource.get("metadata") or {}
        return cls(
            name=str(metadata.get("name", "")),
            namespace=str(metadata.get("namespace") or "default"),
            uid=str(metadata.get("uid", "")),
            generation=int(metadata.get("generation", 1)),
            annotations=dict(metadata.get("annotations") or {}),
            deletion_timestamp=metadata.get("deletionTimestamp"),
        )


@dataclass(frozen=True, slots=True)
class LLMDeployment:
    """A valid LLMDeployment. `status` is the raw status subresource as last seen ({} when there is none). `decided_replicas`: how many
    there shall be where that is not for spec.replicas to say."""

    metadata: Metadata
    spec: LLMDeploymentSpec
    status: Mapping[str, Any] = field(default_factory=dict)
    decided_replicas: int | None = None

    @property
    def replicas(self) -> int:
        """Pods that serve, but for suspension."""
        return self.spec.replicas if self.decided_replicas is None else self.decided_replicas

    @property
    def most_replicas(self) -> int:
        """Pods that there may be without a change of the spec."""
        return self.spec.autoscaling.max_replicas if self.spec.autoscaling is not None else self.spec.replicas


@dataclass(frozen=True, slots=True)
class LLMRoute:
    """A valid LLMRoute. `status` is the raw status subresource as last seen ({} when there is none)."""

    metadata: Metadata
    spec: LLMRouteSpec
    status: Mapping[str, Any] = field(default_factory=dict)
