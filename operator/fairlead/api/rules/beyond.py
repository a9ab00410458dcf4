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
        "Times of spec.autoscaling.schedules that do not exist (minute 61, a day FOO), and time zones that nobody knows",
        "fairlead render; the operator as Stalled/InvalidSpec",
        "CEL has neither cron expressions nor a time zone database",
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
    Beyond(
        "Of an LLMRoute: a region or parameters that the provider does not have, an address or host that may not be called, and a "
        "provider that cannot be used (Replicate)",
        "the operator as Accepted=False/ProviderRefused",
        "a provider is a data file, and the rules for addresses depend on the operator's trustedHosts",
    ),
    Beyond(
        "Of an LLMRoute: trusted: true for a host that is not on the operator's list",
        "the operator as Accepted=False/ProviderRefused",
        "CEL does not see the operator's trustedHosts",
    ),
    Beyond(
        "Of an LLMRoute: a pattern that RE2 does not compile, that matches the empty text or that is too large",
        "fairlead render; the operator as Accepted=False/PatternRefused",
        "CEL matches with patterns of the rules' own and compiles no text of the object",
    ),
    Beyond(
        "Of an LLMRoute: deployments and Secrets that do not exist, Secrets without fairlead.dev/use, fairlead.dev/hosts or the key",
        "the operator as ResolvedRefs=False, with the backend in status.backends; the next permitted target serves",
        "CEL sees one object only, and they may come later",
    ),
    Beyond(
        "Of an LLMRoute: a class that a role may send and for which a model has no permitted target",
        "the operator as Accepted=False/NoPermittedTarget",
        "which classes a deployment may take depends on its own spec and on the operator's localImages",
    ),
    Beyond(
        "Of an LLMRoute: consumers that the clients' Secret does not have, and keys in it that are not let in",
        "the gateway with 401; the operator in status.conditions where a key cannot be let in",
        "CEL sees no Secrets",
    ),
    Beyond(
        "Of an LLMRoute: a routing larger than a ConfigMap",
        "the operator as Accepted=False/TooLarge; beyond 1.5 MiB the API server, which refuses the object",
        "the size of the routing depends on roles times models, not on the spec's length",
    ),
)
