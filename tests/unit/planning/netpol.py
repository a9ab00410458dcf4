"""Who may reach a pod, and what a pod may reach, by the published rules of NetworkPolicy (networking.k8s.io/v1 API reference); for tests.

A pod that no policy selects accepts everything; one that some policy selects for ingress accepts what any of them admits.
Peers of one rule are alternatives; namespaceSelector and podSelector of one peer must both hold; a podSelector alone means
the policy's own namespace. An unknown field is an error: what this evaluator does not know, it must not pass over.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Caller:
    """A pod (or, without namespace, an address outside the cluster) that opens a connection."""

    namespace: str = ""
    labels: Json = field(default_factory=dict)
    namespace_labels: Json = field(default_factory=dict)
    address: str = "10.244.0.9"


@dataclass(frozen=True)
class Target:
    """The pod that is called. `ports`: names of its container ports."""

    namespace: str
    labels: Json
    ports: Mapping[str, int]


def admits(policies: Sequence[Json], target: Target, caller: Caller, port: int, protocol: str = "TCP") -> bool:
    """Whether the connection gets through."""
    selecting = [policy for policy in policies if _selects(policy, target)]
    if not selecting:
        return True
    return any(
        _rule_admits(rule, policy, target, caller, port, protocol)
        for policy in selecting
        for rule in policy["spec"].get("ingress", [])
    )


def reaches(policies: Sequence[Json], source: Target, there: Caller, port: int, protocol: str = "TCP") -> bool:
    """Whether a pod gets a connection out to a pod or an address. Ports of `there` are numbers here: nobody names those of others."""
    selecting = [
        policy
        for policy in policies
        if policy["metadata"]["namespace"] == source.namespace
        and "Egress" in policy["spec"].get("policyTypes", ["Ingress"])
        and _matches(policy["spec"]["podSelector"], source.labels)
    ]
    if not selecting:
        return True
    return any(
        _out_rule_admits(rule, policy, there, port, protocol)
        for policy in selecting
        for rule in policy["spec"].get("egress", [])
    )


def _out_rule_admits(rule: Json, policy: Json, there: Caller, port: int, protocol: str) -> bool:
    _known(rule, "to", "ports")
    peers, ports = rule.get("to", []), rule.get("ports", [])
    to_ok = not peers or any(_peer_matches(peer, policy, there) for peer in peers)
    return to_ok and (
        not ports or any(entry["port"] == port and entry.get("protocol", "TCP") == protocol for entry in ports)
    )


def _selects(policy: Json, target: Target) -> bool:
    spec = policy["spec"]
    _known(spec, "podSelector", "policyTypes", "ingress", "egress")
    own = policy["metadata"]["namespace"] == target.namespace
    return own and "Ingress" in spec.get("policyTypes", ["Ingress"]) and _matches(spec["podSelector"], target.labels)


def _rule_admits(rule: Json, policy: Json, target: Target, caller: Caller, port: int, protocol: str) -> bool:
    _known(rule, "from", "ports")
    peers, ports = rule.get("from", []), rule.get("ports", [])
    from_ok = not peers or any(_peer_matches(peer, policy, caller) for peer in peers)
    return from_ok and (not ports or any(_port_matches(entry, target, port, protocol) for entry in ports))


def _peer_matches(peer: Json, policy: Json, caller: Caller) -> bool:
    _known(peer, "podSelector", "namespaceSelector", "ipBlock")
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        _known(block, "cidr", "except")
        address = ipaddress.ip_address(caller.address)
        inside = address in ipaddress.ip_network(block["cidr"])
        return inside and not any(address in ipaddress.ip_network(hole) for hole in block.get("except", []))
    if not caller.namespace:
        return False
    if "namespaceSelector" in peer:
        namespace_ok = _matches(peer["namespaceSelector"], caller.namespace_labels)
    else:
        namespace_ok = caller.namespace == policy["metadata"]["namespace"]
    return namespace_ok and _matches(peer.get("podSelector", {}), caller.labels)


def _port_matches(entry: Json, target: Target, port: int, protocol: str) -> bool:
    _known(entry, "port", "protocol")
    wanted = entry.get("port")
    number = target.ports.get(wanted) if isinstance(wanted, str) else wanted
    return entry.get("protocol", "TCP") == protocol and (wanted is None or number == port)


def _matches(selector: Json, labels: Json) -> bool:
    _known(selector, "matchLabels")
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def _known(value: Json, *fields: str) -> None:
    unknown = set(value) - set(fields)
    assert not unknown, f"the evaluator does not know {sorted(unknown)}"
