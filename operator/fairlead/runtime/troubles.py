"""What went wrong last with which custom resource: for /debug/queue, until it goes well again.

Kinds of trouble and places in the code, never words: a page that anybody in the cluster may reach must not repeat what an error
quotes. The words are in the log, under the reconcile_id that stands beside it here.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from fairlead.errors import ApiError
from fairlead.facts.observed import ObjectKey
from fairlead.runtime.kinds import describe_key
from fairlead.runtime.leftbehind import LeftBehind
from fairlead.runtime.refusals import Refusal

__all__ = ["Troubles", "describe_left_behind", "describe_refusals", "name_error"]


@dataclass(frozen=True, slots=True)
class _LastError:
    what: str
    at: float
    times: int
    reconcile_id: str


class Troubles:
    """The last error of each custom resource whose last pass did not end well."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._errors: dict[ObjectKey, _LastError] = {}

    def failed(self, key: ObjectKey, error: BaseException, reconcile_id: str = "") -> None:
        """A pass ended in `error`."""
        before = self._errors.get(key)
        times = before.times + 1 if before is not None else 1
        self._errors[key] = _LastError(name_error(error), self._clock(), times, reconcile_id)

    def recovered(self, key: ObjectKey) -> None:
        """A pass went well, or there will be none any more."""
        self._errors.pop(key, None)

    def clear(self) -> None:
        """Begin anew."""
        self._errors.clear()

    def describe(self, most: int) -> dict[str, Any]:
        """The latest `most`: what, how often in a row, how long ago, and where to find its words in the log."""
        latest = sorted(self._errors.items(), key=lambda item: -item[1].at)[:most]
        now = self._clock()
        return {
            describe_key(key): {
                "error": error.what,
                "times": error.times,
                "secondsAgo": round(now - error.at, 3),
                "reconcileId": error.reconcile_id,
            }
            for key, error in latest
        }


def name_error(error: BaseException) -> str:
    """`Forbidden (403)` for an answer of the API server, `Unavailable (no answer)` for none, `KeyError in planner.py:81` for a bug."""
    kind = type(error).__name__
    if isinstance(error, ApiError):
        return f"{kind} ({error.status or 'no answer'})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "fairlead" in PurePath(frame.filename).parts]
    if not own:
        return kind
    return f"{kind} in {PurePath(own[-1].filename).name}:{own[-1].lineno}"


def describe_left_behind(
    waited_for: Iterable[tuple[ObjectKey, Mapping[ObjectKey, LeftBehind]]], now: float, most: int
) -> dict[str, Any]:
    """Which children of predecessors are in the way of whom, and for how long."""
    shown = sorted(waited_for, key=lambda item: item[0])[:most]
    return {
        describe_key(owner): {
            str(child): {"uid": left.uid, "forSeconds": round(now - left.since, 3)}
            for child, left in sorted(them.items())
        }
        for owner, them in shown
    }


def describe_refusals(
    refused: Iterable[tuple[ObjectKey, Mapping[ObjectKey, Refusal]]], now: float, most: int
) -> dict[str, Any]:
    """Which children of whom are refused, why in one word, how often it was tried again, and when it will be."""
    shown = sorted(refused, key=lambda item: item[0])[:most]
    return {
        describe_key(owner): {
            str(child): {
                "reason": refusal.failure.reason,
                "attempts": refusal.attempts + 1,
                "againInSeconds": round(max(0.0, refusal.retry_at - now), 3),
            }
            for child, refusal in sorted(refusals.items())
        }
        for owner, refusals in shown
    }
