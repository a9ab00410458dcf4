"""Copies of a gateway's files that leave out one part each, so that its cost can be seen. None of them is fit for use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson
from tests.bench.gateway.routes import Files

from fairlead.gateway.envoy.words import make_filter

__all__ = ["PARTS"]

Json = dict[str, Any]
_NOTHING: Final = "function envoy_on_request(handle) end"


def _edit(files: Files, file: str, change: Callable[[Json], None]) -> Files:
    is_routing = file in files.routing
    volume = files.routing if is_routing else files.bootstrap
    document: Json = orjson.loads(volume[file])
    change(document)
    changed = {**volume, file: orjson.dumps(document).decode()}
    return replace(files, routing=changed) if is_routing else replace(files, bootstrap=changed)


def _edit_manager(files: Files, listener: str, change: Callable[[Json], None]) -> Files:
    def find(document: Json) -> None:
        found = next(one for one in document["resources"] if one["name"] == listener)
        change(found["filter_chains"][0]["filters"][0]["typed_config"])

    return _edit(files, "lds.json", find)


def _without_filters(files: Files, *names: str, listener: str = "public") -> Files:
    def change(manager: Json) -> None:
        manager["http_filters"] = [one for one in manager["http_filters"] if one["name"] not in names]

    return _edit_manager(files, listener, change)


def _without_logs(files: Files, *names: str) -> Files:
    def change(manager: Json) -> None:
        manager["access_log"] = [one for one in manager["access_log"] if one["name"] not in names]

    return _edit_manager(files, "public", change)


def _public_actions(files: Files) -> dict[str, Json]:
    document = orjson.loads(files.routing["rds-public.json"])
    tree = document["resources"][0]["virtual_hosts"][0]["matcher"]["matcher_tree"]
    actions: dict[str, Json] = tree["exact_match_map"]["map"]
    return {key: one["action"]["typed_config"] for key, one in actions.items()}


def _verdict(files: Files) -> Json:
    """What the classifier says of the bench's requests."""
    for key, route in sorted(_public_actions(files).items()):
        chain, _, stream = key.partition("|")
        if stream == "false" and "Internal" in route["name"]:
            model = route["metadata"]["filter_metadata"]["fairlead"]["model"]
            known = {"class": "Internal", "rule": "default", "model": model, "stream": "false", "consumer": "team-9"}
            return {**known, "verdict": "v0", "chain": chain, "mark": "checked"}
    raise AssertionError("no chain for Internal")


def _with_constant_verdict(files: Files) -> Files:
    """The classifier's answer without the classifier: no Lua, no look at the body."""
    said = {"metadata_namespace": "fairlead", "value": _verdict(files)}
    constant = make_filter("classify", "envoy.extensions.filters.http.set_metadata.v3.Config", metadata=[said])

    def replace_filter(manager: Json) -> None:
        manager["http_filters"] = [constant if one["name"] == "classify" else one for one in manager["http_filters"]]

    def drop_policy(document: Json) -> None:
        document["resources"][0]["virtual_hosts"][0].pop("typed_per_filter_config")

    return _edit(_edit_manager(files, "public", replace_filter), "rds-public.json", drop_policy)


def _with_lua(files: Files, listener: str, name: str, text: str) -> Files:
    def change(manager: Json) -> None:
        found = next(one for one in manager["http_filters"] if one["name"] == name)
        found["typed_config"]["default_source_code"]["inline_string"] = text

    return _edit_manager(files, listener, change)


def _without_egress(files: Files) -> Files:
    """From the public listener to the backend: neither the second hop nor its edit."""
    clusters = orjson.loads(files.routing["cds.json"])["resources"]
    backend = next(one["name"] for one in clusters if one["name"].startswith("be~"))

    def change(document: Json) -> None:
        tree = document["resources"][0]["virtual_hosts"][0]["matcher"]["matcher_tree"]
        for one in tree["exact_match_map"]["map"].values():
            route = one["action"]["typed_config"]
            if "route" in route:
                route["route"].pop("inline_cluster_specifier_plugin")
                route["route"]["cluster"] = backend

    return _edit(files, "rds-public.json", change)


PARTS: Final[Mapping[str, Callable[[Files], Files]]] = {
    "without access logs": lambda files: _without_logs(
        files, "envoy.access_loggers.stats", "envoy.access_loggers.stdout"
    ),
    "without log lines": lambda files: _without_logs(files, "envoy.access_loggers.stdout"),
    "without stats of logs": lambda files: _without_logs(files, "envoy.access_loggers.stats"),
    "without readers of usage": lambda files: _without_filters(files, "usage", "stream_usage"),
    "without buffer": lambda files: _without_filters(files, "envoy.filters.http.buffer"),
    "without classifier": _with_constant_verdict,
    "without edit": lambda files: _with_lua(files, "egress", "envoy.filters.http.lua", _NOTHING),
    "without egress hop": _without_egress,
}
