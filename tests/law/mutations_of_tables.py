"""Mistakes in the route table and in what the classifier looks up, put in by replacing one function."""

# ruff: noqa: ARG005 - what stands in for a function takes what that takes

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

import pytest

from fairlead.gateway import lookup, table
from fairlead.gateway.envoy import routes
from fairlead.gateway.table import Chain, Upstream, Weighted
from fairlead.planning.route import backends
from fairlead.policy import law
from fairlead.policy.law import CLASSES, Verdict

__all__ = ["TABLE_MUTATIONS"]

Patch = pytest.MonkeyPatch
PUBLIC: Final = CLASSES[0]
TABLE_MUTATIONS: Final[dict[str, Callable[[Patch], None]]] = {}


def mutation(change: Callable[[Patch], None]) -> Callable[[Patch], None]:
    """Registers it under the name of the function."""
    TABLE_MUTATIONS[change.__name__.replace("_", "-")] = change
    return change


# The table ------------------------------------------------------------------------------------------------------------------------


def _chains(name: str, change: Callable[[Chain, Any, Verdict, Any, Any], Chain]) -> None:
    """`change` gets the chain as it should be, and all that it was made of."""
    right = table._make_chain

    def make(model: Any, verdict: Verdict, upstreams: Any, served: Any) -> Chain:
        return change(right(model, verdict, upstreams, served), model, verdict, upstreams, served)

    TABLE_MUTATIONS[name] = lambda patch: patch.setattr(table, "_make_chain", make)


def _everywhere(model: Any, verdict: Verdict, upstreams: Any, served: Any) -> Chain:
    """The chain of a request for which everything is permitted."""
    return _MAKE_CHAIN(model, replace(verdict, grants=((verdict.data_class, frozenset(upstreams)),)), upstreams, served)


_MAKE_CHAIN: Final = table._make_chain
_chains(
    "the-weighted-group-has-forbidden-targets",
    lambda chain, *made: replace(
        chain, groups=(*_everywhere(*made).groups[:1], *chain.groups[1:]) if chain.groups else ()
    ),
)
_chains(
    "failover-has-forbidden-targets",
    lambda chain, *made: replace(chain, groups=(*chain.groups[:1], *_everywhere(*made).groups[1:])),
)
_chains(
    "failover-ends-with-a-forbidden-target",
    lambda chain, *made: replace(chain, groups=(*chain.groups, *_everywhere(*made).groups[-1:])),
)
_chains("the-first-attempt-is-all", lambda chain, *made: replace(chain, groups=chain.groups[:1]))
_chains("the-last-target-is-never-tried", lambda chain, *made: replace(chain, groups=chain.groups[:-1]))
_chains("the-order-is-turned-round", lambda chain, *made: replace(chain, groups=chain.groups[::-1]))
_chains("the-last-group-is-repeated", lambda chain, *made: replace(chain, groups=(*chain.groups, *chain.groups[-1:])))
_chains(
    "weights-are-ignored",
    lambda chain, *made: replace(
        chain, groups=tuple(tuple(Weighted(w.attempt, 1) for w in group) for group in chain.groups)
    ),
)
_chains("the-mark-is-public", lambda chain, *made: replace(chain, data_class=PUBLIC))
_chains(
    "the-mark-is-one-higher",
    lambda chain, *made: replace(chain, data_class=CLASSES[min(CLASSES.index(chain.data_class) + 1, 3)]),
)


def _targets(name: str, change: Callable[[Any], Any]) -> None:
    right = table._make_chain

    def make(model: Any, *rest: Any) -> Chain:
        return right(model.model_copy(update={"targets": [change(target) for target in model.targets]}), *rest)

    TABLE_MUTATIONS[name] = lambda patch: patch.setattr(table, "_make_chain", make)


_targets("priorities-are-ignored", lambda target: target.model_copy(update={"priority": 0}))
_targets("priorities-are-turned-round", lambda target: target.model_copy(update={"priority": 15 - target.priority}))
_targets("weight-0-is-asked-first", lambda target: target.model_copy(update={"weight": target.weight or 1}))
_targets("the-targets-own-model-is-ignored", lambda target: target.model_copy(update={"model": None}))


@mutation
def served_models_of_deployments_are_ignored(patch: Patch) -> None:
    right = table._make_chain
    patch.setattr(table, "_make_chain", lambda model, verdict, upstreams, served: right(model, verdict, upstreams, {}))


