"""Status tells the truth: one table of situations, each judged by its conditions and by kstatus as written anew."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.planning.kstatus import compute_kstatus, kubectl_wait_ready
from tests.unit.planning.world import (
    NOW,
    OLLAMA,
    VLLM,
    Json,
    World,
    ended,
    make_homeless_pod,
    make_pod,
    make_raw,
    merge,
    waiting,
)

from fairlead.api.conditions import DEPLOYMENT_CONDITIONS, REASON_DOCS, Reason
from fairlead.api.resource import Finding
from fairlead.facts.observed import ApplyFailure, ObjectKey, Observed
from fairlead.planning.deployment import plan_invalid
from fairlead.planning.deployment.podhealth import UNSCHEDULABLE_GRACE_S

SECRET = "hf_abcdefghijklmnopqrstuvwxyz"


def kstatus_of(world: World) -> str:
    metadata = {"generation": world.generation}
    return compute_kstatus({"metadata": metadata, "status": world.status})


def waits(world: World) -> bool:
    return kubectl_wait_ready({"metadata": {"generation": world.generation}, "status": world.status})


def started(spec: Json = VLLM, *pods: Json, **report: Any) -> World:
    """Children exist, the given pods too, nothing is ready."""
    world = World(spec)
    world.step()
    wanted = world.deployment["spec"]["replicas"]
    world.report(**{"replicas": wanted, "updated": wanted, "ready": 0, **report})
    world.pods = list(pods)
    world.step()
    return world


def pod_with(container: Json, *, init: bool = False) -> Json:
    key = "initContainerStatuses" if init else "containerStatuses"
    status = {key: [container]} | ({"containerStatuses": []} if init else {})
    return make_pod("pod-0", **status)


# The normal life.


def test_the_first_status_has_every_condition_of_this_generation() -> None:
    world = World(VLLM, generation=7)
    world.step()
    assert [c["type"] for c in world.status["conditions"]] == [t.value for t in DEPLOYMENT_CONDITIONS]
    for condition in world.status["conditions"]:
        assert condition["observedGeneration"] == 7
        assert condition["reason"]
        assert condition["message"]
        assert condition["lastTransitionTime"] == "2026-11-25T12:00:00Z"
    assert world.status["observedGeneration"] == 7
    assert kstatus_of(world) == "InProgress"
    assert world.status["selector"] == (
        "app.kubernetes.io/component=engine,app.kubernetes.io/instance=llama,app.kubernetes.io/managed-by=fairlead"
    )


def test_loading_then_serving() -> None:
    world = started(VLLM, make_pod("pod-0"))
    assert world.states() == {
        "Ready": "False/ModelLoading",
        "Reconciling": "True/ModelLoading",
        "Stalled": "False/NotStalled",
        "ModelReady": "False/ModelLoading",
        "PodsScheduled": "True/Scheduled",
        "Available": "False/ReplicasUnavailable",
        "ScalingActive": "False/FixedReplicas",
    }
    assert kstatus_of(world) == "InProgress"
    world.serve()
    plan = world.step()
    assert world.states() == {
        "Ready": "True/Serving",
        "Reconciling": "False/UpToDate",
        "Stalled": "False/NotStalled",
        "ModelReady": "True/ModelLoaded",
        "PodsScheduled": "True/Scheduled",
        "Available": "True/MinimumReplicasAvailable",
        "ScalingActive": "False/FixedReplicas",
    }
    assert kstatus_of(world) == "Current"
    assert [(e.type, e.reason) for e in plan.events] == [("Normal", "Serving")]
    assert world.step().events == ()


def test_a_pulling_init_container_is_told() -> None:
    init = {"name": "model", "state": {"running": {}}, "restartCount": 0}
    world = started(OLLAMA, pod_with(init, init=True))
    assert world.states()["ModelReady"] == "False/PullingModel"
    assert world.status["model"]["state"] == "Loading"


def test_transition_times_move_only_with_status() -> None:
    world = World(VLLM)
    world.settle()
    before = {c["type"]: c for c in world.status["conditions"]}
    world.now = NOW + timedelta(hours=1)
    world.edit(merge(VLLM, service={"port": 81}))
    world.step()
    for condition in world.status["conditions"]:
        assert condition["lastTransitionTime"] == before[condition["type"]]["lastTransitionTime"]
        assert condition["observedGeneration"] == 2
    world.edit(merge(VLLM, context={"maxLength": 5}))
    world.step()
    assert world.condition("Ready")["lastTransitionTime"] == "2026-11-25T13:00:00Z"
    assert world.condition("Stalled")["lastTransitionTime"] == "2026-11-25T12:00:00Z"


def test_a_rolling_change_is_not_ready_until_all_pods_are_new() -> None:
    world = World(merge(VLLM, replicas=2, accelerator=None))
    world.settle()
    assert waits(world)
    world.edit(merge(world.spec, context={"maxLength": 4096}))
    world.step()
    assert world.states()["Ready"] == "False/RollingOut", "the old pods serve, but not this generation"
    assert not waits(world)
    assert world.states()["Available"] == "True/MinimumReplicasAvailable"
    world.report(replicas=3, updated=1, ready=2)
    world.step()
    assert (kstatus_of(world), world.states()["Ready"]) == ("InProgress", "False/RollingOut")
    world.report(replicas=3, updated=2, ready=3)
    world.step()
    assert kstatus_of(world) == "InProgress"
    world.serve()
    world.step()
    assert (kstatus_of(world), waits(world)) == ("Current", True)


def test_the_controllers_old_report_does_not_count_for_a_new_spec() -> None:
    world = World(VLLM)
    world.settle()
    world.edit(merge(VLLM, context={"maxLength": 4096}))
    world.step()  # applied, but the Deployment's controller has not looked yet
    world.step()
    assert world.states()["Ready"] == "False/RollingOut"


def test_one_pod_of_several_may_fail_once_all_have_served() -> None:
    world = World(merge(VLLM, replicas=3))
    world.step()
    world.report(replicas=3, updated=3, ready=2)
    world.step()
    assert world.states()["Ready"] == "False/ModelLoading", "the third has never served"
    world.serve()
    world.step()
    world.report(replicas=3, updated=3, ready=2)
    world.pods[0] = make_pod("pod-0")
    plan = world.step()
    assert world.states()["Ready"] == "True/Serving"
    assert world.states()["Reconciling"] == "True/ReplicasUnavailable"
    assert plan.events == ()
    assert kstatus_of(world) == "InProgress"
    world.report(replicas=3, updated=3, ready=1)
    world.pods[1] = make_pod("pod-1")
    plan = world.step()
    assert world.states()["Ready"] == "False/ReplicasUnavailable"
    assert [(e.type, e.reason) for e in plan.events] == [("Warning", "ReplicasUnavailable")]


def test_zero_replicas_and_suspension() -> None:
    world = World(merge(VLLM, replicas=0))
    world.settle()
    assert world.states()["Ready"] == "True/ScaledToZero"
    assert world.states()["Available"] == "False/NoReplicas"
    assert kstatus_of(world) == "Current"
    world = World(VLLM)
    world.settle()
    world.edit(merge(VLLM, suspend=True))
    world.step()
    assert world.deployment["spec"]["replicas"] == 0
    assert world.states()["Ready"] == "False/Suspended"
    world.serve()
    world.step()
    assert world.states()["Ready"] == "False/Suspended"
    assert world.states()["Reconciling"].startswith("False")
    assert world.states()["Stalled"].startswith("False")


# What needs a person.


def quota(world: World) -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "message": 'pods "x" is forbidden: exceeded quota: gpus'}
    world.report(replicas=0, updated=0, ready=0, conditions=[failure])
    world.pods = []


def deadline(world: World) -> None:
    progressing = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    world.report(replicas=1, updated=1, ready=0, conditions=[progressing])
    world.pods = [make_pod("pod-0")]


def containers(status: Json, *, init: bool = False) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.pods = [pod_with(status, init=init)]

    return change


GATED = """Traceback (most recent call last):
  File "/usr/lib/x.py", line 1, in f
