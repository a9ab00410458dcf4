"""Change load with a ledger: a user who keeps creating, editing and deleting LLMDeployments, and hurting their children.

The ledger has what must be true in the end, from the answers of the API server to the user's own requests alone. Every edit
carries a number that only grows, so that a watch can tell when an object was set back to an older state.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fairlead_cluster.api import DEPLOYMENTS, SERVICES, Api, ApiError, Resource
from fairlead_cluster.api import Json as Json

LLMDEPLOYMENTS = Resource("fairlead.dev", "v1alpha1", "llmdeployments", "LLMDeployment")
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
DISRUPTION_BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
CHILDREN = (DEPLOYMENTS, SERVICES, NETWORK_POLICIES, DISRUPTION_BUDGETS)
#: On the pods (spec.pod.annotations), and on the Service (spec.service.annotations).
EDIT = "test.example/edit"
POPULATION = 10
OPERATIONS_PER_S = 8.0


@dataclass
class Wish:
    """One LLMDeployment as the user last had it answered."""

    uid: str
    replicas: int
    edit: int
    service_edit: int


@dataclass
class Ledger:
    """`alive` by name; what was deleted is not in it. `counts` says what the load consisted of."""

    alive: dict[str, Wish] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    setbacks: list[str] = field(default_factory=list)  # objects that the watch saw go back to an older edit

    def differences(self, state: dict[str, list[Json]]) -> list[str]:
        """What is not yet, or not any more, as it must be. Empty: nothing was lost and nothing is too much."""
        found = {(kind, item["metadata"]["name"]): item for kind, items in state.items() for item in items}
        wrong: list[str] = []
        expected: set[tuple[str, str]] = set()
        for name, wish in self.alive.items():
            expected |= {
                ("Deployment", name), ("Service", name), ("Service", f"{name}-pods"), ("NetworkPolicy", name),
                *({("PodDisruptionBudget", name)} if wish.replicas >= 2 else ()),
            }  # fmt: skip
            wrong += _differences_of(name, wish, found)
        for key in sorted(expected):
            child = found.get(key)
            if child is None:
                wrong.append(f"{key} is missing")
                continue
            owner = (child["metadata"].get("ownerReferences") or [{}])[0].get("uid")
            name = key[1].removesuffix("-pods")
            if owner != self.alive[name].uid:
                wrong.append(f"{key} belongs to {owner}, not to {self.alive[name].uid}")
        children = {key for key in found if key[0] != "LLMDeployment"}
        wrong += [f"{key} is left over" for key in sorted(children - expected)]
        return wrong


def _differences_of(name: str, wish: Wish, found: dict[tuple[str, str], Json]) -> list[str]:
    resource = found.get(("LLMDeployment", name))
    if resource is None:
        return [f"{name} itself is missing"]
    wrong = []
    seen, generation = (resource.get("status") or {}).get("observedGeneration"), resource["metadata"]["generation"]
    if seen != generation:
        wrong.append(f"{name}: status is of generation {seen}, not {generation}")
    if (deployment := found.get(("Deployment", name))) is not None:
        edit = deployment["spec"]["template"]["metadata"].get("annotations", {}).get(EDIT)
        if edit != str(wish.edit):
            wrong.append(f"{name}: the pods are of edit {edit}, not {wish.edit}")
        if deployment["spec"]["replicas"] != wish.replicas:
            wrong.append(f"{name}: {deployment['spec']['replicas']} replicas, not {wish.replicas}")
    if (service := found.get(("Service", name))) is not None:
        edit = service["metadata"].get("annotations", {}).get(EDIT)
        if edit != str(wish.service_edit):
            wrong.append(f"{name}: the Service is of edit {edit}, not {wish.service_edit}")
        if "hurt" in service["spec"]["selector"]:
            wrong.append(f"{name}: the Service's selector is still hurt")
    return wrong


class ChangeLoad:
    """Runs in a thread from `with` to `stop` (or the end of the block); `seed` decides what it does."""

    def __init__(
        self,
        kubeconfig: Path,
        namespace: str,
        *,
        seed: int = 1,
        population: int = POPULATION,
        operations_per_s: float = OPERATIONS_PER_S,
    ) -> None:
        self.ledger = Ledger()
        self._kubeconfig = kubeconfig
        self._namespace = namespace
        self._chance = random.Random(seed)
        self._population = population
        self._pause_s = 1.0 / operations_per_s
        self._edit = 0
        self._made = 0
        self._graves: list[str] = []
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._latest: dict[tuple[str, str], tuple[str, int]] = {}
        self._thread = threading.Thread(target=self._run, name="change load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> Ledger:
        """No more changes; the ledger is final."""
        self._stopping.set()
        self._thread.join(30)
        if self._error is not None:
            raise self._error
        return self.ledger

    def for_s(self, duration_s: float) -> None:
        """Let it work for a while."""
        time.sleep(duration_s)
        if self._error is not None:
            raise self._error

    def state(self) -> dict[str, list[Json]]:
        """All objects of the namespace that the ledger speaks of."""
        return asyncio.run(self._state())

    async def _state(self) -> dict[str, list[Json]]:
        async with Api.from_kubeconfig(self._kubeconfig, user_agent="change-load") as api:
            return {
                resource.kind: await api.list_all(resource, self._namespace) for resource in (LLMDEPLOYMENTS, *CHILDREN)
            }

    def _run(self) -> None:
        try:
            asyncio.run(self._work())
        except BaseException as error:  # noqa: BLE001 - told to whoever waits
            self._error = error

    async def _work(self) -> None:
        async with Api.from_kubeconfig(self._kubeconfig, user_agent="change-load") as api:
            watches = [asyncio.create_task(self._follow(api, resource)) for resource in (DEPLOYMENTS, SERVICES)]
            operations: list[tuple[int, Callable[[Api], Any]]] = [
                (30, self._edit_pods), (15, self._edit_replicas), (15, self._edit_service), (15, self._create),
                (8, self._delete), (9, self._delete_child), (8, self._hurt_service),
            ]  # fmt: skip
            weights = [weight for weight, _ in operations]
            try:
                for _ in range(self._population // 2):
                    await self._create(api)
                while not self._stopping.is_set():
                    ((_, operation),) = self._chance.choices(operations, weights)
                    name = operation.__name__.strip("_")
                    self.ledger.counts[name] = self.ledger.counts.get(name, 0) + 1
                    await operation(api)
                    await asyncio.sleep(self._pause_s * self._chance.uniform(0.3, 1.7))
            finally:
                for watch in watches:
                    watch.cancel()
                await asyncio.gather(*watches, return_exceptions=True)

    async def _create(self, api: Api) -> None:
        if len(self.ledger.alive) >= self._population:
            return
        if self._graves and self._chance.random() < 0.4:  # a successor under the same name
            name = self._graves.pop(self._chance.randrange(len(self._graves)))
        else:
            self._made += 1
            name = f"m{self._made}"
        edit, replicas = self._next(), self._chance.randint(0, 2)
        body = {
            "metadata": {"name": name},
            "spec": {
                "model": {"source": "hf://meta-llama/Llama-3.1-8B-Instruct"},
                "engine": {"type": "vLLM"},
                "accelerator": {"count": 1},
                "replicas": replicas,
                "pod": {"annotations": {EDIT: str(edit)}},
                "service": {"annotations": {EDIT: str(edit)}},
            },
        }
        made = await api.apply(LLMDEPLOYMENTS, body, self._namespace, field_manager="change-load")
        self.ledger.alive[name] = Wish(made["metadata"]["uid"], replicas, edit, edit)

    async def _edit_pods(self, api: Api) -> None:
        if (wish := self._any()) is not None:
            edit = self._next()
            await self._patch(api, wish[0], {"pod": {"annotations": {EDIT: str(edit)}}})
            wish[1].edit = edit

    async def _edit_service(self, api: Api) -> None:
        if (wish := self._any()) is not None:
            edit = self._next()
            await self._patch(api, wish[0], {"service": {"annotations": {EDIT: str(edit)}}})
            wish[1].service_edit = edit

    async def _edit_replicas(self, api: Api) -> None:
        if (wish := self._any()) is not None:
            replicas = self._chance.randint(0, 3)
            await self._patch(api, wish[0], {"replicas": replicas})
            wish[1].replicas = replicas

    async def _delete(self, api: Api) -> None:
        if (wish := self._any()) is not None:
            await api.delete(LLMDEPLOYMENTS, wish[0], self._namespace)
            del self.ledger.alive[wish[0]]
            self._graves.append(wish[0])

    async def _delete_child(self, api: Api) -> None:
        if (wish := self._any()) is not None:
            await api.delete(self._chance.choice(CHILDREN), wish[0], self._namespace)

    async def _hurt_service(self, api: Api) -> None:
        if (wish := self._any()) is not None:
            with contextlib.suppress(ApiError):  # it may not be there yet
                await api.patch(SERVICES, wish[0], {"spec": {"selector": {"hurt": "x"}}}, self._namespace)

    async def _patch(self, api: Api, name: str, spec: Json) -> None:
        await api.patch(LLMDEPLOYMENTS, name, {"spec": spec}, self._namespace)

    def _any(self) -> tuple[str, Wish] | None:
        return self._chance.choice(list(self.ledger.alive.items())) if self.ledger.alive else None

    def _next(self) -> int:
        self._edit += 1
        return self._edit

    async def _follow(self, api: Api, resource: Resource) -> None:
        async with contextlib.aclosing(api.watch(resource, self._namespace)) as events:
            async for event in events:
                if event.type in ("ADDED", "MODIFIED"):
                    self._compare(resource, event.object)

    def _compare(self, resource: Resource, live: Json) -> None:
        metadata = live["metadata"] if resource is SERVICES else live["spec"]["template"]["metadata"]
        edit = (metadata.get("annotations") or {}).get(EDIT)
        if edit is None:
            return
        key, uid = (resource.kind, live["metadata"]["name"]), live["metadata"]["uid"]
        before = self._latest.get(key)
        if before is not None and before[0] == uid and int(edit) < before[1]:
            self.ledger.setbacks.append(f"{key}: from edit {before[1]} back to {edit}")
        self._latest[key] = (uid, int(edit))
