"""When pods are looked at, which of them, and for how long what they told is of use: in fake time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.unit.fake_time import run_in_fake_time
from tests.unit.sources.pods import answer, serving_pods

from fairlead.api import names
from fairlead.config import OperatorConfig
from fairlead.facts.observed import ObjectKey
from fairlead.facts.scaling import Measure, Sample, ScrapeWish, Source, Target
from fairlead.kube.cache import Cache
from fairlead.runtime.signals import Collector, make_sources, speak_for
from fairlead.runtime.targets import Targets

Json = dict[str, Any]
KEY = ObjectKey(names.LLMDEPLOYMENT, "ml", "m")
WISH = ScrapeWish("/metrics", 8000, interval_s=5.0, keep_s=20.0)
WISH_OF_PROMETHEUS = replace(WISH, source=Source.PROMETHEUS, names={Measure.RUNNING_REQUESTS: ("running",)})
JSON_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"


def pod(
    name: str, version: int, *, ready: bool = True, address: str = "10.0.0.1", ending: bool = False, **labels: str
) -> Json:
    said = {names.LABEL_LLMDEPLOYMENT: "m", names.LABEL_COMPONENT: names.COMPONENT_ENGINE, **labels}
    metadata = {"name": name, "namespace": "ml", "uid": f"u-{name}", "resourceVersion": str(version), "labels": said}
    if ending:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    status = {"conditions": conditions, **({"podIP": address} if address else {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status}


def gateway_pod(name: str, version: int, route: str = "r") -> Json:
    raw = pod(name, version, address="10.0.0.9")
    raw["metadata"]["labels"] = {names.LABEL_LLMROUTE: route, names.LABEL_COMPONENT: names.COMPONENT_GATEWAY}
    return raw


def route(name: str, version: int, **backends: str) -> Json:
    """Backends by what the route calls them."""
    entries = [{"name": called, "deployment": {"name": deployment}} for called, deployment in backends.items()]
    metadata = {"name": name, "namespace": "ml", "uid": f"u-{name}", "resourceVersion": str(version)}
    spec = {"backends": [*entries, {"name": "cloud", "provider": {"type": "OpenAI"}}]}
    return {"apiVersion": names.API_VERSION, "kind": names.LLMROUTE, "metadata": metadata, "spec": spec}


@dataclass
class FakeSource:
    """Says that all pods answered."""

    clock: Callable[[], float]
    looks: list[tuple[float, ObjectKey, list[str]]] = field(default_factory=list)
    forgotten: list[ObjectKey] = field(default_factory=list)
    takes_s: float = 0.0
    fails: bool = False
    open: int = 0
    most: int = 0
    is_closed: bool = False

    async def look(self, key: ObjectKey, wish: ScrapeWish, targets: Sequence[Target]) -> Sample:
        self.looks.append((self.clock(), key, [target.name for target in targets]))
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.open -= 1
        if self.fails:
            raise ValueError("a bug")
        return Sample(datetime.now(UTC), 5.0, len(targets), len(targets), running=float(len(self.looks)))

    def forget(self, key: ObjectKey) -> None:
        self.forgotten.append(key)

    async def close(self) -> None:
        self.is_closed = True

    @property
    def times(self) -> list[float]:
        return [at for at, _, _ in self.looks]


class World:
    """A collector on a cache with one ready pod, started."""

    def __init__(self) -> None:
        self.clock = asyncio.get_running_loop().time
        self.cache = Cache()
        self.cache.put(pod("m-1", 1))
        self.source = FakeSource(self.clock)
        self.told: list[ObjectKey] = []
        self.collector = Collector(self.cache, {Source.ENGINE: self.source}, self.told.append, clock=self.clock)
        self.collector.start()


def collected(test: Callable[[World], Any]) -> None:
    """Run a test in fake time, and see that no task outlives the collector."""

    async def run() -> None:
        world = World()
        await test(world)
        await world.collector.close()
        assert world.source.is_closed
        assert not any(task.get_name().startswith("signals") for task in asyncio.all_tasks())

    run_in_fake_time(run)


def test_looks_come_once_in_an_interval_and_each_is_told_of() -> None:
    async def test(world: World) -> None:
        began = world.clock()
        world.collector.watch(KEY, WISH)
        await asyncio.sleep(19.9)
        assert 0 <= world.source.times[0] - began < 5.0
        steps = [late - early for early, late in zip(world.source.times, world.source.times[1:], strict=False)]
        assert len(steps) in (2, 3)
        assert all(abs(step - 5.0) < 1e-6 for step in steps)
        assert world.told == [KEY] * len(world.source.looks)
        assert [sample.running for sample in world.collector.samples(KEY)] == [
            float(n + 1) for n in range(len(world.told))
        ]

    collected(test)


def test_many_are_spread_over_the_interval() -> None:
    async def test(world: World) -> None:
        for number in range(1000):
            name = f"m{number}"
            world.cache.put(pod(f"{name}-1", number + 2, **{names.LABEL_LLMDEPLOYMENT: name}))
            world.collector.watch(ObjectKey(names.LLMDEPLOYMENT, "ml", name), WISH)
        began = world.clock()
        await asyncio.sleep(5.0)
        per_tenth = [0] * 10
        for at in world.source.times:
            per_tenth[min(int((at - began) * 2), 9)] += 1
        assert sum(per_tenth) == 1000
        assert max(per_tenth) < 140

    collected(test)


def test_samples_are_kept_for_as_long_as_they_are_of_use() -> None:
    async def test(world: World) -> None:
        world.collector.watch(KEY, WISH)
        await asyncio.sleep(300)
        assert len(world.collector.samples(KEY)) in (4, 5)
        world.cache.remove(ObjectKey("Pod", "ml", "m-1"), "u-m-1", 2)
        await asyncio.sleep(21)
        assert world.collector.samples(KEY) == (), "also when there is nobody to ask any more"

    collected(test)


def test_only_ready_pods_are_asked_and_none_that_ends() -> None:
    async def test(world: World) -> None:
        world.cache.put(pod("m-2", 2))
        world.cache.put(pod("m-3", 3, ready=False))
        world.cache.put(pod("m-4", 4, ending=True))
        world.cache.put(pod("m-5", 5, address=""))
        world.cache.put(pod("m-6", 6, **{names.LABEL_COMPONENT: "something"}))
        world.cache.put(pod("other-1", 7, **{names.LABEL_LLMDEPLOYMENT: "m-1"}))
        world.collector.watch(KEY, WISH)
        await asyncio.sleep(5)
        assert world.source.looks[0][2] == ["m-1", "m-2"]

    collected(test)


def test_nobody_is_asked_and_nothing_told_without_a_ready_pod() -> None:
    async def test(world: World) -> None:
        world.cache.put(pod("m-1", 2, ready=False))
        world.collector.watch(KEY, WISH)
        await asyncio.sleep(30)
        assert (world.source.looks, world.told, world.collector.samples(KEY)) == ([], [], ())
        world.cache.put(pod("m-1", 3))
        await asyncio.sleep(5)
        assert len(world.collector.samples(KEY)) == 1

    collected(test)


def test_a_slow_look_is_never_overtaken_by_the_next() -> None:
    async def test(world: World) -> None:
        world.source.takes_s = 12.0
        world.collector.watch(KEY, WISH)
        await asyncio.sleep(60)
        assert world.source.most == 1
        assert len(world.source.looks) in (5, 6)

    collected(test)


def test_a_look_that_fails_is_followed_by_others() -> None:
    async def test(world: World) -> None:
        world.source.fails = True
        world.collector.watch(KEY, WISH)
        await asyncio.sleep(10)
        assert (len(world.source.looks), world.told) == (2, [])
        world.source.fails = False
        await asyncio.sleep(5)
        assert len(world.collector.samples(KEY)) == 1

    collected(test)


def test_the_same_wish_again_changes_nothing_and_another_begins_anew() -> None:
    async def test(world: World) -> None:
        world.collector.watch(KEY, WISH)
        await asyncio.sleep(7)
        world.collector.watch(KEY, replace(WISH))
        assert world.collector.samples(KEY) != ()
        assert world.source.forgotten == []
        world.collector.watch(KEY, replace(WISH, port=9000))
        assert world.collector.samples(KEY) == ()
        assert world.source.forgotten == [KEY]

    collected(test)


def test_what_is_forgotten_is_looked_at_no_more_not_even_to_the_end() -> None:
    async def test(world: World) -> None:
        world.source.takes_s = 1.0
        world.collector.watch(KEY, WISH)
        while not world.source.open:
            await asyncio.sleep(0.1)
        world.collector.forget(KEY)
        world.collector.forget(KEY)
        await asyncio.sleep(20)
        assert (len(world.source.looks), world.source.open, world.told) == (1, 0, [])
        assert (world.collector.samples(KEY), len(world.collector)) == ((), 0)

    collected(test)


def test_whoever_does_not_lead_looks_at_nothing() -> None:
    async def test(world: World) -> None:
        world.collector.watch(KEY, WISH)
        await asyncio.sleep(5)
        await world.collector.stop()
        world.collector.watch(KEY, WISH)
        await asyncio.sleep(20)
        assert (len(world.source.looks), world.collector.samples(KEY)) == (1, ())
        world.collector.start()
        await asyncio.sleep(20)
        assert len(world.source.looks) == 1, "the plans of the new term say anew what they want"
        world.collector.watch(KEY, WISH)
        await asyncio.sleep(5)
        assert len(world.collector.samples(KEY)) == 1

    collected(test)


def test_a_source_that_is_not_there_is_not_asked() -> None:
    async def test(world: World) -> None:
        world.collector.watch(KEY, replace(WISH, source=Source.PROMETHEUS))
        assert len(world.collector) == 0

    collected(test)


def test_what_gateways_tell_is_told_of_the_engines_behind_them() -> None:
    async def test(world: World) -> None:
        world.cache.put(pod("m-2", 2))
        world.cache.put(pod("m-3", 3))
        world.cache.put(route("r", 4, small="m"))
        gateways = FakeSource(world.clock)
        collector = Collector(world.cache, {Source.GATEWAY: gateways}, world.told.append, clock=world.clock)
        collector.start()
        collector.watch(KEY, replace(WISH, source=Source.GATEWAY))
        await asyncio.sleep(5)
        assert (gateways.looks, collector.samples(KEY)) == ([], ()), "there is no gateway"
        world.cache.put(gateway_pod("r-gateway-1", 5))
        await asyncio.sleep(5)
        (sample,) = collector.samples(KEY)
        assert (gateways.looks[0][2], sample.asked, sample.answered) == (["r-gateway-1"], 3, 3)
        for number in (1, 2, 3):
            world.cache.put(pod(f"m-{number}", 5 + number, ready=False))
        await asyncio.sleep(10)
        assert len(gateways.looks) == 1, "there is no engine"
        await collector.close()

    collected(test)


@pytest.mark.parametrize(
    ("gateways", "told", "engines", "answered"), [(2, 2, 3, 3), (2, 1, 3, 1), (2, 1, 1, 0), (3, 0, 5, 0), (1, 1, 1, 1)]
)
def test_a_gateway_that_is_silent_is_as_many_engines(gateways: int, told: int, engines: int, answered: int) -> None:
    sample = speak_for(Sample(datetime.now(UTC), 5.0, gateways, told), engines)
    assert (sample.asked, sample.answered) == (engines, answered)


async def test_prometheus_is_a_source_only_where_the_installation_names_one() -> None:
    said = answer('{"status":"success","data":{"resultType":"vector","result":[]}}', JSON_HEAD)
    async with serving_pods(lambda _: said) as prometheus:
        url = f"http://127.0.0.1:{prometheus.port}/prefix"
        config = OperatorConfig(prometheus_url=url, prometheus_headers=("X-Scope-OrgID=a=b",), prometheus_pod_label="p")
        sources = make_sources(config, asyncio.get_running_loop().time)
        sample = await sources[Source.PROMETHEUS].look(KEY, WISH_OF_PROMETHEUS, [Target("m-1", "u", "10.0.0.1")])
        for source in sources.values():
            await source.close()
    assert sample.problem == "none of 1 pods told anything: m-1: Prometheus has no series of it"
    assert "x-scope-orgid: a=b" in prometheus.heads[0]
    assert b"p%3D~%22m-1%22" in prometheus.bodies[0]
    assert set(make_sources(OperatorConfig(), asyncio.get_running_loop().time)) == {Source.ENGINE, Source.GATEWAY}


def test_gateways_are_those_of_routes_that_lead_to_it() -> None:
    cache = Cache()
    cache.put(route("r", 1, small="m", again="m", other="n"))
    cache.put(route("elsewhere", 2, other="n"))
    cache.put(gateway_pod("r-gateway-1", 3))
    cache.put(gateway_pod("elsewhere-gateway-1", 4, "elsewhere"))
    cache.put(pod("m-1", 5))
    carrier = pod("n-1", 6, address="10.0.0.8", **{names.LABEL_LLMDEPLOYMENT: "n", names.LABEL_LLMROUTE: "r"})
    cache.put({**carrier, "spec": {"initContainers": [{"name": "tls"}, {"name": "gateway"}]}})
    targets = Targets(cache)
    called = frozenset({"small", "again"})
    assert targets.find_gateways(KEY) == [
        Target("r-gateway-1", "u-r-gateway-1", "10.0.0.9", backends=called),
        Target("n-1", "u-n-1", "10.0.0.8", is_tls=True, backends=called),
    ]
    cache.put(route("r", 7, renamed="m"))
    assert {target.backends for target in targets.find_gateways(KEY)} == {frozenset({"renamed"})}
    cache.remove(ObjectKey(names.LLMROUTE, "ml", "r"), "u-r", 8)
    assert targets.find_gateways(KEY) == []


def test_routes_that_are_gone_are_not_remembered() -> None:
    cache = Cache()
    targets = Targets(cache)
    cache.put(route("stays", 1, small="m"))
    for number in range(50):
        cache.put(route(f"r-{number}", 2 * number + 2, small="m"))
        targets.find_gateways(KEY)
        cache.remove(ObjectKey(names.LLMROUTE, "ml", f"r-{number}"), f"u-r-{number}", 2 * number + 3)
    targets.find_gateways(KEY)
    assert list(targets._backends) == [ObjectKey(names.LLMROUTE, "ml", "stays")]


def test_pods_with_tls_are_told_from_those_without() -> None:
    cache = Cache()
    cache.put(pod("m-1", 1))
    cache.put({**pod("m-2", 2), "spec": {"initContainers": [{"name": "tls", "restartPolicy": "Always"}]}})
    assert [(one.name, one.is_tls) for one in Targets(cache).find_engines(KEY)] == [("m-1", False), ("m-2", True)]


def test_a_route_that_is_not_valid_leads_nowhere() -> None:
    cache = Cache()
    cache.put({**route("r", 1), "spec": {"backends": [{"name": "x"}, {"deployment": {}}]}})
    cache.put({**route("q", 2), "spec": None})
    assert Targets(cache).find_gateways(KEY) == []