huggingface_hub.errors.GatedRepoError: 403 Client Error. (Request ID: Root=1)
Cannot access gated repo for url https://huggingface.co/api/models/meta-llama/Llama-3.1-8B-Instruct."""
NO_REPOSITORY = """huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error.
OSError: org/nope is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'"""
NO_MANIFEST = "pulling nope:1b\ncannot pull nope:1b:\nError: pull model manifest: file does not exist"


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (containers(waiting("ImagePullBackOff", "Back-off pulling image: not found")), "ImagePullFailed", "vllm-openai:v9"),
        (containers(waiting("ErrImageNeverPull")), "ImagePullFailed", "ErrImageNeverPull"),
        (containers(waiting("CreateContainerConfigError", 'secret "hf" not found')), "ContainerConfigError", 'secret "hf" not found'),
        (containers(ended("CUDA out of memory", restarts=2)), "CrashLoop", "CUDA out of memory"),
        (containers(ended("", restarts=5, exit_code=0, reason="Completed")), "CrashLoop", "exit code 0"),
        (containers(ended("", restarts=3, exit_code=137, reason="OOMKilled")), "CrashLoop", "raise resources.limits.memory"),
        (containers(ended(GATED, restarts=0)), "ModelAccessDenied", "model.secretRef"),
        (containers(ended("401 Client Error: Unauthorized for url: https://h", restarts=1)), "ModelAccessDenied", "401"),
        (containers(ended(NO_REPOSITORY, restarts=1)), "ModelNotFound", "model.source"),
        (containers(ended(NO_MANIFEST, restarts=1, name="model"), init=True), "ModelNotFound", "file does not exist"),
        (containers(ended("cannot read /model/x.gguf on the model volume", name="model"), init=True), "ModelNotFound", "/model/x.gguf"),
        (containers(ended("loading", restarts=1, exit_code=137, lived_s=910)), "StartupTimeout", "probes.startupTimeout"),
        (quota, "PodCreateRefused", "exceeded quota: gpus"),
        (deadline, "StartupTimeout", "in time"),
    ],
)  # fmt: skip
def test_what_needs_a_person_is_stalled_with_the_next_step(
    change: Callable[[World], None], reason: str, words: str
) -> None:
    world = started()
    change(world)
    plan = world.step()
    assert world.states()["Stalled"] == f"True/{reason}"
    assert world.states()["Ready"] == f"False/{reason}"
    assert world.states()["Reconciling"].startswith("False/")
    assert kstatus_of(world) == "Failed"
    message = world.condition("Stalled")["message"]
    assert words in message
    assert "Next: " in message
    assert [(e.type, e.reason) for e in plan.events] == [("Warning", reason)]
    assert world.step().events == (), "told once"
    world.serve()
    world.step()
    assert kstatus_of(world) == "Current", "and it heals"


