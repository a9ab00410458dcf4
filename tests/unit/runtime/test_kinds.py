"""Two kinds of custom resources in one runtime: what is of the one is never the other's, though their names are the same."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.runtime.second_kind import ROUTES, TinyPlanner, make_kind, put_route, route_key
from tests.unit.runtime.world import CRS, DEPLOYMENTS, EVENTS, SERVICES, DirectedPlanner, World, controlling

from fairlead.api import names
from fairlead.config import OperatorConfig
from fairlead.errors import TooManyRequests
from fairlead.facts.observed import ObjectKey
from fairlead.kube.cache import Cache
from fairlead.kube.client import ApiClient
from fairlead.kube.resources import BY_KIND, CONFIG_MAP, LLMDEPLOYMENT
from fairlead.kube.session import Connection
from fairlead.planning.plan import PlannedEvent
from fairlead.runtime.kinds import by_name, describe_key, find_concerned_llmdeployments, make_kinds, make_llmdeployment
from fairlead.runtime.leftbehind import TOLD_AFTER_S

Json = dict[str, Any]
A = ObjectKey(names.LLMDEPLOYMENT, "ml", "a")


async def settle_route(world: World, name: str) -> str:
    """A pass over one of the second kind, and one when its change has settled."""
    await world.controller.run_pass(route_key(name), {})
    world.now[0] += 5.0
    return await world.controller.run_pass(route_key(name), {})


def put(world: World, name: str, **spec: Any) -> Json:
    live = put_route(world.api, name, **spec)
    world.cache.put(live)
    return live


def managers(world: World) -> dict[str, set[str]]:
    """Who wrote what, by the last part of its path but for the name."""
    found: dict[str, set[str]] = {}
    for method, path, query in world.api.requests:
        if method == "PATCH":
            found.setdefault(path.partition("/namespaces/ml/")[2], set()).add(query["fieldManager"])
    return found


async def test_children_of_two_resources_of_one_name_do_not_mix() -> None:
    planner = TinyPlanner()
    async with controlling(None, make_kind(planner)) as world:
        world.put_cr("a", x=1)
        put(world, "a", y=1)
        await world.settle("a")
        await settle_route(world, "a")
        mine = {"Deployment/a", "Service/a"}
        assert {str(entry.key) for entry in world.cache.of_owner(A)} == mine
        assert {str(entry.key) for entry in world.cache.of_owner(route_key("a"))} == {"Service/a-gateway"}
        assert {str(key) for key in world.planner.seen[-1].children} == mine
        assert {str(key) for key in planner.seen[-1].children} == {"Service/a-gateway"}
        world.api.requests.clear()
        await world.settle("a")
        await settle_route(world, "a")
        assert world.writes() == [], "neither prunes or heals what is the other's"
        assert world.cache.get(ObjectKey("Service", "ml", "a-gateway")) is not None


async def test_each_kind_writes_under_its_own_name_and_status_to_its_own_resource() -> None:
    async with controlling(None, make_kind(TinyPlanner())) as world:
        world.put_cr("a", x=1)
        put(world, "a", y=1)
        await world.settle("a")
        await settle_route(world, "a")
        ours, theirs = {"fairlead-llmdeployment"}, {"fairlead-llmroute"}
        assert managers(world) == {
            "deployments/a": ours,
            "services/a": ours,
            "llmdeployments/a/status": ours,
            "services/a-gateway": theirs,
            "llmroutes/a/status": theirs,
        }
        route, deployment = world.api.objects[f"{ROUTES}/a"], world.api.objects[f"{CRS}/a"]
        assert route["status"]["targets"] == {}
        assert route["kind"] == names.LLMROUTE
        assert "pods" in deployment["status"]
        assert "targets" not in deployment["status"]


async def test_events_regard_the_right_kind() -> None:
    planner = TinyPlanner(events=(PlannedEvent("Normal", "Routed", "it is"),))
    async with controlling(None, make_kind(planner)) as world:
        world.planner.events = (PlannedEvent("Normal", "Serving", "it does"),)
        uids = {names.LLMDEPLOYMENT: world.put_cr("a", x=1), names.LLMROUTE: put(world, "a", y=1)}
        await world.settle("a")
        await settle_route(world, "a")
        told = {
            live["reason"]: live["regarding"] for path, live in world.api.objects.items() if path.startswith(EVENTS)
        }
        assert set(told) == {"Serving", "Routed"}
        for reason, kind in (("Serving", names.LLMDEPLOYMENT), ("Routed", names.LLMROUTE)):
            assert (told[reason]["kind"], told[reason]["apiVersion"]) == (kind, names.API_VERSION)
            assert told[reason]["uid"] == uids[kind]["metadata"]["uid"]


async def test_a_name_that_a_child_of_the_other_kind_has_is_taken_and_told_in_the_words_of_the_kind() -> None:
    planner = TinyPlanner()
    async with controlling(None, make_kind(planner)) as world:
        world.put_cr("a", x=1)
        await world.settle("a")
        service = dict(world.api.objects[f"{SERVICES}/a"])
        put(world, "a", service="a")
        assert await settle_route(world, "a") == "requeue_after"
        condition = world.api.objects[f"{ROUTES}/a"]["status"]["conditions"][0]
        assert condition["reason"] == "NameConflict"
        assert condition["message"] == f"Service/a is taken, uid {service['metadata']['uid']}. Next: rename this route."
        assert world.api.objects[f"{SERVICES}/a"] == service, "left alone"
        assert world.condition("a")["reason"] == "NotStalled"
        assert world.controller.refusing() == {route_key("a")}


async def test_who_comes_first_keeps_a_name_whatever_its_kind_and_cache() -> None:
    """The other way round, and without the cache: the API server is asked, and says that there is one."""
    async with controlling(None, make_kind(TinyPlanner())) as world:
        put(world, "b", service="a")
        await settle_route(world, "b")
        entry = world.cache.get(ObjectKey("Service", "ml", "a"))
        assert entry is not None
        world.cache.remove(entry.key, entry.uid, entry.resource_version)
        world.put_cr("a", x=1)
        await world.settle("a")
        assert world.condition("a")["reason"] == "NameConflict"
        assert "belongs to LLMRoute/b" in world.condition("a")["message"]
        assert "rename this LLMDeployment" in world.condition("a")["message"]
        assert f"{DEPLOYMENTS}/a" in world.api.objects, "its other child is made all the same"


async def test_a_child_of_an_earlier_resource_is_left_behind_for_its_own_kind_only() -> None:
    planner = TinyPlanner()
    async with controlling(DirectedPlanner(kinds=("Service",)), make_kind(planner)) as world:
        old = put(world, "a", service="a")
        await settle_route(world, "a")
        world.api.remove(f"{ROUTES}/a")
        world.cache.remove(route_key("a"), old["metadata"]["uid"], world.api.version)
        put(world, "a", service="a")
        await settle_route(world, "a")
        route = world.api.objects[f"{ROUTES}/a"]
        assert route["status"]["conditions"][0]["reason"] == "NotStalled", "it will pass"
        assert [key for key, _ in world.controller.left_behind()] == [route_key("a")]
        assert planner.seen[-1].children == {}
        world.put_cr("a", x=1)
        await world.settle("a")
        assert world.condition("a")["reason"] == "NameConflict", "it is nothing that an LLMDeployment left behind"
        world.now[0] += TOLD_AFTER_S
        await settle_route(world, "a")
        condition = world.api.objects[f"{ROUTES}/a"]["status"]["conditions"][0]
        assert condition["reason"] == "WaitingForDeletion"
        assert "of an earlier LLMRoute of this name" in condition["message"]


async def test_a_resource_of_the_other_kind_that_is_gone_stops_nobody() -> None:
    async with controlling(None, make_kind(TinyPlanner())) as world:
        route = put(world, "a", y=1)
        world.put_cr("a", x=1)
        world.api.remove(f"{ROUTES}/a")
        world.cache.remove(route_key("a"), route["metadata"]["uid"], world.api.version)
        assert await world.controller.run_pass(route_key("a"), {}) == "success"
        await world.settle("a")
        assert f"{SERVICES}/a" in world.api.objects
        assert f"{SERVICES}/a-gateway" not in world.api.objects


async def test_a_leader_begins_with_the_resources_of_every_kind() -> None:
    async with controlling(None, make_kind(TinyPlanner())) as world:
        world.put_cr("a", x=1)
        put(world, "a", y=1)
        world.controller.start(1)
        assert len(world.queue) == 2
        await world.controller.stop(0.0)


async def test_what_one_crd_does_not_declare_is_left_out_of_the_others_status_no_more_than_before() -> None:
    undeclared = (
        "failed to create typed patch object (ml/a; …): .status.observedGeneration: field not declared in schema"
    )
    async with controlling(None, make_kind(TinyPlanner())) as world:
        world.put_cr("a", x=1)
        put(world, "a", y=1)
        world.api.fail(500, contains="llmroutes/a/status", message=undeclared)
        await settle_route(world, "a")
        await world.settle("a")
        assert "observedGeneration" not in world.api.objects[f"{ROUTES}/a"]["status"]
        assert world.api.objects[f"{CRS}/a"]["status"]["observedGeneration"] == 1


async def test_a_refusal_is_told_in_the_terms_of_the_kind() -> None:
    details = {"causes": [{"field": "spec.ports[0].nodePort", "message": "taken"}]}
    planner = TinyPlanner()
    async with controlling(None, make_kind(planner)) as world:
        world.put_cr("a", x=1)
        put(world, "a", y=1)
        world.api.fail(422, times=4, method="PATCH", contains="/services", details=details)
        await world.run_pass("a")
        await settle_route(world, "a")
        assert [failure.path for failure in world.planner.seen[-1].failures] == ["spec.service.port"]
        assert [failure.path for failure in planner.seen[-1].failures] == ["Service spec.ports[0].nodePort"]


async def test_a_plan_that_could_not_be_made_for_want_of_an_answer_is_tried_again_and_is_no_bug() -> None:
    class Unlucky(TinyPlanner):
        async def plan(self, raw: Any, observed: Any, now: Any) -> Any:
            if not self.seen:
                self.seen.append(observed)
                raise TooManyRequests("later", retry_after_s=3.0)
            return await super().plan(raw, observed, now)

    async with controlling(None, make_kind(Unlucky())) as world:
        put(world, "a", y=1)
        await world.controller._guarded_pass(route_key("a"))
        assert world.queue.delayed[route_key("a")] >= 2.9, "as the server asked"
        assert "TooManyRequests" in world.controller.troubles.describe(1)["LLMRoute ml/a"]["error"]
        passes = world.metrics.passes[names.LLMROUTE]
        assert (passes.errors._value.get(), passes.panics._value.get()) == (1, 0)
        assert world.writes() == []
        await world.controller._guarded_pass(route_key("a"))
        assert world.controller.troubles.describe(1) == {}
        assert world.writes() == ["services/a-gateway PATCH"]


def test_every_row_of_the_table_is_known_to_the_cache_and_has_a_name_of_its_own() -> None:
    kinds = make_kinds(OperatorConfig(), Cache(), ApiClient(Connection(server="http://nowhere")))
    assert set(kinds) == {names.LLMDEPLOYMENT, names.LLMROUTE}
    more = list(kinds.values())
    assert len({kind.field_manager for kind in more}) == len({kind.label for kind in more}) == len(more)
    for kind in more:
        assert BY_KIND[kind.name] is kind.resource
        assert kind.label == names.OWNER_LABELS[kind.name]
    assert by_name(*more)[names.LLMROUTE].name == names.LLMROUTE


def test_keys_on_pages_say_the_kind_where_it_is_not_the_first_one() -> None:
    assert describe_key(A) == "ml/a"
    assert describe_key(route_key("a")) == "LLMRoute ml/a"


# whom a change concerns -----------------------------------------------------------------------------------------------


def config_map(labels: dict[str, str], namespace: str = "fairlead-system", version: int = 1) -> Json:
    metadata = {"name": "c", "namespace": namespace, "uid": "u", "resourceVersion": str(version), "labels": labels}
    return {"apiVersion": "v1", "kind": CONFIG_MAP.kind, "metadata": metadata, "data": {}}


def llmdeployment(name: str, engine: str | None) -> Json:
    metadata = {"name": name, "namespace": "ml", "uid": name, "resourceVersion": "1"}
    spec = {"engine": {"type": engine}} if engine else {}
    return {"apiVersion": names.API_VERSION, "kind": LLMDEPLOYMENT.kind, "metadata": metadata, "spec": spec}


def filled() -> Cache:
    cache = Cache()
    for name, engine in (("a", "mine"), ("b", "other"), ("c", None)):
        cache.put(llmdeployment(name, engine))
    return cache


def concerned(change: Any, cache: Cache) -> set[str]:
    kind = make_llmdeployment(OperatorConfig(), DirectedPlanner())
    assert all(key.kind == names.LLMDEPLOYMENT for key in kind.concerned(change, cache))
    return {key.name for key in kind.concerned(change, cache)}


def test_an_engines_config_map_concerns_those_who_use_the_engine_that_it_had_or_has() -> None:
    cache = filled()
    assert concerned(cache.put(config_map({names.LABEL_ENGINE: "mine"})), cache) == {"a"}
    assert concerned(cache.put(config_map({names.LABEL_ENGINE: "other"}, version=2)), cache) == {"a", "b"}
    entry = cache.get(ObjectKey("ConfigMap", "fairlead-system", "c"))
    assert entry is not None
    assert concerned(cache.remove(entry.key, entry.uid, 3), cache) == {"b"}


@pytest.mark.parametrize(
    ("name", "namespace", "whom"),
    [("fairlead-ca", "fairlead-system", {"d"}), ("fairlead-ca", "ml", set()), ("other", "fairlead-system", set())],
)
def test_the_authority_concerns_those_who_have_certificates_by_it(name: str, namespace: str, whom: set[str]) -> None:
    cache = filled()
    for issued, encryption in (("d", {}), ("e", {"certificate": {"secretName": "own"}})):
        resource = llmdeployment(issued, "mine")
        resource["spec"]["encryption"] = encryption
        cache.put(resource)
    metadata = {"name": name, "namespace": namespace, "uid": "s", "resourceVersion": "1"}
    assert concerned(cache.put({"kind": "PartialObjectMetadata", "metadata": metadata}, "Secret"), cache) == whom
    gone = concerned(cache.remove(ObjectKey("Secret", namespace, name), "s", 2), cache)
    assert gone - {name} == whom


@pytest.mark.parametrize(("labels", "namespace"), [({}, "fairlead-system"), ({names.LABEL_ENGINE: "mine"}, "ml")])
def test_no_other_config_map_concerns_any(labels: dict[str, str], namespace: str) -> None:
    cache = filled()
    assert concerned(cache.put(config_map(labels, namespace)), cache) == set()


def test_a_name_that_is_free_concerns_those_who_could_plan_it() -> None:
    cache = filled()
    metadata = {"name": "a-pods", "namespace": "ml", "uid": "s", "resourceVersion": "1"}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {}}
    assert concerned(cache.put(service), cache) == set()
    assert concerned(cache.remove(ObjectKey("Service", "ml", "a-pods"), "s", 2), cache) == {"a-pods", "a"}
    cache.put({**service, "kind": "Secret", "metadata": {**metadata, "name": "a-pods-tls"}})
    assert concerned(cache.remove(ObjectKey("Secret", "ml", "a-pods-tls"), "s", 2), cache) == {"a-pods-tls", "a"}
    assert concerned(cache.remove(ObjectKey(names.LLMDEPLOYMENT, "ml", "a"), "a", 2), cache) == set()
    nothing = cache.remove(ObjectKey("Service", "ml", "never"), "s", 2)
    assert list(find_concerned_llmdeployments("fairlead-system", nothing, cache)) == []
