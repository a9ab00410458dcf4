"""Custom resources by chance: rows of a table laid over each other, and single values exchanged for odd ones.

Combinations of what is right and wrong alone are where two verdicts drift apart: a rule that reads a field which another
mistake has removed, a bound that hides a rule.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

from hypothesis import strategies as st
from tests.unit.api.cases import DEPLOYMENTS, ROUTES, Case, Table, merge

Json = dict[str, Any]
_ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 4, 1.5, 2.0, 2**63, "", " ", "a", "A", "1", "1Gi", "64m", "0", "vLLM", "Ollama", "FP8", "Q8_0",
    "hf://a/b", "hf://a/b-GGUF", "ollama://a:cloud", "ollama://a:1b-q8_0", "pvc://a/b", "pvc://a/b.gguf", "main", "0123abc", "a" * 64,
    "/etc/a/b", "10s", "é", "a\n", "\u0000", [], {}, [None], {"a": None}, {"a": "b"}, ["--port=1"], ["-tp", "2"], [{"name": "A"}],
]  # fmt: skip
_ODD_IN_ROUTES: list[Any] = [
    None, True, False, 0, 1, -1, 16, 1.5, 2.0, 2**63, "", " ", "--", "a", "A", "a.b", "1", "60", "0s", "10s", "2h", "Local", "Cloud",
    "Public", "Restricted", "OpenAI", "OpenAICompatible", "Email", "local", "openai", "analyst", "default", "header", "authorization",
    "https://a.example.com/v1", "http://a.example.com", "https://u:p@a/", "https://[::1]", "x-fairlead-a", "a/b", "é", "\u200b\u200b",
    "a\n", "\u0000", "a" * 64, [], {}, [None], {"a": None}, {"a": "b"}, {"region": "eu"}, ["Public", "Public"], ["a", "b", "a"],
    ["--"], [{"name": "local"}], [{"name": "a", "deployment": {"name": "a"}}], [{"backend": "local"}, {"backend": "local"}],
    {"type": "Modal", "secretRef": {"name": "a", "key": "b"}}, {"anonymous": {"role": "analyst"}}, {"role": "guest"},
    [{"name": "header", "class": "Public", "builtin": "Email"}],
]  # fmt: skip
_OF: dict[str, list[Any]] = {DEPLOYMENTS.kind: _ODD, ROUTES.kind: _ODD_IN_ROUTES}
#: Sections that belong together: a row's are sometimes left out as a whole, so that those of the base stay.
_KEPT: dict[str, tuple[tuple[str, ...], ...]] = {
    DEPLOYMENTS.kind: (("model", "engine"),),
    ROUTES.kind: (("backends", "models"), ("authentication", "roles")),
}
#: As large as the rows at the bounds are, and slow to shrink: combined they would show nothing new.
_LARGE = 40_000


def _leaves(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Paths to every value below `node`, and to the containers."""
    if path:
        yield path
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        yield from _leaves(value, (*path, key))


def _put(resource: Json, path: tuple[str | int, ...], value: Any) -> None:
    node: Any = resource["spec"]
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value


@cache
def _small(table: Table, name: str) -> tuple[Case, ...]:
    """The rows of a file, read once: an example draws from hundreds."""
    return tuple(case for case in table.rows(name) if len(repr(case.resource)) < _LARGE)


@st.composite
def resources(draw: st.DrawFn, table: Table = DEPLOYMENTS) -> Json:
    """One object; about half of them valid."""
    valid, invalid = _small(table, "valid"), _small(table, "invalid")
    rows: list[Case] = draw(st.lists(st.sampled_from(valid), min_size=1, max_size=3))
    if draw(st.integers(0, 2)) == 0:
        rows.append(draw(st.sampled_from(invalid)))
    resource = table.make(draw(st.sampled_from(table.bases())), {})
    for row in rows:
        changes = {key: copy.deepcopy(row.resource[key]) for key in ("metadata", "spec") if key in row.resource}
        for kept in _KEPT[table.kind]:
            if draw(st.booleans()) and "spec" in changes:
                changes["spec"] = {key: value for key, value in changes["spec"].items() if key not in kept}
        resource = merge(resource, changes)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        path = draw(st.sampled_from(list(_leaves(resource["spec"]))))
        _put(resource, path, copy.deepcopy(draw(st.sampled_from(_OF[table.kind]))))
    return resource
