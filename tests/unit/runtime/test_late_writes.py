"""A write can arrive long after it was decided: the process was frozen, or the network kept it. Meanwhile another leads."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.kube.fake_api import Fault
from tests.unit.runtime.world import CRS, DEPLOYMENTS, KEY, SERVICES, World, controlling

from fairlead.api import names
from fairlead.runtime.applier import StaleOwnerError


def spec_of(world: World, path: str) -> object:
    return world.api.objects[path]["spec"]


def write_as_another_leader(world: World, path: str, **spec: int) -> None:
    """The API server has it, and this replica's watch has not said so yet."""
    collection, _, name = path.rpartition("/")
    world.api.put(collection, name, **{**world.api.objects[path], "spec": spec})


def write_newer_spec(world: World, spec: int) -> None:
    """A user's edit, of which this replica's watch has not said so yet."""
    resource = world.api.objects[f"{CRS}/m"]
    metadata = {**resource["metadata"], "generation": resource["metadata"]["generation"] + 1}
    world.api.put(CRS, "m", **{**resource, "metadata": metadata, "spec": {"x": spec}})


def as_written_by_another_leader(live: dict[str, Any], spec: int) -> dict[str, Any]:
    annotations = {**live["metadata"]["annotations"], names.ANNOTATION_APPLIED_HASH: "of the other leader"}
    return {**live, "metadata": {**live["metadata"], "annotations": annotations}, "spec": {"x": spec}}


async def test_an_update_that_was_decided_from_an_older_state_is_refused() -> None:
    async with controlling() as world:
        world.put_cr(x=1)
        await world.settle()
        for path in (f"{DEPLOYMENTS}/m", f"{SERVICES}/m"):
            write_as_another_leader(world, path, x=3)
        world.put_cr(x=2)
        assert await world.run_pass() == "error", "it will be looked at again"
        assert spec_of(world, f"{DEPLOYMENTS}/m") == {"x": 3}
        assert spec_of(world, f"{SERVICES}/m") == {"x": 3}
        world.sync()
        world.now[0] += 5.0
        await world.run_pass()
        assert spec_of(world, f"{DEPLOYMENTS}/m") == {"x": 2}
        assert spec_of(world, f"{SERVICES}/m") == {"x": 2}


async def test_a_child_found_in_the_way_of_its_creation_is_updated_from_the_state_that_was_found() -> None:
    async with controlling() as world:
        world.put_cr(x=1)
        await world.settle()
        entry = next(entry for entry in world.cache.of_owner(KEY) if entry.key.kind == "Service")
        world.cache.remove(entry.key, entry.uid, entry.resource_version)  # its label was stripped, says the watch
        write_as_another_leader(world, f"{SERVICES}/m", x=3)
        await world.run_pass()
        assert spec_of(world, f"{SERVICES}/m") == {"x": 1}
        assert f"{CRS}/m" in world.api.objects


async def test_what_another_leader_wrote_for_a_newer_spec_is_not_set_back() -> None:
    """Two lead at once, as none should: this one has seen the other's Deployment, and not yet the spec behind it."""
    async with controlling() as world:
        world.put_cr(x=1)
        await world.settle()
        await world.settle()
        path = f"{DEPLOYMENTS}/m"
        write_newer_spec(world, 3)
        live = world.api.put(DEPLOYMENTS, "m", **as_written_by_another_leader(world.api.objects[path], 3))
        world.cache.put(live, "Deployment")
        with pytest.raises(StaleOwnerError):
            await world.run_pass()
        assert spec_of(world, path) == {"x": 3}
        await world.settle()
        assert spec_of(world, path) == {"x": 3}
        assert spec_of(world, f"{SERVICES}/m") == {"x": 3}


async def test_a_child_that_another_leader_made_for_a_newer_spec_is_not_set_back_by_a_late_creation() -> None:
    async with controlling() as world:
        world.put_cr(x=1)
        await world.settle()
        world.controller._memories.clear()
        entry = next(entry for entry in world.cache.of_owner(KEY) if entry.key.kind == "Service")
        world.cache.remove(entry.key, entry.uid, entry.resource_version)
        write_newer_spec(world, 3)
        path = f"{SERVICES}/m"
        world.api.put(SERVICES, "m", **as_written_by_another_leader(world.api.objects[path], 3))
        with pytest.raises(StaleOwnerError):
            await world.run_pass()
        assert spec_of(world, path) == {"x": 3}


async def test_what_overtook_our_own_write_is_not_set_back() -> None:
    """This leader's creation was overtaken before it had its answer, and then it wrote a status of the older spec."""
    async with controlling() as world:
        world.put_cr(x=1)
        await world.settle()
        await world.settle()
        memory = world.controller._memories[KEY]
        memory.children.verified.clear()
        assert memory.children.current_uid
        write_newer_spec(world, 3)
        path = f"{DEPLOYMENTS}/m"
        live = world.api.put(DEPLOYMENTS, "m", **as_written_by_another_leader(world.api.objects[path], 3))
        world.cache.put(live, "Deployment")
        with pytest.raises(StaleOwnerError):
            await world.run_pass()
        assert spec_of(world, path) == {"x": 3}


async def test_a_child_that_no_watch_follows_is_read_anew_after_each_refusal() -> None:
    """Somebody took its label, and its controller moved on between our look and our write."""
    async with controlling() as world:
        world.put_cr(x=1)
        await world.settle()
        path = f"{DEPLOYMENTS}/m"
        entry = next(entry for entry in world.cache.of_owner(KEY) if entry.key.kind == "Deployment")
        live = world.api.objects[path]
        labels = {**live["metadata"]["labels"], names.LABEL_MANAGED_BY: "somebody"}
        world.api.put(
            DEPLOYMENTS, "m", **{**live, "metadata": {**live["metadata"], "labels": labels}, "spec": {"x": 9}}
        )
        world.cache.remove(entry.key, entry.uid, world.api.version)  # says the watch, and nothing more
        write_as_another_leader(world, path, x=9)
        world.api.faults.append(Fault(lambda request: "force" in request.query, 409, "modified"))
        assert await world.run_pass() == "error"
        write_as_another_leader(world, path, x=9)  # its controller, which only moves the version
        world.now[0] += 5.0
        await world.run_pass()
        assert spec_of(world, path) == {"x": 1}
        assert world.api.objects[path]["metadata"]["labels"][names.LABEL_MANAGED_BY] == names.MANAGED_BY
