"""Narrowing at once: takes out of the routes that run whatever a new table no longer permits, and leaves the rest as it is.

A new routing may have to wait, for clusters that are added first or for a person who mends the rest of it; what is withdrawn must
not wait with it (law 5). So callers are looked at one by one, as they were and as they will be, and of what a chain tries only those
places stay that the new table still sends them to. What widens is not taken over here.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import groupby
from typing import Any, Final, NamedTuple

from fairlead.api.route import DataClass, LLMAccess
from fairlead.gateway.envoy.clusters import attempt_cluster, backend_of, is_gateway, plain_cluster
from fairlead.gateway.envoy.egress import LUA, tell_to_forget
from fairlead.gateway.envoy.files import dump_resources, read_resources
from fairlead.gateway.envoy.patterns import FILTER as PATTERNS
from fairlead.gateway.envoy.patterns import make_route_patterns, read_route_patterns
from fairlead.gateway.envoy.routes import make_plugins, make_unavailable, name_groups
from fairlead.gateway.envoy.words import Json
from fairlead.gateway.lookup import MODELS_CHAIN, make_lookup
from fairlead.gateway.lua import pack_lookup, unpack_lookup
from fairlead.gateway.patterns import highest_class, name_patterns
from fairlead.gateway.table import DECLARED_NOTHING, GATEWAY, Attempt, RouteTable
from fairlead.policy.law import CLASSES, Verdict

__all__ = ["forget", "withdraw"]

#: The chain of requests whose places have all changed: they are permitted, and the next step brings them there.
MOVING: Final = "moving"

#: What a provider keeps unasked of which no more is known.
_KEEPING: Final = ("/v1/responses",)
#: Of requests for a stream, and of all others.
_KINDS: Final = ("true", "false")
#: Profile of callers who are not let in any more.
_NOBODY: Final = "-"
Pair = tuple[str, str]  # profile as it runs, profile of the new table


@dataclass(frozen=True, slots=True)
class _New:
    """What the new table permits. `refused`: providers whose entry in the new spec is refused, so that where they would be is not known:
    one that was there before under the name stays for what the law lets any provider of that name take."""

    table: RouteTable
    refused: frozenset[str]
    places: Mapping[str, frozenset[str]]  # by backend

    def permits(self, cluster: str, model: str, verdict: Verdict | None) -> bool:
        if verdict is None:
            return False
        chain = self.table.chains.get((model, verdict))
        if chain is not None and plain_cluster(cluster) in {
            name for attempt in chain.attempts for name in self._names(attempt)
        }:
            return True
        if is_gateway(cluster):
            # Which decides again. Over what is not encrypted Restricted requests do not even go there.
            return chain is not None and (
                chain.data_class is not DataClass.RESTRICTED or any(one.backend == GATEWAY for one in chain.attempts)
            )
        backend, access = backend_of(cluster)
        is_named = backend in verdict.permitted and backend in self.table.targets.get(model, frozenset())
        return is_named and backend in self.refused and access is LLMAccess.CLOUD

    def _names(self, attempt: Attempt) -> Iterator[str]:
        """Clusters that lead where an attempt leads. One from before the law let more or less go there is as good until it is gone: this
        request may."""
        if attempt.backend == GATEWAY:
            return iter(())
        return (attempt_cluster(replace(attempt, place=place)) for place in self.places[attempt.backend])

    def verdict(self, profile: str, key: str) -> Verdict | None:
        """In the case that `key` names (declared|detected). None: such callers are not let in."""
        found = next((one for one in self.table.profiles if one.id == profile), None)
        if found is None:
            return None
        declared, _, detected = key.partition("|")
        classes = {data_class.value: data_class for data_class in CLASSES}
        return found.verdicts[None if declared == DECLARED_NOTHING else classes[declared], classes[detected]]


def withdraw(public: str, table: RouteTable, refused: Collection[str] = (), *, shorten: bool = True) -> str:
    """The text of `rds-public.json` without what `table` does not permit; the same text when it permits all of it.

    `shorten` False: a chain of which not all stay is no longer tried at all, which needs no route of its own: the way out for a routing
    that would not fit otherwise.
    """
    kind, (routes,) = read_resources(public)
    (host,) = routes["virtual_hosts"]
    running = unpack_lookup(host["typed_per_filter_config"]["classify"]["filter_context"])
    actions: Json = host["matcher"]["matcher_tree"]["exact_match_map"]["map"]
    tried = _read_plugins(routes)
    pairs = _pair_callers(running, table)
    new = _New(table, frozenset(refused), {upstream.name: upstream.places for upstream in table.upstreams})
    kept, narrowed = _keep(running, _Tried(actions, tried), new, set(pairs.values()), shorten=shorten)
    wanted = make_lookup(table)
    more = [detector for detector in wanted["detectors"] if detector not in running["detectors"]]
    opaque = max(running["opaque"], wanted["opaque"], key=[c.value for c in CLASSES].index)
    filters = host["typed_per_filter_config"]
    # A name of a pattern means the same in both, and a pattern more does no harm: those of both are looked for.
    looked_for = read_route_patterns(filters[PATTERNS]) if PATTERNS in filters else {}
    patterns = looked_for | name_patterns(table.policy.detectors)
    reached = _withdraw_reach(running, wanted)
    if (
        kept is None
        and not more
        and patterns == looked_for
        and opaque == running["opaque"]
        and reached == _reach_of(running)
    ):
        return public
    changed: Json = {"detectors": [*more, *running["detectors"]], "opaque": opaque, **reached}
    highest = highest_class(patterns)
    if highest is not None:
        filters[PATTERNS] = make_route_patterns(patterns)
        changed["patterns"] = highest.value
    if kept is not None:
        changed = _rewrite(running, pairs, kept, narrowed) | changed
        lists = {_join(*pair): actions[f"{MODELS_CHAIN}|{pair[0]}"] for pair in sorted(set(pairs.values()))}
        actions |= {key: action for one in narrowed.values() for key, action in one.actions.items()}
        actions |= {f"{MOVING}|{kind}": make_unavailable(MOVING) for kind in _KINDS}
        used = sorted({_route_of(chain) for chain in _chains_in(kept)})
        left = {f"{route}|{kind}": actions[f"{route}|{kind}"] for route in used for kind in _KINDS}
        groups = tried | {name_groups(one.groups): one.groups for one in narrowed.values()}
        plugins = {_plugin_of(action) for action in left.values()}
        routes["cluster_specifier_plugins"] = make_plugins(groups[name] for name in plugins if name in groups)
        actions.clear()
        actions |= left | {f"{MODELS_CHAIN}|{profile}": action for profile, action in lists.items()}
    host["typed_per_filter_config"]["classify"]["filter_context"] = pack_lookup(_without_empty({**running, **changed}))
    return dump_resources(kind, [routes])


def forget(egress: str, table: RouteTable) -> str:
    """The text of `rds-egress.json`, in which providers are told to keep nothing unless the table lets them: those that it no longer has,
    too. The same text where they are told already."""
    if table.policy.allow_store:
        return egress
    kind, (routes,) = read_resources(egress)
    paths = {upstream.name: upstream.keeping_paths for upstream in table.upstreams}
    is_changed = False
    for host in routes["virtual_hosts"]:
        _, backend, access = host["name"].split(".")
        if access != LLMAccess.CLOUD.value.lower():
            continue
        for route in host["routes"]:
            data = route.get("metadata", {}).get("filter_metadata", {}).get(LUA)
            if data is not None and "store" not in data:
                data |= tell_to_forget(paths.get(backend, _KEEPING))
                is_changed = True
    return dump_resources(kind, [routes]) if is_changed else egress


def _reach_of(lookup: Mapping[str, Any]) -> Json:
    """What requests may make a provider keep, or do by itself."""
    return {"store": lookup.get("store", ""), "hosted": lookup.get("hosted", [])}


def _without_empty(lookup: Json) -> Json:
    """For the classifier, what stands there is there, even if it is empty."""
    return {name: value for name, value in lookup.items() if value or name not in ("store", "hosted")}


def _withdraw_reach(running: Mapping[str, Any], wanted: Mapping[str, Any]) -> Json:
    was, becomes = _reach_of(running), _reach_of(wanted)
    return {
        "store": was["store"] and becomes["store"],
        "hosted": [tool for tool in was["hosted"] if tool in becomes["hosted"]],
    }


def _pair_callers(running: Mapping[str, Any], table: RouteTable) -> dict[str, Pair]:
    """For each caller that has a profile of its own, and for "known" and "anonymous": the profile that runs, and the new one."""
    pairs: dict[str, Pair] = {}
    for consumer in sorted({*running["consumers"], *table.consumers}):
        was = running["consumers"].get(consumer, running["known"])
        pairs[f"consumer {consumer}"] = (was, table.consumers.get(consumer, table.known))
    pairs["known"] = (running["known"], table.known)
    if "anonymous" in running:
        pairs["anonymous"] = (running["anonymous"], table.anonymous or _NOBODY)
    return pairs


class _Shorter(NamedTuple):
    """A chain of which not all stay: its id, the chain as it runs, its routes (key -> action) and the groups that they share."""

    id: str
    chain: str
    actions: Json
    groups: list[Json]


Narrowed = dict[tuple[str, frozenset[str]], _Shorter]  # (chain, clusters that stay)


class _Tried(NamedTuple):
    """What runs: key -> action, and name of a plugin -> its groups."""

    actions: Mapping[str, Any]
    plugins: Mapping[str, list[Json]]

    def groups(self, chain: str) -> list[Json]:
        """Those of both of a chain's routes; none if they answer by themselves."""
        return self.plugins.get(_plugin_of(self.actions[f"{_route_of(chain)}|true"]), [])

    def clusters(self, chain: str) -> frozenset[str]:
        """All that they lead to."""
        return frozenset(cluster["cluster_name"] for group in self.groups(chain) for cluster in group["clusters"])


