"""What a gateway says that it has loaded: the names of Envoy's stats, and nothing else, stand here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fairlead.gateway.envoy.limits import Measure, limit_file

__all__ = ["AUTHENTICATION", "find_rejected", "read_healthy", "read_loaded"]

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