@mutation
def backends_that_are_not_there_are_forbidden_ones(patch: Patch) -> None:
    right = law.judge
    patch.setattr(
        table, "judge", lambda caller, all_, *rest: right(caller, [b for b in all_ if b.is_confidential], *rest)
    )


@mutation
def ids_of_chains_forget_the_groups(patch: Patch) -> None:
    patch.setattr(Chain, "route", property(lambda chain: chain.model.replace(".", "-")))


@mutation
def ids_of_chains_forget_the_class(patch: Patch) -> None:
    patch.setattr(Chain, "id", property(lambda chain: chain.route))


@mutation
def endpoints_of_deployments_are_open_at_providers(patch: Patch) -> None:
    right = backends._make_upstream

    def make(*args: Any) -> Upstream:
        upstream = right(*args)
        return replace(upstream, paths={path: path for path in lookup.ENDPOINTS} | dict(upstream.paths))

    patch.setattr(backends, "_make_upstream", make)


# What is looked up at run time --------------------------------------------------------------------------------------------------


def _lookups(name: str, change: Callable[[dict[str, Any]], object]) -> None:
    right = lookup.make_lookup

    def make(made: Any) -> dict[str, Any]:
        found = right(made)
        change(found)
        return found

    TABLE_MUTATIONS[name] = lambda patch: patch.setattr(routes, "make_lookup", make)


def _first_chain(chains: dict[str, str], verdicts: Iterable[str]) -> dict[str, str]:
    return dict.fromkeys(verdicts, next(iter(chains.values()))) if chains else {}


def _for_models(found: dict[str, Any], change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    found["models"] = {model: change(chains) for model, chains in found["models"].items()}


def _swap(found: dict[str, Any]) -> None:
    found["verdicts"] = {
        profile: {"|".join(pair.replace("-", "Public").split("|")[::-1]): v for pair, v in verdicts.items()}
        | {f"-|{c.value}": verdicts[f"-|{c.value}"] for c in CLASSES}
        for profile, verdicts in found["verdicts"].items()
    }


_lookups("a-denied-verdict-has-a-chain", lambda f: _for_models(f, lambda c: _first_chain(c, f["classes_of"]) | c))
_lookups("the-chain-of-another-class-is-taken", lambda f: _for_models(f, lambda c: _first_chain(c, c)))
_lookups(
    "the-chain-of-another-model-is-taken",
    lambda f: f.update(models=dict.fromkeys(f["models"], next(iter(f["models"].values())))),
)
_lookups("declared-and-detected-are-exchanged", _swap)
_lookups(
    "known-consumers-have-the-profile-of-somebody",
    lambda f: f.update(known=next(iter(f["consumers"].values()), f["known"])),
)
_lookups(
    "anonymous-has-the-profile-of-somebody",
    lambda f: f.update(anonymous=next(iter(f["consumers"].values()), f["known"])),
)
_lookups("detectors-find-internal-at-most", lambda f: [d.update({"class": "Internal"}) for d in f["detectors"]])
_lookups("detectors-are-left-out", lambda f: f.update(detectors=[]))
_lookups("the-text-is-not-shown-to-patterns", lambda f: f.pop("patterns", None))
_lookups("patterns-find-internal-at-most", lambda f: f.update(patterns="Internal") if "patterns" in f else None)
_lookups("opaque-content-is-public", lambda f: f.update(opaque="Public"))
_lookups("opaque-content-is-always-confidential", lambda f: f.update(opaque="Confidential"))
_lookups("an-endpoint-for-files-is-open", lambda f: f["endpoints"].append("/v1/files"))
_lookups("an-endpoint-is-closed", lambda f: f["endpoints"].remove("/v1/embeddings"))


@mutation
def all_models_are_listed_to_all(patch: Patch) -> None:
    right = routes._make_models
    patch.setattr(
        routes, "_make_models", lambda made, profile: right(made, max(made.profiles, key=lambda p: len(p.verdicts)))
    )


@mutation
def the_second_pattern_of_a_detector_is_forgotten(patch: Patch) -> None:
    right = routes.name_patterns
    patch.setattr(
        routes,
        "name_patterns",
        lambda detectors: right(d.model_copy(update={"patterns": d.patterns[:1]}) for d in detectors),
    )
