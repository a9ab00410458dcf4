"""Mistakes in how users' patterns are looked for, put in by editing the files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

__all__ = ["PATTERN_EDITS"]

Json = dict[str, Any]
Files = dict[str, Json]
PATTERN_EDITS: Final[dict[str, Callable[[Files], None]]] = {}


def edit(change: Callable[[Files], None]) -> Callable[[Files], None]:
    """Registers it under the name of the function."""
    PATTERN_EDITS[change.__name__.replace("_", "-")] = change
    return change


def _filters(files: Files) -> Json:
    host: Json = files["rds-public.json"]["resources"][0]["virtual_hosts"][0]
    found: Json = host["typed_per_filter_config"]
    return found


def _with_policies(name: str, change: Callable[[Json], Json]) -> None:
    """`change` takes the policies and returns others."""

    def change_all(files: Files) -> None:
        found = _filters(files).get("patterns")
        if found is not None:
            rules = found["rbac"]["shadow_rules"]
            rules["policies"] = change(rules["policies"])

    PATTERN_EDITS[name] = change_all


def _regex(policy: Json) -> Json:
    matcher = policy["principals"][0]["sourced_metadata"]["metadata_matcher"]
    found: Json = matcher["value"]["string_match"]["safe_regex"]
    return found


def _inverted(policies: Json) -> Json:
    return {f"{5 - int(name[0])}{name[1:]}": policy for name, policy in policies.items()}


def _anchored(policies: Json) -> Json:
    for policy in policies.values():
        _regex(policy)["regex"] = _regex(policy)["regex"].removeprefix("\\C*")
    return policies


def _of_another(policies: Json) -> Json:
    regexes = [_regex(policy)["regex"] for policy in policies.values()]
    for policy, regex in zip(policies.values(), [*regexes[1:], *regexes[:1]], strict=True):
        _regex(policy)["regex"] = regex
    return policies


def _elsewhere(policies: Json) -> Json:
    for policy in policies.values():
        policy["principals"][0]["sourced_metadata"]["metadata_matcher"]["path"] = [{"key": "other"}]
    return policies


_with_policies("a-shadow-policy-is-dropped", lambda policies: dict(sorted(policies.items())[1:]))
_with_policies("the-order-of-patterns-is-turned-round", _inverted)
_with_policies("patterns-must-match-from-the-beginning", _anchored)
_with_policies("patterns-are-exchanged", _of_another)
_with_policies("patterns-look-at-another-text", _elsewhere)


@edit
def nobody_looks_for_patterns(files: Files) -> None:
    _filters(files).pop("patterns", None)


@edit
def patterns_decide_by_themselves(files: Files) -> None:
    found = _filters(files).get("patterns")
    if found is not None:
        found["rbac"] = {"rules": found["rbac"]["shadow_rules"]}
