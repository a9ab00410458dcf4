"""The status of an LLMDeployment: what is true, for the generation that was planned, in the words of all Kubernetes tools.

Ready is True only when the current generation is rolled out and serves. Reconciling and Stalled are never both True: a fault
that a person must mend is Stalled, everything else that is under way is Reconciling (kstatus).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead.api.conditions import ConditionType, Reason
from fairlead.api.route import GatewayMode
from fairlead.facts.observed import ApplyFailure, CarriedGateway
from fairlead.planning.conditions import FALSE, TRUE, UNKNOWN, Condition, find_condition
from fairlead.planning.deployment.podhealth import PodHealth
from fairlead.planning.deployment.rollout import Rollout

__all__ = ["Fault", "Situation", "decide_conditions", "describe_gateway", "find_fault"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why the CR is not where it should be. `terminal`: a person must act; `of_pods`: seen on pods, so that those which
    serve nevertheless still count."""

    reason: Reason
    message: str
    terminal: bool
    of_pods: bool = False


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the conditions are made of. `fault` is the gravest; `newer_revision` waits for a spec change (law 8); `note`: what
    else is not as the spec says, though the model serves; `fewest`: replicas that suffice where their number is scaled, None where it
    is not; `wakes`: a request brings it back from zero."""

    generation: int
    suspended: bool
    rollout: Rollout
    pods: PodHealth
    fault: Fault | None
    newer_revision: str | None
    previous: Mapping[str, Any]
    note: str = ""
    fewest: int | None = None
    wakes: bool = False

    @property
    def idle(self) -> bool:
        """Nothing is meant to run."""
        return self.rollout.desired == 0


def find_fault(
    own_faults: Sequence[Fault], failures: Sequence[ApplyFailure], rollout: Rollout, pods: PodHealth
) -> Fault | None:
    """The fault to speak of. What the planner itself found comes first, then what the API server refused, then the pods."""
    faults = [*own_faults, *(_describe_failure(failure) for failure in failures)]
    if rollout.desired:
        worst = pods.worst
        if rollout.refusal:
            message = f"Pods are refused: {rollout.refusal} Next: raise the quota or satisfy the policy that it names."
            faults.append(Fault(Reason.POD_CREATE_REFUSED, message, terminal=True, of_pods=True))
        if worst is not None:
            # While the old pods give up their accelerators the new ones have no node: that passes.
            waits_for_old = worst.reason in (Reason.UNSCHEDULABLE, Reason.WAITING_FOR_VOLUME) and pods.ending > 0
            faults.append(Fault(worst.reason, worst.message, worst.terminal and not waits_for_old, of_pods=True))
        if rollout.deadline_exceeded:
            message = "The pods did not become ready in time. Next: see their events and logs, or raise probes.startupTimeout."
            faults.append(Fault(Reason.STARTUP_TIMEOUT, message, terminal=True, of_pods=True))
    return min(faults, key=lambda fault: not fault.terminal, default=None)


def decide_conditions(situation: Situation) -> list[Condition]:
    """All conditions, consistent with each other."""
    ready = _decide_ready(situation)
    stalled = _decide_stalled(situation, ready)
    return [
        ready,
        _decide_reconciling(situation, ready, stalled),
        stalled,
        _decide_model_ready(situation),
        _decide_scheduled(situation),
        _decide_available(situation),
    ]


def describe_gateway(gateway: CarriedGateway | None, namespace: str) -> str:
    """Why nobody is led to the gateway that the pods carry, and what mends it; "" where its route leads there."""
    if gateway is None or gateway.mode == GatewayMode.SIDECAR:
        return ""
    name = gateway.route
    if not gateway.mode:
        return (
            f"spec.gateway: there is no LLMRoute {name} in this namespace, so the gateway beside the engine answers 503."
            f" Next: kubectl get llmrt -n {namespace}."
        )
    return (
        f"spec.gateway: LLMRoute {name} does not say gateway.mode: Sidecar, so that nobody is led to the gateway beside the engine."
        " Next: say so there, or leave spec.gateway out."
    )


def _describe_failure(failure: ApplyFailure) -> Fault:
    reason = Reason(failure.reason) if failure.reason in set(Reason) else Reason.CHILD_REFUSED
    if failure.is_sentence:
        return Fault(reason, failure.message, failure.terminal)
    where = f" ({failure.path})" if failure.path else ""
    return Fault(reason, f"{failure.key}{where}: {failure.message}", failure.terminal)


def _was_ready(situation: Situation) -> bool:
    before = find_condition(situation.previous, ConditionType.READY)
    return before.get("status") == TRUE and before.get("observedGeneration") == situation.generation


def _had_lost_replicas(situation: Situation) -> bool:
    before = find_condition(situation.previous, ConditionType.READY)
    return (
        before.get("reason") == Reason.REPLICAS_UNAVAILABLE.value
        and before.get("observedGeneration") == situation.generation
    )


def _decide_ready(situation: Situation) -> Condition:
    rollout, fault = situation.rollout, situation.fault
    if situation.suspended:
        return _ready(FALSE, Reason.SUSPENDED, "Suspended: no pods run until spec.suspend is false.")
    if fault is not None and _withholds_ready(fault, situation):
        return _ready(FALSE, fault.reason, fault.message)
    if situation.idle:
        if rollout.complete:
            wakes = (
                "it wakes when a gateway has a request for it"
                if situation.wakes
                else "nothing serves until replicas is raised"
            )
            return _ready(TRUE, Reason.SCALED_TO_ZERO, f"0 replicas, as asked: {wakes}.")
        return _ready(FALSE, Reason.PROGRESSING, "The last pods are ending.")
    if _serves(situation):
        message = f"{rollout.available} of {rollout.desired} replicas serve."
        message += f" {situation.note}" if situation.note else ""
        if situation.newer_revision:
            return _ready(
                TRUE,
                Reason.REVISION_AVAILABLE,
                f"{message} Revision {situation.newer_revision} of engine file and pod builder is taken with the next change of"
                " the pods' spec, or with rollout.revision: Latest.",
            )
        return _ready(TRUE, Reason.SERVING, message)
    if fault is not None:
        return _ready(FALSE, fault.reason, fault.message)
    if not rollout.complete:
        done = f"{rollout.updated} of {rollout.desired} replicas have the current template, {rollout.available} serve."
        started = rollout.replicas > 0
        return _ready(FALSE, Reason.ROLLING_OUT if started else Reason.PROGRESSING, done)
    return _ready(FALSE, _waits_for(situation), f"{rollout.available} of {rollout.desired} replicas serve.")


def _waits_for(situation: Situation) -> Reason:
    """What stands between a rolled-out template and serving replicas. Lost replicas stay lost until they serve again: the reason must
    not depend on whether this is the first look at the loss or a later one."""
    if _was_ready(situation) or _had_lost_replicas(situation):
        return Reason.REPLICAS_UNAVAILABLE
    pods = situation.pods
    begun = pods.loading or pods.pulling or pods.ready or situation.rollout.available
    return Reason.MODEL_LOADING if begun else Reason.PODS_PENDING


def _withholds_ready(fault: Fault, situation: Situation) -> bool:
    """A spec that is not carried out is not ready, whatever still runs; a passing refusal takes nothing back that was so."""
    if fault.of_pods:
        return fault.terminal and not _serves(situation)
    return fault.terminal or not _was_ready(situation)


def _serves(situation: Situation) -> bool:
    """Everything asked for serves; once that was so, one missing replica of several is no reason to say otherwise. Where their number is
    scaled, those that were added are not waited for."""
    rollout = situation.rollout
    if situation.fewest is not None and rollout.desired and _was_ready(situation):
        same_pods = rollout.updated == rollout.replicas or not rollout.seen
        return same_pods and rollout.available >= _count_needed(situation)
    if not rollout.complete or not rollout.desired:
        return False
    needed = max(1, rollout.desired - 1) if _was_ready(situation) else rollout.desired
    return rollout.available >= needed


def _count_needed(situation: Situation) -> int:
    """Of replicas that are scaled: those that load are not waited for, and one may be missing, but never more than leaves the fewest."""
    desired, pods = situation.rollout.desired, situation.pods
    loading = max(0, len(pods.starting_since) - len(pods.troubles)) + max(0, desired - pods.total)
    return max(1, min(desired, situation.fewest or 0), desired - loading - 1)


def _decide_stalled(situation: Situation, ready: Condition) -> Condition:
    fault = situation.fault
    # While enough replicas serve, a pod in trouble is told under Reconciling.
    if fault is not None and fault.terminal and ready.status != TRUE:
        return Condition(ConditionType.STALLED, TRUE, fault.reason, fault.message)
    return Condition(ConditionType.STALLED, FALSE, Reason.NOT_STALLED, "Nothing waits for a person.")


def _decide_reconciling(situation: Situation, ready: Condition, stalled: Condition) -> Condition:
    rollout = situation.rollout
    if stalled.status == TRUE:
        message = "Waiting for a person, see Stalled."
        return Condition(ConditionType.RECONCILING, FALSE, stalled.reason, message)
    settled = rollout.complete and rollout.available == rollout.desired
    if settled and situation.fault is None:
        return Condition(ConditionType.RECONCILING, FALSE, Reason.UP_TO_DATE, "Everything is as the spec says.")
    if situation.suspended and rollout.replicas == 0:
        return Condition(ConditionType.RECONCILING, FALSE, Reason.SUSPENDED, "Suspended.")
    if situation.fault is not None:
        return Condition(ConditionType.RECONCILING, TRUE, situation.fault.reason, situation.fault.message)
    reason = ready.reason if ready.status != TRUE else Reason.REPLICAS_UNAVAILABLE
    return Condition(
        ConditionType.RECONCILING, TRUE, reason, f"{rollout.available} of {rollout.desired} replicas serve."
    )


def _decide_model_ready(situation: Situation) -> Condition:
    pods, fault = situation.pods, situation.fault

    def model(status: str, reason: Reason, message: str) -> Condition:
        return Condition(ConditionType.MODEL_READY, status, reason, message)

    if situation.idle:
        return model(UNKNOWN, Reason.NO_REPLICAS, "No pods are meant to run.")
    if pods.ready:
        return model(TRUE, Reason.MODEL_LOADED, f"The model answers in {pods.ready} of {pods.total} pods.")
    if fault is not None and fault.reason in (Reason.MODEL_ACCESS_DENIED, Reason.MODEL_NOT_FOUND):
        return model(FALSE, fault.reason, fault.message)
    if pods.pulling:
        return model(FALSE, Reason.PULLING_MODEL, f"{pods.pulling} pods put the model on their volume.")
    if pods.loading:
        return model(FALSE, Reason.MODEL_LOADING, f"{pods.loading} pods download or load the model.")
    return model(UNKNOWN, Reason.PODS_PENDING, "No engine runs yet.")


def _decide_scheduled(situation: Situation) -> Condition:
    pods = situation.pods

    def scheduled(status: str, reason: Reason, message: str) -> Condition:
        return Condition(ConditionType.PODS_SCHEDULED, status, reason, message)

    if situation.idle:
        return scheduled(UNKNOWN, Reason.NO_REPLICAS, "No pods are meant to run.")
    homeless = [
        trouble for trouble in pods.troubles if trouble.reason in (Reason.UNSCHEDULABLE, Reason.WAITING_FOR_VOLUME)
    ]
    if homeless:
        return scheduled(FALSE, homeless[0].reason, homeless[0].message)
    if pods.unscheduled or not pods.total:
        return scheduled(UNKNOWN, Reason.PODS_PENDING, "Waiting for pods and for the scheduler.")
    return scheduled(TRUE, Reason.SCHEDULED, f"{pods.total} of {pods.total} pods have a node.")


def _decide_available(situation: Situation) -> Condition:
    rollout = situation.rollout
    ready = situation.pods.ready

    def available(status: str, reason: Reason, message: str) -> Condition:
        return Condition(ConditionType.AVAILABLE, status, reason, message)

    if situation.idle:
        return available(FALSE, Reason.NO_REPLICAS, "No pods are meant to run, so nothing serves.")
    needed = max(1, rollout.desired - 1)
    if rollout.available >= needed:
        message = f"{rollout.available} of {rollout.desired} replicas serve (at least {needed} must)."
        return available(TRUE, Reason.MINIMUM_REPLICAS_AVAILABLE, message)
    message = f"{max(rollout.available, ready)} of {rollout.desired} replicas serve, at least {needed} must."
    return available(FALSE, Reason.REPLICAS_UNAVAILABLE, message)


def _ready(status: str, reason: Reason, message: str) -> Condition:
    return Condition(ConditionType.READY, status, reason, message)
