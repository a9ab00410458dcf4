"""Who hears of what where engine pods carry a gateway, and what of it is read from the cache."""

from __future__ import annotations

from typing import Any

from tests.unit.api.cases import make_resource

from fairlead.api import names
from fairlead.facts.observed import CarriedGateway, ObjectKey
from fairlead.facts.route import Carrier
from fairlead.kube.cache import Cache, Change
from fairlead.runtime.carrying import find_carriers, find_concerned_carriers, find_gateway
from fairlead.runtime.routes import find_concerned_routes

Json = dict[str, Any]
ROUTE = ObjectKey(names.LLMROUTE, "ml", "assistants")


def deployment(name: str, version: int = 1, *, carries: str = "", **more: Any) -> Json:
    spec = {"gateway": {"routeRef": {"name": carries}}} if carries else {}
    metadata = {"name": name, "namespace": "ml", "uid": f"u-{name}", "resourceVersion": str(version)}
    return {**make_resource("vllm", {"spec": {**spec, **more.pop("spec", {})}}), "metadata": metadata, **more}


def route(version: int = 1, *backends: str, mode: str = "Sidecar", **more: Any) -> Json:
    metadata = {"name": "assistants", "namespace": "ml", "uid": "u-r", "resourceVersion": str(version)}
    entries = [{"name": name, "deployment": {"name": name}} for name in backends]
    return {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": names.LLMROUTE,
        "metadata": metadata,
        "spec": {"gateway": {"mode": mode}, "backends": entries},
        **more,
    }


def service(name: str, port: int = 8000, version: int = 1) -> Json:
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": names.LLMDEPLOYMENT,
        "name": name,
        "uid": f"u-{name}",
        "controller": True,
    }
    metadata = {
        "name": f"{name}-pods", "namespace": "ml", "uid": f"s-{name}", "resourceVersion": str(version), "ownerReferences": [owner],
    }  # fmt: skip
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": port}]}}


def pod(version: int = 1, **labels: str) -> Json:
    said = {names.LABEL_LLMDEPLOYMENT: "a", names.LABEL_COMPONENT: "engine", **labels}
    metadata = {"name": "a-1", "namespace": "ml", "uid": "p", "resourceVersion": str(version), "labels": said}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}


def filled() -> Cache:
    cache = Cache()
    for raw in (
        deployment("a", carries="assistants"),
        deployment("b"),
        route(1, "a", "b"),
        service("a"),
        service("b", 8443),
    ):
        cache.put(raw)
    return cache


def carriers(change: Change, cache: Cache) -> set[str]:
    return {key.name for key in find_concerned_carriers(change, cache)}


def routes(change: Change, cache: Cache) -> set[str]:
    return {key.name for key in find_concerned_routes(change, cache)}


def test_a_pod_belongs_to_its_deployment_and_serves_its_route() -> None:
    cache = filled()
    change = cache.put(pod(**{names.LABEL_LLMROUTE: "assistants"}))
    assert change.owners() == {ObjectKey(names.LLMDEPLOYMENT, "ml", "a"), ROUTE}
    assert [entry.key.name for entry in cache.carriers_of(ROUTE)] == ["a", "a-1"]
    assert ROUTE not in {entry.owner for entry in cache.carriers_of(ROUTE)}
    assert list(cache.of_owner(ROUTE)) == []
    change = cache.put(pod(2))
    assert change.owners() == {ObjectKey(names.LLMDEPLOYMENT, "ml", "a"), ROUTE}, "it has to hear that it lost one"
    assert [entry.key.name for entry in cache.carriers_of(ROUTE)] == ["a"]


def test_gateways_of_their_own_carry_nothing() -> None:
    cache = Cache()
    labels = {**names.make_gateway_labels("assistants")}
    raw = pod()
    raw["metadata"]["labels"] = labels
    assert cache.put(raw).owners() == {ROUTE}
    assert list(cache.carriers_of(ROUTE)) == []


def test_a_route_hears_of_those_who_begin_and_cease_to_carry_it() -> None:
    cache = filled()
    assert "assistants" in routes(cache.put(deployment("c", carries="assistants")), cache)
    assert "assistants" in routes(cache.put(deployment("c", 2, spec={"replicas": 2}, carries="assistants")), cache)
    assert "assistants" in routes(cache.put(deployment("c", 3)), cache)
    assert routes(cache.put(deployment("c", 4, spec={"replicas": 3})), cache) == set()
    assert list(cache.carriers_of(ROUTE)) == [cache.get(ObjectKey(names.LLMDEPLOYMENT, "ml", "a"))]


def test_a_route_hears_how_many_replicas_those_who_carry_it_are_scaled_to() -> None:
    cache = filled()
    scaling = {"autoscaling": {"maxReplicas": 8}}

    def put(version: int, replicas: int, **more: Any) -> set[str]:
        status = {"scaling": {"desiredReplicas": replicas}, **more}
        return routes(cache.put(deployment("c", version, spec=scaling, status=status, carries="assistants")), cache)

    assert "assistants" in put(1, 1)
    assert "assistants" in put(2, 3)
    assert put(3, 3, readyReplicas=1) == set()
    assert "assistants" in put(4, 1)
    assert (found := {one.name: one.replicas for one in find_carriers(cache, ROUTE, ())}) == {"a": 1, "c": 1}, found


def test_carriers_hear_of_their_route_and_of_its_deployments() -> None:
    cache = filled()
    assert carriers(cache.put(route(2, "a")), cache) == {"a"}
    assert carriers(cache.put(route(3, "a", status={"gateways": "1/1"})), cache) == set(), (
        "its status is nothing to them"
    )
    assert carriers(cache.put(route(4, "a", "b")), cache) == {"a"}
    assert carriers(cache.put(deployment("b", 2, spec={"networkPolicy": {"mode": "Disabled"}})), cache) == {"a"}
    assert carriers(cache.put(service("b", 9000, 2)), cache) == {"a"}
    assert carriers(cache.put(deployment("d")), cache) == set()
    gone = cache.get(ROUTE)
    assert gone is not None
    assert carriers(cache.remove(ROUTE, gone.uid, 9), cache) == {"a"}


def test_what_each_knows_of_the_other() -> None:
    cache = filled()
    assert find_carriers(cache, ROUTE, ()) == (Carrier("a", 1, is_closed=True),)
    found = find_gateway(cache, deployment("a", carries="assistants"), ())
    assert found == CarriedGateway("assistants", "Sidecar", (("a", 8000), ("b", 8443)))
    cache.put(deployment("b", 2, spec={"networkPolicy": {"mode": "Disabled"}}))
    found = find_gateway(cache, deployment("a", carries="assistants"), ())
    assert found == CarriedGateway("assistants", "Sidecar", (("a", 8000),))
    assert find_gateway(cache, deployment("b"), ()) is None
    assert find_gateway(cache, deployment("a", carries="other"), ()) == CarriedGateway("other")


def test_files_of_a_gateway_are_not_kept_with_the_pods() -> None:
    cache = Cache()
    raw = pod(**{names.LABEL_LLMROUTE: "assistants"})
    raw["metadata"]["annotations"] = {
        f"{names.FILE_ANNOTATION_PREFIX}lds.json": "x" * 100_000,
        names.ANNOTATION_INTERFACE: "2",
    }
    entry = cache.put(raw).after
    assert entry is not None
    assert entry.load()["metadata"]["annotations"] == {names.ANNOTATION_INTERFACE: "2"}
