"""Of several deployments that sleep side by side each is woken by the requests that wait for it, not by those that only look for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from tests.unit.fake_time import run_in_fake_time
from tests.unit.runtime.test_waking import World

from fairlead.facts.observed import ObjectKey
from fairlead.runtime.waking import SETTLES_S

Json = dict[str, Any]
SIDE_BY_SIDE = [{"backend": "main", "weight": 9}, {"backend": "canary", "weight": 1}]
HELD: Json = {"name": "chat", "targets": SIDE_BY_SIDE, "hold": {"patience": "2m", "overflowAfter": "5s"}}
OTHER = {"backend": "cloud", "model": "gpt", "priority": 1}


def answer(main: tuple[int, int], canary: tuple[int, int]) -> Mapping[str, Any]:
    """(waiting, missed) of each."""
    stats = {}
    for name, (waiting, missed) in (("main", main), ("canary", canary)):
        stats[f"cluster.to~6d.0a1b2c3d-44556677.{name}.local.upstream_rq_active"] = waiting
        stats[f"cluster.be~{name}~0a1b2c3d.upstream_cx_none_healthy"] = missed
    return {"stats": [{"name": name, "value": value} for name, value in stats.items()]}


async def told(models: list[Json], after: Any, *, main_ready: int = 0) -> set[str]:
    """Whom the operator hears of when a gateway says this, after it has said that nothing has happened yet."""
    world = make_world(models, main_ready)
    await world.look()
    world.gateways.says["10.0.0.1"] = after
    return {name for name, _ in await world.look()}


def make_world(models: list[Json], main_ready: int = 0) -> World:
    world = World()
    world.put_model("main", main_ready)
    world.put_model("canary")
    backends = [{"name": name, "deployment": {"name": name}} for name in ("main", "canary")]
    backends.append({"name": "cloud", "provider": {"type": "OpenAI", "secretRef": {"name": "openai", "key": "apiKey"}}})
    world.put(
        "LLMRoute", "assistants", spec={"backends": backends, "models": models, "authentication": {"anonymous": {}}}
    )
    world.put_gateway("g", "10.0.0.1")
    world.gateways.says = {"10.0.0.1": answer((0, 0), (0, 0))}
    return world


@pytest.mark.parametrize(
    ("main", "canary", "wanted"),
    [
        ((3, 9), (0, 3), {"ml/main"}),
        ((0, 1), (1, 2), {"ml/canary"}),
        ((2, 4), (1, 3), {"ml/main", "ml/canary"}),
        ((0, 4), (0, 4), set()),
    ],
)
def test_with_both_asleep_each_is_woken_by_who_waits_for_it(
    main: tuple[int, int], canary: tuple[int, int], wanted: set[str]
) -> None:
    assert run_in_fake_time(lambda: told([HELD], answer(main, canary))) == wanted


@pytest.mark.parametrize(
    "models",
    [
        [{"name": "chat", "targets": SIDE_BY_SIDE}],
        [HELD, {"name": "plain", "targets": [{"backend": "canary"}]}],
        [{**HELD, "targets": [{"backend": "main"}, {"backend": "canary", "priority": 1}]}],
        [{**HELD, "targets": [*SIDE_BY_SIDE, OTHER], "hold": {"overflowAfter": "0s"}}],
        [{**HELD, "targets": [*SIDE_BY_SIDE, OTHER], "hold": {"overflowAfter": "2s"}}],
        [{"name": "chat", "targets": "bad", "hold": {}}],
        [{**HELD, "hold": {"overflowAfter": "bad"}}],
        "bad",
        [],
    ],
)
def test_where_a_request_may_miss_it_without_waiting_a_miss_wakes(models: Any) -> None:
    """Nothing else tells of it. A route that cannot be read wakes rather too much."""
    assert run_in_fake_time(lambda: told(models, answer((0, 0), (0, 1)))) == {"ml/canary"}


@pytest.mark.parametrize(
    ("hold", "more"),
    [({}, []), ({"overflowAfter": "0s"}, []), ({"overflowAfter": "3s"}, [OTHER]), ({"patience": "2m"}, [OTHER])],
)
def test_a_wait_that_is_seen_is_enough(hold: Json, more: list[Json]) -> None:
    models = [{**HELD, "targets": [*SIDE_BY_SIDE, *more], "hold": hold}]
    assert run_in_fake_time(lambda: told(models, answer((1, 1), (0, 1)))) == {"ml/main"}


def test_a_canary_alone_asleep_is_woken_by_whoever_looks_for_it() -> None:
    assert run_in_fake_time(lambda: told([HELD], answer((0, 0), (0, 1)), main_ready=1)) == {"ml/canary"}


def test_a_gateway_that_does_not_say_who_waits_wakes_both() -> None:
    text = "\n".join(
        f'envoy_cluster_upstream_cx_none_healthy{{envoy_cluster_name="be~{name}~0a1b2c3d"}} 1'
        for name in ("main", "canary")
    )
    assert run_in_fake_time(lambda: told([HELD], text)) == {"ml/main", "ml/canary"}


def test_one_that_has_just_come_is_beside_the_other_until_gateways_know_it() -> None:
    async def wake() -> tuple[int | None, int | None]:
        world = make_world([HELD])
        await world.look()
        world.put_model("main", ready=1)
        await asyncio.sleep(1)
        world.gateways.says["10.0.0.1"] = answer((0, 5), (0, 5))
        await world.look()
        canary = ObjectKey("LLMDeployment", "ml", "canary")
        before = world.waker.held(canary)
        await asyncio.sleep(SETTLES_S)
        world.gateways.says["10.0.0.1"] = answer((0, 5), (0, 6))
        await world.look()
        return before, world.waker.held(canary)

    assert run_in_fake_time(wake) == (0, 1)
