"""What the gateways have loaded, and when their kubelets are told to look again.

A kubelet projects a changed ConfigMap within a minute or so, and at once when the pod's own object changes. One in some hundred of
such changes reaches it before the ConfigMap does, so it is told again after a second, and then ever more seldom.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from fairlead.api.names import ANNOTATION_ROUTING, LABEL_LLMROUTE
from fairlead.facts.route import GatewayPod
from fairlead.gateway.envoy.loaded import AUTHENTICATION, find_rejected, read_healthy, read_loaded
from fairlead.gateway.envoy.unrouted import is_unrouted
from fairlead.planning.plan import Nudge, Removal
from fairlead.planning.route.publishing import Files, is_loaded

__all__ = ["GIVE_UP_S", "Gateways", "read_gateways"]

#: A gateway that has not loaded a step for so long holds back no other one, and one that still does what was withdrawn must go.
GIVE_UP_S: Final = 30.0
#: Of a gateway that must go, for requests that it has: whatever it answers to new ones may be what is no longer permitted.
_GRACE_S: Final = 5
#: Seconds after the first nudge at which the next ones are due.
_AGAIN_S: Final = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0)
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Gateways:
    """`loaded`: of each gateway that counts, file -> version; `current`: how many of the ready ones have the files as they are in the
    ConfigMaps now; `late`: names of those that were given up; `rejected`: files that one refuses; `healthy`: of each current
    gateway, backend -> hosts that it would send a request to (what has none may be left out); `nudges` and `removals` are due now,
    and `next_s` is when to look again (None: all is loaded)."""

    ready: int
    loaded: tuple[Mapping[str, str], ...]
    current: int
    late: tuple[str, ...]
    rejected: tuple[str, ...]
    healthy: tuple[Mapping[str, int], ...]
    nudges: tuple[Nudge, ...]
    removals: tuple[Removal, ...]
    next_s: float | None


def read_gateways(
    pods: Sequence[GatewayPod],
    live: Files | None,
    authentication: str,
    digest: str,
    now: datetime,
    certificate: str = "",
    missed_since: Callable[[Mapping[str, str]], datetime | None] = lambda _: None,
    *,
    is_carried: bool = False,
) -> Gateways:
    """`live` and `authentication`: what the ConfigMaps and the Secret hold, whose digest is `digest`; `certificate`: as the pods have it.
    Pods with another one, or with none, are kept up to date while they are there, and do not count; nor do those that run beside
    engines unless `is_carried`, and then the others. `missed_since`: since when one that has loaded these versions does what was
    withdrawn, None if it does not."""

    def counts(pod: GatewayPod) -> bool:
        return pod.certificate == certificate and bool(pod.carrier) == is_carried

    ready = [pod for pod in pods if pod.is_ready]
    loaded, late, nudges, removals, rejected, healthy = [], [], [], [], set(), []
    waits: list[float] = []
    current = 0
    for pod in pods:
        versions = read_loaded(pod.loaded) if pod.loaded is not None else {}
        is_current = live is not None and is_loaded(live, [versions]) and versions.get(AUTHENTICATION) == authentication
        if not pod.is_ready:
            # Beside an engine that loads its model for minutes: it shall be up to date when the first request comes.
            if pod.loaded is not None and not is_current:
                age_s, due = _age_of(pod, digest, now)
                nudges += [Nudge(pod.name, pod.uid, ANNOTATION_ROUTING, due)] if due is not None else []
                waits.append(max(1.0, _look_again_s(age_s)))
            continue
        if is_current:
            current += counts(pod)
            loaded.append(versions)
            healthy.append(read_healthy(pod.loaded or {}))
            continue
        age_s, due = _age_of(pod, digest, now)
        rejected |= set(find_rejected(pod.loaded)) if pod.loaded is not None else set()
        if age_s >= GIVE_UP_S:
            late.append(pod.name)
        else:
            loaded.append(versions)
        known = pod.loaded or pod.last
        # Who has never answered may be well: that the operator does not reach it is no reason to end it.
        told = read_loaded(known) if known is not None else {}
        if known is not None and _must_go(pod, missed_since(told), now) and not is_unrouted(told):
            # An engine goes on: what it has to do is not only this route's.
            removals.append(Removal(pod.name, pod.uid, _GRACE_S, LABEL_LLMROUTE if pod.carrier else ""))
        elif due is not None:
            nudges.append(Nudge(pod.name, pod.uid, ANNOTATION_ROUTING, due))
        waits.append(_look_again_s(age_s))
    return Gateways(
        ready=sum(map(counts, ready)),
        loaded=tuple(loaded),
        current=current,
        late=tuple(late),
        rejected=tuple(sorted(rejected)),
        healthy=tuple(healthy),
        nudges=tuple(nudges),
        removals=tuple(removals),
        next_s=min(waits, default=None),
    )


def _must_go(pod: GatewayPod, missed: datetime | None, now: datetime) -> bool:
    """A pod that began after that found the files as they were by then, whatever it can tell of them: another one would be no better."""
    if missed is None or (now - missed).total_seconds() < GIVE_UP_S:
        return False
    return pod.created is None or pod.created < missed


def _age_of(pod: GatewayPod, digest: str, now: datetime) -> tuple[float, str | None]:
    """Seconds since the pod's kubelet was first told of this digest, and the annotation that is due now, if one is."""
    told, _, rest = pod.nudge.partition("@")
    since, _, times = rest.partition("#")
    begun = _parse_time(since)
    if told != digest or begun is None:
        return 0.0, f"{digest}@{now.astimezone(UTC).strftime(_TIME)}#0"
    age_s = max(0.0, (now - begun).total_seconds())
    count = int(times) if times.isdigit() else 0
    wanted = sum(1 for after_s in _AGAIN_S if age_s >= after_s)
    return age_s, f"{digest}@{since}#{wanted}" if wanted > count else None


def _parse_time(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None


def _look_again_s(age_s: float) -> float:
    """Often while it may come any moment, seldom when it has not come for long."""
    return 0.2 if age_s < 5.0 else 1.0 if age_s < GIVE_UP_S else 10.0