@pytest.mark.parametrize(
    "container",
    [
        ended("first failure", restarts=0),
        ended("died after three days", restarts=9, lived_s=300_000),
        {**ended("restarting", restarts=1), "state": {"running": {}}},
    ],
)
def test_a_container_that_may_recover_is_not_stalled(container: Json) -> None:
    world = started(VLLM, pod_with(container))
    assert world.states()["Stalled"] == "False/NotStalled"
    assert world.states()["Reconciling"] == "True/CrashLoop"
    assert kstatus_of(world) == "InProgress"


def test_last_words_are_short_and_hold_no_credential() -> None:
    tail = f"ValueError: bad token {SECRET} for https://user:{SECRET}@proxy/ with Bearer {SECRET}"
    world = started(VLLM, pod_with(ended("noise " * 5000 + "\n" + tail, restarts=4)))
    message = world.condition("Stalled")["message"]
    assert "ValueError: bad token" in message
    assert SECRET not in str(world.status)
    assert len(message) < 800


def test_unschedulable_is_told_at_once_and_stalled_after_a_minute() -> None:
    words = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    world = started(VLLM, make_homeless_pod("pod-0", words, since=NOW))
    world.now = NOW + timedelta(seconds=10)
    plan = world.step()
    assert world.states()["PodsScheduled"] == "False/Unschedulable"
    assert world.states()["Ready"] == "False/Unschedulable"
    assert words in world.condition("Ready")["message"]
    assert kstatus_of(world) == "InProgress"
    assert plan.requeue_after_s == UNSCHEDULABLE_GRACE_S - 10
    world.now = NOW + timedelta(seconds=UNSCHEDULABLE_GRACE_S)
    plan = world.step()
    assert world.states()["Stalled"] == "True/Unschedulable"
    assert plan.requeue_after_s is None
    assert kstatus_of(world) == "Failed"


