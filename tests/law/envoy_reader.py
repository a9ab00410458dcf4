"""Reads a gateway's rendered files as Envoy and the classifier would, and says what a request reaches. Imports nothing of fairlead.

It knows exactly the fields that it understands and refuses every other (`Unreadable`): a mirror, a hedge or a default route that
somebody adds one day is a finding, not something that is overlooked. Semantics are those of Envoy 1.40 (research/envoy.md):
the route is found by the exact key `<chain>|<stream>`; priority group i serves attempt i + 1, and the last one repeats; with
auto_host_rewrite the hostname of the internal endpoint selects the virtual host of the egress listener; there the first route whose
exact path and headers match is taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.law.addresses import Facts
from tests.law.limits import find_more_than_a_limit
from tests.law.reading_hold import is_hold, read_hold
from tests.law.reading_tls import read_tls
from tests.law.shadow_rules import read_patterns
from tests.law.strict import Json, Unreadable
from tests.law.strict import only as _only
from tests.law.strict import typed as _typed

__all__ = ["CLASS_HEADER", "Gateway", "Reached", "Refused", "Unreadable"]

CLASS_HEADER: Final = "x-fairlead-class"
#: How long a stream may pause: the egress side has routes of its own for each value.
IDLE_HEADER: Final = "x-fairlead-idle"
SKIP_HEADER: Final = "x-fairlead-skip"
#: What requests have in common that belong on one pod of a deployment. It may choose among the pods of one place, and nothing else.
AFFINITY_HEADER: Final = "x-fairlead-affinity"
#: By what a pod may be chosen.
HASHED: Final = [{"filter_state": {"key": "fairlead.affinity"}}]
_PROTOCOL: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@dataclass(frozen=True, slots=True)
class Refused:
    """The egress listener answers by itself. `skips`: with the header for which the next attempt is made."""

    status: int
    skips: bool = False


Member = tuple[Facts | Refused, int]  # what one member of a group comes to, and its weight


@dataclass(frozen=True, slots=True)
class Reached:
    """What a request may come to, over all attempts. `status` None: attempts are made; `body`: of a direct response; `retried`: statuses
    after which the next attempt is made; `skips`: it is made after an answer with SKIP_HEADER, too."""

    status: int | None
    attempts: tuple[tuple[Member, ...], ...] = ()
    mark: str | None = None
    body: str = ""
    retried: tuple[int, ...] = ()
    skips: bool = False


@dataclass(frozen=True, slots=True)
class _Action:
    """A public route, read."""

    status: int | None
    body: str
    attempts: tuple[tuple[tuple[str, int], ...], ...]
    retried: tuple[int, ...] = ()
    skips: bool = False
    idle: str | None = None


class Gateway:
    """A gateway that has loaded these files: name -> text."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self.files = files
        self._reached: dict[tuple[str, str, str | None, bool], Reached] = {}
        (public,) = _resources(files["rds-public.json"], "envoy.config.route.v3.RouteConfiguration")
        (egress,) = _resources(files["rds-egress.json"], "envoy.config.route.v3.RouteConfiguration")
        self._read_public(public)
        _only(egress, "egress", "@type", "name", "virtual_hosts", "response_headers_to_remove")
        for name in ("limit-requests.json", "limit-tokens.json"):
            if found := find_more_than_a_limit(name, files[name]):
                raise Unreadable(found)
        self.egress_hosts: dict[str, Json] = {}
        for host in egress["virtual_hosts"]:
            for domain in host["domains"]:
                if domain != "*" and "*" in domain:
                    raise Unreadable(f"the domain {domain}")
                self.egress_hosts[domain.lower()] = host
        clusters = _resources(files["cds.json"], "envoy.config.cluster.v3.Cluster")
        self.clusters = {cluster["name"]: cluster for cluster in clusters}

    # The public side --------------------------------------------------------------------------------------------------------

    def _read_public(self, routes: Json) -> None:
        known = ("@type", "name", "max_direct_response_body_size_bytes", "virtual_hosts", "cluster_specifier_plugins")
        _only(routes, "public", *known)
        plugins = {plugin["extension"]["name"]: plugin for plugin in routes["cluster_specifier_plugins"]}
        (host,) = routes["virtual_hosts"]
        _only(
            host, "public host", "name", "domains", "request_body_buffer_limit", "response_headers_to_remove", "request_headers_to_add",
            "response_headers_to_add", "typed_per_filter_config", "matcher",
        )  # fmt: skip
        marks = {CLASS_HEADER: "class", AFFINITY_HEADER: "affinity"}
        if list(_read_headers(host)) != [(name, f"%DYNAMIC_METADATA(fairlead:{key})%") for name, key in marks.items()]:
            raise Unreadable("the mark is not the class that the classifier found")
        if host["domains"] != ["*"]:
            raise Unreadable("the public virtual host is not for all domains")
        filters = _only(host["typed_per_filter_config"], "public filters", "classify", "patterns")
        classify = _typed(
            filters["classify"], "classify", "envoy.extensions.filters.http.lua.v3.LuaPerRoute", "filter_context"
        )
        context = _only(classify["filter_context"], "filter context", "policy")
        self.lookup: Json = json.loads(context["policy"])
        self.patterns = tuple(read_patterns(filters["patterns"])) if "patterns" in filters else ()
        matcher = _only(host["matcher"], "matcher", "matcher_tree", "on_no_match")
        tree = _only(matcher["matcher_tree"], "matcher tree", "input", "exact_match_map")
        said = _typed(
            tree["input"]["typed_config"],
            "matcher input",
            "envoy.extensions.matching.common_inputs.network.v3.FilterStateInput",
            "key",
        )
        if said["key"] != "fairlead.key":
            raise Unreadable(f"the routes are found by {said['key']}")
        self._actions = {key: _read_action(act, key, plugins) for key, act in tree["exact_match_map"]["map"].items()}
        self._no_match = _read_action(matcher["on_no_match"], "on_no_match", plugins)

    @property
    def keys(self) -> Sequence[str]:
        """All keys under which a route is found."""
        return tuple(self._actions)

    def ask(
        self,
        consumer: str | None,
        model: str,
        declared: str | None,
        found: Sequence[str],
        opaque: bool,
        method: str,
        path: str,
        stream: bool,
    ) -> Reached:
        """A request, from the front door on."""
        answer = self.classify(consumer, model, declared, found, opaque, method, path, stream)
        is_pinned = model in self.lookup.get("affinities", {})
        return Reached(answer) if isinstance(answer, int) else self.reach(*answer, path, is_pinned)

    def classify(
        self,
        consumer: str | None,
        model: str,
        declared: str | None,
        found: Sequence[str],
        opaque: bool,
        method: str,
        path: str,
        stream: bool,
    ) -> tuple[str, str | None] | int:
        """What classify.lua makes of it, by the contract of its look-up tables: the key of the route and the class that the request is
        marked with, or the status of its answer."""
        lookup = self.lookup
        profile = (
            lookup.get("anonymous") if consumer is None else lookup["consumers"].get(consumer, lookup.get("known"))
        )
        missing = 401 if consumer is None else 403
        if method == "GET" and path == "/v1/models":
            return missing if profile is None else (f"models|{profile}", None)
        if method != "POST":
            return 404
        if path not in lookup["endpoints"]:
            return 404
        if profile is None:
            return missing
        chains = lookup["models"].get(model)
        if chains is None:
            return 404
        verdict = lookup["verdicts"].get(profile, {}).get(f"{declared or '-'}|{self._detected(found, opaque)}")
        chain = chains.get(verdict)
        if chain is None:
            return 403
        mark = lookup["classes_of"].get(chain, lookup["classes_of"].get(verdict))
        return f"{chain.partition('.')[0]}|{'true' if stream else 'false'}", mark

    def _detected(self, found: Sequence[str], opaque: bool) -> str:
        """The highest class of what is found. Text is published for patterns only if the tables say that there are some which may raise it;
        then the first policy that matches counts, and where there is none at all, nobody has looked."""
        ranks = self.lookup["classes"]
        classes: list[str] = [ranks[0]]
        classes += [detector["class"] for detector in self.lookup["detectors"] if detector["name"] in found]
        if opaque and "opaque" in self.lookup:
            classes.append(self.lookup["opaque"])
        own = max(classes, key=ranks.index)
        highest = self.lookup.get("patterns")
        if highest is None or ranks.index(highest) <= ranks.index(own):
            return own
        if not self.patterns:
            return str(ranks[-1])
        matched = next((data_class for data_class, detector, _ in self.patterns if detector in found), own)
        return max(own, matched, key=ranks.index)

    def reach(self, key: str, mark: str | None, path: str, is_pinned: bool = False) -> Reached:
        """What the route of a key comes to for a request with this mark; `is_pinned`: of a model whose requests may say on which pod they
        belong."""
        known = self._reached.get((key, path, mark, is_pinned))
        if known is None:
            action = self._actions.get(key, self._no_match)
            known = self._reached[key, path, mark, is_pinned] = self._follow(action, path, mark, is_pinned)
        return known

    def _follow(self, action: _Action, path: str, mark: str | None, is_pinned: bool) -> Reached:
        if action.status is not None:
            return Reached(action.status, (), None, action.body)
        attempts = tuple(
            tuple((self._hop(cluster, path, mark, action.idle, is_pinned), weight) for cluster, weight in group)
            for group in action.attempts
        )
        return Reached(None, attempts, mark, retried=action.retried, skips=action.skips)

    def _hop(self, name: str, path: str, mark: str | None, idle: str | None, is_pinned: bool) -> Facts | Refused:
        """Through the internal endpoint of an attempt to the egress listener, where the hostname is the domain."""
        cluster = self.clusters.get(name)
        if cluster is None:
            return Refused(503)
        known = ("@type", "name", "type", "connect_timeout", "circuit_breakers", "load_assignment")
        _only(cluster, f"attempt cluster {name}", *known)
        (endpoint,) = _endpoints(cluster)
        _only(endpoint, f"endpoint of {name}", "hostname", "address")
        internal = _only(endpoint["address"], f"address of {name}", "envoy_internal_address")["envoy_internal_address"]
        if internal["server_listener_name"] != "egress":
            raise Unreadable(f"{name} leads to the listener {internal['server_listener_name']}")
        host = endpoint["hostname"]
        usual = self.ask_egress(host, "POST", path, mark, idle)
        # A model with an affinity has requests with and without the header; both must find the same.
        if is_pinned and self._ask_egress(host, "POST", path, mark, idle, "7") != usual:
            raise Unreadable(f"with an affinity {host} leads elsewhere than to {usual}")
        return usual

    @property
    def idles(self) -> Sequence[str | None]:
        """Values of IDLE_HEADER for which the egress side has routes, and None."""
        matchers = [
            matcher
            for host in self.egress_hosts.values()
            for route in host["routes"]
            for matcher in route["match"].get("headers", ())
            if matcher["name"] == IDLE_HEADER and "string_match" in matcher
        ]
        return (None, *sorted({matcher["string_match"]["exact"] for matcher in matchers}))

    # The egress side --------------------------------------------------------------------------------------------------------

    def ask_egress(
        self, domain: str, method: str, path: str, mark: str | None, idle: str | None = None
    ) -> Facts | Refused:
        """What the egress listener does with a request that carries this class, and this idle time if it is for a stream. Whether it
        says on which pod it belongs makes no difference to where it goes (or it finds nobody: while clusters have not changed yet)."""
        usual, pinned = (self._ask_egress(domain, method, path, mark, idle, affinity) for affinity in (None, "7"))
        if pinned not in (usual, Refused(503)):
            raise Unreadable(f"with an affinity {domain} leads to {pinned}, without to {usual}")
        return usual

    def _ask_egress(
        self, domain: str, method: str, path: str, mark: str | None, idle: str | None, affinity: str | None
    ) -> Facts | Refused:
        host = self.egress_hosts.get(domain.lower(), self.egress_hosts.get("*"))
        if host is None:
            return Refused(404)
        known = (
            "name",
            "domains",
            "request_body_buffer_limit",
            "response_headers_to_add",
            "routes",
            "typed_per_filter_config",
        )
        _only(host, f"egress {domain}", *known)
        headers = {":method": method, ":authority": domain}
        said = ((CLASS_HEADER, mark), (IDLE_HEADER, idle), (AFFINITY_HEADER, affinity))
        headers |= {name: value for name, value in said if value is not None}
        for route in host["routes"]:
            if _matches(route["match"], path, headers):
                if is_hold(route):
                    inner = read_hold(host, route, self.clusters, self.egress_hosts)
                    return (
                        Refused(503) if inner is None else self._ask_egress(inner, method, path, mark, idle, affinity)
                    )
                hop = self._leave(route, path, domain)
                if isinstance(hop, Facts) and "envoy.filters.http.lua" in host.get("typed_per_filter_config", {}):
                    raise Unreadable(f"{domain} sends requests out as they came")
                if isinstance(hop, Facts) and hop.credentials != () and not _keeps_refused_keys(host, domain):
                    raise Unreadable(f"{domain} passes on what a provider says of its key")
                return hop
        return Refused(404)

    def _leave(self, route: Json, path: str, domain: str) -> Facts | Refused:
        known = ("match", "route", "direct_response", "metadata", "request_headers_to_add", "request_headers_to_remove")
        _only(route, f"egress route of {domain}", *known, "response_headers_to_add", "response_headers_to_remove")
        if "direct_response" in route:
            added = {entry["header"]["key"] for entry in route.get("response_headers_to_add", ())}
            return Refused(route["direct_response"]["status"], SKIP_HEADER in added)
        if SKIP_HEADER not in route.get("response_headers_to_remove", ()):
            raise Unreadable(f"a backend of {domain} may say that the next one is to be tried")
        action = _only(
            route["route"], f"egress action of {domain}",
            "cluster", "timeout", "host_rewrite_literal", "prefix_rewrite", "retry_policy", "hash_policy",
        )  # fmt: skip
        if action.get("hash_policy", HASHED) != HASHED:
            raise Unreadable(f"a pod of {domain} is chosen by {action['hash_policy']}")
        cluster = self.clusters.get(action["cluster"])
        if cluster is None:
            return Refused(503)
        matched = route["match"].get("path") or route["match"].get("prefix", "")
        data = route.get("metadata", {}).get("filter_metadata", {}).get("envoy.filters.http.lua", {})
        removed = route.get("request_headers_to_remove", ())
        return Facts(
            addresses=tuple(sorted(_socket(endpoint) for endpoint in _endpoints(_read_upstream(cluster)))),
            host=action.get("host_rewrite_literal", domain),
            path=action.get("prefix_rewrite", matched) + path[len(matched) :],
            model=_model_of(domain),
            access=data.get("access", ""),
            tls=read_tls(cluster, self.files),
            credentials=tuple(self._credentials(cluster)),
            headers=tuple(_read_headers(route)),
            leaks=tuple(name for name in (CLASS_HEADER, IDLE_HEADER, AFFINITY_HEADER) if name not in removed),
        )

    def _credentials(self, cluster: Json) -> Iterator[tuple[str, str, str]]:
        """Header, prefix and file of each key that is put into requests to a cluster."""
        options = cluster.get("typed_extension_protocol_options", {}).get(_PROTOCOL, {})
        for entry in options.get("http_filters", ()):
            config = entry["typed_config"]
            if config["@type"].endswith(".UpstreamCodec"):
                continue
            where = f"filter of {cluster['name']}"
            injector = "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector"
            _typed(config, where, injector, "overwrite", "credential")
            if config["overwrite"] is not True:
                raise Unreadable(f"{where} lets the caller's own header through")
            generic = "envoy.extensions.http.injected_credentials.generic.v3.Generic"
            said = _typed(
                config["credential"]["typed_config"], where, generic, "header", "credential", "header_value_prefix"
            )
            source = said["credential"]["sds_config"]["path_config_source"]["path"]
            yield (
                said["header"],
                said.get("header_value_prefix", ""),
                self._key_file(source, said["credential"]["name"]),
            )

    def _key_file(self, source: str, name: str) -> str:
        """The file in which a key is, by way of the SDS file that names it."""
        text = self.files.get(source.rpartition("/")[2])
        if text is None:
            raise Unreadable(f"{source} is not there")
        for resource in _resources(text, "envoy.extensions.transport_sockets.tls.v3.Secret"):
            if resource["name"] == name:
                return str(resource["generic_secret"]["secret"]["filename"])
        raise Unreadable(f"{source} has no {name}")


