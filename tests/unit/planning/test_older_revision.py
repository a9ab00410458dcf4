"""While pods keep an older revision (law 8), status and Services speak of those pods, not of what would be rendered now."""

from __future__ import annotations

from typing import Any

from tests.unit.planning.test_laws import upgraded
from tests.unit.planning.world import OLLAMA, VLLM, Json, World, merge


def engine_container(world: World) -> Json:
    containers: list[Json] = world.deployment["spec"]["template"]["spec"]["containers"]
    return next(container for container in containers if container["name"] == "engine")


def headless_port(world: World) -> Any:
    return world.child("Service", "-pods")["spec"]["ports"][0]["port"]


def test_the_headless_service_keeps_the_port_on_which_the_pods_listen() -> None:
    world = World(VLLM)
    world.settle()
    world.engines = upgraded("port: 8000", "port: 8011")
    world.step()
    assert world.states()["Ready"] == "True/RevisionAvailable"
    assert headless_port(world) == engine_container(world)["ports"][0]["containerPort"] == 8000
    world.edit(merge(VLLM, rollout={"revision": "Latest"}))
    world.step()
    assert headless_port(world) == engine_container(world)["ports"][0]["containerPort"] == 8011


def test_status_names_the_image_and_the_version_that_run() -> None:
    world = World(VLLM)
    world.settle()
    before = dict(world.status["engine"])
    world.engines = upgraded('default: "0.33.0"', 'default: "0.34.0"')
    world.step()
    assert world.states()["Ready"] == "True/RevisionAvailable"
    assert world.status["engine"] == before
    assert world.status["engine"]["image"] == engine_container(world)["image"]
    world.edit(merge(VLLM, rollout={"revision": "Latest"}))
    world.step()
    assert world.status["engine"]["version"] == "0.34.0"
    assert world.status["engine"]["image"] == engine_container(world)["image"]


def test_an_engine_of_two_containers_is_found_too() -> None:
    world = World(OLLAMA)
    world.settle()
    assert world.status["engine"]["image"] == engine_container(world)["image"]
    assert headless_port(world) == engine_container(world)["ports"][0]["containerPort"]
