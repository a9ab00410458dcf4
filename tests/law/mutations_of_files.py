"""Mistakes in what is rendered, put in by editing the files: file -> JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

__all__ = ["EDITS", "Files", "clusters_in", "edit", "options_of", "providers"]

Json = dict[str, Any]
Files = dict[str, Json]
EDITS: Final[dict[str, Callable[[Files], None]]] = {}


def edit(change: Callable[[Files], None]) -> Callable[[Files], None]:
    """Registers it under the name of the function."""
    EDITS[change.__name__.replace("_", "-")] = change
    return change


def _public(files: Files) -> Json:
    host: Json = files["rds-public.json"]["resources"][0]["virtual_hosts"][0]
    return host


def _map(files: Files) -> Json:
    found: Json = _public(files)["matcher"]["matcher_tree"]["exact_match_map"]["map"]
    return found


def _forwarding(files: Files) -> list[Json]:
    routes = [act["action"]["typed_config"] for act in _map(files).values()]
    return [route for route in routes if "route" in route]


def _all_groups(files: Files) -> list[list[Json]]:
    """Of each plugin that chooses clusters."""
    plugins = files["rds-public.json"]["resources"][0]["cluster_specifier_plugins"]
    return [plugin["extension"]["typed_config"]["priority_groups"] for plugin in plugins]


def _egress_hosts(files: Files) -> list[Json]:
    """From which requests leave: those in which they wait are the matter of `mutations_of_hold`."""
    found: list[Json] = files["rds-egress.json"]["resources"][0]["virtual_hosts"]
    return [host for host in found if "auto_host_rewrite" not in host["routes"][0].get("route", {})]


def _egress_routes(files: Files) -> Iterator[Json]:
    for host in _egress_hosts(files):
        yield from (route for route in host["routes"] if "route" in route)


def clusters_in(files: Files, prefix: str) -> list[Json]:
    return [cluster for cluster in files["cds.json"]["resources"] if cluster["name"].startswith(prefix)]


def providers(files: Files) -> list[Json]:
    return [cluster for cluster in clusters_in(files, "be~") if "http_filters" in options_of(cluster)]


def _locals(files: Files) -> list[Json]:
    return [cluster for cluster in clusters_in(files, "be~") if "http_filters" not in options_of(cluster)]


def options_of(cluster: Json) -> Json:
    found: Json
    (found,) = cluster["typed_extension_protocol_options"].values()
    return found


def _rotate(values: list[Any]) -> list[Any]:
    return [*values[1:], *values[:1]]


# The public side ------------------------------------------------------------------------------------------------------------------


@edit
def what_matches_nothing_is_forwarded(files: Files) -> None:
    for route in _forwarding(files)[:1]:
        _public(files)["matcher"]["on_no_match"]["action"]["typed_config"] = route


@edit
def a_request_without_mark_has_a_chain(files: Files) -> None:
    for route in _forwarding(files)[:1]:
        _map(files)["-|-"] = {"action": {"name": "route", "typed_config": route}}


@edit
def the_key_of_streams_leads_to_another_chain(files: Files) -> None:
    keys = [key for key in _map(files) if key.endswith("|true") and not key.startswith("models|")]
    acts = [_map(files)[key] for key in keys]
    _map(files).update(zip(keys, _rotate(acts), strict=True))


@edit
def streams_have_no_routes(files: Files) -> None:
    for key in [key for key in _map(files) if key.endswith("|true")]:
        del _map(files)[key]


@edit
def the_mark_is_not_set(files: Files) -> None:
    del _public(files)["request_headers_to_add"]


@edit
def the_mark_is_what_the_caller_sends(files: Files) -> None:
    _public(files)["request_headers_to_add"][0]["append_action"] = "ADD_IF_ABSENT"


@edit
def the_mark_is_what_the_caller_declares(files: Files) -> None:
    _public(files)["request_headers_to_add"][0]["header"]["value"] = "%REQ(x-data-classification)%"


@edit
def the_mark_is_always_public(files: Files) -> None:
    _public(files)["request_headers_to_add"][0]["header"]["value"] = "Public"


@edit
def the_mark_of_internal_is_public(files: Files) -> None:
    context = _public(files)["typed_per_filter_config"]["classify"]["filter_context"]
    lookup = json.loads(context["policy"])
    lookup["classes_of"] = {
        name: "Public" if data_class == "Internal" else data_class for name, data_class in lookup["classes_of"].items()
    }
    context["policy"] = json.dumps(lookup)


@edit
def the_caller_chooses_the_egress_host(files: Files) -> None:
    for route in _forwarding(files):
        route["route"]["auto_host_rewrite"] = False


def _action_field(name: str, **fields: Any) -> None:
    def change(files: Files) -> None:
        for route in _forwarding(files):
            route["route"].update(fields)

    EDITS[name] = change


_action_field("requests-are-mirrored", request_mirror_policies=[{"cluster": "be~b1"}])
_action_field("requests-are-hedged", hedge_policy={"hedge_on_per_try_timeout": True})
_action_field("redirects-are-followed", internal_redirect_policy={"max_internal_redirects": 1})
_action_field("a-header-chooses-the-cluster", cluster_header="x-cluster")


@edit
def retries_end_too_early(files: Files) -> None:
    for route in _forwarding(files):
        retry = route["route"]["retry_policy"]
        retry["num_retries"] = max(0, retry["num_retries"] - 1)


@edit
def retries_go_on_after_the_last_group(files: Files) -> None:
    for route in _forwarding(files):
        route["route"]["retry_policy"]["num_retries"] += 1


@edit
def retries_stay_in_the_first_group(files: Files) -> None:
    for route in _forwarding(files):
        route["route"]["retry_policy"]["refresh_cluster_on_retry"] = False


@edit
def one_more_group_has_the_cluster_of_another_chain(files: Files) -> None:
    plugins = _all_groups(files)
    for groups, first in zip(plugins, _rotate([groups[0] for groups in plugins]), strict=True):
        groups.append({"name": "more", "clusters": first["clusters"]})
    for route in _forwarding(files):
        route["route"]["retry_policy"]["num_retries"] += 1


@edit
def a_chain_takes_the_groups_of_another(files: Files) -> None:
    routes = _forwarding(files)
    names = [route["route"]["cluster_specifier_plugin"] for route in routes]
    for route, name in zip(routes, sorted(names, key=lambda name: (name == names[0], name)), strict=True):
        route["route"]["cluster_specifier_plugin"] = name


@edit
def the_last_group_has_another_cluster(files: Files) -> None:
    clusters = [{"cluster_name": cluster["name"], "weight": 1} for cluster in clusters_in(files, "to~")]
    for groups in _all_groups(files):
        groups[-1]["clusters"] = clusters[:1]


@edit
def the_weighted_group_has_one_more_cluster(files: Files) -> None:
    clusters = [{"cluster_name": cluster["name"], "weight": 1} for cluster in clusters_in(files, "to~")]
    for groups in _all_groups(files):
        groups[0]["clusters"] += clusters[-1:]


@edit
def an_attempt_goes_round_the_egress_side(files: Files) -> None:
    for groups in _all_groups(files):
        member = groups[-1]["clusters"][0]
        _, place, backend, _ = member["cluster_name"].split(".")
        member["cluster_name"] = f"be~{backend}~{place}"


# The egress side ------------------------------------------------------------------------------------------------------------------


def _class_matcher(name: str, change: Callable[[list[Json]], None]) -> None:
    def change_all(files: Files) -> None:
        for route in _egress_routes(files):
            change(route["match"]["headers"])

    EDITS[name] = change_all


def _said(headers: list[Json]) -> Json:
    (found,) = [header for header in headers if header["name"] == "x-fairlead-class"]
    matcher: Json = found["string_match"]["safe_regex"]
    return matcher


_class_matcher("the-egress-side-takes-every-class", lambda h: _said(h).update(regex=".*"))
_class_matcher(
    "the-egress-side-takes-classes-that-begin-alike", lambda h: _said(h).update(regex=f"({_said(h)['regex']}).*")
)
_class_matcher(
    "the-egress-side-takes-one-class-more", lambda h: _said(h).update(regex=_said(h)["regex"] + "|Restricted")
)
_class_matcher(
    "the-egress-side-takes-one-class-less",
    lambda h: _said(h).update(regex=_said(h)["regex"].partition("|")[2] or "none"),
)
_class_matcher("the-egress-side-takes-no-mark-as-well", lambda h: _said(h).update(regex=_said(h)["regex"] + "|"))
_class_matcher(
    "the-egress-side-does-not-look-at-the-class",
    lambda h: h.remove(next(x for x in h if x["name"] == "x-fairlead-class")),
)
_class_matcher(
    "the-egress-side-does-not-look-at-the-method", lambda h: h.remove(next(x for x in h if x["name"] == ":method"))
)


@edit
def the_default_of_the_egress_side_forwards(files: Files) -> None:
    for host in _egress_hosts(files):
        last, first = host["routes"][-1], host["routes"][0]
        del last["direct_response"]
        last["route"] = first["route"]


@edit
def the_egress_side_matches_prefixes(files: Files) -> None:
    for route in _egress_routes(files):
        route["match"]["prefix"] = route["match"].pop("path")


@edit
def the_egress_side_has_a_host_for_all_others(files: Files) -> None:
    for host in _egress_hosts(files)[:1]:
        host["domains"].append("*")


@edit
def the_egress_side_has_an_endpoint_for_files(files: Files) -> None:
    for host in _egress_hosts(files):
        host["routes"].insert(0, {**host["routes"][0], "match": {**host["routes"][0]["match"], "path": "/v1/files"}})


@edit
def what_a_provider_says_of_its_key_is_passed_on(files: Files) -> None:
    for host in _egress_hosts(files):
        host.pop("typed_per_filter_config", None)


@edit
def an_answer_is_asked_for_elsewhere(files: Files) -> None:
    """By a policy that follows a redirect: to a host that no class was checked for."""
    redirect = "type.googleapis.com/envoy.extensions.http.custom_response.redirect_policy.v3.RedirectPolicy"
    for host in _egress_hosts(files):
        for config in host.get("typed_per_filter_config", {}).values():
            for matcher in config["custom_response_matcher"]["matcher_list"]["matchers"]:
                matcher["on_match"]["action"]["typed_config"] = {"@type": redirect, "uri": "https://elsewhere.example/"}


@edit
def egress_hosts_are_exchanged(files: Files) -> None:
    hosts = _egress_hosts(files)
    for host, domains in zip(hosts, _rotate([host["domains"] for host in hosts]), strict=True):
        host["domains"] = domains


@edit
def the_class_leaves_with_the_request(files: Files) -> None:
    for route in _egress_routes(files):
        del route["request_headers_to_remove"]


def _egress_values(name: str, read: Callable[[Json], Json], key: str) -> None:
    """Each virtual host has the value of the next one."""

    def change(files: Files) -> None:
        hosts = [[route for route in host["routes"] if "route" in route] for host in _egress_hosts(files)]
        values = _rotate([read(routes[0])[key] for routes in hosts])
        for routes, value in zip(hosts, values, strict=True):
            for route in routes:
                read(route)[key] = value

    EDITS[name] = change


def _lua(route: Json) -> Json:
    found: Json = route["metadata"]["filter_metadata"]["envoy.filters.http.lua"]
    return found


_egress_values("the-host-header-of-another-backend-is-sent", lambda route: route["route"], "host_rewrite_literal")
_egress_values("the-cluster-of-another-backend-is-taken", lambda route: route["route"], "cluster")
_egress_values("providers-are-taken-for-local", _lua, "access")


@edit
def the_model_of_another_target_is_asked_for(files: Files) -> None:
    """The same places, but each attempt with the name that the next one has for its model."""
    renamed = {}
    hosts = sorted({domain for host in _egress_hosts(files) for domain in host["domains"]})
    models = [domain.partition(".")[0] for domain in hosts]
    for domain, model in zip(hosts, _rotate(models), strict=True):
        renamed[domain] = f"{model}.{domain.partition('.')[2]}"
    for host in _egress_hosts(files):
        host["domains"] = sorted({renamed[domain] for domain in host["domains"]})
    for cluster in [*clusters_in(files, "to~"), *clusters_in(files, "hold~")]:
        endpoint = _addresses(cluster)[0]["endpoint"]
        endpoint["hostname"] = renamed.get(endpoint["hostname"], endpoint["hostname"])


@edit
def the_host_header_is_not_rewritten(files: Files) -> None:
    for route in _egress_routes(files):
        del route["route"]["host_rewrite_literal"]


@edit
def the_path_is_not_rewritten(files: Files) -> None:
    for route in _egress_routes(files):
        del route["route"]["prefix_rewrite"]


@edit
def endpoints_are_exchanged(files: Files) -> None:
    for host in _egress_hosts(files):
        routes = [route["route"] for route in host["routes"] if "route" in route]
        for action, path in zip(routes, _rotate([action["prefix_rewrite"] for action in routes]), strict=True):
            action["prefix_rewrite"] = path


@edit
def constant_headers_are_not_set(files: Files) -> None:
    for route in _egress_routes(files):
        route.pop("request_headers_to_add", None)


# Clusters -------------------------------------------------------------------------------------------------------------------------


@edit
def the_key_of_another_backend_is_sent(files: Files) -> None:
    options = [options_of(cluster) for cluster in providers(files)]
    for option, filters in zip(options, _rotate([option["http_filters"] for option in options]), strict=True):
        option["http_filters"] = filters


@edit
def a_key_is_sent_to_deployments(files: Files) -> None:
    for provider in providers(files)[:1]:
        for cluster in _locals(files):
            options_of(cluster)["http_filters"] = options_of(provider)["http_filters"]


@edit
def no_key_is_sent(files: Files) -> None:
    for cluster in providers(files):
        del options_of(cluster)["http_filters"]


@edit
def the_key_of_the_caller_is_left_in_place(files: Files) -> None:
    for cluster in providers(files):
        options_of(cluster)["http_filters"][0]["typed_config"]["overwrite"] = False


@edit
def the_key_is_sent_in_another_header(files: Files) -> None:
    for cluster in providers(files):
        options_of(cluster)["http_filters"][0]["typed_config"]["credential"]["typed_config"]["header"] = "x-key"


@edit
def requests_go_on_without_the_key(files: Files) -> None:
    for cluster in providers(files):
        options_of(cluster)["http_filters"][0]["typed_config"]["allow_request_without_credential"] = True


@edit
def the_file_of_another_backends_key_is_read(files: Files) -> None:
    secrets = [
        file["resources"][0]["generic_secret"]["secret"] for name, file in files.items() if name.startswith("key-")
    ]
    for secret, filename in zip(secrets, _rotate([secret["filename"] for secret in secrets]), strict=True):
        secret["filename"] = filename


def _addresses(cluster: Json) -> list[Json]:
    found: list[Json] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    return found


@edit
def the_address_of_another_backend_is_called(files: Files) -> None:
    clusters = clusters_in(files, "be~")
    for cluster, addresses in zip(clusters, _rotate([_addresses(cluster) for cluster in clusters]), strict=True):
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = addresses


@edit
def one_more_address_is_called(files: Files) -> None:
    for cluster in clusters_in(files, "be~"):
        address = {"socket_address": {"address": "evil.example", "port_value": 443}}
        _addresses(cluster).append({"endpoint": {"address": address}})


@edit
def another_port_is_called(files: Files) -> None:
    for cluster in clusters_in(files, "be~"):
        _addresses(cluster)[0]["endpoint"]["address"]["socket_address"]["port_value"] = 11435


@edit
def an_attempt_leads_to_the_host_of_another(files: Files) -> None:
    clusters = clusters_in(files, "to~")
    endpoints = [_addresses(cluster)[0]["endpoint"] for cluster in clusters]
    for endpoint, hostname in zip(endpoints, _rotate([endpoint["hostname"] for endpoint in endpoints]), strict=True):
        endpoint["hostname"] = hostname


@edit
def an_attempt_leads_to_another_listener(files: Files) -> None:
    for cluster in clusters_in(files, "to~"):
        _addresses(cluster)[0]["endpoint"]["address"]["envoy_internal_address"]["server_listener_name"] = "public"


@edit
def a_cluster_is_missing(files: Files) -> None:
    for cluster in clusters_in(files, "be~")[:1]:
        files["cds.json"]["resources"].remove(cluster)


@edit
def an_affinity_leads_to_the_pods_of_another_backend(files: Files) -> None:
    names = [cluster["name"] for cluster in clusters_in(files, "be~")]
    for route in _egress_routes(files):
        if "hash_policy" in route["route"]:
            usual = route["route"]["cluster"].replace("pin~", "be~")
            route["route"]["cluster"] = next(name for name in names if name != usual)
