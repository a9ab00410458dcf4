"""What status makes of a child that could not be applied: whose turn it is, and what it takes back of what was so."""

from __future__ import annotations

from tests.unit.planning.test_status import kstatus_of
from tests.unit.planning.world import VLLM, World, merge

from fairlead.facts.observed import ApplyFailure, ObjectKey

KEY = ObjectKey("Deployment", "ml", "llama")
WAITS = "Service/llama of an earlier LLMDeployment of this name is still being deleted."


def test_a_terminal_refusal_is_stalled_even_while_the_old_pods_serve() -> None:
    world = World(VLLM)
    world.settle()
    world.edit(merge(VLLM, pod={"affinity": {"nodeAffinity": {"required": []}}}))
    world.failures = [ApplyFailure(KEY, "InvalidChild", "field not declared in schema", True, path="spec.pod.affinity")]
    world.step()
    assert world.states()["Stalled"] == "True/InvalidChild"
    assert world.states()["Ready"] == "False/InvalidChild"
    assert "spec.pod.affinity" in world.condition("Ready")["message"]
    assert kstatus_of(world) == "Failed"


def test_a_passing_refusal_is_reconciling_and_takes_back_nothing() -> None:
    world = World(VLLM)
    world.settle()
    world.failures = [ApplyFailure(KEY, "ApiUnavailable", "etcdserver: leader changed", False)]
    world.step()
    assert world.states()["Ready"] == "True/Serving"
    assert world.states()["Reconciling"] == "True/ApiUnavailable"
    assert world.states()["Stalled"] == "False/NotStalled"


def test_what_is_a_sentence_is_told_as_it_is() -> None:
    words = "Service/llama exists and belongs to LLMRoute/a. Next: rename it."
    world = World(VLLM, failures=[ApplyFailure(KEY, "NameConflict", words, True, is_sentence=True)])
    world.step()
    assert world.states()["Stalled"] == "True/NameConflict"
    assert world.condition("Stalled")["message"] == words


def test_waiting_for_the_end_of_a_predecessors_child_is_reconciling_and_needs_nobody() -> None:
    world = World(VLLM, failures=[ApplyFailure(KEY, "WaitingForDeletion", WAITS, False, is_sentence=True)])
    world.step()
    assert world.states()["Ready"] == "False/WaitingForDeletion"
    assert world.states()["Reconciling"] == "True/WaitingForDeletion"
    assert world.states()["Stalled"] == "False/NotStalled"
    assert world.condition("Reconciling")["message"] == WAITS
    assert kstatus_of(world) == "InProgress"


def test_waiting_for_the_end_of_a_predecessors_child_takes_back_no_ready() -> None:
    world = World(VLLM)
    world.settle()
    world.failures = [ApplyFailure(KEY, "WaitingForDeletion", WAITS, False, is_sentence=True)]
    plan = world.step()
    assert world.states()["Ready"] == "True/Serving"
    assert world.states()["Reconciling"] == "True/WaitingForDeletion"
    assert world.states()["Stalled"] == "False/NotStalled"
    assert plan.events == ()
    world.edit(merge(VLLM, replicas=2))
    world.step()
    assert world.states()["Ready"] == "False/WaitingForDeletion", "another generation was never ready"


def test_a_refusal_with_an_unknown_reason_still_shows() -> None:
    world = World(VLLM, failures=[ApplyFailure(KEY, "SomethingNew", "no", True)])
    world.step()
    assert world.states()["Stalled"] == "True/ChildRefused"