def test_a_new_pod_that_waits_for_the_old_ones_accelerator_is_no_fault() -> None:
    ending = make_pod("old")
    ending["metadata"]["deletionTimestamp"] = "2026-11-25T11:58:00Z"
    homeless = make_homeless_pod("new", "Insufficient nvidia.com/gpu", since=NOW - timedelta(minutes=3))
    world = started(VLLM, ending, homeless)
    assert world.states()["Stalled"] == "False/NotStalled"
    world.pods = [homeless]
    world.step()
    assert world.states()["Stalled"] == "True/Unschedulable"


def test_a_claim_without_volume_is_told_as_such() -> None:
    words = "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    world = started(VLLM, make_homeless_pod("pod-0", words, since=NOW - timedelta(minutes=2)))
    assert world.states()["Stalled"] == "True/WaitingForVolume"
    assert world.states()["PodsScheduled"] == "False/WaitingForVolume"


def test_pods_that_are_over_or_ending_do_not_count() -> None:
    failed = make_pod("evicted", phase="Failed", reason="Evicted")
    world = started(VLLM, failed, make_pod("pod-1"))
    assert world.states()["PodsScheduled"] == "True/Scheduled"
    assert "1 of 1 pods" in world.condition("PodsScheduled")["message"]


# Invalid resources.


def test_an_invalid_resource_touches_nothing_and_says_what_is_wrong() -> None:
    world = World(VLLM)
    world.settle()
    raw = make_raw({"model": {}, "replicas": 1}, generation=2, status=world.status)
    findings = [
        Finding("spec.model.source", "is required", "for instance hf://org/model"),
        Finding("spec.engine", "is required"),
    ]
    plan = plan_invalid(raw, findings, world.observed, NOW)
    assert (plan.children, plan.deletes) == ((), ())
    world.apply(plan)
    world.generation = 2
    assert world.states()["Stalled"] == "True/InvalidSpec"
    assert world.states()["Ready"] == "False/InvalidSpec"
    assert kstatus_of(world) == "Failed"
    message = world.condition("Stalled")["message"]
    assert "spec.model.source: is required; for instance hf://org/model" in message
    assert "spec.engine: is required" in message
    assert world.status["readyReplicas"] == 1, "what runs is still counted"
    assert world.status["endpoint"] == "http://llama.ml.svc/v1"
    assert [(e.type, e.reason) for e in plan.events] == [("Warning", "InvalidSpec")]


@pytest.mark.parametrize("spec", [{}, {"replicas": "three"}, {"replicas": None}])
def test_an_invalid_resource_may_be_anything(spec: Json) -> None:
    plan = plan_invalid(make_raw(spec), [Finding("spec", "is wrong")], Observed(), NOW)
    assert compute_kstatus({"metadata": {"generation": 1}, "status": plan.status}) == "Failed"