def _route_of(chain: str) -> str:
    """As `classify.lua` reads it."""
    return chain.partition(".")[0]


def _plugin_of(action: Mapping[str, Any]) -> str:
    """Which one chooses the clusters; "" for a route that answers by itself."""
    return str((action["action"]["typed_config"].get("route") or {}).get("cluster_specifier_plugin", ""))


def _read_plugins(routes: Mapping[str, Any]) -> dict[str, list[Json]]:
    extensions = [plugin["extension"] for plugin in routes.get("cluster_specifier_plugins", ())]
    return {extension["name"]: extension["typed_config"]["priority_groups"] for extension in extensions}


def _keep(
    running: Mapping[str, Any], tried: _Tried, new: _New, pairs: set[Pair], *, shorten: bool
) -> tuple[dict[str, dict[str, str]] | None, Narrowed]:
    """Model -> joined verdict -> chain that stays for it, None if nothing is withdrawn; and the chains that became shorter."""
    kept: dict[str, dict[str, str]] = {model: {} for model in running["models"]}
    narrowed: Narrowed = {}
    is_less = False
    for was, becomes in sorted(pairs):
        for key, running_verdict in running["verdicts"].get(was, {}).items():
            verdict = new.verdict(becomes, key)
            for model, by_verdict in running["models"].items():
                chain = by_verdict.get(running_verdict)
                if chain is None:
                    continue
                clusters = tried.clusters(chain)
                stay = frozenset(one for one in clusters if new.permits(one, model, verdict))
                name = _verdict(was, becomes, key)
                if stay == clusters and (clusters or _is_permitted(new, model, verdict)):
                    kept[model][name] = chain
                    continue
                is_less = True
                if stay and shorten:
                    kept[model][name] = _narrow(narrowed, tried, chain, stay)
                elif _is_permitted(new, model, verdict):
                    kept[model][name] = MOVING
    return (kept if is_less else None), narrowed