def _keeps_refused_keys(host: Json, domain: str) -> bool:
    """Whether the answer 401 is replaced by one of the gateway's own. Nothing else may become of an answer."""
    filters = _only(host.get("typed_per_filter_config", {}), f"filters of {domain}", "refused_key")
    if not filters:
        return False
    where = f"refused_key of {domain}"
    kind = "envoy.extensions.filters.http.custom_response.v3.CustomResponse"
    config = _typed(filters["refused_key"], where, kind, "custom_response_matcher")
    (matcher,) = _only(config["custom_response_matcher"]["matcher_list"], where, "matchers")["matchers"]
    predicate = matcher["predicate"]["single_predicate"]
    _typed(predicate["input"]["typed_config"], where, "envoy.type.matcher.v3.HttpResponseStatusCodeMatchInput")
    policy = "envoy.extensions.http.custom_response.local_response_policy.v3.LocalResponsePolicy"
    answer = _typed(matcher["on_match"]["action"]["typed_config"], where, policy, "status_code")
    return bool(predicate["value_match"] == {"exact": "401"} and answer["status_code"] == 502)


def _model_of(domain: str) -> str:
    """As egress.lua reads it; "" where it would send nothing."""
    digits = re.match(r"([0-9a-f]+)\.", domain)
    return bytes.fromhex(digits[1]).decode() if digits and len(digits[1]) % 2 == 0 else ""


