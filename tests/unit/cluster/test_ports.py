"""Two clusters on one host never share an address."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import ExitStack

import pytest

from fairlead_cluster.ports import claim_service_block, free_ports

NETWORK = ipaddress.IPv4Network("127.97.0.0/18")  # four blocks, beside those of real clusters


def test_claimed_blocks_are_disjoint_until_there_are_no_more() -> None:
    with ExitStack() as releases:
        blocks = [claim_service_block(NETWORK) for _ in range(4)]
        for block in blocks:
            releases.callback(block.release)
        networks = [ipaddress.IPv4Network(block.cidr) for block in blocks]
        assert sorted(networks) == list(NETWORK.subnets(new_prefix=20))
        assert [block.first_ip for block in blocks] == [str(network[1]) for network in networks]
        with pytest.raises(OSError, match="4 local clusters run"):
            claim_service_block(NETWORK)
        blocks[2].release()
        again = claim_service_block(NETWORK)
        releases.callback(again.release)
        assert again.cidr == blocks[2].cidr


def test_real_clusters_live_in_the_loopback_network() -> None:
    block = claim_service_block()
    block.release()
    assert ipaddress.IPv4Network(block.cidr).subnet_of(ipaddress.IPv4Network("127.96.0.0/16"))


def test_free_ports_are_different_and_not_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_ports(1)[0]))
        taken.listen()
        found = free_ports(20)
        assert len(set(found)) == 20
        assert taken.getsockname()[1] not in found