def _is_permitted(new: _New, model: str, verdict: Verdict | None) -> bool:
    """Whether a request that nobody takes at the moment may be told so, instead of being denied."""
    return verdict is not None and (model, verdict) in new.table.chains


def _narrow(narrowed: Narrowed, tried: _Tried, chain: str, stay: frozenset[str]) -> str:
    """The id of the chain that tries only these, made once."""
    if (chain, stay) not in narrowed:
        route, dot, data_class = chain.partition(".")
        digest = blake2b("\0".join([route, *sorted(stay)]).encode(), digest_size=8).hexdigest()
        groups = _shorten(tried.groups(chain), stay)
        actions = {f"{digest}|{kind}": _lead_to(groups, tried.actions[f"{route}|{kind}"]) for kind in _KINDS}
        narrowed[chain, stay] = _Shorter(digest + dot + data_class, chain, actions, groups)
    return narrowed[chain, stay].id


def _shorten(groups: Sequence[Json], stay: frozenset[str]) -> list[Json]:
    tried = [group["clusters"] for group in groups]
    kept = [row for rows in _split(tried) for row in _drop(rows, stay)]
    return [{"name": str(number), "clusters": row} for number, row in enumerate(kept, 1)]


def _lead_to(groups: Sequence[Json], action: Json) -> Json:
    changed = copy.deepcopy(action)
    route = changed["action"]["typed_config"]["route"]
    route["cluster_specifier_plugin"] = name_groups(groups)
    route["retry_policy"]["num_retries"] = len(groups) - 1
    return changed


