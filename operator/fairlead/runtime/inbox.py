"""From an alert that was delivered to the pass that takes note of it, and from status back to whoever waits for that.

The inbox knows which alerts fire; a pass over the LLMDeployment writes them to `status.scaling.alerts`, and only what the API server has
there counts as kept. So a new leader knows what its predecessor was told and has said yes to.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from fairlead.api import names
from fairlead.facts.alerts import ActiveAlert, Alert, Delivery
from fairlead.facts.observed import ObjectKey
from fairlead.kube.cache import Cache, Change
from fairlead.runtime.kinds import describe_key
from fairlead.scaling.alerts import Book, Effect, enter, expire, is_told, read_book

__all__ = ["Claim", "Inbox", "InboxObserver"]

logger = logging.getLogger(__name__)

#: An alert that speaks of nothing that is scaled here.
NOT_CONCERNED: Final = "not_concerned"
#: Deliveries that leave alerts out come from each of several Alertmanagers: all LLMDeployments are looked at once for them.
ALL_AGAIN_S: Final = 15.0
#: Names of which was said in the log that they are not scaled here.
SAID_MAX: Final = 1000


class InboxObserver(Protocol):
    """The metrics of alerts."""

    def alert_taken(self, effect: str) -> None:
        """One alert, by what came of it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An alert that was entered and is to be told by the status of this LLMDeployment."""

    key: ObjectKey
    uid: str
    fingerprint: str


class Inbox:
    """Alerts by LLMDeployment. `evaluate` has one of them looked at as soon as possible, before all others."""

    def __init__(
        self,
        cache: Cache,
        evaluate: Callable[[ObjectKey], None],
        observer: InboxObserver,
        *,
        clock: Callable[[], float],
        wall: Callable[[], datetime],
    ) -> None:
        self._cache = cache
        self._evaluate = evaluate
        self._observer = observer
        self._clock = clock
        self._wall = wall
        self._books: dict[str, Book] = {}  # by uid: a successor of the same name has alerts of its own
        self._waiting: dict[ObjectKey, set[asyncio.Event]] = {}
        self._said: set[tuple[str, str]] = set()
        self._all_at = float("-inf")

    def take(self, delivery: Delivery) -> tuple[list[Claim], Counter[str]]:
        """Enter the alerts and have evaluated whom they concern. Returns what status is to tell before they count as accepted, and how
        many alerts had which effect."""
        claims: list[Claim] = []
        effects: Counter[str] = Counter()
        for alert in delivery.alerts:
            effect, claim = self._take_one(alert)
            effects[effect] += 1
            self._observer.alert_taken(effect)
            if claim is not None:
                claims.append(claim)
        if delivery.truncated:
            self._evaluate_all()
        for key in dict.fromkeys(claim.key for claim in claims):
            self._evaluate(key)
        return claims, effects

    def _take_one(self, alert: Alert) -> tuple[str, Claim | None]:
        raw = self._find(alert.about)
        if raw is None or alert.about is None:
            self._say_once(alert)
            return NOT_CONCERNED, None
        uid = str(raw["metadata"]["uid"])
        before = self._book_of(raw)
        book, effect = enter(before, alert, self._wall())
        self._books[uid] = book
        key = ObjectKey(names.LLMDEPLOYMENT, *alert.about)
        claim = Claim(key, uid, alert.fingerprint)
        if effect in (Effect.OUTDATED, Effect.LEFT_OUT) or (effect is Effect.REPEATED and self._is_kept(claim)):
            return effect.value, None
        return effect.value, claim

    def _find(self, about: tuple[str, str] | None) -> Mapping[str, Any] | None:
        """The LLMDeployment, if the operator scales it."""
        entry = self._cache.get(ObjectKey(names.LLMDEPLOYMENT, *about)) if about is not None else None
        raw = entry.load() if entry is not None else None
        return raw if raw is not None and is_scaled_here(raw) else None

    def _say_once(self, alert: Alert) -> None:
        about = alert.about or ("", "")
        if about in self._said or len(self._said) >= SAID_MAX:
            return
        self._said.add(about)
        if alert.about is None:
            logger.info(
                "An alert %s has no labels llm_namespace and llm_name of an LLMDeployment: passed over", alert.name
            )
        else:
            logger.info(
                "An alert %s speaks of %s/%s, which is not there or not scaled by the operator: passed over",
                alert.name,
                *about,
            )

    def _evaluate_all(self) -> None:
        if self._clock() - self._all_at < ALL_AGAIN_S:
            return
        self._all_at = self._clock()
        for key in self._cache.keys(names.LLMDEPLOYMENT):
            entry = self._cache.get(key)
            if entry is not None and is_scaled_here(entry.load()):
                self._evaluate(key)

    def book_of(self, raw: Mapping[str, Any]) -> Book:
        """The alerts of an LLMDeployment that fire now, for the pass over it."""
        book = expire(self._book_of(raw), self._wall())
        uid = str(raw["metadata"]["uid"])
        if book == Book() and read_book(raw.get("status") or {}) == Book():
            self._books.pop(uid, None)
        else:
            self._books[uid] = book
        return book

    def alerts_of(self, raw: Mapping[str, Any]) -> tuple[ActiveAlert, ...]:
        """The same, and none where the operator does not decide how many replicas there are."""
        return self.book_of(raw).active if raw.get("kind") == names.LLMDEPLOYMENT and is_scaled_here(raw) else ()

    def _book_of(self, raw: Mapping[str, Any]) -> Book:
        known = self._books.get(str(raw["metadata"]["uid"]))
        return known if known is not None else read_book(raw.get("status") or {})

    def forget(self) -> None:
        """Another term begins: what its leader knows is what status says."""
        self._books.clear()
        self._said.clear()
        for key in self._waiting:
            self._wake(key)

    def changed(self, change: Change) -> None:
        """Of any object in the cache."""
        entry = change.after or change.before
        if entry is None or entry.key.kind != names.LLMDEPLOYMENT:
            return
        self._wake(entry.key)
        if change.after is None:
            self._books.pop(entry.uid, None)

    def _wake(self, key: ObjectKey) -> None:
        for event in self._waiting.get(key, ()):
            event.set()

    async def kept(self, claims: Iterable[Claim], timeout_s: float) -> bool:
        """Wait until status tells of all of these, or for `timeout_s` seconds: whether it does."""
        claims = tuple(claims)
        news = asyncio.Event()
        keys = {claim.key for claim in claims}
        for key in keys:
            self._waiting.setdefault(key, set()).add(news)
        try:
            async with asyncio.timeout(timeout_s):
                while not all(map(self._is_kept, claims)):
                    news.clear()
                    await news.wait()
        except TimeoutError:
            return False
        finally:
            for key in keys:
                self._waiting[key].discard(news)
                if not self._waiting[key]:
                    del self._waiting[key]
        return True

    def _is_kept(self, claim: Claim) -> bool:
        """Also where there is nothing left that could tell of it."""
        entry = self._cache.get(claim.key)
        if entry is None or entry.uid != claim.uid:
            return True
        raw = entry.load()
        if not is_scaled_here(raw):
            return True
        return is_told(raw.get("status") or {}, self._book_of(raw), claim.fingerprint)

    def count_firing(self) -> int:
        """Alerts that fire, for the metrics."""
        now = self._wall()
        return sum(len(expire(book, now).active) for book in self._books.values())

    def describe(self) -> dict[str, list[str]]:
        """For the debug page: which alerts fire, by LLMDeployment."""
        found = {}
        for key in self._cache.keys(names.LLMDEPLOYMENT) if self._books else ():
            entry = self._cache.get(key)
            book = self._books.get(entry.uid) if entry is not None else None
            if book is not None and book.active:
                found[describe_key(key)] = [one.name for one in book.active]
        return found


def is_scaled_here(raw: Mapping[str, Any]) -> bool:
    """Whether the operator decides how many replicas this LLMDeployment has. It writes no status of one that is being deleted."""
    if "deletionTimestamp" in (raw.get("metadata") or {}):
        return False
    autoscaling = (raw.get("spec") or {}).get("autoscaling")
    return isinstance(autoscaling, Mapping) and (autoscaling.get("mode") or "Operator") == "Operator"
