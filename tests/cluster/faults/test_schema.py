"""A CRD older or newer than the operator, and one that is removed and comes back; on a control plane of these tests' own."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from tests.cluster.faults.operated import Json, Operated
from tests.cluster.operator_world import QUIET_S, make_cr, until

pytestmark = [pytest.mark.cluster, pytest.mark.long]

FILE = Path(__file__).parents[3] / "crds" / "llmdeployments.fairlead.dev.yaml"
CRD = "llmdeployments.fairlead.dev"


@pytest.fixture
def world(fragile_world: Operated) -> Operated:
    return fragile_world


@pytest.fixture
def change_crd(world: Operated) -> Iterator[Callable[..., None]]:
    """Installs the CRD with other properties of spec and status; the real one comes back at the end."""
    original: Json = yaml.safe_load(FILE.read_text())

    def install(crd: Json) -> None:
        world.cluster.kubectl("replace", "-f", "-", stdin=yaml.safe_dump(crd))

    def change(edit: Callable[[Json, Json], None] = lambda *_: None) -> None:
        crd = copy.deepcopy(original)
        properties = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
        edit(properties["spec"]["properties"], properties["status"]["properties"])
        install(crd)
        time.sleep(1.0)  # the API server serves the new schema a moment later

    yield change
    install(original)


def test_a_crd_older_than_the_operator(world: Operated, change_crd: Callable[..., None]) -> None:
    """Fields that the operator writes to status and reads from spec are not there yet: the rest is told, and nothing loops."""

    def without(spec: Json, status: Json) -> None:
        for name in ("revision", "accelerator", "readyOfDesired"):
            del status[name]
        del status["model"]["properties"]["startupTimeout"]
        del spec["probes"]

    change_crd(without)
    mark = world.mark()
    world.apply(make_cr(world.namespace, "m"))
    world.wait_observed("m")
    status = world.status("m")
    assert "revision" not in status
    assert status["endpoint"]
    assert world.condition("m", "Stalled")["status"] == "False"
    world.assert_recovered()
    statuses = [write for write in world.writes(mark) if "status" in write]
    assert len([write for write in statuses if write.endswith("500")]) <= 4, "each missing field is found out once"
    assert len([write for write in statuses if write.endswith("200")]) <= 2
    change_crd()
    world.patch("llmdeployment/m", '{"spec": {"context": {"maxLength": 4096}}}')
    until(lambda: "revision" in world.status("m"), "a newer CRD takes the rest")
    world.assert_recovered()


def test_a_crd_newer_than_the_operator(world: Operated, change_crd: Callable[..., None]) -> None:
    """A field that this operator does not know: its resource says so and keeps what runs; the others do not notice."""
    world.settled("m")
    before = world.shape()

    def more(spec: Json, status: Json) -> None:
        spec["future"] = {"type": "object", "properties": {"level": {"type": "string"}}}
        status["future"] = {"type": "string"}

    change_crd(more)
    world.kubectl(
        "patch", "llmdeployment", "m", "--subresource=status", "--type=merge", '--patch={"status": {"future": "x"}}'
    )
    time.sleep(QUIET_S)
    world.assert_recovered(like=before | {"status": before["status"] | {"future": "x"}})
    world.patch("llmdeployment/m", '{"spec": {"future": {"level": "high"}}}')
    stalled = world.wait_stalled("m", "InvalidSpec")
    assert "future" in stalled["message"]
    world.assert_recovered()
    after = world.shape()
    assert {key: value for key, value in after.items() if key != "status"} == {
        key: value for key, value in before.items() if key != "status"
    }
    world.settled("bystander")
    world.patch("llmdeployment/m", '{"spec": {"future": null}}')
    until(lambda: world.condition("m", "Stalled")["status"] == "False", "healed")


def test_a_crd_that_is_removed_and_comes_back(world: Operated) -> None:
    """All resources go with it, and their children with them; the same process serves what is applied afterwards."""
    world.settled("m")
    mark = world.mark()
    world.cluster.kubectl("delete", "crd", CRD)
    until(lambda: not world.names("deployments,services,networkpolicies"), "the children are collected", 90)
    time.sleep(5)
    assert not world.created(mark), "nothing is made after the deletion"
    world.cluster.kubectl("apply", "--server-side", "-f", str(FILE))
    world.cluster.kubectl("wait", "--for=condition=Established", "crd", CRD, "--timeout=30s")
    mark = world.mark()
    until(lambda: world.cluster.kubectl.run("get", "llmdeployments", "-A").returncode == 0, "it is served")
    world.apply(make_cr(world.namespace, "m"))
    until(lambda: world.is_observed("m"), "the same process goes on", 75)
    world.assert_recovered()
    assert max(world.created(mark).values()) == 1
    until(lambda: world.metric("fairlead_llmdeployment_condition", type="Ready") == 1, "no ghosts", 30)
