"""The laws that a plan must keep: upgrades disturb nothing, other people's objects are left alone, claims are never fought with."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.engines.mini import MINI
from tests.unit.planning.world import OLLAMA, VLLM, Json, World, make_resource, merge

from fairlead.api import names
from fairlead.engines.loader import EngineCatalog
from fairlead.facts.observed import ObjectKey, OperatorFacts
from fairlead.planning.deployment import pod as pod_module
from fairlead.planning.deployment import revision as revision_module
from fairlead.planning.deployment.revision import hash_template_input

# Law 8: an operator upgrade disturbs nothing.


def upgraded(old: str, new: str, *, engine: str = "vLLM") -> EngineCatalog:
    """A catalog of the next release: the engine file has changed."""
    source, text = EngineCatalog.builtin().texts[engine]
    assert old in text
    return EngineCatalog.builtin().with_overrides({engine: (source, text.replace(old, new))})


NEXT = upgraded("fsGroup: 2000", "fsGroup: 2001")


def test_an_upgrade_keeps_the_template_and_says_that_a_newer_one_exists() -> None:
    world = World(VLLM)
    world.settle()
    before = json.dumps(world.deployment["spec"], sort_keys=True)
    recorded = world.status["revision"]
    world.engines = NEXT
    plan = world.step()
    assert json.dumps(world.deployment["spec"], sort_keys=True) == before
    assert world.states()["Ready"] == "True/RevisionAvailable"
    assert world.status["revision"] == recorded
    assert "rollout.revision: Latest" in world.condition("Ready")["message"]
    assert world.states()["Reconciling"] == "False/UpToDate"
    assert plan.events == (), "nothing happened to the pods"
    world.step()
    assert json.dumps(world.deployment["spec"], sort_keys=True) == before


def test_a_changed_builder_is_an_upgrade_too(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(VLLM)
    world.settle()
    before = json.dumps(world.deployment["spec"], sort_keys=True)
    make = pod_module.make_pod_template

    def changed(serving: pod_module.Serving) -> Json:
        template = make(serving)
        return {**template, "spec": {**template["spec"], "hostname": "new"}}

    monkeypatch.setattr(revision_module, "make_pod_template", changed)
    monkeypatch.setattr(revision_module, "POD_BUILDER_REVISION", pod_module.POD_BUILDER_REVISION + 1)
    world.step()
    assert json.dumps(world.deployment["spec"], sort_keys=True) == before
    assert world.states()["Ready"] == "True/RevisionAvailable"


def test_a_changed_fact_of_the_installation_rolls_no_pods() -> None:
    world = World(VLLM)
    world.settle()
    before = json.dumps(world.deployment["spec"]["template"], sort_keys=True)
    world.facts = OperatorFacts(download_bytes_per_s=1_000_000)
    world.step()
    assert json.dumps(world.deployment["spec"]["template"], sort_keys=True) == before


@pytest.mark.parametrize(
    "change", [{"replicas": 3}, {"service": {"port": 81}}, {"networkPolicy": {"mode": "Disabled"}}]
)
def test_a_change_that_does_not_concern_the_pods_takes_no_newer_revision(change: Json) -> None:
    world = World(VLLM)
    world.settle()
    before = json.dumps(world.deployment["spec"]["template"], sort_keys=True)
    world.engines = NEXT
    world.edit(merge(VLLM, **change))
    world.step()
    assert json.dumps(world.deployment["spec"]["template"], sort_keys=True) == before


@pytest.mark.parametrize("change", [{"context": {"maxLength": 4096}}, {"rollout": {"revision": "Latest"}}])
def test_a_change_of_the_pods_or_latest_takes_the_newer_revision(change: Json) -> None:
    world = World(VLLM)
    world.settle()
    world.engines = NEXT
    world.edit(merge(VLLM, **change))
    world.step()
    assert world.deployment["spec"]["template"]["spec"]["securityContext"]["fsGroup"] == 2001
    assert world.states()["Ready"] == "False/RollingOut"
    world.serve()
    world.step()
    assert world.states()["Ready"] == "True/Serving"


def test_a_suspended_deployment_keeps_its_template_too() -> None:
    world = World(VLLM)
    world.settle()
    before = json.dumps(world.deployment["spec"]["template"], sort_keys=True)
    world.edit(merge(VLLM, suspend=True))
    world.step()
    world.engines = NEXT
    world.edit(VLLM)
    world.step()
    assert json.dumps(world.deployment["spec"]["template"], sort_keys=True) == before


def test_an_engine_file_that_renders_the_same_is_no_news() -> None:
    world = World(VLLM)
    world.settle()
    before = json.dumps(world.deployment)
    world.engines = upgraded("# vLLM. Facts:", "# vLLM. The facts:")
    world.step()
    after = {**world.deployment, "metadata": {**world.deployment["metadata"], "resourceVersion": "1"}}
    assert after["metadata"]["annotations"] == json.loads(before)["metadata"]["annotations"], (
        "not even a note is written"
    )
    assert world.states()["Ready"] == "True/Serving"


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "no base64!",
        base64.b64encode(b"no zlib").decode(),
        base64.b64encode(zlib.compress(b"no json")).decode(),
        base64.b64encode(zlib.compress(b"[]")).decode(),
        base64.b64encode(zlib.compress(b'{"metadata": {}, "spec": {}}')).decode(),
        base64.b64encode(zlib.compress(b'{"metadata": {}, "spec": []}')).decode(),
        base64.b64encode(zlib.compress(b" " * 5_000_000)).decode(),
    ],
)
def test_a_record_that_somebody_edited_gives_way_to_a_new_one(broken: str) -> None:
    world = World(VLLM)
    world.settle()
    world.deployment["metadata"]["annotations"][names.ANNOTATION_TEMPLATE] = broken
    world.step()
    encoded = world.deployment["metadata"]["annotations"][names.ANNOTATION_TEMPLATE]
    assert json.loads(zlib.decompress(base64.b64decode(encoded))) == world.deployment["spec"]["template"]


def test_the_record_on_somebody_elses_deployment_is_not_trusted() -> None:
    world = World(VLLM)
    world.settle()
    world.deployment["metadata"]["ownerReferences"][0]["uid"] = "other"
    plan = world.plan()
    assert not [child for child in plan.children if child.key.kind == "Deployment"]


def test_a_restart_restarts_and_takes_nothing_new() -> None:
    world = World(VLLM)
    world.settle()
    before = world.deployment["spec"]["template"]
    world.engines = NEXT
    world.annotations = {names.ANNOTATION_RESTARTED_AT: "2026-11-25T13:00:00Z"}
    world.step()
    after = world.deployment["spec"]["template"]
    assert after["metadata"]["annotations"] == {names.ANNOTATION_RESTARTED_AT: "2026-11-25T13:00:00Z"}
    assert after["spec"] == before["spec"]
    assert world.states()["Ready"] == "False/RollingOut", "the generation is the same, the pods are not"
    world.serve()
    world.step()
    assert world.states()["Ready"] == "True/RevisionAvailable"


def test_defaults_written_out_are_the_same_input() -> None:
    short = make_resource(VLLM).spec
    long = make_resource(
        merge(
            VLLM,
            rollout={"drainTimeout": "2m", "strategy": "Surge"},
            storage={"type": "EmptyDir"},
            probes={},
            context={},
            pod={"labels": {}, "tolerations": []},
            engine={"type": "vLLM", "args": []},
            replicas=7,
        )
    ).spec
    assert hash_template_input(short) == hash_template_input(long)
    other = make_resource(merge(VLLM, rollout={"drainTimeout": "3m"})).spec
    assert hash_template_input(short) != hash_template_input(other)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.sampled_from(["model__revision", "engine__version", "engine__image", "pod", "probes", "storage", "files"]))
def test_what_shapes_the_pods_is_input(field: str) -> None:
    values: Json = {
        "model__revision": "main",
        "engine__version": "0.32.0",
        "engine__image": "x/y:0.33.0",
        "pod": {"labels": {"a": "b"}},
        "probes": {"startupTimeout": "9m"},
        "storage": {"type": "EmptyDir", "size": "9Gi"},
        "files": [{"path": "/a/b", "configMapRef": {"name": "x", "key": "y"}}],
    }
    changed = make_resource(merge(VLLM, **{field: values[field]})).spec
    assert hash_template_input(make_resource(VLLM).spec) != hash_template_input(changed)


# Law 2: only what is ours.


@pytest.mark.parametrize("kind", ["Deployment", "Service", "NetworkPolicy"])
def test_an_object_of_somebody_else_is_left_alone(kind: str) -> None:
    world = World(VLLM)
    key = ObjectKey(kind, "ml", "llama")
    theirs: Json = {
        "kind": kind,
        "metadata": {"name": "llama", "uid": "theirs", "labels": {"app.kubernetes.io/managed-by": "Helm"}},
        "spec": {},
    }
    world.children[key] = theirs
    plan = world.plan()
    assert key not in {child.key for child in plan.children}
    assert len(plan.children) == 3
    assert plan.deletes == ()
    world.apply(plan)
    assert world.states()["Stalled"] == "True/NameConflict"
    assert world.states()["Ready"] == "False/NameConflict"
    message = world.condition("Stalled")["message"]
    assert f"{kind}/llama" in message
    assert "Helm" in message
    assert "Next: " in message
    again = world.plan()
    assert again.events == ()
    assert again.status == plan.status, "no flapping"


def test_a_child_of_another_resource_is_named_with_its_owner() -> None:
    world = World(VLLM)
    reference = {"kind": "LLMRoute", "name": "llama", "uid": "other", "controller": True}
    key = ObjectKey("Service", "ml", "llama")
    world.children[key] = {"metadata": {"name": "llama", "uid": "u", "ownerReferences": [reference]}, "spec": {}}
    world.step()
    assert "LLMRoute/llama" in world.condition("Stalled")["message"]


def test_an_owner_that_does_not_control_is_not_enough() -> None:
    world = World(VLLM)
    world.settle()
    world.deployment["metadata"]["ownerReferences"][0]["controller"] = False
    assert "Deployment" not in {child.key.kind for child in world.plan().children}


def test_pruning_goes_by_uid_and_never_twice() -> None:
    world = World(merge(VLLM, replicas=2))
    world.settle()
    budget = ObjectKey("PodDisruptionBudget", "ml", "llama")
    theirs = ObjectKey("PodDisruptionBudget", "ml", "other")
    world.children[theirs] = {
        "metadata": {"name": "other", "uid": "x", "labels": names.make_engine_labels("llama")},
        "spec": {},
    }
    world.edit(VLLM)
    plan = world.plan()
    assert [(delete.key, delete.uid) for delete in plan.deletes] == [
        (budget, world.children[budget]["metadata"]["uid"])
    ]
    world.children[budget]["metadata"]["deletionTimestamp"] = "2026-11-25T12:00:00Z"
    assert world.plan().deletes == ()


@pytest.mark.parametrize("kind", ["Service", "Deployment"])
def test_a_child_of_a_kind_that_every_plan_holds_is_never_pruned(kind: str) -> None:
    """One that names us as its owner was made by somebody else, and there is no right to delete it."""
    world = World(VLLM)
    world.settle()
    ours = world.children[ObjectKey(kind, "ml", "llama")]
    world.children[ObjectKey(kind, "ml", "other")] = {**ours, "metadata": {**ours["metadata"], "name": "other"}}
    assert world.plan().deletes == ()


def test_a_resource_that_is_being_deleted_plans_nothing() -> None:
    world = World(VLLM)
    world.settle()
    resource = world.resource
    from fairlead.planning.deployment import plan_deployment

    dying = replace(resource, metadata=replace(resource.metadata, deletion_timestamp="2026-11-25T12:00:00Z"))
    plan = plan_deployment(dying, world.observed, world.engines, world.facts, world.now)
    assert (plan.children, plan.deletes, plan.status) == ((), (), world.status)


# Claims.

CLAIM = {"type": "PersistentVolumeClaim", "size": "100Gi", "storageClassName": "fast", "accessModes": ["ReadWriteMany"]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": "50Gi"}, "spec.storage.size cannot shrink from 100Gi to 50Gi"),
        ({"storageClassName": "slow"}, "spec.storage.storageClassName cannot change from fast to slow"),
        (
            {"accessModes": ["ReadWriteOnce"]},
            "spec.storage.accessModes cannot change from ReadWriteMany to ReadWriteOnce",
        ),
    ],
)
def test_an_impossible_change_of_a_claim_is_told_and_not_sent(change: Json, words: str) -> None:
    world = World(merge(VLLM, storage=CLAIM))
    world.settle()
    before = world.child("PersistentVolumeClaim", "-cache")["spec"]
    world.edit(merge(VLLM, storage={**CLAIM, **change}))
    world.step()
    assert world.child("PersistentVolumeClaim", "-cache")["spec"] == before
    assert world.states()["Stalled"] == "True/ImmutableField"
    assert world.states()["Ready"] == "False/ImmutableField"
    assert words in world.condition("Stalled")["message"]
    assert "llama-cache" in world.condition("Stalled")["message"]
    world.edit(merge(VLLM, storage=CLAIM))
    world.serve()
    world.step()
    assert world.states()["Ready"] == "True/Serving", "set back, it is well again"


def test_a_claim_may_grow_and_may_forget_its_class() -> None:
    world = World(merge(VLLM, storage=CLAIM))
    world.settle()
    grown = {key: value for key, value in CLAIM.items() if key != "storageClassName"} | {"size": "204800Mi"}
    world.edit(merge(VLLM, storage=grown))
    world.step()
    claim = world.child("PersistentVolumeClaim", "-cache")
    assert claim["spec"]["resources"]["requests"]["storage"] == "200Gi"
    assert claim["spec"]["storageClassName"] == "fast", "dropping it would ask the API server to clear it"
    assert world.states()["Stalled"] == "False/NotStalled"


def test_a_class_that_the_cluster_chose_is_not_ours_to_send() -> None:
    storage = {"type": "PersistentVolumeClaim", "size": "1Gi"}
    world = World(merge(VLLM, storage=storage))
    world.settle()
    world.child("PersistentVolumeClaim", "-cache")["spec"]["storageClassName"] = "default-class"
    body = next(child.body for child in world.plan().children if child.key.kind == "PersistentVolumeClaim")
    assert "storageClassName" not in body["spec"]


def test_a_class_named_later_is_sent_to_a_claim_that_has_none() -> None:
    """The API server takes it while the claim is not bound; where it does not, its refusal is told. Ignoring it would lie."""
    world = World(merge(VLLM, storage={"type": "PersistentVolumeClaim", "size": "1Gi"}))
    world.settle()
    world.edit(merge(VLLM, storage={"type": "PersistentVolumeClaim", "size": "1Gi", "storageClassName": "fast"}))
    world.step()
    assert world.child("PersistentVolumeClaim", "-cache")["spec"]["storageClassName"] == "fast"
    world.edit(merge(VLLM, storage={"type": "PersistentVolumeClaim", "size": "1Gi", "storageClassName": "slow"}))
    world.step()
    assert world.states()["Stalled"] == "True/ImmutableField"


def test_a_claim_that_is_no_longer_asked_for_is_deleted_but_never_the_users() -> None:
    world = World(merge(VLLM, storage=CLAIM))
    world.settle()
    world.edit(merge(VLLM, storage={"type": "PersistentVolumeClaim", "claimName": "theirs"}))
    plan = world.step()
    assert [str(delete.key) for delete in plan.deletes] == ["PersistentVolumeClaim/llama-cache"]
    volumes = world.deployment["spec"]["template"]["spec"]["volumes"]
    assert {"name": "fairlead-cache", "persistentVolumeClaim": {"claimName": "theirs"}} in volumes


# Engines that are broken or missing.


def test_a_broken_engine_stalls_its_users_and_leaves_their_pods() -> None:
    world = World(VLLM)
    world.settle()
    world.engines = EngineCatalog.builtin().with_overrides(
        {
            "vLLM": (
                "ConfigMap fairlead-system/mine",
                MINI.replace("Mini", "vLLM", 1).replace("port: 9000", "port: {{ nope }}"),
            )
        }
    )
    plan = world.plan()
    assert (plan.children, plan.deletes) == ((), ())
    world.apply(plan)
    assert world.states()["Stalled"] == "True/EngineInvalid"
    assert "ConfigMap fairlead-system/mine:11" in world.condition("Stalled")["message"]
    assert world.status["readyReplicas"] == 1
    other = World(OLLAMA, engines=world.engines)
    other.settle()
    assert other.states()["Ready"] == "True/Serving"


def test_an_engine_that_nobody_has_names_those_there_are() -> None:
    world = World(merge(VLLM, engine={"type": "Mini"}, accelerator=None))
    world.step()
    assert world.states()["Stalled"] == "True/EngineNotFound"
    assert "Ollama, vLLM" in world.condition("Stalled")["message"]


def test_an_added_engine_serves() -> None:
    engines = EngineCatalog.builtin().with_overrides({"Mini": ("mini", MINI)})
    world = World(merge(VLLM, engine={"type": "Mini", "args": ["--x"]}, accelerator=None), engines=engines)
    world.settle()
    assert world.states()["Ready"] == "True/Serving"
    container = world.deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == ["meta-llama/Llama-3.1-8B-Instruct", "--name", "llama", "--x"]
    assert container["image"] == "example.com/mini:1.2.0"


def test_what_an_engine_file_refuses_is_told_in_the_words_of_the_resource() -> None:
    engines = EngineCatalog.builtin().with_overrides({"Mini": ("mini", MINI)})
    world = World(merge(VLLM, engine={"type": "Mini"}, accelerator=None, context={"maxSequences": 3}), engines=engines)
    world.step()
    assert world.states()["Stalled"] == "True/InvalidSpec"
    assert (
        "spec.context.maxSequences: Mini works on one sequence at a time; leave it out"
        in world.condition("Stalled")["message"]
    )
