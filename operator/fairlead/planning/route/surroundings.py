"""What a route's plan may know of an LLMDeployment and of a provider's Secret, read from the objects as they are.

The operator reads them from its cache, `fairlead render` and `explain` from files: what they understand must be the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from fairlead.api.autoscaling import DecisionPolicy
from fairlead.api.conditions import ConditionType, Reason
from fairlead.api.llmdeployment import LLMDeploymentSpec
from fairlead.api.names import ANNOTATION_HOSTS, ANNOTATION_RECORDS, LABEL_USE, issued_certificate_name
from fairlead.api.resource import LLMDeployment
from fairlead.api.route import GatewayMode
from fairlead.api.validation import parse_llmdeployment
from fairlead.facts.observed import CarriedGateway
from fairlead.facts.route import Carrier, LocalDeployment, SecretFacts
from fairlead.planning.conditions import TRUE
from fairlead.policy.locality import find_leak, find_leak_of_pod, find_record

__all__ = [
    "count_replicas",
    "describe_carried",
    "describe_carrier",
    "describe_deployment",
    "describe_secret",
    "wakes_for_requests",
]

_Pods = Iterable[tuple[str, Mapping[str, str]]]  # name, annotations


def describe_deployment(
    raw: Mapping[str, Any],
    port: Mapping[str, Any] | None,
    local_images: Iterable[str],
    pods: Iterable[Mapping[str, Any]] = (),
) -> LocalDeployment:
    """An LLMDeployment as the API server has it, which need not be valid. `port`: that of its headless Service, None unless that is
    there and its own; its name says whether the pods serve TLS. `pods`: its own; some may be of an earlier spec."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    name = str(metadata["name"])
    spec = raw.get("spec") or {}
    parsed = parse_llmdeployment({**raw, "status": {}})
    valid = parsed.spec if isinstance(parsed, LLMDeployment) else None
    known = [(str(pod["metadata"]["name"]), pod["metadata"].get("annotations") or {}) for pod in pods]
    leak = plain = "its spec is invalid"
    if valid is not None:
        images = tuple(local_images)
        leak = find_leak(valid, images) or _find_leaking(known, images)
        plain = _find_plain(valid) or _find_recording(known)
    is_tls = port is not None and port.get("name") == "https"
    can_wake = wakes_for_requests(spec)
    is_at_zero = can_wake and status.get("replicas") == 0
    hindrance = _find_hindrance(status) if is_at_zero else ""
    is_down = _condition(status, ConditionType.READY).get("reason") == Reason.SCALED_TO_ZERO
    return LocalDeployment(
        name=name,
        served_model=str((spec.get("model") or {}).get("name") or name),
        port=int(port["port"]) if port is not None else None,
        ready=int(status.get("readyReplicas") or 0),
        desired=count_replicas(raw),
        is_confidential=not leak,
        why_not=leak,
        is_tls=is_tls,
        certificate_secret=_read_certificate_secret(name, spec),
        is_encrypted=not plain,
        why_not_encrypted=plain,
        can_wake=can_wake,
        is_asleep=is_at_zero and is_down and not hindrance,
        hindrance=hindrance,
    )


def describe_carried(
    carrier: str, name: str, raw: Mapping[str, Any] | None, find: Callable[[str], LocalDeployment | None]
) -> CarriedGateway:
    """What the LLMDeployment `carrier` must know of LLMRoute `name`, whose gateway its pods carry. `raw`: the route, which need not be
    valid, or None; `find`: an LLMDeployment of their namespace. Its own pods are as it is, whatever they keep."""
    spec = (raw or {}).get("spec")
    if raw is None or not isinstance(spec, Mapping):
        return CarriedGateway(name)
    gateway = spec.get("gateway")
    said = gateway.get("mode") if isinstance(gateway, Mapping) else None
    mode = str(said or GatewayMode.DEPLOYMENT.value)
    if mode != GatewayMode.SIDECAR:
        return CarriedGateway(name, mode)
    backends = [one.get("deployment") for one in spec.get("backends") or () if isinstance(one, Mapping)]
    named = {str(one.get("name")) for one in backends if isinstance(one, Mapping)}
    found = [one for one in map(find, sorted(named)) if one is not None]
    kept = [one for one in found if one.is_confidential or one.name == carrier]
    peers = tuple((one.name, one.port) for one in kept if one.port is not None)
    return CarriedGateway(name, mode, peers)


