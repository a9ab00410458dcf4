"""How an attempt waits for a deployment at zero replicas: a request looks for a pod again and again, until one is there or its patience
ends, and goes on as an attempt that failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from math import ceil
from typing import Final

__all__ = ["HELD_BYTES", "LOOK_S", "Hold"]

#: How long at least a request that waits looks for no pod, seconds; half of it more at most, by chance.
LOOK_S: Final = 1.0
#: What all requests that wait in one gateway may bring, together. It has 1 GiB, and keeps a body three times.
HELD_BYTES: Final = 192 * 1024 * 1024
#: What one look may take on a busy machine, seconds.
_SLACK_S: Final = 0.25


@dataclass(frozen=True, slots=True, order=True)
class Hold:
    """How an attempt of a model with `hold` is made. `model`: as clients know it; `wait_s`: how long for a first pod, seconds (None: the
    backend has no pods that could wake); `limit`: how many wait at once; `headers_s`, `attempt_s`: as `Timeouts` has them, since only
    what makes the attempt can tell waiting from being silent."""

    model: str
    wait_s: float | None
    limit: int
    headers_s: float
    attempt_s: float | None

    @property
    def tries(self) -> int:
        """How often a pod is looked for after the first time, so that the waits between add up to what is wanted."""
        return ceil((self.wait_s or 0) / (1.25 * LOOK_S))

    def most_bytes(self, pools: int) -> int:
        """The largest body with which one waits: what all of them keep must fit into a gateway, which counts so many pools."""
        return HELD_BYTES // (max(1, pools) * self.limit)

    @property
    def longest_s(self) -> float:
        """The longest that all of them can take."""
        return self.tries * (1.5 * LOOK_S + _SLACK_S)

    def id(self, upstream_model: str) -> str:
        """Eight hexadecimal digits over all of it and what the backend calls the model."""
        return blake2b(repr((self, upstream_model)).encode(), digest_size=4).hexdigest()

    def pool(self, upstream_model: str) -> str:
        """Eight over that for which the limit counts."""
        return blake2b(repr((self.model, self.limit, upstream_model)).encode(), digest_size=4).hexdigest()
