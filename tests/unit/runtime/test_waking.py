"""Who is asked for whom requests wait, what is told of it, and what that costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any

import pytest
from tests.unit.fake_time import run_in_fake_time

from fairlead.api.names import LABEL_COMPONENT, LABEL_LLMDEPLOYMENT, LABEL_LLMROUTE
from fairlead.facts.observed import ObjectKey
from fairlead.kube.cache import Cache, Entry
from fairlead.runtime import waking
from fairlead.runtime.waking import REMEMBERED_S, TELL_AGAIN_S, Waker

Json = dict[str, Any]
MODEL = ObjectKey("LLMDeployment", "ml", "llama")


class Gateways:
    """Pods that answer: address -> (waiting, missed), or a text, or None for one that does not."""

    def __init__(self) -> None:
        self.says: dict[str, Any] = {}
        self.asked: list[list[str]] = []
        self.is_closed = False

    async def ask(self, addresses: Collection[str], take: Callable[[str, Mapping[str, Any] | str], None]) -> None:
        self.asked.append(sorted(addresses))
        for address in sorted(addresses):
            said = self.says.get(address)
            if said == "hangs":
                await asyncio.sleep(0.8)
            elif said is not None:
                take(address, _answer(said))

    async def close(self) -> None:
        self.is_closed = True


def _answer(said: Any) -> Mapping[str, Any] | str:
    if isinstance(said, str | Mapping):
        return said
    waiting, missed = said
    stats = {"cluster.to~6d.0a1b2c3d-44556677.local.local.upstream_rq_active": waiting,
             "cluster.be~local~0a1b2c3d.upstream_cx_none_healthy": missed}  # fmt: skip
    return {"stats": [{"name": name, "value": value} for name, value in stats.items()]}


class World:
    """A cache, and who is told."""

    def __init__(self) -> None:
        self.cache, self.gateways, self.told = Cache(), Gateways(), list[tuple[str, int]]()
        self.is_leading = True
        self.version = 0
        self.waker = Waker(
            self.cache, self.gateways, self._tell, lambda: self.is_leading, lambda: asyncio.get_running_loop().time()
        )

    def _tell(self, key: ObjectKey, count: int) -> None:
        self.told.append((f"{key.namespace}/{key.name}", count))

    def put(
        self, kind: str, name: str, uid: str = "", namespace: str = "ml", labels: Json | None = None, **rest: Any
    ) -> None:
        self.version += 1
        metadata = {
            "name": name,
            "namespace": namespace,
            "uid": uid or f"u-{name}",
            "resourceVersion": f"{self.version}",
        }
        metadata |= {"labels": labels} if labels else {}
        self.cache.put({"metadata": metadata, **rest}, kind)

    def put_model(self, name: str = "llama", ready: int = 0, **scaling: Any) -> None:
        spec = {"model": {"source": "hf://a/b"}, "autoscaling": {"minReplicas": 0, "maxReplicas": 2, **scaling}}
        self.put("LLMDeployment", name, spec=spec, status={"readyReplicas": ready})

    def put_route(self, name: str = "assistants", deployment: str = "llama", namespace: str = "ml") -> None:
        spec = {"backends": [{"name": "local", "deployment": {"name": deployment}}, {"name": "cloud", "provider": {}}]}
        self.put("LLMRoute", name, namespace=namespace, spec=spec)

    def put_gateway(self, name: str, address: str, route: str = "assistants", uid: str = "") -> None:
        labels = {LABEL_COMPONENT: "gateway", LABEL_LLMROUTE: route}
        self.put("Pod", name, uid, labels=labels, status={"podIP": address})

    async def look(self) -> list[tuple[str, int]]:
        self.told.clear()
        await self.waker.look()
        return list(self.told)


def world_of(test: Callable[[World], Any]) -> Callable[[], None]:
    def run() -> None:
        async def with_world() -> None:
            world = World()
            world.put_model()
            world.put_route()
            world.put_gateway("g1", "10.0.0.1")
            world.put_gateway("g2", "10.0.0.2")
            await test(world)

        run_in_fake_time(with_world)

    run.__name__ = test.__name__
    return run


@world_of
async def test_more_that_wait_are_told_of_and_those_that_go_on_waiting_again_after_a_while(world: World) -> None:
    world.gateways.says = {"10.0.0.1": (0, 0), "10.0.0.2": (0, 0)}
    assert await world.look() == []
    assert world.waker.held(MODEL) == 0
    world.gateways.says = {"10.0.0.1": (2, 3), "10.0.0.2": (1, 1)}
    assert await world.look() == [("ml/llama", 2), ("ml/llama", 3)]
    assert world.waker.held(MODEL) == 3
    assert await world.look() == []
    world.gateways.says["10.0.0.2"] = (4, 9)
    assert await world.look() == [("ml/llama", 6)]
    await asyncio.sleep(TELL_AGAIN_S)
    assert await world.look() == [("ml/llama", 6)]
    await asyncio.sleep(REMEMBERED_S)
    world.gateways.says = {"10.0.0.1": (0, 3), "10.0.0.2": (0, 9)}
    assert await world.look() == [("ml/llama", 0)], "whoever has acted on it takes it back"
    assert await world.look() == []
    assert world.waker.held(MODEL) == 0


@world_of
async def test_without_a_hold_each_request_that_found_nobody_counts_once(world: World) -> None:
    """What was missed before the first answer was missed some time ago."""
    world.gateways.says = {"10.0.0.1": (0, 70), "10.0.0.2": (0, 0)}
    assert await world.look() == []
    world.gateways.says["10.0.0.1"] = (0, 72)
    assert await world.look() == [("ml/llama", 1)]
    assert await world.look() == []
    assert world.waker.held(MODEL) == 1  # until whoever decides has surely had its turn
    await asyncio.sleep(TELL_AGAIN_S)
    assert await world.look() == [("ml/llama", 1)]
    await asyncio.sleep(REMEMBERED_S)
    assert await world.look() == [("ml/llama", 0)]
    assert world.waker.held(MODEL) == 0
    world.gateways.says["10.0.0.1"] = (0, 1)  # it has started anew
    assert await world.look() == [("ml/llama", 1)]


@world_of
async def test_what_waits_already_when_a_replica_begins_to_lead_is_told_of_at_once(world: World) -> None:
    world.gateways.says = {"10.0.0.1": (5, 70)}
    assert await world.look() == [("ml/llama", 5)]


@world_of
async def test_a_gateway_that_does_not_answer_takes_nothing_away(world: World) -> None:
    world.gateways.says = {"10.0.0.1": (2, 2), "10.0.0.2": None}
    assert await world.look() == [("ml/llama", 2)]
    world.gateways.says = {}
    assert await world.look() == []
    assert world.waker.held(MODEL) == 2


@world_of
async def test_one_that_hangs_does_not_make_the_news_of_another_late(world: World) -> None:
    world.gateways.says = {"10.0.0.1": (2, 2), "10.0.0.2": "hangs"}
    look = asyncio.create_task(world.look())
    await asyncio.sleep(0.1)
    assert world.told == [("ml/llama", 2)]
    assert not look.done()
    assert await look == [("ml/llama", 2)]


@pytest.mark.parametrize("stats", [7, "text", {"name": 1}, [7, None, [], {}], [{"name": None, "value": 3}]])
def test_nonsense_of_one_gateway_does_not_drown_what_another_says(stats: Any) -> None:
    @world_of
    async def test(world: World) -> None:
        world.gateways.says = {"10.0.0.1": {"stats": stats}, "10.0.0.2": (2, 2)}
        assert await world.look() == [("ml/llama", 2)]

    test()


@world_of
async def test_gateways_of_an_earlier_release_tell_by_their_metrics(world: World) -> None:
    line = 'envoy_cluster_upstream_cx_none_healthy{envoy_cluster_name="be~local~0a1b2c3d"} '
    world.gateways.says = {"10.0.0.1": f"# TYPE a counter\n{line}7\nother 3\n"}
    assert await world.look() == []
    world.gateways.says = {"10.0.0.1": f"{line}9\n"}
    assert await world.look() == [("ml/llama", 1)]


@world_of
async def test_the_first_request_at_a_gateway_of_an_earlier_release_is_told_of(world: World) -> None:
    """Its metrics name only what has been counted, so that the line comes with the first request that found nobody."""
    line = 'envoy_cluster_upstream_cx_none_healthy{envoy_cluster_name="be~local~0a1b2c3d"} '
    world.gateways.says = {"10.0.0.1": "envoy_server_uptime{} 5\n"}
    assert await world.look() == []
    assert world.waker.held(MODEL) == 0
    world.gateways.says = {"10.0.0.1": f"envoy_server_uptime{{}} 6\n{line}1\n"}
    assert await world.look() == [("ml/llama", 1)]


@world_of
async def test_a_route_with_two_names_for_one_deployment(world: World) -> None:
    backends = [{"name": name, "deployment": {"name": "llama"}} for name in ("local", "spare")]
    world.put("LLMRoute", "assistants", spec={"backends": backends})
    world.gateways.says = {"10.0.0.1": (3, 0)}
    assert await world.look() == [("ml/llama", 3)], "nobody waits for the other name"


@pytest.mark.parametrize(
    "change",
    [
        lambda world: world.put_model(ready=1),
        lambda world: world.put_model(minReplicas=1),
        lambda world: world.put_model(mode="External"),
        lambda world: world.put_model(policy="Pause"),
        lambda world: world.put_model(policy="Recommend"),
        lambda world: world.put("LLMDeployment", "llama", spec={"autoscaling": None}),
        lambda world: world.put("LLMDeployment", "llama", spec="nonsense"),
        lambda world: world.put("LLMDeployment", "llama", spec={"suspend": True, "autoscaling": {"minReplicas": 0}}),
        lambda world: world.put_route(deployment="other"),
        lambda world: world.put("LLMRoute", "assistants", spec={"backends": ["nonsense", {"deployment": 7}]}),
        lambda world: [world.put_gateway(name, "", "assistants") for name in ("g1", "g2")],
    ],
)
def test_nobody_is_asked_for_what_need_not_wake(change: Callable[[World], Any]) -> None:
    @world_of
    async def test(world: World) -> None:
        world.gateways.says = {"10.0.0.1": (2, 2)}
        assert await world.look() == [("ml/llama", 2)]
        change(world)
        world.gateways.asked.clear()
        assert await world.look() == []
        assert world.gateways.asked == []
        assert world.waker.held(MODEL) is None

    test()


@world_of
async def test_only_gateways_of_routes_in_its_namespace_that_name_it_are_asked(world: World) -> None:
    world.put_model("awake", ready=1)
    world.put_route("others", "awake")
    world.put_gateway("g3", "10.0.0.3", "others")
    world.put_route("far", namespace="elsewhere")
    world.put("Pod", "engine", labels={LABEL_COMPONENT: "engine", LABEL_LLMDEPLOYMENT: "awake", LABEL_LLMROUTE: "assistants"},
              status={"podIP": "10.0.0.4"})  # fmt: skip
    world.put("Pod", "application", labels={LABEL_LLMROUTE: "assistants"}, status={"podIP": "10.0.0.5"})
    await world.look()
    assert world.gateways.asked == [["10.0.0.1", "10.0.0.2", "10.0.0.4"]]


@world_of
async def test_an_unchanged_object_is_read_once(world: World) -> None:
    reads: list[ObjectKey] = []
    load = Entry.load

    def counting(entry: Entry) -> Json:
        reads.append(entry.key)
        return load(entry)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Entry, "load", counting)
        for _ in range(3):
            await world.look()
        assert len(reads) == len(set(reads)) == 4
        world.put_gateway("g1", "10.0.0.9")
        await world.look()
        assert len(reads) == 5
    assert world.gateways.asked[-1] == ["10.0.0.2", "10.0.0.9"]


@world_of
async def test_of_very_many_gateways_each_has_its_turn(world: World) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waking, "MOST_ASKED", 3)
        for number in range(3, 8):
            world.put_gateway(f"g{number}", f"10.0.0.{number}")
        for _ in range(3):
            await world.look()
    assert [len(asked) for asked in world.gateways.asked] == [3, 3, 3]
    assert {address for asked in world.gateways.asked for address in asked} == {f"10.0.0.{n}" for n in range(1, 8)}


@world_of
async def test_it_asks_each_second_while_it_leads_and_goes_on_after_a_failure(world: World) -> None:
    world.gateways.says = {"10.0.0.1": (1, 1)}
    task = asyncio.create_task(world.waker.run())
    await asyncio.sleep(9.5)
    assert 9 <= len(world.gateways.asked) <= 10
    assert world.told == [("ml/llama", 1), ("ml/llama", 1)]
    world.gateways.says = {"10.0.0.1": (1, None)}  # nothing that a gateway says; it must not end the task
    await asyncio.sleep(2)
    assert not task.done()
    world.is_leading = False
    await asyncio.sleep(2)
    world.gateways.asked.clear()
    await asyncio.sleep(5)
    assert world.gateways.asked == []
    assert world.waker.held(MODEL) is None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert world.gateways.is_closed