def test_a_resource_that_is_being_deleted_plans_nothing() -> None:
    world = World(VLLM)
    world.settle()
    raw = make_raw({}, deletionTimestamp="2026-11-25T12:00:00Z", status=world.status)
    plan = plan_invalid(raw, [Finding("spec", "is wrong")], world.observed, NOW)
    assert (plan.children, plan.deletes, plan.events) == ((), (), ())
    assert plan.status == world.status


# The table of reasons.


def test_every_reason_is_documented() -> None:
    assert REASON_DOCS.keys() == set(Reason)
    for doc in REASON_DOCS.values():
        assert len(doc.meaning) > 20
        assert doc.meaning.endswith(".")
    for reason in (Reason.INVALID_SPEC, Reason.CRASH_LOOP, Reason.UNSCHEDULABLE, Reason.NAME_CONFLICT):
        assert REASON_DOCS[reason].next_step


# Whatever happens.

PODS = st.lists(
    st.sampled_from(
        [
            make_pod("ready", ready=True),
            make_pod("loading"),
            make_homeless_pod("young", "Insufficient nvidia.com/gpu", since=NOW),
            make_homeless_pod("old", "Insufficient nvidia.com/gpu", since=NOW - timedelta(hours=1)),
            pod_with(waiting("ImagePullBackOff")),
            pod_with(ended("boom", restarts=1)),
            pod_with(ended("boom", restarts=5)),
            pod_with(ended(GATED)),
            {"metadata": {"name": "new"}, "status": {}},
            {"metadata": {"name": "newer"}},
        ]
    ),
    max_size=4,
)
FAILURES = st.lists(
    st.builds(
        ApplyFailure,
        st.just(ObjectKey("Deployment", "ml", "llama")),
        st.sampled_from(
            [Reason.NAME_CONFLICT, Reason.API_UNAVAILABLE, Reason.INVALID_CHILD, Reason.WAITING_FOR_DELETION]
        ),
        st.just("said no"),
        st.booleans(),
    ),
    max_size=2,
)
STEPS = st.lists(
    st.tuples(PODS, FAILURES, st.integers(0, 4), st.integers(0, 4), st.integers(0, 4), st.booleans()),
    min_size=1,
    max_size=5,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 3), st.booleans(), STEPS)
def test_no_history_makes_the_conditions_contradict_each_other(replicas: int, suspend: bool, steps: list[Any]) -> None:
    world = World(merge(VLLM, replicas=replicas, suspend=suspend))
    world.step()
    for pods, failures, total, updated, ready, edit in steps:
        if edit:
            world.edit(merge(world.spec, context={"maxLength": world.generation * 100}))
        world.pods, world.failures = pods, failures
        world.report(replicas=total, updated=min(updated, total), ready=min(ready, total))
        world.now += timedelta(minutes=1)
        world.step()
        status = {name: state.partition("/")[0] for name, state in world.states().items()}
        assert not (status["Reconciling"] == "True" and status["Stalled"] == "True")
        assert not (status["Ready"] == "True" and status["Stalled"] == "True")
        verdict = kstatus_of(world)
        if verdict == "Current":
            assert waits(world)
            assert world.status["readyReplicas"] == (0 if suspend else replicas), "Current means that all of it serves"
        if any(failure.terminal for failure in failures) and not suspend:
            assert verdict == "Failed"
        if status["Ready"] == "True" and replicas and not suspend:
            assert world.status["readyReplicas"] >= max(1, replicas - 1)
        before = world.status
        assert world.step().events == (), "the same world again is no news"
        assert world.status == before


def test_a_pod_that_no_scheduler_has_seen_has_no_node() -> None:
    """With a scheduler of another name, or none at all, a pod has no condition: that is not a node."""
    untouched = {"metadata": {"name": "pod-0", "namespace": "ml"}, "spec": {}, "status": {"phase": "Pending"}}
    world = started(VLLM, untouched)
    assert world.states()["PodsScheduled"] == "Unknown/PodsPending"
    assert world.states()["Ready"] == "False/PodsPending"
