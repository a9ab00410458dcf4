"""What the API server lets pass and who says it instead. Everything else is said by the CRD, at once and for everybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Beyond:
    """One kind of mistake that the CRD cannot refuse: what it is, who tells of it, and why the CRD does not."""

    what: str
    told_by: str
    why: str


BEYOND_CEL: Final = (
    Beyond(
        "Unknown fields and wrong types inside of raw Kubernetes fields (env, envFrom, tolerations, affinity, "
        "topologySpreadConstraints, securityContext, extraVolumes, extraVolumeMounts, networkPolicy.from, imagePullSecrets)",
        "fairlead render; the operator as Stalled/InvalidChild",
        "their schemas would make the CRD larger than 200 KB, and CEL sees no fields that the schema does not declare",
    ),
    Beyond(
        "Versions that the engine file does not serve, and number formats that a version does not have",
        "fairlead render; the operator as Stalled/InvalidSpec",
        "an engine file can be replaced in a cluster without a new CRD",
    ),
    Beyond(
        "An engine.type for which there is no engine",
        "fairlead render; the operator as Stalled/EngineNotFound",
        "engines are added by ConfigMaps, and CEL sees one object only",
    ),
    Beyond(
        "Secrets, ConfigMaps, claims, classes and accounts that do not exist",
        "the operator as Stalled, with what the pods say",
        "CEL sees one object only, and they may come later",
    ),
    Beyond(
        "Models that the hub does not have or does not give out",
        "the operator as Stalled/ModelNotFound or Stalled/ModelAccessDenied",
        "only the hub knows",
    ),
    Beyond(
        "A change of what a claim cannot change (size downwards, class, access modes)",
        "the operator as Stalled/ImmutableField",
        "only the storage class knows which sizes can grow",
    ),
    Beyond(
        "An object without metadata.name (generateName)",
        "fairlead render",
        "the API server makes the name before it asks the rules",
    ),
    Beyond(
        "Accelerators that no node has",
        "the operator as Stalled/Unschedulable, with the scheduler's reason",
        "CEL sees one object only, and nodes come and go",
    ),
)