def describe_carrier(raw: Mapping[str, Any], local_images: Iterable[str]) -> Carrier:
    """Of an LLMDeployment whose pods carry a gateway."""
    found = describe_deployment(raw, None, local_images)
    return Carrier(found.name, found.desired, found.certificate_secret, is_closed=found.is_confidential)


def count_replicas(raw: Mapping[str, Any]) -> int:
    """How many an LLMDeployment, which need not be valid, is meant to have: where something else than spec.replicas decides, those that
    were decided, or are still there. Limits are divided by it, so that it is never fewer than there may be."""
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    if spec.get("suspend"):
        return 0
    fixed, scaling = _number(spec.get("replicas"), 1), spec.get("autoscaling")
    is_scaled = isinstance(scaling, Mapping)
    if not is_scaled and _condition(status, ConditionType.SCALING_ACTIVE).get("reason") != Reason.EXTERNALLY_MANAGED:
        return fixed
    bounds = scaling if isinstance(scaling, Mapping) and scaling.get("policy") != DecisionPolicy.RECOMMEND else {}
    decided = _number((status.get("scaling") or {}).get("desiredReplicas"), fixed)
    least = _number(bounds.get("minReplicas"), 1) if bounds else 0
    return max(decided, _number(status.get("replicas"), 0), least)


def _find_hindrance(status: Mapping[str, Any]) -> str:
    """The reason for which one at zero replicas does not start, though a request asks for it."""
    stalled, scaling = _condition(status, ConditionType.STALLED), _condition(status, ConditionType.SCALING_ACTIVE)
    if stalled.get("status") == TRUE:
        return str(stalled.get("reason"))
    reason = str(scaling.get("reason"))
    return reason if reason in (Reason.CAPACITY_BLOCKED, Reason.KEDA_MISSING) else ""


def _number(value: Any, absent: int) -> int:
    return absent if value is None else int(value)


def _condition(status: Mapping[str, Any], kind: ConditionType) -> Mapping[str, Any]:
    return next((one for one in status.get("conditions") or () if one.get("type") == kind), {})


def _find_plain(spec: LLMDeploymentSpec) -> str:
    """Why what it is sent is not encrypted all the way."""
    return find_record(spec) if spec.encryption is not None else "spec.encryption is not set"


def _find_leaking(pods: _Pods, local_images: Iterable[str]) -> str:
    """Why a pod that is still there may hand requests on, though the spec says otherwise by now."""
    return _find_earlier((name, find_leak_of_pod(annotations, local_images)) for name, annotations in pods)


def _find_recording(pods: _Pods) -> str:
    """The same of writing them into its log."""
    return _find_earlier((name, annotations.get(ANNOTATION_RECORDS, "")) for name, annotations in pods)


def _find_earlier(found: Iterable[tuple[str, str]]) -> str:
    return next((f"pod {name} is of an earlier spec: {said}" for name, said in found if said), "")


def wakes_for_requests(spec: Mapping[str, Any]) -> bool:
    """Whether fairlead, or KEDA at its word, lets an LLMDeployment with this spec, which need not be valid, go to zero replicas, and brings
    it back for a request."""
    scaling = spec.get("autoscaling")
    if not isinstance(scaling, Mapping) or spec.get("suspend"):
        return False
    decides = scaling.get("mode", "Operator") != "External" and scaling.get("policy", "Apply") == "Apply"
    return decides and scaling.get("minReplicas") == 0


def _read_certificate_secret(name: str, spec: Mapping[str, Any]) -> str:
    """Of a spec that need not be valid: what runs goes on running."""
    encryption = spec.get("encryption")
    if not isinstance(encryption, Mapping):
        return ""
    certificate = encryption.get("certificate")
    if certificate is None:
        return issued_certificate_name(name)
    return str(certificate.get("secretName") or "") if isinstance(certificate, Mapping) else ""


def describe_secret(
    metadata: Mapping[str, Any], keys: Collection[str] | None = None, *, is_tls: bool = False
) -> SecretFacts:
    """A Secret by its metadata, without its values: what it may be used for, and to which hosts it may be sent."""
    hosts = str((metadata.get("annotations") or {}).get(ANNOTATION_HOSTS, ""))
    return SecretFacts(
        name=str(metadata["name"]),
        use=str((metadata.get("labels") or {}).get(LABEL_USE, "")),
        hosts=frozenset(part.strip().lower() for part in hosts.split(",")) - {""},
        keys=None if keys is None else frozenset(keys),
        is_tls=is_tls,
    )
