"""Traces that the law was not tuned on, and shall not be: they, their seeds, bounds, engines and objectives were written down before the
first run, and what comes of them is told as it comes. Who changes the law with an eye on them has to find others."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.world.engine import LLAMA_8B_L4, QWEN3_32B_2H100, Engine
from tests.world.services import CODE_COUNTS, CODE_OUTPUTS, CODE_PROMPTS, KIMI_COUNTS, KIMI_OUTPUTS, KIMI_PROMPTS
from tests.world.traces import Trace, at_rate, counted, staged
from tests.world.world import Objective

__all__ = ["GENERATED", "PUBLIC", "Service"]

#: (requests a second, seconds): up by twos, and down in two steps.
_OTHER_RAMP: Final = ((3.0, 420.0), (5.0, 420.0), (7.0, 420.0), (9.0, 420.0), (6.0, 420.0), (2.0, 420.0))


def other_ramp() -> Trace:
    """Other rates than the published ones, at random."""
    return staged(_OTHER_RAMP, seed=48_101)


def double_peak() -> Trace:
    """A morning and a higher evening, each some quarter of an hour wide, over 2/s."""

    def rate(at: float) -> float:
        first, second = (math.exp(-(((at - middle) / 450) ** 2)) for middle in (1600.0, 3800.0))
        return 2 + 5 * first + 7 * second

    return at_rate("double peak", rate, 9.1, 5400, seed=48_102)


def flash_crowd() -> Trace:
    """2.5/s; from the 20th minute on, within a minute, 9/s, of which half is gone after each six minutes."""

    def rate(at: float) -> float:
        if at < 1200:
            return 2.5
        crowd = 6.5 * min((at - 1200) / 60, 1.0)
        return 2.5 + crowd * 0.5 ** (max(at - 1260, 0.0) / 360)

    return at_rate("flash crowd", rate, 9, 4200, seed=48_103)


def noisy_sine() -> Trace:
    """A slow sine from 1.5 to 7.5/s over two hours, each minute of it a quarter more or less by chance, 10/s at most."""
    rng = random.Random(48_104)
    noise = [math.exp(rng.gauss(0, 0.25)) for _ in range(121)]

    def rate(at: float) -> float:
        return min((4.5 - 3 * math.cos(2 * math.pi * at / 7200)) * noise[min(int(at / 60), 120)], 10.0)

    return at_rate("noisy sine", rate, 10, 7200, seed=48_105)


#: On the engine, with the bounds and the objectives of the first table.
GENERATED: Final[tuple[tuple[str, Callable[[], Trace]], ...]] = (
    ("ramp 3 to 9 to 2/s", other_ramp),
    ("double peak 7 and 9/s", double_peak),
    ("flash crowd 2.5 to 9/s", flash_crowd),
    ("noisy sine 1.5 to 7.5/s", noisy_sine),
)


@dataclass(frozen=True, slots=True)
class Service:
    """An hour of a public service on an engine, with 2 to 16 replicas and 8 in the beginning, as in the second table."""

    name: str
    make: Callable[[], Trace]
    engine: Engine
    objective: Objective


PUBLIC: Final = (
    # Engine and objectives as for the conversations of the same service.
    Service(
        "an hour of code",
        lambda: counted("code", CODE_COUNTS, CODE_PROMPTS, CODE_OUTPUTS, 48_106),
        LLAMA_8B_L4,
        Objective(5.0, 0.2),
    ),
    # Prompts of 12,000 tokens on average, 126,000 at most; objectives are those of Mooncake's own paper.
    Service(
        "an hour of long prompts",
        lambda: counted("long prompts", KIMI_COUNTS, KIMI_PROMPTS, KIMI_OUTPUTS, 48_107),
        QWEN3_32B_2H100,
        Objective(30.0, 0.1),
    ),
)