def _resources(text: str, type_name: str) -> list[Json]:
    file = json.loads(text)
    for resource in file["resources"]:
        if resource["@type"] != f"type.googleapis.com/{type_name}":
            raise Unreadable(f"a resource is a {resource['@type']}")
    return list(file["resources"])


def _endpoints(cluster: Json) -> list[Json]:
    return [
        entry["endpoint"] for locality in cluster["load_assignment"]["endpoints"] for entry in locality["lb_endpoints"]
    ]


def _socket(endpoint: Json) -> tuple[str, int]:
    address = _only(endpoint, "endpoint", "address")["address"]["socket_address"]
    return address["address"], address["port_value"]


def _read_action(act: Json, key: str, plugins: Mapping[str, Json]) -> _Action:
    """A route of the public side: a direct answer, or groups of clusters, one group per attempt."""
    route = _typed(
        act["action"]["typed_config"], f"route {key}", "envoy.config.route.v3.Route",
        "match", "name", "route", "direct_response", "request_headers_to_add", "response_headers_to_add",
    )  # fmt: skip
    if route["match"] != {"prefix": "/"}:
        raise Unreadable(f"route {key} matches {route['match']}")
    if "direct_response" in route:
        answer = route["direct_response"]
        return _Action(answer["status"], answer["body"]["inline_string"], ())
    known = ("cluster_specifier_plugin", "auto_host_rewrite", "timeout", "idle_timeout", "retry_policy")
    action = _only(route["route"], f"action {key}", *known)
    if action.get("auto_host_rewrite") is not True:
        raise Unreadable(f"route {key} lets the caller choose the virtual host of the egress listener")
    plugin = plugins[action["cluster_specifier_plugin"]]["extension"]["typed_config"]
    kind = "envoy.extensions.router.cluster_specifiers.priority_group.v3.PriorityGroupClusterSpecifier"
    groups = [
        tuple((member["cluster_name"], member["weight"]) for member in group["clusters"] if member["weight"])
        for group in _typed(plugin, f"groups {key}", kind, "priority_groups")["priority_groups"]
    ]
    added = dict(_read_headers(route))
    if added.keys() - {IDLE_HEADER}:
        raise Unreadable(f"route {key} sets {', '.join(sorted(added))}")
    idle = added.get(IDLE_HEADER)
    retry = action.get("retry_policy", {})
    retry_on = retry.get("retry_on", "").split(",")
    retried = tuple(retry.get("retriable_status_codes", ())) if "retriable-status-codes" in retry_on else ()
    retried += tuple(range(500, 600)) if "5xx" in retry_on else ()
    skips = "retriable-headers" in retry_on and retry.get("retriable_headers") == [
        {"name": SKIP_HEADER, "present_match": True}
    ]
    return _Action(None, "", tuple(_spread(groups, retry, key)), retried, skips, idle)


