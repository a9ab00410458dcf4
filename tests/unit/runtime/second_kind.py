"""A second kind of custom resource beside LLMDeployment, made up for the tests of what the runtime promises to any kind.

It has the name and the labels of LLMRoute, and nothing else of it: its planner plans what its spec says in a few words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from tests.unit.kube.fake_api import FakeApi
from tests.unit.runtime.world import make_child

from fairlead.api import names
from fairlead.facts.observed import ObjectKey, Observed
from fairlead.kube.cache import Cache, Change
from fairlead.kube.resources import LLMROUTE, SERVICE
from fairlead.planning.plan import Delete, Plan, PlannedEvent
from fairlead.runtime.kinds import Kind
from fairlead.runtime.refusals import FieldPaths

Json = dict[str, Any]
ROUTES = "/apis/fairlead.dev/v1alpha1/namespaces/ml/llmroutes"
NO_PATHS: FieldPaths = ()


def route_key(name: str) -> ObjectKey:
    """Of a resource of the second kind."""
    return ObjectKey(names.LLMROUTE, "ml", name)


def put_route(api: FakeApi, name: str, **spec: Any) -> Json:
    """Create or edit one. `service`: the name of the Service that it plans, else `<name>-gateway`."""
    before = api.objects.get(f"{ROUTES}/{name}", {})
    generation = before.get("metadata", {}).get("generation", 0) + 1
    kept = {"status": before["status"]} if "status" in before else {}
    return api.put(
        ROUTES,
        name,
        apiVersion=names.API_VERSION,
        kind=names.LLMROUTE,
        metadata={"generation": generation},
        spec=spec,
        **kept,
    )


@dataclass
class TinyPlanner:
    """Plans one Service, prunes whatever else it sees, and tells the first failure. `look`: what else status should say."""

    seen: list[Observed] = field(default_factory=list)
    events: tuple[PlannedEvent, ...] = ()
    cache: Cache | None = None
    closed: bool = False

    async def plan(self, raw: Mapping[str, Any], observed: Observed, now: datetime) -> Plan:
        assert now.tzinfo is not None
        self.seen.append(observed)
        name = raw["metadata"]["name"]
        child = make_child("Service", raw, dict(raw["spec"]), raw["spec"].get("service", f"{name}-gateway"))
        deletes = tuple(
            Delete(key, live["metadata"]["uid"], live["metadata"]["resourceVersion"])
            for key, live in observed.children.items()
            if key != child.key
        )
        failure = observed.failures[0] if observed.failures else None
        status = {
            "observedGeneration": raw["metadata"]["generation"],
            "conditions": [
                {
                    "type": "Stalled",
                    "status": str(failure is not None),
                    "reason": failure.reason if failure else "NotStalled",
                    "message": failure.message if failure else "",
                }
            ],
            "targets": self._read_targets(),
        }
        return Plan((child,), deletes, status, self.events)

    def _read_targets(self) -> Json:
        if self.cache is None:
            return {}
        entries = [self.cache.get(key) for key in self.cache.keys(names.LLMDEPLOYMENT)]
        found = {entry.key.name: entry.load() for entry in entries if entry is not None}
        return {name: (live.get("status") or {}).get("observedGeneration", -1) for name, live in found.items()}

    async def close(self) -> None:
        self.closed = True


def describe_taken(key: ObjectKey, live: Mapping[str, Any]) -> str:
    """In the second kind's own words."""
    return f"{key} is taken, uid {live['metadata']['uid']}. Next: rename this route."


def find_concerned(change: Change, cache: Cache) -> Iterable[ObjectKey]:
    """All of them, when an LLMDeployment changed; and one that does not exist."""
    entry = change.after or change.before
    if entry is None or entry.key.kind != names.LLMDEPLOYMENT:
        return ()
    return [*cache.keys(names.LLMROUTE, entry.key.namespace), route_key("nobody")]


def make_kind(planner: TinyPlanner, **more: Any) -> Kind:
    """Its row."""
    kind = Kind(
        resource=LLMROUTE,
        field_manager=names.FIELD_MANAGER_LLMROUTE,
        planner=planner,
        children=(SERVICE,),
        describe_taken=describe_taken,
        paths=NO_PATHS,
    )
    return replace(kind, **more)
