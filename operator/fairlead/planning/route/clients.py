"""Who is let in: which key of the clients' Secret belongs to which consumer, whose tokens count, and what is wrong, told without a key."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from fairlead.api.names import LABEL_USE, USE_CLIENTS
from fairlead.api.resource import LLMRoute
from fairlead.facts.route import ClientsSecret, RouteFacts
from fairlead.gateway.envoy.clients import TokenIssuer
from fairlead.planning.route.tokens import read_tokens

__all__ = ["Clients", "read_clients"]

#: What fits into a header. Shorter ones can be guessed, and longer ones do not fit everywhere.
_KEY: Final = re.compile(rb"[\x21-\x7e]{8,512}")


@dataclass(frozen=True, slots=True)
class Clients:
    """`keys` None: this route knows nobody by a key. `tokens`: whose tokens are let in. `problem`: why some or all are not let in, and
    what mends it."""

    keys: Mapping[str, tuple[str, ...]] | None = field(repr=False)
    version: str = "none"
    problem: str = ""
    tokens: TokenIssuer | None = None


def read_clients(route: LLMRoute, facts: RouteFacts) -> Clients:
    """The keys and tokens that are let in. A Secret that is missing or may not be used lets nobody in (law 5)."""
    clients, tokens = _read_keys(route, facts), read_tokens(route, facts)
    if tokens.issuer is None:
        return clients
    problem = " ".join(part for part in (clients.problem, tokens.problem) if part)
    return replace(clients, tokens=tokens.issuer, version=f"{clients.version}/{tokens.version}", problem=problem)


def _read_keys(route: LLMRoute, facts: RouteFacts) -> Clients:
    spec = route.spec.authentication.api_keys
    if spec is None:
        return Clients(None)
    name, secret = spec.secret_ref.name, facts.clients
    if secret is None or secret.name != name or secret.use != USE_CLIENTS:
        problem = (
            f"Secret {name} is not there, or is not labelled {LABEL_USE}={USE_CLIENTS}, so no key is let in."
            f" Next: create it, then kubectl label secret {name} {LABEL_USE}={USE_CLIENTS}."
        )
        return Clients({}, problem=problem)
    return _parse(secret)


def _parse(secret: ClientsSecret) -> Clients:
    found = {consumer: _read_lines(value) for consumer, value in sorted(secret.data.items())}
    owners = Counter(key for keys in found.values() for key in set(keys))
    shared = {key for key, times in owners.items() if times > 1}
    keys: dict[str, tuple[str, ...]] = {}
    wrong: list[str] = []
    for consumer, lines in found.items():
        good = tuple(dict.fromkeys(line.decode() for line in lines if _KEY.fullmatch(line) and line not in shared))
        if len(good) < len(set(lines)):
            wrong.append(consumer)
        if good:
            keys[consumer] = good
    problem = ""
    if wrong:
        problem = (
            f"Secret {secret.name}: some keys of {', '.join(wrong)} are not let in. A key is one line of 8 to 512 printable"
            " characters without spaces, and belongs to one consumer. Next: correct the Secret."
        )
    return Clients(keys, version=secret.version, problem=problem)


def _read_lines(value: bytes) -> list[bytes]:
    return [line.strip() for line in value.splitlines() if line.strip()]
