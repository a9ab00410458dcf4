"""A controller on a small API server that can be made to misbehave, with a planner that a test can direct."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.unit.kube.fake_api import FakeApi, serving

from fairlead.api import names
from fairlead.config import OperatorConfig
from fairlead.facts.observed import ObjectKey, Observed
from fairlead.kube.cache import Cache
from fairlead.kube.client import ApiClient
from fairlead.kube.events import EventRecorder
from fairlead.planning.plan import Child, Delete, Plan, PlannedEvent
from fairlead.runtime.applier import Applier
from fairlead.runtime.controller import Controller
from fairlead.runtime.kinds import Kind, by_name, make_llmdeployment
from fairlead.runtime.metrics import Metrics
from fairlead.runtime.queue import Queue

Json = dict[str, Any]
CRS = "/apis/fairlead.dev/v1alpha1/namespaces/ml/llmdeployments"
SERVICES = "/api/v1/namespaces/ml/services"
DEPLOYMENTS = "/apis/apps/v1/namespaces/ml/deployments"
EVENTS = "/apis/events.k8s.io/v1/namespaces/ml/events"
KEY = ObjectKey(names.LLMDEPLOYMENT, "ml", "m")


def make_child(kind: str, raw: Mapping[str, Any], spec: Json, name: str | None = None) -> Child:
    """A child of the custom resource with this spec."""
    metadata = raw["metadata"]
    name = name or metadata["name"]
    reference = {
        "apiVersion": names.API_VERSION,
        "kind": raw["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }
    body = {
        "apiVersion": "v1" if kind == "Service" else "apps/v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": {
                names.LABEL_MANAGED_BY: names.MANAGED_BY,
                names.OWNER_LABELS[raw["kind"]]: metadata["name"],
            },
            "ownerReferences": [reference],
        },
        "spec": spec,
    }
    return Child.of(
        ObjectKey(kind, metadata["namespace"], name), body, replace_on_immutable=bool(spec.get("replaceable"))
    )


@dataclass
class DirectedPlanner:
    """Plans a Deployment and a Service whose spec is the custom resource's; prunes what it does not plan; tells failures."""

    kinds: tuple[str, ...] = ("Deployment", "Service")
    seen: list[Observed] = field(default_factory=list)
    error: Exception | None = None
    events: tuple[PlannedEvent, ...] = ()
    requeue_after_s: float | None = None

    async def plan(self, raw: Mapping[str, Any], observed: Observed, now: datetime) -> Plan:
        assert now.tzinfo is not None
        self.seen.append(observed)
        if self.error is not None and raw["spec"].get("broken"):
            raise self.error
        children = tuple(make_child(kind, raw, dict(raw["spec"])) for kind in self.kinds)
        planned = {child.key for child in children}
        deletes = tuple(
            Delete(key, live["metadata"]["uid"], live["metadata"]["resourceVersion"])
            for key, live in observed.children.items()
            if key not in planned
        )
        status = {
            "observedGeneration": raw["metadata"]["generation"],
            "conditions": [
                {
                    "type": "Stalled",
                    "status": str(bool(observed.failures)),
                    "reason": observed.failures[0].reason if observed.failures else "NotStalled",
                    "message": "; ".join(failure.message for failure in observed.failures),
                }
            ],
            "pods": len(observed.pods),
        }
        return Plan(children, deletes, status, self.events, requeue_after_s=self.requeue_after_s)

    async def close(self) -> None:
        """Nothing is held."""


@dataclass
class World:
    """Everything under one clock that a test moves."""

    api: FakeApi
    client: ApiClient
    cache: Cache
    queue: Queue[ObjectKey]
    planner: DirectedPlanner
    controller: Controller
    metrics: Metrics
    now: list[float]
    leading: list[bool]
    creatable: list[bool]

    def put_cr(self, name: str = "m", **spec: Any) -> Json:
        """Create or edit a custom resource, and let the cache know."""
        before = self.api.objects.get(f"{CRS}/{name}")
        generation = before["metadata"]["generation"] + 1 if before else 1
        live = self.api.put(
            CRS,
            name,
            apiVersion=names.API_VERSION,
            kind=names.LLMDEPLOYMENT,
            metadata={"generation": generation},
            spec=spec,
            **({"status": before["status"]} if before and "status" in before else {}),
        )
        self.cache.put(live)
        return live

    def sync(self) -> None:
        """Let the cache see what the API server has, as the informers would."""
        for path, live in self.api.objects.items():
            kind = {
                "deployments": "Deployment",
                "services": "Service",
                "llmdeployments": names.LLMDEPLOYMENT,
                "llmroutes": names.LLMROUTE,
            }
            plural = path.split("/")[-2]
            if plural in kind:
                self.cache.put(live, kind[plural])
        for key in [key for kind in ("Deployment", "Service") for key in self.cache.keys(kind)]:
            plural = {"Deployment": DEPLOYMENTS, "Service": SERVICES}[key.kind]
            entry = self.cache.get(key)
            if f"{plural}/{key.name}" not in self.api.objects and entry is not None:
                self.cache.remove(key, entry.uid, self.api.version)

    async def run_pass(self, name: str = "m") -> str:
        """One pass."""
        return await self.controller.run_pass(ObjectKey(names.LLMDEPLOYMENT, "ml", name), {})

    async def settle(self, name: str = "m") -> None:
        """A pass, then one after its change has settled."""
        await self.run_pass(name)
        self.now[0] += 5.0
        await self.run_pass(name)

    def writes(self) -> list[str]:
        """The writes since the last call, without the folder."""
        found = [write.replace("/namespaces/ml", "").rpartition("/v1/")[2] for write in self._fresh()]
        return [write.replace("alpha1/", "") for write in found]

    def _fresh(self) -> list[str]:
        fresh = [f"{path} {method}" for method, path, _ in self.api.requests if method != "GET"]
        self.api.requests.clear()
        return [f"{path.replace('/v1alpha1/', '/v1/')}" for path in fresh]

    def condition(self, name: str = "m") -> Json:
        """The condition as the API server has it."""
        return copy.deepcopy(self.api.objects[f"{CRS}/{name}"]["status"]["conditions"][0])


@asynccontextmanager
async def controlling(planner: DirectedPlanner | None = None, *more: Kind) -> AsyncIterator[World]:
    """A world with nothing in it, where LLMDeployments are worked on, and `more` kinds."""
    api = FakeApi()
    planner = planner or DirectedPlanner()
    now, leading, creatable = [1000.0], [True], [True]
    clock: Callable[[], float] = lambda: now[0]  # noqa: E731
    async with serving(api) as (client, _):
        kinds = by_name(make_llmdeployment(OperatorConfig(), planner), *more)
        cache, metrics = Cache(), Metrics(kinds)
        queue: Queue[ObjectKey] = Queue(jitter=lambda: 1.0, observer=metrics)
        applier = Applier(
            client,
            cache,
            metrics,
            clock=clock,
            may_write=lambda: leading[0],
            may_create=lambda key: creatable[0] and bool(key.namespace and key.name),
        )
        controller = Controller(
            kinds,
            client,
            cache,
            queue,
            applier,
            EventRecorder(client, instance="test", clock=clock),
            metrics,
            clock=clock,
            wall=lambda: datetime(2026, 1, 1, tzinfo=UTC),
            may_write=lambda: leading[0],
            jitter=lambda: 0.5,
        )
        world = World(api, client, cache, queue, planner, controller, metrics, now, leading, creatable)
        try:
            yield world
        finally:
            await controller.stop(0.0)
            await asyncio.sleep(0)
