"""Clients of a model, one request after the other each, and what they saw of their first tokens: one of them first, then four."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

__all__ = ["Clients", "clients"]

NUMBER = 4
#: Of the one client that asks while all is well. The others come with the load.
PAUSE_S = 0.2
#: Words of a prompt of which a pod of this bench prefills a thousand tokens a second: next to nothing, and 0.4 s alone, 1.6 s for four.
CALM, BUSY = 5, 400


@dataclass
class Clients:
    """`words` of each prompt from now on, 0: nobody asks; `seen`: when each request was sent and had its first token, epoch seconds."""

    words: int = CALM
    seen: list[tuple[float, float]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def breached(self, since: float, target_s: float) -> float | None:
        """When the first request that was sent since then had waited longer for its token than it should. None: none has."""
        late = [sent + target_s for sent, first in list(self.seen) if sent >= since and first - sent > target_s]
        return min(late, default=None)


@contextmanager
def clients(url: str, model: str) -> Iterator[Clients]:
    """Until the block ends. Raises RuntimeError then if a request failed."""
    kind, numbers, over = Clients(), itertools.count(), threading.Event()

    def ask(is_first: bool) -> None:
        with httpx.Client(trust_env=False, timeout=60) as client:
            while not over.wait(PAUSE_S if kind.words <= CALM else 0.0):
                if not kind.words or (kind.words == CALM and not is_first):
                    continue
                prompt = f"{next(numbers)} " + "word " * kind.words  # begins unlike all others: nothing is cached
                sent = time.time()
                try:
                    # One token is asked for: its answer is the first token.
                    body = {"model": model, "prompt": prompt, "max_tokens": 1}
                    client.post(f"{url}/v1/completions", json=body).raise_for_status()
                    kind.seen.append((sent, time.time()))
                except httpx.HTTPError as error:
                    kind.failed.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=ask, args=(not number,), daemon=True) for number in range(NUMBER)]
    for thread in threads:
        thread.start()
    try:
        yield kind
    finally:
        over.set()
        for thread in threads:
            thread.join()
    if kind.failed:
        raise RuntimeError(f"{len(kind.failed)} requests failed: {kind.failed[0]}")