def _spread(
    groups: Sequence[tuple[tuple[str, int], ...]], retry: Json, key: str
) -> Iterator[tuple[tuple[str, int], ...]]:
    """The group of each attempt that is made."""
    _only(
        retry, f"retry {key}", "retry_on", "retriable_status_codes", "num_retries", "refresh_cluster_on_retry", "retry_back_off",
        "per_try_timeout", "per_try_idle_timeout", "retriable_headers",
    )  # fmt: skip
    for attempt in range(1 + retry.get("num_retries", 1 if retry else 0)):
        yield groups[min(attempt, len(groups) - 1) if retry.get("refresh_cluster_on_retry") else 0]


def _read_headers(route: Json) -> Iterator[tuple[str, str]]:
    """Headers that a route sets."""
    for entry in route.get("request_headers_to_add", ()):
        if entry.get("append_action") != "OVERWRITE_IF_EXISTS_OR_ADD":
            raise Unreadable(f"{entry['header']['key']} does not replace what the caller sent")
        yield entry["header"]["key"], entry["header"]["value"]


def _matches(match: Json, path: str, headers: Mapping[str, str]) -> bool:
    _only(match, "match", "path", "prefix", "headers")
    if "path" in match and match["path"] != path:
        return False
    if "prefix" in match and not path.startswith(match["prefix"]):
        return False
    return all(_header_matches(matcher, headers) for matcher in match.get("headers", ()))


