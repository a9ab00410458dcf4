"""An alert that fires is in status, makes the decision urgent, and never decides by itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.planning.scaledworld import external, replicas_of, samples, scaled, serving, settle
from tests.unit.planning.world import NOW, VLLM, World, merge

from fairlead.facts.alerts import ActiveAlert
from fairlead.facts.scaling import Signals
from fairlead.planning.deployment import plan_invalid
from fairlead.planning.plan import Plan
from fairlead.scaling.alerts import EXPIRES_S

ALERT = ActiveAlert("6d9fa5e1c2b3a4f0", "LLMDeploymentHighLatency", NOW - timedelta(seconds=40), NOW)
TOLD = [
    {
        "fingerprint": "6d9fa5e1c2b3a4f0",
        "name": "LLMDeploymentHighLatency",
        "startsAt": "2026-11-25T11:59:20.000Z",
        "lastSeen": "2026-11-25T12:00:00Z",
    }
]


def one_look(world: World) -> Signals:
    """The last five minutes were calm, the newest look is far over the target."""
    calm, busy = samples(world, waiting=0.0), samples(world, waiting=12.0, count=1)
    return replace(calm, samples=(*calm.samples[:-1], *busy.samples))


def test_while_an_alert_fires_one_look_over_the_target_is_enough() -> None:
    world = serving(1)
    world.signals = one_look(world)
    assert not world.plan().acts_on_status
    world.signals = hear(world)
    plan = world.step()
    assert plan.acts_on_status
    assert world.status["scaling"]["desiredReplicas"] > 1
    assert world.status["scaling"]["alerts"] == TOLD
    assert replicas_of(world) == 1  # the next pass carries it out
    world.step()
    assert replicas_of(world) == world.status["scaling"]["desiredReplicas"]


def hear(world: World) -> Signals:
    """What is measured, and the alert."""
    return replace(world.signals, alerts=(ALERT,), is_urgent=True)


@pytest.mark.parametrize("waiting", [0.0, None])
def test_an_alert_alone_adds_no_replica(waiting: float | None) -> None:
    world = serving(2)
    world.signals = samples(world, waiting=waiting) if waiting is not None else Signals()
    world.signals = hear(world)
    for _ in range(3):
        assert not world.step().acts_on_status
    assert replicas_of(world) == 2
    assert world.status["scaling"]["alerts"] == TOLD


def test_alerts_that_are_over_leave_status_and_nothing_else_changes() -> None:
    world = serving(1)
    before = world.status["scaling"]
    world.signals = hear(world)
    world.step()
    world.signals = Signals()
    world.step()
    assert world.status["scaling"] == before


def test_the_pass_comes_back_when_the_alert_is_over() -> None:
    world = serving(1)
    world.signals = samples(world, waiting=0.0)
    world.step()
    world.signals = hear(world)
    assert world.plan().requeue_after_s == EXPIRES_S
    world.now += timedelta(seconds=EXPIRES_S + 5)
    assert world.plan().requeue_after_s == 0.0


def test_status_tells_of_alerts_while_somebody_else_decides_and_while_it_is_suspended() -> None:
    """Whoever delivered one waits for that."""
    world = serving(1)
    world.signals = hear(world)
    world.signals = replace(hear(world), writer_of_child="HorizontalPodAutoscaler theirs")
    assert world.plan().status["scaling"]["alerts"] == TOLD
    world.signals = replace(hear(world), writer="HorizontalPodAutoscaler theirs", writer_of_child="")
    assert world.plan().status["scaling"]["alerts"] == TOLD
    world.signals = replace(hear(world), writer="")
    world.edit(merge(world.spec, suspend=True))
    assert world.plan().status["scaling"]["alerts"] == TOLD


def test_a_spec_that_is_refused_keeps_decisions_and_tells_of_alerts() -> None:
    world = serving(2)
    raw = {"metadata": {"name": "m", "namespace": "ml", "uid": "u", "generation": 9}, "spec": {"autoscaling": {}}}

    def refuse() -> Plan:
        return plan_invalid(raw | {"status": world.status}, (), world.observed, world.now)

    assert refuse().status["scaling"] == world.status["scaling"]
    world.signals = hear(world)
    plan = refuse()
    assert plan.status["scaling"] == world.status["scaling"] | {"alerts": TOLD}
    assert plan.requeue_after_s == EXPIRES_S


def test_without_alerts_nothing_is_told_of_them() -> None:
    for spec in (VLLM, merge(VLLM, autoscaling=scaled()), merge(VLLM, autoscaling=external())):
        world = World(spec)
        settle(world)
        assert "alerts" not in world.status.get("scaling", {})
