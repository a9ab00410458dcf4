"""Reads the RBAC filter's part of a virtual host: which patterns are looked for, and what each of them counts as.

Semantics are Envoy's: policies are asked in the order of their names, and the first that matches is the result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.law.strict import Json, Unreadable, only, typed

__all__ = ["read_patterns"]


def read_patterns(config: Json) -> Iterator[tuple[str, str, str]]:
    """Class, detector and regular expression of each shadow policy, in the order in which they are asked: that of their names."""
    per_route = typed(config, "patterns", "envoy.extensions.filters.http.rbac.v3.RBACPerRoute", "rbac")
    rules = only(only(per_route["rbac"], "RBAC", "shadow_rules")["shadow_rules"], "shadow rules", "action", "policies")
    if rules["action"] != "DENY":
        raise Unreadable(f"what matches is said by {rules['action']}")
    for name, policy in sorted(rules["policies"].items()):
        only(policy, f"policy {name}", "permissions", "principals")
        (principal,) = policy["principals"]
        source = only(only(principal, name, "sourced_metadata")["sourced_metadata"], name, "metadata_matcher")
        matcher = only(source["metadata_matcher"], name, "filter", "path", "value")
        if (policy["permissions"], matcher["filter"], matcher["path"]) != (
            [{"any": True}],
            "fairlead.text",
            [{"key": "text"}],
        ):
            raise Unreadable(f"policy {name} looks at something else than the text")
        value = only(only(matcher["value"], name, "string_match")["string_match"], name, "safe_regex")
        parts = re.fullmatch(r"[0-9]\.([A-Za-z]+)\.([^.]+)\.[0-9a-f]+", name)
        if parts is None:
            raise Unreadable(f"a policy is called {name}")
        yield parts[1], parts[2], only(value["safe_regex"], name, "regex")["regex"]
