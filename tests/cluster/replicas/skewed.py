"""`fairlead` with a wall clock that is wrong by FAIRLEAD_TEST_SKEW_S seconds: a replica on a node whose clock is off.

Every reading of the wall clock that Python code can make is shifted; monotonic clocks, which no administrator sets, are not.
"""

from __future__ import annotations

import datetime as dt
import os
import time

SKEW_S = float(os.environ["FAIRLEAD_TEST_SKEW_S"])

_real_time, _real_datetime = time.time, dt.datetime


class SkewedDatetime(dt.datetime):
    """`datetime` with another idea of now."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> SkewedDatetime:  # type: ignore[override]
        shifted = _real_datetime.now(tz) + dt.timedelta(seconds=SKEW_S)
        return cls.fromtimestamp(shifted.timestamp(), tz)


time.time = lambda: _real_time() + SKEW_S
dt.datetime = SkewedDatetime  # type: ignore[misc]

from fairlead.cli import main  # noqa: E402 - after the clock is wrong

main()
