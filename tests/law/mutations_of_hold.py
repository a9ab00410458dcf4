"""Mistakes in how requests wait, put in by editing the files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tests.law.mutations_of_files import Files, clusters_in, edit

Json = dict[str, Any]
_LUA: Final = "envoy.filters.http.lua"


def _hosts(files: Files) -> list[Json]:
    found: list[Json] = files["rds-egress.json"]["resources"][0]["virtual_hosts"]
    return found


def _holding(files: Files) -> list[Json]:
    return [host for host in _hosts(files) if _LUA in host.get("typed_per_filter_config", {})]


def _actions(files: Files) -> Iterator[Json]:
    for host in _holding(files):
        yield from (route["route"] for route in host["routes"] if "route" in route)


def _lead(cluster: Json, domain: str) -> None:
    for locality in cluster["load_assignment"]["endpoints"]:
        for entry in locality["lb_endpoints"]:
            entry["endpoint"]["hostname"] = domain


@edit
def who_waits_is_sent_on_to_a_provider(files: Files) -> None:
    """Which lets it in: that the second wall holds is judged by others."""
    clouds = [host for host in _hosts(files) if host["name"].endswith(".cloud") and host not in _holding(files)]
    for cloud in clouds[:1]:
        for route in cloud["routes"]:
            for matcher in route["match"].get("headers", ()):
                if matcher["name"] == "x-fairlead-class":
                    matcher["string_match"] = {"safe_regex": {"regex": ".*"}}
        for cluster in clusters_in(files, "hold~"):
            _lead(cluster, cloud["domains"][0])


@edit
def who_waits_goes_to_another_deployment(files: Files) -> None:
    holding = clusters_in(files, "hold~")
    domains = [
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["hostname"] for cluster in holding
    ]
    for cluster, domain in zip(holding, [*domains[1:], *domains[:1]], strict=True):
        _lead(cluster, domain)


@edit
def who_waits_never_ends(files: Files) -> None:
    for action in _actions(files):
        action["cluster"] = "none"


@edit
def the_class_is_not_looked_at_where_requests_wait_and_leave(files: Files) -> None:
    for host in _hosts(files):
        for route in host["routes"]:
            headers = route["match"].get("headers", [])
            route["match"]["headers"] = [one for one in headers if one["name"] != "x-fairlead-class"]


@edit
def the_caller_chooses_for_whom_it_waits(files: Files) -> None:
    for action in _actions(files):
        action["auto_host_rewrite"] = False


@edit
def errors_of_pods_are_waited_out(files: Files) -> None:
    for action in _actions(files):
        action["retry_policy"]["retry_on"] = "retriable-headers,5xx"


@edit
def a_pod_may_say_that_nobody_is_there(files: Files) -> None:
    for host in _hosts(files):
        for entry in host.get("response_headers_to_add", ()):
            if entry["header"]["key"] == "x-fairlead-flags":
                entry["append_action"] = "ADD_IF_ABSENT"


@edit
def who_waits_is_mirrored(files: Files) -> None:
    for action in _actions(files):
        action["request_mirror_policies"] = [{"cluster": action["cluster"]}]


@edit
def who_waits_is_marked_anew(files: Files) -> None:
    public = {"header": {"key": "x-fairlead-class", "value": "Public"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    for host in _holding(files):
        for route in host["routes"]:
            route["request_headers_to_add"] = [public]


@edit
def requests_leave_as_they_came_where_they_may_have_waited(files: Files) -> None:
    disabled = _holding(files)[0]["typed_per_filter_config"][_LUA] if _holding(files) else None
    for host in _hosts(files):
        if disabled is not None and host["name"].endswith(".local"):
            host.setdefault("typed_per_filter_config", {})[_LUA] = disabled


@edit
def the_last_one_waits_for_a_provider(files: Files) -> None:
    """As if patience were asked for in the groups of a chain: the first provider there is, once more."""
    clouds = [cluster["name"] for cluster in clusters_in(files, "to~") if cluster["name"].endswith(".cloud")]
    for plugin in files["rds-public.json"]["resources"][0]["cluster_specifier_plugins"]:
        groups = plugin["extension"]["typed_config"]["priority_groups"]
        if clouds and "-" in groups[-1]["clusters"][0]["cluster_name"].split(".")[1]:
            groups.append({"name": "more", "clusters": [{"cluster_name": clouds[0], "weight": 1}]})
    for act in files["rds-public.json"]["resources"][0]["virtual_hosts"][0]["matcher"]["matcher_tree"][
        "exact_match_map"
    ]["map"].values():
        route = act["action"]["typed_config"].get("route")
        if route:
            route["retry_policy"]["num_retries"] += 1
