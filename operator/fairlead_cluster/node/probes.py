"""Startup, readiness and liveness probes with the kubelet's timing and thresholds (pkg/kubelet/prober)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fairlead_cluster.node.actions import Actions, Outcome, Result, Target

Json = dict[str, Any]


class Kind(StrEnum):
    """Of probe."""

    STARTUP = "Startup"
    READINESS = "Readiness"
    LIVENESS = "Liveness"


@dataclass(slots=True)
class Tally:
    """Counts results in a row. `add` gives the verdict once a threshold is reached, else None."""

    success_threshold: int
    failure_threshold: int
    _last: Result | None = None
    _run: int = 0

    def add(self, result: Result) -> Result | None:
        """Take one more result. An unknown one changes nothing."""
        if result is Result.UNKNOWN:
            return None
        self._run = self._run + 1 if result is self._last else 1
        self._last = result
        threshold = self.success_threshold if result is Result.SUCCESS else self.failure_threshold
        return result if self._run >= threshold else None


class Probe:
    """One probe of one run of a container: `run` asks until cancelled, or until the probe has no more to say."""

    def __init__(
        self,
        kind: Kind,
        spec: Json,
        actions: Actions,
        target: Target,
        *,
        on_verdict: Callable[[Kind, Result, str], None],
        on_complaint: Callable[[Kind, Outcome], None],
    ) -> None:
        self.kind = kind
        self._spec = spec
        self._actions = actions
        self._target = target
        self._on_verdict = on_verdict
        self._on_complaint = on_complaint
        self._tally = Tally(int(spec.get("successThreshold") or 1), int(spec.get("failureThreshold") or 3))

    @property
    def period_s(self) -> float:
        """Between two attempts."""
        return float(self._spec.get("periodSeconds") or 10)

    async def run(self, started_at_s: float) -> None:
        """Probe a container that started at `started_at_s` (monotonic seconds).

        A startup probe ends with its first verdict; a liveness probe with the first failure (its container is killed).
        """
        delay_s = float(self._spec.get("initialDelaySeconds") or 0)
        await asyncio.sleep(max(0.0, started_at_s + delay_s - time.monotonic()))
        next_at_s = time.monotonic()
        while True:
            outcome = await self._actions.perform(
                self._spec, self._target, float(self._spec.get("timeoutSeconds") or 1)
            )
            if outcome.result is not Result.SUCCESS:
                self._on_complaint(self.kind, outcome)
            verdict = self._tally.add(outcome.result)
            if verdict is not None:
                self._on_verdict(self.kind, verdict, outcome.message)
                is_last = self.kind is Kind.STARTUP or (self.kind is Kind.LIVENESS and verdict is Result.FAILURE)
                if is_last:
                    return
            # A ticker drops the ticks that an attempt has overrun.
            now_s = time.monotonic()
            missed = max(1, -(-(now_s - next_at_s) // self.period_s))
            next_at_s += missed * self.period_s
            await asyncio.sleep(max(0.0, next_at_s - now_s))
