"""For whom requests wait: gateways are asked each second while a deployment that wakes for requests has no ready pod.

Only what may have to wake costs anything: which deployments those are is read anew only when an object has changed, and only the gateways
of routes that name one are asked. Nothing is decided here; whoever decides is told at once, and asks `held`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from fairlead.api.names import COMPONENT_GATEWAY, LABEL_COMPONENT
from fairlead.facts.observed import ObjectKey
from fairlead.gateway.envoy.loaded import Held, read_held
from fairlead.kube.cache import Cache, Entry
from fairlead.kube.resources import LLMDEPLOYMENT, LLMROUTE, POD
from fairlead.planning.route.surroundings import wakes_for_requests
from fairlead.planning.route.waking import find_neighbours

__all__ = ["LOOK_S", "SETTLES_S", "Source", "Waker"]

logger = logging.getLogger(__name__)

#: Between two questions, seconds.
LOOK_S: Final = 1.0
#: Who is told of requests that wait is told again after that time, should nothing have come of it, seconds.
TELL_AGAIN_S: Final = 5.0
#: For how long a request that found nobody, and did not wait, counts as one that waits: until whoever decides has had its turn, seconds.
REMEMBERED_S: Final = 10.0
#: Until all gateways know the first pod of a deployment, seconds. Who looks for another one meanwhile looked for this one, too.
SETTLES_S: Final = 5.0
#: So many gateways are asked at once; of more, each in its turn.
MOST_ASKED: Final = 200


class Source(Protocol):
    """Who asks gateways: `fairlead.sources.held.HeldSource`."""

    async def ask(self, addresses: Collection[str], take: Callable[[str, Mapping[str, Any] | str], None]) -> None:
        """Give `take` an address and what it says, as `read_held` takes it, as soon as it has said it."""

    async def close(self) -> None:
        """Give everything back."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A gateway's pod, and the deployments at zero that its route knows by these names of backends. `waited_for`: backends beside which
    another one sleeps: who waits tells which of them is wanted, and who only looked does not."""

    uid: str
    address: str
    sleepers: Mapping[str, ObjectKey]
    waited_for: frozenset[str]


@dataclass(slots=True)
class _Told:
    at: float
    count: int


@dataclass(frozen=True, slots=True)
class _Named:
    """What a route says of deployments: by the names of backends, and which others are beside each (`find_neighbours`)."""

    deployments: Mapping[str, str]
    neighbours: Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class _Memory:
    """What was read of an object, until it is another one."""

    version: tuple[str, int]
    value: Any


class Waker:
    """Asks and tells. `on_held` is told of a deployment for which more requests wait than before, or still, or none any more;
    `may_look`: whether this replica is the one to ask."""

    def __init__(
        self,
        cache: Cache,
        source: Source,
        on_held: Callable[[ObjectKey, int], None],
        may_look: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._cache = cache
        self._source = source
        self._on_held = on_held
        self._may_look = may_look
        self._clock = clock
        self._known: dict[ObjectKey, _Memory] = {}
        self._before: dict[ObjectKey, _Memory] = {}
        self._missed: dict[tuple[str, str], int] = {}  # uid of a gateway's pod and backend -> as it was last
        self._rose: dict[tuple[str, str], float] = {}  # the same -> when it was more than before
        self._counts: dict[tuple[str, ObjectKey], int] = {}  # uid and deployment -> requests that wait
        self._told: dict[ObjectKey, _Told] = {}
        self._slept: dict[ObjectKey, float] = {}  # deployment -> when it was asleep last
        self._turn = 0

    def held(self, deployment: ObjectKey) -> int | None:
        """How many requests waited for it when gateways were asked last; of a model without hold, one for those that went on or failed
        a few seconds ago. None: nobody is asked for it."""
        counts = [count for (_, key), count in self._counts.items() if key == deployment]
        return sum(counts) if counts else None

    async def run(self) -> None:
        """Ask for ever."""
        try:
            while True:
                began = self._clock()
                if self._may_look():
                    try:
                        await self.look()
                    except Exception:
                        logger.exception("Gateways were not asked for whom requests wait")
                else:
                    self._forget(())
                await asyncio.sleep(max(0.1, LOOK_S - (self._clock() - began)))
        finally:
            await self._source.close()

    async def look(self) -> None:
        """Ask once."""
        found = list(self._find_asked())
        self._forget(found)
        if not found:
            return
        asked = self._choose(found)
        by_address: dict[str, list[_Asked]] = {}
        for one in asked:
            by_address.setdefault(one.address, []).append(one)

        def take(address: str, answer: Mapping[str, Any] | str) -> None:
            for one in by_address[address]:
                self._read(one, answer)
                # The first news; how many more there are has time until all have answered.
                for key in set(one.sleepers.values()) - self._told.keys():
                    self._tell(key)

        await self._source.ask(list(by_address), take)
        for key in sorted({key for one in asked for key in one.sleepers.values()}):
            self._tell(key)

    def _choose(self, found: list[_Asked]) -> list[_Asked]:
        if len(found) <= MOST_ASKED:
            return found
        start = self._turn % len(found)
        self._turn = start + MOST_ASKED
        return [*found, *found][start : start + MOST_ASKED]

    def _read(self, asked: _Asked, answer: Mapping[str, Any] | str) -> None:
        """The counter says of any request that nobody was there, with or without hold; a lower one is that of a gateway which has started
        anew, and one that is not told yet is 0. What it was before the first answer nobody knows. An answer as a text does not tell who
        waits."""
        held, now = read_held(answer), self._clock()
        counts: dict[ObjectKey, tuple[int, bool]] = {}
        for backend, key in asked.sleepers.items():
            one, place = held.get(backend, Held()), (asked.uid, backend)
            before = self._missed.get(place)
            self._missed[place] = one.missed
            counts_looks = backend not in asked.waited_for or isinstance(answer, str)
            if counts_looks and before is not None and one.missed != before and one.missed > 0:
                self._rose[place] = now
            waiting, is_recent = counts.get(key, (0, False))
            is_recent |= place in self._rose and now - self._rose[place] < REMEMBERED_S
            counts[key] = (waiting + one.waiting, is_recent)
        for key, (waiting, is_recent) in counts.items():
            self._counts[asked.uid, key] = max(waiting, int(is_recent))

    def _tell(self, key: ObjectKey) -> None:
        count, told, now = self.held(key) or 0, self._told.get(key), self._clock()
        if not count:
            if self._told.pop(key, None) is not None:
                self._on_held(key, 0)
        elif told is None or count > told.count or now - told.at >= TELL_AGAIN_S:
            self._told[key] = _Told(now, count)
            self._on_held(key, count)

    def _forget(self, found: Collection[_Asked]) -> None:
        """What is not asked for any more."""
        uids = {one.uid for one in found}
        pairs = {(one.uid, key) for one in found for key in one.sleepers.values()}
        keys = {key for _, key in pairs}
        self._missed = {pair: count for pair, count in self._missed.items() if pair[0] in uids}
        self._rose = {pair: at for pair, at in self._rose.items() if pair[0] in uids}
        self._counts = {pair: count for pair, count in self._counts.items() if pair in pairs}
        self._told = {key: told for key, told in self._told.items() if key in keys}

    def _find_asked(self) -> Iterator[_Asked]:
        """Gateways of routes that name a deployment at zero."""
        self._before, self._known = self._known, {}
        sleepers = {key for key in self._cache.keys(LLMDEPLOYMENT.kind) if self._recall(key, _is_asleep)}
        now = self._clock()
        self._slept = {key: at for key, at in self._slept.items() if now - at < SETTLES_S} | dict.fromkeys(
            sleepers, now
        )
        namespaces = {key.namespace for key in sleepers}
        for route in self._cache.keys(LLMROUTE.kind) if sleepers else ():
            named = self._recall(route, _read_route) if route.namespace in namespaces else None
            if named is None:
                continue
            keys = {
                backend: ObjectKey(LLMDEPLOYMENT.kind, route.namespace, name)
                for backend, name in named.deployments.items()
            }
            wanted = {backend: key for backend, key in keys.items() if key in sleepers}
            beside = frozenset(
                backend
                for backend, key in wanted.items()
                if any(
                    keys.get(one, key) != key and keys[one] in self._slept for one in named.neighbours.get(backend, ())
                )
            )
            if wanted:
                yield from (_Asked(uid, address, wanted, beside) for uid, address in self._find_gateways(route))

    def _find_gateways(self, route: ObjectKey) -> Iterator[tuple[str, str]]:
        """uid and address of the pods that may answer: its own, and those of engines that carry it."""
        for entry in self._cache.of_owner(route):
            if entry.key.kind == POD.kind and (address := self._recall(entry.key, _read_own_address)):
                yield entry.uid, address
        for entry in self._cache.carriers_of(route):
            if entry.key.kind == POD.kind and (address := self._recall(entry.key, _read_address)):
                yield entry.uid, address

    def _recall(self, key: ObjectKey, read: Callable[[Mapping[str, Any]], Any]) -> Any:
        """What `read` makes of the object, which is read again only when it is another one than at the last look. Each object has one
        reader."""
        entry: Entry | None = self._cache.get(key)
        if entry is None:
            return None
        version = (entry.uid, entry.resource_version)
        memory = self._before.get(key)
        if memory is None or memory.version != version:
            memory = _Memory(version, read(entry.load()))
        self._known[key] = memory
        return memory.value


def _is_asleep(raw: Mapping[str, Any]) -> bool:
    spec, status = raw.get("spec"), raw.get("status") or {}
    return (
        isinstance(spec, Mapping)
        and wakes_for_requests(spec)
        and not status.get("readyReplicas")
        and "deletionTimestamp" not in raw["metadata"]
    )


def _read_route(raw: Mapping[str, Any]) -> _Named:
    """Of a route that need not be valid."""
    spec = raw.get("spec")
    backends = spec.get("backends") if isinstance(spec, Mapping) else None
    deployments = {
        str(backend.get("name")): str(backend["deployment"].get("name"))
        for backend in backends or ()
        if isinstance(backend, Mapping) and isinstance(backend.get("deployment"), Mapping)
    }
    return _Named(deployments, find_neighbours(raw))


def _read_own_address(raw: Mapping[str, Any]) -> str:
    labels = raw["metadata"].get("labels") or {}
    return _read_address(raw) if labels.get(LABEL_COMPONENT) == COMPONENT_GATEWAY else ""


def _read_address(raw: Mapping[str, Any]) -> str:
    return "" if "deletionTimestamp" in raw["metadata"] else str((raw.get("status") or {}).get("podIP") or "")
