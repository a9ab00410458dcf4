"""LLMDeployments by chance: rows of the table laid over each other, and single values exchanged for odd ones.

Combinations of what is right and wrong alone are where two verdicts drift apart: a rule that reads a field which another
mistake has removed, a bound that hides a rule.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st
from tests.unit.api.cases import Case, invalid_cases, make_resource, merge, valid_cases

Json = dict[str, Any]
_ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 4, 1.5, 2.0, 2**63, "", " ", "a", "A", "1", "1Gi", "64m", "0", "vLLM", "Ollama", "FP8", "Q8_0",
    "hf://a/b", "hf://a/b-GGUF", "ollama://a:cloud", "ollama://a:1b-q8_0", "pvc://a/b", "pvc://a/b.gguf", "main", "0123abc", "a" * 64,
    "/etc/a/b", "10s", "é", "a\n", "\u0000", [], {}, [None], {"a": None}, {"a": "b"}, ["--port=1"], ["-tp", "2"], [{"name": "A"}],
]  # fmt: skip


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


@st.composite
def resources(draw: st.DrawFn) -> Json:
    """One object; about half of them valid."""
    rows: list[Case] = draw(st.lists(st.sampled_from(valid_cases()), min_size=1, max_size=3))
    if draw(st.integers(0, 2)) == 0:
        rows.append(draw(st.sampled_from(invalid_cases())))
    resource = make_resource(draw(st.sampled_from(["vllm", "gpu", "ollama", "custom", "full"])), {})
    for row in rows:
        changes = {key: copy.deepcopy(row.resource[key]) for key in ("metadata", "spec") if key in row.resource}
        if draw(st.booleans()) and "spec" in changes:  # the model and engine of the base stay
            changes["spec"] = {key: value for key, value in changes["spec"].items() if key not in ("model", "engine")}
        resource = merge(resource, changes)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        path = draw(st.sampled_from(list(_leaves(resource["spec"]))))
        _put(resource, path, copy.deepcopy(draw(st.sampled_from(_ODD))))
    return resource
