"""The whole operator with two kinds of custom resources: a feed and a watch for each, one queue, and who hears of whose changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable

import pytest
from tests.unit.kube.fake_api import FakeApi
from tests.unit.runtime.second_kind import ROUTES, TinyPlanner, find_concerned, make_kind, put_route, route_key
from tests.unit.runtime.test_main import Running, running, until
from tests.unit.runtime.test_observability import debug, metric, read
from tests.unit.runtime.world import CRS, SERVICES

from fairlead.api import names
from fairlead.facts.observed import ObjectKey
from fairlead.kube.cache import Cache, Change
from fairlead.kube.informer import Selection
from fairlead.kube.resources import CONFIG_MAP


def observed(run: Running, name: str) -> int:
    return int(run.api.objects[f"{ROUTES}/{name}"].get("status", {}).get("observedGeneration", -1))


def targets(run: Running, name: str) -> object:
    return run.api.objects[f"{ROUTES}/{name}"].get("status", {}).get("targets")


def count_lists(run: Running) -> int:
    asked = ((path, query) for _, path, query in run.api.requests if path.endswith("/configmaps"))
    return sum("watch" not in query for _, query in asked)


async def test_both_kinds_are_watched_worked_on_and_told_apart() -> None:
    planner = TinyPlanner()
    api = FakeApi()
    put_route(api, "m", y=1)
    async with running(api, make_kind(planner)) as run:
        run.put_cr("m", x=1)
        await until(lambda: run.has_children("m") and run.observed("m") == 1, "the first kind")
        await until(lambda: f"{SERVICES}/m-gateway" in api.objects and observed(run, "m") == 1, "the second kind")
        put_route(api, "m", y=2)
        await until(lambda: observed(run, "m") == 2, "an edit")
        assert run.operator.health.readiness() == []
        page = await debug(run)
        assert page["cache"] == {"Deployment": 1, "LLMDeployment": 1, "LLMRoute": 1, "Service": 2}
        assert {"llmdeployments", "llmroutes"} <= set(page["streams"])
        assert await metric(run, "controller_runtime_reconcile_total", controller="llmroute", result="success") >= 1
        assert await metric(run, "fairlead_llmroute_condition", type="Stalled", status="False") == 1
        assert await metric(run, "fairlead_llmdeployment_condition", type="Stalled", status="False") == 1
        api.fail(503, method="PATCH", contains="/services", times=10_000)
        put_route(api, "m", y=3)
        run.put_cr("m", x=3)
        await until(lambda: len(run.operator.queue.failures) == 2, "both are in trouble")
        assert set(json.loads(await read(run, "/debug/queue"))["failures"]) == {"ml/m", "LLMRoute ml/m"}
    assert planner.closed


async def test_a_resource_of_the_second_kind_whose_deletion_the_watch_lost_is_found() -> None:
    async with running(None, make_kind(TinyPlanner())) as run:
        for name in ("ghost", "alive"):
            put_route(run.api, name, y=1)
            run.put_cr(name, x=1)
        await until(lambda: observed(run, "ghost") == observed(run, "alive") == 1, "first state")
        run.api.remove(f"{ROUTES}/ghost", tell=False)
        run.api.fail(404, contains="llmroutes", watch=True, times=2)  # for which kopf would end the process
        run.api.expire_watches()
        await until(lambda: run.operator.cache.keys(names.LLMROUTE) == [route_key("alive")], "it is found", 30)
        assert len(run.operator.cache.keys(names.LLMDEPLOYMENT)) == 2
        put_route(run.api, "alive", y=2)
        await until(lambda: observed(run, "alive") == 2, "the watch goes on", 30)


async def test_a_kind_hears_of_what_concerns_it_also_of_what_this_operator_wrote_itself() -> None:
    """No watch brings news of an LLMDeployment's status: it is in the cache since the answer to the write."""
    planner = TinyPlanner()
    async with running(None, make_kind(planner, concerned=find_concerned)) as run:
        planner.cache = run.operator.cache
        put_route(run.api, "r", y=1)
        await until(lambda: targets(run, "r") == {}, "first state")
        run.put_cr("m", x=1)
        await until(lambda: targets(run, "r") == {"m": 1}, "status that was written here")
        run.put_cr("m", x=2)
        await until(lambda: targets(run, "r") == {"m": 2}, "and again")
        run.api.remove(f"{CRS}/m")
        await until(lambda: targets(run, "r") == {}, "its end")
        assert route_key("nobody") not in run.operator.queue.delayed


async def test_a_kind_that_cannot_say_whom_a_change_concerns_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def explode(_: Change, __: Cache) -> Iterable[ObjectKey]:
        raise KeyError("spec")

    async with running(None, make_kind(TinyPlanner(), concerned=explode)) as run:
        run.put_cr("m", x=1)
        await until(lambda: run.has_children("m") and run.observed("m") == 1, "served")
    assert "What a change means for LLMRoutes was not found out" in caplog.text


async def test_a_freed_name_brings_back_whoever_waits_for_it_whatever_its_kind() -> None:
    async with running(None, make_kind(TinyPlanner())) as run:
        run.put_cr("m", x=1)
        await until(lambda: run.has_children("m") and run.observed("m") == 1, "served")
        put_route(run.api, "r", service="m")
        await until(lambda: run.operator.controller.refusing() == {route_key("r")}, "refused")
        run.planner.kinds = ("Deployment",)
        run.put_cr("m", x=2)
        await until(lambda: f"{SERVICES}/m" not in run.api.objects, "pruned")
        foreign = ObjectKey("Service", "ml", "m")
        assert run.operator.cache.get(foreign) is None
        run.api.put(SERVICES, "x", kind="Service", metadata={"labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY}})
        await until(lambda: run.operator.cache.get(ObjectKey("Service", "ml", "x")) is not None, "another object")
        run.api.remove(f"{SERVICES}/x")
        await until(lambda: run.operator.controller.refusing() == set(), "tried again long before its time")
        assert run.api.objects[f"{SERVICES}/m"]["metadata"]["ownerReferences"][0]["kind"] == names.LLMROUTE


async def test_config_maps_as_children_and_as_engines_are_watched_side_by_side() -> None:
    watches = (Selection(CONFIG_MAP, "fairlead-system", names.LABEL_ENGINE),)
    kind = make_kind(TinyPlanner(), children=(CONFIG_MAP,), watches=watches)
    async with running(None, kind, watch_namespaces="fairlead-system,ml") as run:
        await until(lambda: run.operator.health.readiness() == [], "ready")
        labels = {"child": {names.LABEL_MANAGED_BY: names.MANAGED_BY}, "engine": {names.LABEL_ENGINE: "mine"}}
        for name, of in labels.items():
            folder = "/api/v1/namespaces/fairlead-system/configmaps"
            run.api.put(folder, name, apiVersion="v1", kind="ConfigMap", metadata={"labels": of}, data={})
        await until(lambda: len(run.operator.cache.keys("ConfigMap")) == 2, "both")
        run.api.requests.clear()
        run.api.expire_watches()
        await until(lambda: count_lists(run) == 3, "listed again")
        await asyncio.sleep(0.1)
        assert len(run.operator.cache.keys("ConfigMap")) == 2
        named = {name for name in run.operator.streams if name.startswith("configmaps")}
        assert named == {
            "configmaps in ml",
            "configmaps in fairlead-system",
            f"configmaps in fairlead-system ({names.LABEL_MANAGED_BY}={names.MANAGED_BY})",
        }
