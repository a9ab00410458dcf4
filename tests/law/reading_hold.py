"""Reads the virtual hosts of the egress side in which requests wait: they may lead to one other virtual host, for the same model, and
change nothing on the way there. Imports nothing of fairlead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.law.strict import Json, Unreadable
from tests.law.strict import only as _only
from tests.law.strict import typed as _typed

__all__ = ["is_hold", "read_hold"]

#: How Envoy ended a response, on which waiting goes on.
FLAGS_HEADER: Final = "x-fairlead-flags"
#: No pod is there, or none took the connection: in either case nobody has the request.
NOBODY: Final = [{"name": FLAGS_HEADER, "string_match": {"contains": flag}} for flag in ("UH", "UF")]


def is_hold(route: Json) -> bool:
    """Whether a route of the egress side is one of those in which requests wait."""
    return "auto_host_rewrite" in route.get("route", {})


def read_hold(host: Json, route: Json, clusters: Mapping[str, Json], hosts: Mapping[str, Json]) -> str | None:
    """The domain to which a request goes on; None: the cluster is not there."""
    where = f"hold {host['name']}"
    (domain,) = host["domains"]
    _only(route, where, "match", "route")
    filters = _only(host["typed_per_filter_config"], where, "envoy.filters.http.lua", "refused_key")
    lua = "envoy.extensions.filters.http.lua.v3.LuaPerRoute"
    if _typed(filters["envoy.filters.http.lua"], where, lua, "disabled")["disabled"] is not True:
        raise Unreadable(f"{where} edits requests that are not on their way out")
    _read_answers(filters, where)
    action = _only(route["route"], where, "cluster", "auto_host_rewrite", "timeout", "retry_policy")
    if action["auto_host_rewrite"] is not True:
        raise Unreadable(f"{where} lets the caller choose where it goes on")
    retry = _only(
        action["retry_policy"], where,
        "retry_on", "num_retries", "retriable_headers", "rate_limited_retry_back_off", "per_try_timeout",
    )  # fmt: skip
    if retry["retry_on"] != "retriable-headers":
        raise Unreadable(f"{where} asks again on {retry['retry_on']}")
    cluster = clusters.get(action["cluster"])
    if cluster is None:
        return None
    inner = _read_cluster(cluster, where)
    if inner.partition(".")[0] != domain.partition(".")[0]:
        raise Unreadable(f"{where} leads from {domain} to {inner}, which is another model")
    following = hosts.get(inner.lower())
    if following is not None:
        _read_following(following, retry, where)
    return inner


def _read_cluster(cluster: Json, where: str) -> str:
    known = ("@type", "name", "type", "connect_timeout", "circuit_breakers", "load_assignment")
    ((endpoint,),) = (
        [entry["endpoint"] for entry in locality["lb_endpoints"]]
        for locality in _only(cluster, where, *known)["load_assignment"]["endpoints"]
    )
    internal = _only(_only(endpoint, where, "hostname", "address")["address"], where, "envoy_internal_address")
    if internal["envoy_internal_address"]["server_listener_name"] != "egress":
        raise Unreadable(f"{where} leads to another listener")
    return str(endpoint["hostname"])


def _read_following(host: Json, retry: Json, where: str) -> None:
    """Where it goes on, nobody waits again, and only Envoy says that nobody was there."""
    if any(is_hold(route) for route in host["routes"]):
        raise Unreadable(f"{where} leads to another one of its kind")
    if "retriable_headers" not in retry:
        return
    if retry["retriable_headers"] != NOBODY:
        raise Unreadable(f"{where} asks again on {retry['retriable_headers']}")
    said = [entry for entry in host["response_headers_to_add"] if entry["header"]["key"] == FLAGS_HEADER]
    replaced = {
        "header": {"key": FLAGS_HEADER, "value": "%RESPONSE_FLAGS%"},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    if said != [replaced]:
        raise Unreadable(f"a backend may say for {where} that nobody was there")


def _read_answers(filters: Json, where: str) -> None:
    """What is told to those who waited in vain: 503, and nothing becomes of other answers."""
    if "refused_key" not in filters:
        return
    kind = "envoy.extensions.filters.http.custom_response.v3.CustomResponse"
    config = _typed(filters["refused_key"], where, kind, "custom_response_matcher")
    for matcher in config["custom_response_matcher"]["matcher_list"]["matchers"]:
        predicate = matcher["predicate"]["single_predicate"]
        header = "envoy.type.matcher.v3.HttpResponseHeaderMatchInput"
        if _typed(predicate["input"]["typed_config"], where, header, "header_name")["header_name"] != FLAGS_HEADER:
            raise Unreadable(f"{where} replaces other answers than its own")
        policy = "envoy.extensions.http.custom_response.local_response_policy.v3.LocalResponsePolicy"
        known = ("status_code", "body", "response_headers_to_add")
        answer = _typed(matcher["on_match"]["action"]["typed_config"], where, policy, *known)
        if answer["status_code"] != 503:
            raise Unreadable(f"{where} answers {answer['status_code']}")
