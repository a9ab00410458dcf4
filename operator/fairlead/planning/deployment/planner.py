"""plan_deployment: spec, what was observed and the time → children, deletes, status, events. Pure (law 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from fairlead.api.conditions import Reason
from fairlead.api.names import format_selector, make_engine_selector
from fairlead.api.resource import Finding, LLMDeployment, Metadata
from fairlead.engines.loader import EngineCatalog
from fairlead.engines.version import read_image_version
from fairlead.errors import EngineTemplateError, RenderError
from fairlead.facts.observed import ObjectKey, Observed, OperatorFacts
from fairlead.hardware.sizing import UNKNOWN_SIZE_BUDGET_S
from fairlead.planning.conditions import make_conditions, make_transition_events
from fairlead.planning.deployment.alerts import find_alerts_due_s, note_alerts
from fairlead.planning.deployment.blueprint import Draw, draw_blueprint
from fairlead.planning.deployment.capacity import Room, find_room
from fairlead.planning.deployment.claim import find_immutable_changes
from fairlead.planning.deployment.following import follow
from fairlead.planning.deployment.keda import Waking, choose_scaled_object, find_waking, scaled_object_key
from fairlead.planning.deployment.kedawords import KedaState
from fairlead.planning.deployment.leaving import weigh_pods
from fairlead.planning.deployment.metadata import describe_taken
from fairlead.planning.deployment.podhealth import PodHealth, examine_pods
from fairlead.planning.deployment.revision import ChosenTemplate
from fairlead.planning.deployment.rollout import PlannedPods, Rollout, read_rollout
from fairlead.planning.deployment.scaling import CAPACITY_PATIENCE, Scaling, scale
from fairlead.planning.deployment.scalingpolicy import check_schedules
from fairlead.planning.deployment.scalingwords import Scene, stand_still
from fairlead.planning.deployment.service import make_endpoint
from fairlead.planning.deployment.serving import Serving
from fairlead.planning.deployment.signals import make_scrape_wish
from fairlead.planning.deployment.status import Fault, Situation, decide_conditions, describe_gateway, find_fault
from fairlead.planning.ownership import find_deletes, find_ours, keep_ours
from fairlead.planning.plan import Child, Plan

__all__ = ["plan_deployment", "plan_invalid"]

Json = dict[str, Any]

#: Fields of status that a spec which cannot be carried out leaves as they were.
_KEPT = ("endpoint", "model", "engine", "accelerator", "revision")


def plan_deployment(
    resource: LLMDeployment,
    observed: Observed,
    engines: EngineCatalog,
    facts: OperatorFacts,
    now: datetime,
    draw: Draw = draw_blueprint,
) -> Plan:
    """The whole decision for one valid LLMDeployment. `draw` is for those who remember blueprints.

    A CR that cannot be rendered (an engine file is broken or missing, or refuses the combination) leaves its running children
    alone and says Stalled. One that is being deleted plans nothing: the garbage collector has its children.
    """
    metadata = resource.metadata
    if metadata.deletion_timestamp:
        return Plan(children=(), deletes=(), status=resource.status)
    live_deployment = find_ours(observed, ObjectKey("Deployment", metadata.namespace, metadata.name), metadata)
    keda_key = scaled_object_key(metadata.namespace, metadata.name)
    following = follow(resource.spec, resource.status, _read_replicas(live_deployment), observed.signals, now)
    resource = replace(resource, decided_replicas=following.replicas)
    try:
        check_schedules(resource.spec)
        blueprint = draw(resource, engines, facts)
        serving = blueprint.serving
        chosen, deployment = blueprint.choose_deployment(resource, live_deployment)
        live_claim = find_ours(observed, blueprint.claim_key, metadata)
        claim = blueprint.choose_claim(live_claim)
        pods = examine_pods(observed.pods, serving.startup_timeout_s, now)
        live_scaled = find_ours(observed, keda_key, metadata)
        waking = find_waking(observed.signals.held, following.replicas, live_scaled, pods.ready_since, now)
        scaled_objects = choose_scaled_object(serving, facts, observed, following, waking)
    except RenderError as error:
        fault = Fault(Reason.INVALID_SPEC, f"{error}.", terminal=True)
        return _plan_standstill(metadata, resource.status, fault, observed, now, desired=resource.replicas)
    except EngineTemplateError as error:
        fault = Fault(
            Reason.ENGINE_INVALID, f"The engine file is broken: {error}. Next: correct the ConfigMap.", terminal=True
        )
        return _plan_standstill(metadata, resource.status, fault, observed, now, desired=resource.replicas)
    except KeyError:
        known = ", ".join(engines.names)
        message = f"There is no engine {resource.spec.engine.type!r}. Next: use one of {known}, or add it in a labelled ConfigMap."
        fault = Fault(Reason.ENGINE_NOT_FOUND, message, terminal=True)
        return _plan_standstill(metadata, resource.status, fault, observed, now, desired=resource.replicas)
    # In the order in which they are applied: what pods need comes before the pods.
    wanted = ((claim,) if claim is not None else ()) + (
        *blueprint.choose_network(facts, observed.gateway),
        blueprint.choose_headless(chosen),
        deployment,
        *blueprint.budget,
        *scaled_objects,
    )
    unseen = set() if observed.has_keda else {keda_key}
    children, conflicts = _keep_ours(wanted, observed, metadata)
    planned = PlannedPods(serving.replicas, chosen)
    is_applied = any(child is deployment for child in children)
    rollout = read_rollout(live_deployment, planned if is_applied else None, serving.replicas)
    keda = KedaState(observed.has_keda, live_scaled)
    scene = _describe_scene(pods, rollout, _find_room(resource, observed, chosen, live_deployment), now)
    scaling = scale(resource.spec, following, observed.signals, scene, keda, resource.status, now)
    situation = Situation(
        generation=metadata.generation,
        suspended=resource.spec.suspend,
        rollout=rollout,
        pods=pods,
        fault=find_fault(
            [*conflicts, *_find_claim_faults(serving, claim, live_claim)], observed.failures, rollout, pods
        ),
        newer_revision=chosen.newer,
        previous=resource.status,
        note=describe_gateway(observed.gateway, metadata.namespace),
        fewest=scaling.fewest,
        wakes=scaling.wakes,
    )
    conditions = [*decide_conditions(situation), scaling.condition]
    told = note_alerts(scaling.status, observed.signals.alerts)
    status = _make_status(serving, chosen, situation) | ({"scaling": told} if told else {})
    status |= {"conditions": make_conditions(conditions, metadata.generation, resource.status, now)}
    return Plan(
        children=children,
        deletes=find_deletes(observed, {child.key for child in wanted} | unseen, metadata),
        status=status,
        events=(*make_transition_events(conditions, resource.status), *scaling.events),
        requeue_after_s=_find_due(pods, scaling, waking, find_alerts_due_s(observed.signals.alerts, now)),
        nudges=tuple(weigh_pods(observed.pods, observed.signals.samples)) if scaling.goes_down else (),
        acts_on_status=scaling.is_decided,
        recommendations=scaling.recommendations,
        verdict=scaling.verdict,
        wish=make_scrape_wish(serving, facts) if scaling.is_measured else None,
    )


def plan_invalid(raw: Mapping[str, Any], findings: Sequence[Finding], observed: Observed, now: datetime) -> Plan:
    """A CR that does not pass validation: what runs goes on running as it is, and status says what is wrong with the spec."""
    metadata = Metadata.of(raw)
    status = raw.get("status") or {}
    if metadata.deletion_timestamp:
        return Plan(children=(), deletes=(), status=status)
    fault = Fault(Reason.INVALID_SPEC, "; ".join(str(finding) for finding in findings) + ".", terminal=True)
    decided = (status.get("scaling") or {}).get("desiredReplicas")
    replicas = decided if decided is not None else (raw.get("spec") or {}).get("replicas", 1)
    return _plan_standstill(
        metadata, status, fault, observed, now, desired=replicas if isinstance(replicas, int) else 1
    )


def _plan_standstill(
    metadata: Metadata, previous: Mapping[str, Any], fault: Fault, observed: Observed, now: datetime, *, desired: int
) -> Plan:
    """Nothing is applied or deleted. What is known from the last good generation stays in status, pods are counted anew."""
    live = find_ours(observed, ObjectKey("Deployment", metadata.namespace, metadata.name), metadata)
    rollout = read_rollout(live, None, desired)
    # The running pods are of another spec than this one, so the current one is not rolled out.
    rollout = Rollout(desired=desired, replicas=rollout.replicas, ready=rollout.ready, available=rollout.available)
    situation = Situation(
        generation=metadata.generation,
        suspended=False,
        rollout=rollout,
        pods=examine_pods(observed.pods, UNKNOWN_SIZE_BUDGET_S, now),
        fault=fault,
        newer_revision=None,
        previous=previous,
    )
    conditions = [*decide_conditions(situation), stand_still(previous)]
    kept = {key: previous[key] for key in _KEPT if key in previous}
    told = note_alerts(previous.get("scaling"), observed.signals.alerts)
    kept |= {"scaling": told} if told else {}
    status = (
        kept
        | _make_counts(metadata, rollout)
        | {"conditions": make_conditions(conditions, metadata.generation, previous, now)}
    )
    return Plan(
        children=(),
        deletes=(),
        status=status,
        events=make_transition_events(conditions, previous),
        requeue_after_s=find_alerts_due_s(observed.signals.alerts, now),
    )


def _find_room(
    resource: LLMDeployment, observed: Observed, chosen: ChosenTemplate, live: Mapping[str, Any] | None
) -> Room | None:
    """Nodes are counted for the pods of the live Deployment: where this pass gives it others, the next one knows."""
    nodes, accelerator = observed.signals.nodes, resource.spec.accelerator
    if nodes is None or not nodes.is_counted or accelerator is None:
        return None
    if live is None or not chosen.is_recorded_in(live["metadata"].get("annotations") or {}):
        return Room(None, "how many of the changed pods fit is still to be counted")
    return find_room(nodes.capacity, accelerator.products)


def _describe_scene(pods: PodHealth, rollout: Rollout, room: Room | None, now: datetime) -> Scene:
    """While pods are replaced, those that wait for a node wait for the ones that end."""
    is_settled = rollout.updated == rollout.replicas and pods.ending == 0
    waits = [CAPACITY_PATIENCE - (now - since) for since in pods.homeless_since] if is_settled else []
    given_up = sum(1 for wait in waits if wait <= timedelta(0))
    return Scene(
        ready=pods.ready,
        starting_since=pods.starting_since,
        fitting=pods.total - given_up if given_up else None,
        homeless=pods.homeless if is_settled else 0,
        words=pods.scheduler_words,
        is_placing=pods.unscheduled > 0 or pods.total < rollout.desired,
        startup_s=pods.startup_s,
        due_s=min((wait.total_seconds() for wait in waits if wait > timedelta(0)), default=None),
        room=room,
        ready_on=pods.ready_on,
    )


def _find_due(pods: PodHealth, scaling: Scaling, waking: Waking, alerts_due_s: float | None) -> float | None:
    due_s = (*(trouble.due_s for trouble in pods.troubles), scaling.due_s, waking.due_s, alerts_due_s)
    return min((due for due in due_s if due is not None), default=None)


def _read_replicas(deployment: Mapping[str, Any] | None) -> int | None:
    return int(deployment["spec"].get("replicas", 1)) if deployment is not None else None


def _find_claim_faults(serving: Serving, claim: Child | None, live: Mapping[str, Any] | None) -> list[Fault]:
    """What the spec asks of a claim that the live one can no longer become."""
    if claim is None or live is None:
        return []
    changes = find_immutable_changes(serving, live)
    return [Fault(Reason.IMMUTABLE_FIELD, f"{change}.", terminal=True) for change in changes]


def _keep_ours(wanted: Sequence[Child], observed: Observed, owner: Metadata) -> tuple[tuple[Child, ...], list[Fault]]:
    """Children that may be written, and a fault for each whose name belongs to somebody else."""
    children, taken = keep_ours(wanted, observed, owner)
    return children, [Fault(Reason.NAME_CONFLICT, describe_taken(key, live), terminal=True) for key, live in taken]


def _make_counts(metadata: Metadata, rollout: Rollout) -> Json:
    return {
        "observedGeneration": metadata.generation,
        "replicas": rollout.replicas,
        "readyReplicas": rollout.ready,
        "readyOfDesired": f"{rollout.ready}/{rollout.desired}",
        "selector": format_selector(make_engine_selector(metadata.name)),
    }


def _make_status(serving: Serving, chosen: ChosenTemplate, situation: Situation) -> Json:
    model = serving.spec.model
    revision = f"@{model.revision}" if model.revision else ""
    status = _make_counts(serving.resource.metadata, situation.rollout) | {
        "endpoint": make_endpoint(serving),
        "model": {
            "source": f"{model.source}{revision}",
            "name": serving.context.model.name,
            "startupTimeout": serving.startup_note,
            "state": _describe_model_state(situation.pods, situation.fault),
        },
        "engine": {
            "type": serving.spec.engine.type,
            "version": _find_running_version(serving, chosen),
            "image": chosen.image,
        },
        "revision": chosen.revision,
    }
    progress = _describe_progress(situation.pods)
    if progress:
        status["model"]["progress"] = progress
    if serving.size is not None:
        status["model"]["sizeBytes"] = serving.size.size_bytes
    if serving.quantization_note:
        status["model"]["quantization"] = serving.quantization_note
    accelerator = serving.spec.accelerator
    if accelerator is not None:
        products = f" ({', '.join(accelerator.products)})" if accelerator.products else ""
        status["accelerator"] = {"summary": f"{accelerator.count} × {accelerator.resource_name}{products}"}
    return status


def _find_running_version(serving: Serving, chosen: ChosenTemplate) -> str:
    """Of the engine in the pods: an older revision may have another default than this operator."""
    if chosen.image == serving.image:
        return serving.context.version.text
    return read_image_version(chosen.image) or serving.context.version.text


def _describe_progress(pods: PodHealth) -> str | None:
    """How many pods are where on the way to an answer; None when none is under way. Counts only: bytes would change status
    all the time."""
    if not pods.pulling and not pods.loading:
        return None
    counts = ((pods.pulling, "pulling"), (pods.loading, "loading"), (pods.ready, "ready"))
    return f"of {pods.total} pods " + ", ".join(f"{count} {word}" for count, word in counts if count)


def _describe_model_state(pods: PodHealth, fault: Fault | None) -> str:
    if pods.ready:
        return "Loaded"
    if fault is not None and fault.reason in (Reason.MODEL_ACCESS_DENIED, Reason.MODEL_NOT_FOUND):
        return "Failed"
    return "Loading" if pods.loading or pods.pulling else "Pending"