def _split(tried: list[list[Json]]) -> list[list[list[Json]]]:
    """Attempts in runs of the same weights: in such a run each draw falls into the same column from the first attempt to the last."""
    return [list(rows) for _, rows in groupby(tried, key=lambda row: [cluster["weight"] for cluster in row])]


def _drop(rows: list[list[Json]], stay: frozenset[str]) -> list[list[Json]]:
    """The same run without what does not stay: each column keeps its share and its order, and closes up, so that whatever is drawn all
    that stay are tried."""
    columns = [[cluster for cluster in column if cluster["cluster_name"] in stay] for column in zip(*rows, strict=True)]
    length = max((len(column) for column in columns), default=0)
    return [[column[number] for column in columns if number < len(column)] for number in range(length)]


def _rewrite(
    running: Mapping[str, Any], pairs: Mapping[str, Pair], kept: Mapping[str, Mapping[str, str]], narrowed: Narrowed
) -> Json:
    """The classifier's tables. Verdicts that come to the same in every model are one."""
    alike: dict[tuple[str | None, ...], str] = {}
    verdicts: Json = {}
    models: Json = {model: {} for model in kept}
    classes: Json = {
        chain: running["classes_of"][chain] for chain in _chains_in(kept) if chain in running["classes_of"]
    }
    classes |= {digest: running["classes_of"][chain] for digest, chain, *_ in narrowed.values()}
    for was, becomes in sorted(set(pairs.values())):
        keys = running["verdicts"].get(was, {})
        found = verdicts[_join(was, becomes)] = {}
        for key, verdict in keys.items():
            data_class, name = running["classes_of"][verdict], _verdict(was, becomes, key)
            chains = {model: by_verdict.get(name) for model, by_verdict in kept.items()}
            found[key] = alike.setdefault((data_class, *chains.values()), f"w{len(alike)}")
            classes[found[key]] = data_class
            for model, chain in chains.items():
                if chain is not None:
                    models[model][found[key]] = chain
    changed: Json = {
        "consumers": {
            name.removeprefix("consumer "): _join(*pair) for name, pair in pairs.items() if name.startswith("consumer ")
        },
        "known": _join(*pairs["known"]),
        "verdicts": verdicts,
        "classes_of": classes,
        "models": models,
    }
    if "tokens" in running:
        tokens = running["tokens"]
        changed["tokens"] = {_join(was, to): tokens[was] for was, to in sorted(set(pairs.values())) if was in tokens}
    if "anonymous" in pairs:
        changed["anonymous"] = _join(*pairs["anonymous"])
    return changed


def _chains_in(kept: Mapping[str, Mapping[str, str]]) -> set[str]:
    return {chain for by_verdict in kept.values() for chain in by_verdict.values()}


def _join(was: str, becomes: str) -> str:
    return f"{was}.{becomes}"


def _verdict(was: str, becomes: str, key: str) -> str:
    return f"{_join(was, becomes)}:{key}"
