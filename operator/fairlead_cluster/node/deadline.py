"""The end of a grace period, which may be moved nearer while it runs (a second delete with a shorter grace)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable


class Deadline:
    """`grace_s` seconds from now."""

    def __init__(self, grace_s: float) -> None:
        self._at_s = time.monotonic() + grace_s
        self._moved = asyncio.Event()

    def remaining_s(self) -> float:
        """Seconds left, not below 0."""
        return max(0.0, self._at_s - time.monotonic())

    def shorten_to(self, grace_s: float) -> None:
        """At most `grace_s` seconds from now; later ends are not granted."""
        self._at_s = min(self._at_s, time.monotonic() + grace_s)
        self._moved.set()

    async def wait_for(self, event: Awaitable[object], at_least_s: float = 0.0) -> bool:
        """Wait for `event` until the deadline (but `at_least_s`). False, and the awaitable cancelled, if it was not met."""
        earliest_end_s = time.monotonic() + at_least_s
        task = asyncio.ensure_future(event)
        try:
            while not task.done():
                left_s = max(self._at_s, earliest_end_s) - time.monotonic()
                if left_s <= 0:
                    return False
                self._moved.clear()
                moved = asyncio.ensure_future(self._moved.wait())
                try:
                    await asyncio.wait({task, moved}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    moved.cancel()
            task.result()
            return True
        finally:
            task.cancel()
