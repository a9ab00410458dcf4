"""What a gateway says that it has loaded: the names of Envoy's stats, and nothing else, stand here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fairlead.gateway.envoy.limits import Measure, limit_file

__all__ = ["AUTHENTICATION", "Held", "find_rejected", "read_healthy", "read_held", "read_loaded"]

#: The clients' file, under its own name beside the routing files.
AUTHENTICATION: Final = "authentication.json"
_EXTENSIONS: Final = "extension_config_discovery.http_filter"
_STATS: Final = {
    "rds-public.json": "http.public.rds.public",
    "rds-egress.json": "http.egress.rds.egress",
    "cds.json": "cluster_manager.cds",
    AUTHENTICATION: f"{_EXTENSIONS}.authentication",
    **{limit_file(measure): f"{_EXTENSIONS}.{measure.value}" for measure in Measure},
}


#: A cluster that leads to a backend's pods, or to where requests may wait for them.
_PODS: Final = re.compile(r"(?:be|pin)~([^.~]+)~[^.~]+")
_WAITING: Final = re.compile(r"to~[0-9a-f]*\.[0-9a-f]+-[0-9a-f]+\.([^.]+)\.local")
_STAT: Final = re.compile(r"cluster\.(.+)\.(upstream_cx_none_healthy|upstream_rq_active)")
_METRIC: Final = re.compile(r'envoy_cluster_(upstream_cx_none_healthy)\{envoy_cluster_name="([^"]+)"\} ([0-9]+)')


@dataclass(frozen=True, slots=True)
class Held:
    """`waiting`: requests of one gateway that are under way to a backend by attempts that may wait: without a pod, all of these wait.
    `missed`: how often one has found no pod since the gateway started."""

    waiting: int = 0
    missed: int = 0


def read_held(answer: Mapping[str, Any] | str) -> dict[str, Held]:
    """By the backend's name, of an answer to GET /held; or of the whole text of GET /metrics, which gateways have that do not know the
    other yet: it does not tell how many wait, only that more have found no pod."""
    found: dict[str, Held] = {}
    for cluster, stat, value in _read_metrics(answer) if isinstance(answer, str) else _read_stats(answer):
        kind = _PODS if stat == "upstream_cx_none_healthy" else _WAITING
        named = kind.fullmatch(cluster)
        if named is None:
            continue
        one = found.get(named[1], Held())
        if kind is _PODS:
            found[named[1]] = Held(one.waiting, one.missed + value)
        else:
            found[named[1]] = Held(one.waiting + value, one.missed)
    return found


def _read_stats(stats: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Cluster, stat, value. Whoever has the pod's address by now may say anything."""
    told = stats.get("stats")
    for entry in told if isinstance(told, list) else ():
        named = _STAT.fullmatch(str(entry.get("name"))) if isinstance(entry, Mapping) else None
        if named is not None and isinstance(entry.get("value"), int):
            yield named[1], named[2], entry["value"]


def _read_metrics(text: str) -> Iterator[tuple[str, str, int]]:
    for line in text.splitlines():
        named = _METRIC.fullmatch(line)
        if named is not None:
            yield named[2], named[1], int(named[3])


def read_loaded(stats: Mapping[str, Any]) -> dict[str, str]:
    """File -> version, of an answer of GET /generation; a file of which nothing is loaded is left out."""
    values = {str(entry.get("name")): entry.get("value") for entry in stats.get("stats") or ()}
    versions = {file: values.get(f"{prefix}.version_text") for file, prefix in _STATS.items()}
    return {file: str(version) for file, version in versions.items() if version}


def read_healthy(stats: Mapping[str, Any]) -> dict[str, int]:
    """`backend~place` -> how many of its hosts this gateway would send a request to. What no route tries is left out."""
    head, tail = "cluster.be~", ".membership_healthy"
    return {
        str(entry["name"])[len(head) : -len(tail)]: int(entry.get("value") or 0)
        for entry in stats.get("stats") or ()
        if str(entry.get("name")).startswith(head) and str(entry["name"]).endswith(tail)
    }


def find_rejected(stats: Mapping[str, Any]) -> tuple[str, ...]:
    """Files that Envoy has refused at some time since it started."""
    values = {str(entry.get("name")): entry.get("value") for entry in stats.get("stats") or ()}
    return tuple(
        file
        for file, prefix in _STATS.items()
        if values.get(f"{prefix}.update_rejected") or values.get(f"{prefix}.update_failure")
    )
