"""The whole operator in one loop, with kopf, against an API server that misbehaves: start, faults, ghosts, leadership, end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from tests.unit.kube.fake_api import FakeApi, serving
from tests.unit.runtime.world import CRS, DEPLOYMENTS, SERVICES, DirectedPlanner

from fairlead.api import names
from fairlead.config import make_config
from fairlead.facts.observed import ObjectKey
from fairlead.facts.scaling import ScrapeWish
from fairlead.kube.session import Connection
from fairlead.runtime.kinds import Kind, by_name, make_llmdeployment
from fairlead.runtime.main import Operator
from fairlead.sources.held import Take

LEASE = "/apis/coordination.k8s.io/v1/namespaces/fairlead-system/leases/fairlead"


async def until(condition: Callable[[], Any], what: str, limit_s: float = 10.0) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + limit_s
    while not condition():
        assert loop.time() < end, f"not in {limit_s} s: {what}"
        await asyncio.sleep(0.01)


class Running:
    """An operator and its API server."""

    def __init__(self, api: FakeApi, operator: Operator, planner: DirectedPlanner) -> None:
        self.api, self.operator, self.planner = api, operator, planner
        self.task = asyncio.create_task(operator.run())

    def put_cr(self, name: str, **spec: Any) -> None:
        before = self.api.objects.get(f"{CRS}/{name}", {})
        content: dict[str, Any] = {"apiVersion": names.API_VERSION, "kind": names.LLMDEPLOYMENT, "spec": spec}
        generation = before.get("metadata", {}).get("generation", 0) + 1
        if "status" in before:
            content["status"] = before["status"]
        self.api.put(CRS, name, metadata={"generation": generation}, **content)

    def has_children(self, *wanted: str) -> bool:
        return all(f"{folder}/{name}" in self.api.objects for folder in (DEPLOYMENTS, SERVICES) for name in wanted)

    def observed(self, name: str) -> int:
        return int(self.api.objects[f"{CRS}/{name}"].get("status", {}).get("observedGeneration", -1))


@asynccontextmanager
async def running(api: FakeApi | None = None, *more: Kind, **flags: Any) -> AsyncIterator[Running]:
    """Runs until the block ends; the operator must then end cleanly and leave no task behind."""
    api = api or FakeApi()
    async with serving(api) as (_, served):
        tasks_before = asyncio.all_tasks()
        planner = DirectedPlanner()
        config = make_config({"metrics_address": "127.0.0.1", "metrics_port": 0, "leader_elect": False} | flags, {})
        operator = Operator(
            config, Connection(server=served.server), lambda *_: by_name(make_llmdeployment(config, planner), *more)
        )
        run = Running(api, operator, planner)
        try:
            yield run
        finally:
            operator.stop()
            await asyncio.wait({run.task}, timeout=15)
            assert run.task.done(), "the operator does not stop"
        error = run.task.exception()
        if error is not None:
            raise error
        await asyncio.sleep(0.05)
        ours = [t for t in asyncio.all_tasks() - tasks_before if "web" not in repr(t.get_coro()).lower()]
        assert [task for task in ours if task is not run.task] == []


async def test_from_a_resource_to_children_and_status_and_a_clean_end() -> None:
    async with running() as run:
        run.put_cr("before", x=1)
        await until(lambda: run.has_children("before"), "children of what was there before")
        run.put_cr("after", x=1)
        await until(lambda: run.has_children("after"), "children of what came later")
        await until(lambda: run.observed("before") == run.observed("after") == 1, "status")
        assert run.operator.health.readiness() == []
        assert run.operator.health.liveness() == []
        writes = run.api.writes()
        assert len(writes) == 6, writes


async def test_edits_drift_and_deletion() -> None:
    async with running() as run:
        run.put_cr("m", x=1)
        await until(lambda: run.has_children("m") and run.observed("m") == 1, "first state")
        run.put_cr("m", x=2)
        await until(lambda: run.api.objects[f"{SERVICES}/m"]["spec"] == {"x": 2} and run.observed("m") == 2, "edit")
        run.api.put(SERVICES, "m", **{**run.api.objects[f"{SERVICES}/m"], "spec": {"x": 9}})
        await until(lambda: run.api.objects[f"{SERVICES}/m"]["spec"] == {"x": 2}, "drift healed")
        run.api.remove(f"{DEPLOYMENTS}/m")
        await until(lambda: run.has_children("m"), "deletion healed")
        run.api.remove(f"{CRS}/m")
        await until(lambda: run.operator.cache.keys(names.LLMDEPLOYMENT) == [], "forgotten")
        run.api.remove(f"{SERVICES}/m")
        await asyncio.sleep(0.3)
        assert f"{SERVICES}/m" not in run.api.objects


async def test_a_deletion_that_the_watch_lost_is_found_and_nothing_is_made_for_the_ghost() -> None:
    async with running() as run:
        everybody = ("ghost", "childless", "alive")
        for name in everybody:
            run.put_cr(name, x=1)
        await until(lambda: run.has_children(*everybody), "children")
        await until(lambda: all(run.observed(name) == 1 for name in everybody), "first state")
        run.api.remove(f"{CRS}/ghost", tell=False)
        run.api.remove(f"{CRS}/childless", tell=False)
        run.api.remove(f"{SERVICES}/childless", tell=False)  # as the garbage collector does
        run.api.expire_watches()
        await until(lambda: run.operator.metrics.ghosts_purged._value.get() == 1, "the ghost is found")
        assert [key.name for key in run.operator.cache.keys(names.LLMDEPLOYMENT)] == ["alive"]
        await asyncio.sleep(0.2)
        assert f"{SERVICES}/childless" not in run.api.objects
        run.put_cr("alive", x=2)
        await until(lambda: run.api.objects[f"{SERVICES}/alive"]["spec"] == {"x": 2}, "the watch goes on")


@pytest.mark.parametrize("code", [403, 429, 500, 503])
async def test_an_outage_ends_nothing(code: int) -> None:
    async with running() as run:
        run.put_cr("m", x=1)
        await until(lambda: run.has_children("m") and run.observed("m") == 1, "first state")
        run.api.fail(code, times=12)
        run.api.send_raw(None)
        run.put_cr("n", x=1)
        await until(lambda: run.has_children("n"), "work goes on after the outage", 30)
        assert not run.task.done()


async def test_what_kopf_would_end_the_process_for_ends_nothing_and_cuts_nobody_elses_streams() -> None:
    """A 401 and the 404 of a CRD that is removed for a moment, for the watch; in the stream an error that is not 410, and a cut line."""
    async with running() as run:
        run.put_cr("m", x=1)
        await until(lambda: run.has_children("m") and run.observed("m") == 1, "first state")
        first = run.operator.connection.session
        error = {"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "etcdserver: no leader"}}
        for number, line in enumerate((None, None, orjson.dumps(error) + b"\n", b'{"type": "MODI')):
            run.api.fail((401, 404, 401, 404)[number], contains="llmdeployments", watch=True, times=2)
            run.api.send_raw(line)
            run.api.send_raw(None)
            run.put_cr(f"n{number}", x=1)
            await until(lambda number=number: run.has_children(f"n{number}"), f"work goes on after {line!r}", 60)
        assert run.operator.connection.session is first
        assert not first.closed
        assert not run.task.done()


async def test_a_server_that_ends_each_watch_at_once_is_not_asked_without_pause() -> None:
    async with running() as run:
        run.put_cr("m", x=1)
        await until(lambda: run.has_children("m"), "first state")
        run.api.requests.clear()
        began = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < began + 3.0:
            run.api.send_raw(None)
            await asyncio.sleep(0.02)
        watches = [path for _, path, query in run.api.requests if path.endswith("/llmdeployments") and "watch" in query]
        assert 1 <= len(watches) <= 5


async def test_a_page_that_expired_begins_the_list_anew() -> None:
    api = FakeApi()
    api.page_size = 1
    for name in ("a", "b", "c"):
        api.put(CRS, name, apiVersion=names.API_VERSION, kind=names.LLMDEPLOYMENT, spec={"x": 1})
    async with running(api) as run:
        await until(lambda: run.has_children("a", "b", "c"), "first state")
        run.api.fail(410, contains="llmdeployments", watch=False, times=2)
        run.api.expire_watches()
        run.put_cr("d", x=1)
        await until(lambda: run.has_children("d"), "work goes on", 30)


async def test_a_leader_that_loses_its_lease_stops_writing_and_works_again_when_it_has_it_back() -> None:
    async with running(leader_elect=True, lease_duration_s=1.0, renew_deadline_s=0.6, retry_period_s=0.1) as run:
        await until(lambda: run.operator.controller.is_working, "leads")
        run.put_cr("m", x=1)
        await until(lambda: run.has_children("m"), "works")
        run.operator.signals.watch(ObjectKey(names.LLMDEPLOYMENT, "ml", "m"), ScrapeWish("/metrics", 8000))
        assert len(run.operator.signals) == 1
        run.api.fail(500, contains="/leases", times=10_000)
        await until(lambda: not run.operator.controller.is_working, "stops")
        await until(lambda: not run.operator.signals.is_running, "looks at nothing")
        assert len(run.operator.signals) == 0
        run.put_cr("n", x=1)
        await asyncio.sleep(0.3)
        assert not run.has_children("n")
        run.api.faults.clear()
        await until(lambda: run.has_children("n"), "works again")
        assert run.operator.signals.is_running
    assert run.api.objects[LEASE]["spec"]["holderIdentity"] == "", "released at the end"


async def test_a_standby_keeps_its_caches_warm_and_writes_nothing() -> None:
    api = FakeApi()
    api.put(
        "/apis/coordination.k8s.io/v1/namespaces/fairlead-system/leases",
        "fairlead",
        spec={"holderIdentity": "somebody", "leaseDurationSeconds": 3600},
    )
    async with running(api, leader_elect=True) as run:
        run.put_cr("m", x=1)
        await until(lambda: len(run.operator.cache) == 1, "the cache knows it")
        await until(lambda: run.operator.health.readiness() == [], "ready")
        await asyncio.sleep(0.2)
        assert api.writes() == []
        assert len(run.operator.queue) == 0
    assert api.objects[LEASE]["spec"]["holderIdentity"] == "somebody"


class Gateway:
    """Of whom the operator asks for whom requests wait."""

    waiting = 0

    async def ask(self, addresses: Collection[str], take: Take) -> None:
        stat = {"name": "cluster.to~6d.0a1b2c3d-44556677.local.local.upstream_rq_active", "value": self.waiting}
        for address in addresses:
            take(address, {"stats": [stat]})

    async def close(self) -> None:
        """Nothing is held."""


async def test_requests_that_wait_at_a_gateway_bring_a_pass_that_knows_their_number() -> None:
    async with running() as run:
        gateway = run.operator.waker._source = Gateway()
        run.put_cr("m", autoscaling={"minReplicas": 0, "maxReplicas": 2})
        await until(lambda: run.observed("m") == 1, "first state")
        namespace = run.operator.cache.keys(names.LLMDEPLOYMENT)[0].namespace
        route = {"backends": [{"name": "local", "deployment": {"name": "m"}}]}
        labels = {names.LABEL_COMPONENT: names.COMPONENT_GATEWAY, names.LABEL_LLMROUTE: "r"}
        about = {"namespace": namespace, "resourceVersion": "7"}
        run.operator.cache.put({"metadata": {**about, "name": "r", "uid": "r"}, "spec": route}, names.LLMROUTE)
        pod = {"metadata": {**about, "name": "g", "uid": "g", "labels": labels}, "status": {"podIP": "127.0.0.9"}}
        run.operator.cache.put(pod, "Pod")
        await until(lambda: run.operator.waker.held(ObjectKey(names.LLMDEPLOYMENT, namespace, "m")) == 0, "asked")
        gateway.waiting = 3
        await until(lambda: run.planner.seen[-1].signals.held == 3, "a pass")


async def test_a_worker_that_dies_ends_the_process_instead_of_leaving_it_lame() -> None:
    def explode(key: object) -> None:
        raise RuntimeError("impossible")

    async def lame() -> None:
        async with running() as run:
            await until(lambda: run.operator.controller.is_working, "works")
            run.operator.queue.done = explode  # type: ignore[method-assign]
            run.put_cr("m", x=1)
            await until(run.task.done, "ended")

    with pytest.raises(RuntimeError, match="a worker died"):
        await lame()


async def test_only_the_watched_namespaces_are_asked() -> None:
    async with running(watch_namespaces="ml") as run:
        run.put_cr("m", x=1)
        await until(lambda: run.has_children("m"), "children")
        asked = {path for _, path, _ in run.api.requests if "/namespaces/" not in path and path.count("/") > 3}
        assert asked == set(), "nothing of the whole cluster"


async def test_stop_before_the_crd_exists() -> None:
    api = FakeApi()
    api.fail(404, contains="llmdeployments", times=1000)
    async with running(api) as run:
        await until(lambda: any("llmdeployments" in path for _, path, _ in api.requests), "asked")
        assert run.operator.health.readiness() != []
