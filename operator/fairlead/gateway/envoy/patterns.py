"""Users' patterns in Envoy: shadow rules of RBAC, which decide nothing but say which of them matches first.

The filter itself is constant and empty. The rules belong to the virtual host (RDS), so that an edit cuts no stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fairlead.gateway.envoy.words import Json, make_filter, typed

__all__ = ["FILTER", "make_patterns_filter", "make_route_patterns", "read_route_patterns"]

#: Under this name of the filter the virtual host has its rules.
FILTER: Final = "patterns"
#: Where `classify.lua` writes what is to be matched.
_NAMESPACE, _KEY = "fairlead.text", "text"
_RBAC: Final = "envoy.extensions.filters.http.rbac.v3."


def make_patterns_filter() -> Json:
    """Between the classifier and what settles the class."""
    return make_filter(FILTER, f"{_RBAC}RBAC")


def make_route_patterns(patterns: Mapping[str, str]) -> Json:
    """What the virtual host says for this filter: name -> what the whole text must match; the first in the order of names counts."""
    policies = {name: _make_policy(regex) for name, regex in sorted(patterns.items())}
    return typed(f"{_RBAC}RBACPerRoute", rbac={"shadow_rules": {"action": "DENY", "policies": policies}})


def read_route_patterns(config: Mapping[str, Any]) -> dict[str, str]:
    """What `make_route_patterns` was given."""
    policies = config["rbac"]["shadow_rules"]["policies"]
    return {
        name: policy["principals"][0]["sourced_metadata"]["metadata_matcher"]["value"]["string_match"]["safe_regex"][
            "regex"
        ]
        for name, policy in policies.items()
    }


def _make_policy(regex: str) -> Json:
    matcher = {
        "filter": _NAMESPACE,
        "path": [{"key": _KEY}],
        "value": {"string_match": {"safe_regex": {"regex": regex}}},
    }
    return {"permissions": [{"any": True}], "principals": [{"sourced_metadata": {"metadata_matcher": matcher}}]}
