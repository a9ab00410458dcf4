"""Addresses for pods and nodes from 127.244.0.0/16, without a second cluster on the same host getting the same ones.

Every loopback address can be bound without set-up, but two pods with one address and one port cannot both listen. So
whoever hands out a /24 first claims it, by a UDP socket on its first address that the kernel closes when we die.
"""

from __future__ import annotations

import random
import socket
from collections import deque

from fairlead_cluster.errors import LocalClusterError

_PREFIX = "127.244"
_CLAIM_PORT = 31999


class AddressPool:
    """Hands out addresses, each to one owner at a time, the longest unused first. `close` gives the claims back."""

    def __init__(self, *, first_block: int | None = None) -> None:
        start = random.SystemRandom().randrange(256) if first_block is None else first_block
        self._blocks = deque((start + offset) % 256 for offset in range(256))
        self._claims: list[socket.socket] = []
        self._free: deque[str] = deque()
        self._taken: set[str] = set()

    def take(self) -> str:
        """An address that nobody has. LocalClusterError when all of the network is taken."""
        if not self._free:
            self._claim_block()
        address = self._free.popleft()
        self._taken.add(address)
        return address

    def give_back(self, address: str) -> None:
        """Let others have it, as late as possible: late packets should not meet a stranger."""
        if address in self._taken:
            self._taken.remove(address)
            self._free.append(address)

    def close(self) -> None:
        """Give up all claims."""
        for claim in self._claims:
            claim.close()
        self._claims.clear()

    def _claim_block(self) -> None:
        while self._blocks:
            block = self._blocks.popleft()
            claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                claim.bind((f"{_PREFIX}.{block}.0", _CLAIM_PORT))
            except OSError:
                claim.close()
                continue
            self._claims.append(claim)
            self._free.extend(f"{_PREFIX}.{block}.{host}" for host in range(1, 255))
            return
        raise LocalClusterError(f"no pod addresses left in {_PREFIX}.0.0/16 (other clusters on this host hold them)")
