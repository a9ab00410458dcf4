"""Model sources: `scheme://reference`, and for pvc:// the claim and the path inside it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MODEL_MOUNT_PATH", "ModelSource", "parse_source"]

#: Where the claim of a pvc:// source is mounted, read-only.
MODEL_MOUNT_PATH = "/model"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """`reference` is all that follows `scheme://`. Only pvc:// sources have a `claim` and a `path` in the container."""

    scheme: str
    reference: str
    claim: str = ""
    path: str = ""


def parse_source(source: str) -> ModelSource:
    """`source` has passed validation: it has a scheme, and a pvc:// source names a claim."""
    scheme, _, reference = source.partition("://")
    if scheme != "pvc":
        return ModelSource(scheme=scheme, reference=reference)
    claim, _, inner = reference.partition("/")
    inner = inner.strip("/")
    return ModelSource(
        scheme=scheme,
        reference=reference,
        claim=claim,
        path=f"{MODEL_MOUNT_PATH}/{inner}" if inner else MODEL_MOUNT_PATH,
    )
