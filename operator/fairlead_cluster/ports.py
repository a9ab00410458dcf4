"""Loopback ports and address blocks that nobody else on this host uses."""

from __future__ import annotations

import ipaddress
import random
import socket
from dataclasses import dataclass

# Below the kernel's ephemeral range (32768 and up by default): an outgoing connection of somebody else cannot take a
# port of ours between the moment when it was found free and the moment when its server binds it.
_FIRST, _LAST = 20000, 31000


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """`count` different TCP ports that nobody listens on at `host` now. OSError if there are too few."""
    candidates = random.SystemRandom().sample(range(_FIRST, _LAST), 1000)
    free: list[int] = []
    for port in candidates:
        if _is_free(host, port):
            free.append(port)
        if len(free) == count:
            return free
    raise OSError(f"no {count} free ports between {_FIRST} and {_LAST} on {host}")


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


_SERVICE_NETWORK = ipaddress.IPv4Network("127.96.0.0/16")
_BLOCK_PREFIX_LENGTH = 20  # 16 clusters at once, some 4,000 Services in each
_CLAIM_PORT = 31998


@dataclass
class ServiceBlock:
    """The cluster IPs of one cluster: a part of 127.96.0.0/16 that no other cluster on this host uses.

    Otherwise two clusters would listen at the same addresses (at least at that of the Service `kubernetes`, always the
    first one), and clients of one would reach the other. The claim is a UDP socket, so the kernel ends it with us.
    """

    cidr: str
    first_ip: str  # of the Service `default/kubernetes`
    _claim: socket.socket

    def release(self) -> None:
        """Let others have it."""
        self._claim.close()


def claim_service_block(network: ipaddress.IPv4Network = _SERVICE_NETWORK) -> ServiceBlock:
    """Claim a free block of the network. OSError if all are taken."""
    blocks = list(network.subnets(new_prefix=_BLOCK_PREFIX_LENGTH))
    random.SystemRandom().shuffle(blocks)
    for block in blocks:
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            claim.bind((str(block[0]), _CLAIM_PORT))
        except OSError:
            claim.close()
            continue
        return ServiceBlock(str(block), str(block[1]), claim)
    raise OSError(f"all of {network} is taken: {len(blocks)} local clusters run on this host")