def _header_matches(matcher: Json, headers: Mapping[str, str]) -> bool:
    _only(matcher, "header", "name", "string_match", "present_match")
    value = headers.get(matcher["name"])
    if "present_match" in matcher:
        return bool((value is not None) == matcher["present_match"]) and "string_match" not in matcher
    said = _only(matcher["string_match"], "string", "exact", "safe_regex")
    if value is None:
        return False
    if "exact" in said:
        return bool(said["exact"] == value)
    return re.fullmatch(said["safe_regex"]["regex"], value) is not None


def _read_upstream(cluster: Json) -> Json:
    where = f"cluster {cluster['name']}"
    if cluster["lb_policy"] not in ("LEAST_REQUEST", "MAGLEV"):
        raise Unreadable(f"{where} balances by {cluster['lb_policy']}")
    if cluster["lb_policy"] == "MAGLEV" and "least_request_lb_config" in cluster:
        raise Unreadable(f"{where} says how it starts slowly, which Envoy overlooks")
    slow = _only(cluster.get("least_request_lb_config", {}), where, "slow_start_config")
    _only(slow.get("slow_start_config", {}), where, "slow_start_window", "min_weight_percent")
    common = _only(cluster["common_lb_config"], where, "healthy_panic_threshold", "consistent_hashing_lb_config")
    _only(common.get("consistent_hashing_lb_config", {}), where, "hash_balance_factor")
    return _only(
        cluster, where, "@type", "name", "cluster_type", "connect_timeout", "lb_policy", "common_lb_config",
        "per_connection_buffer_limit_bytes", "circuit_breakers", "outlier_detection", "load_assignment",
        "typed_extension_protocol_options", "transport_socket", "least_request_lb_config",
    )  # fmt: skip
