"""The order in which routing reaches the gateways: add, switch, remove.

Between files there is no order inside of Envoy, and a route whose cluster is gone answers 503. So what routes will need is added
first, then the routes change, and what nobody needs is removed last; each step waits until every gateway has loaded the
one before. When nothing is added or removed there is one step, and one when old and new do not fit into a ConfigMap together: then some
requests may find nobody for a moment. What is no longer permitted waits for none of them: it is taken out of the routes that run
with the first step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from fairlead.gateway.envoy.files import (
    CLUSTERS_FILE,
    EGRESS_FILE,
    LIMIT_FILES,
    PUBLIC_FILE,
    dump_resources,
    read_resources,
    version_of,
)
from fairlead.planning.route.files import fits

__all__ = ["VERSIONED", "Phase", "Step", "choose_step", "is_loaded"]

Files = Mapping[str, str]
#: Files whose version Envoy tells.
VERSIONED: Final = (PUBLIC_FILE, EGRESS_FILE, CLUSTERS_FILE, *LIMIT_FILES)
#: Those without which nothing can be gone on from. Earlier releases had no limits.
_NEEDED: Final = (PUBLIC_FILE, EGRESS_FILE, CLUSTERS_FILE)
_HOSTS: Final = "virtual_hosts"


class Phase(StrEnum):
    """How far the publication of a routing is."""

    ADD = "Add"
    SWITCH = "Switch"
    REMOVE = "Remove"


@dataclass(frozen=True, slots=True)
class Step:
    """What the ConfigMaps should hold now. `is_last`: once this is loaded, the routing is as wanted."""

    files: Files
    phase: Phase
    is_last: bool


def choose_step(
    wanted: Files,
    live: Files | None,
    loaded: Sequence[Mapping[str, str]],
    narrow: Callable[[str], str] = str,
    forget: Callable[[str], str] = str,
) -> Step:
    """The next content. `live`: what the ConfigMaps hold (None: nothing, or nothing that can be read); `loaded`: per gateway, file ->
    version; `narrow` takes out of the public routes what must not wait, and `forget` tells providers that are on their
    way out to keep nothing. The same step again until the gateways have loaded it."""
    if live is None or any(name not in live for name in _NEEDED):
        return Step(wanted, Phase.SWITCH, is_last=True)
    if live[PUBLIC_FILE] == wanted[PUBLIC_FILE]:
        if _same(live, wanted):
            return Step(wanted, Phase.REMOVE, is_last=True)
        united = _unite(wanted, live, forget)
        if _same(live, united) and is_loaded(live, loaded):
            return Step(wanted, Phase.REMOVE, is_last=True)
        return Step(united, Phase.SWITCH, is_last=_same(united, wanted))
    united = _unite(wanted, live, forget)
    switched = {**united, PUBLIC_FILE: wanted[PUBLIC_FILE]}
    if not fits(switched):
        return Step(wanted, Phase.SWITCH, is_last=True)
    if not _same(live, {**united, PUBLIC_FILE: live[PUBLIC_FILE]}) or not is_loaded(live, loaded):
        added = {**united, PUBLIC_FILE: narrow(live[PUBLIC_FILE])}
        if fits(added):
            return Step(added, Phase.ADD, is_last=False)
    return Step(switched, Phase.SWITCH, is_last=_same(switched, wanted))


def is_loaded(files: Files, loaded: Sequence[Mapping[str, str]]) -> bool:
    """Whether every one of the gateways has loaded exactly this. No gateway: nobody is behind."""
    versions = {name: version_of(files[name]) for name in VERSIONED if name in files}
    return all(gateway.get(name) == version for gateway in loaded for name, version in versions.items())


def _same(one: Files, other: Files) -> bool:
    return dict(one) == dict(other)


def _unite(wanted: Files, live: Files, forget: Callable[[str], str]) -> dict[str, str]:
    """The wanted files with whatever the live ones have besides: clusters, virtual hosts of the egress, keys."""
    united = {**live, **wanted}
    united[CLUSTERS_FILE] = _unite_resources(wanted[CLUSTERS_FILE], live[CLUSTERS_FILE])
    united[EGRESS_FILE] = forget(_unite_hosts(wanted[EGRESS_FILE], live[EGRESS_FILE]))
    return united


def _unite_resources(wanted: str, live: str) -> str:
    kind, resources = read_resources(wanted)
    old_kind, old = read_resources(live)
    return dump_resources(kind or old_kind, _merge(resources, old))


def _unite_hosts(wanted: str, live: str) -> str:
    kind, (routes,) = read_resources(wanted)
    _, (old,) = read_resources(live)
    return dump_resources(kind, [{**routes, _HOSTS: _merge_hosts(routes[_HOSTS], old[_HOSTS])}])


def _merge_hosts(wanted: Sequence[Any], live: Sequence[Any]) -> list[Any]:
    """A virtual host in both serves the models of both."""
    domains: dict[str, set[str]] = {}
    for host in (*live, *wanted):
        domains.setdefault(host["name"], set()).update(host["domains"])
    return [{**host, "domains": sorted(domains[host["name"]])} for host in _merge(wanted, live)]


def _merge(wanted: Sequence[Any], live: Sequence[Any]) -> list[Any]:
    """In the order of names, so that the union of equal sets is equal text."""
    by_name = {entry["name"]: entry for entry in (*live, *wanted)}
    return [by_name[name] for name in sorted(by_name)]
