"""Which requests tell, by waiting, what they want to wake: then those that only looked whether somebody is there wake nobody.

A gateway counts each look for a pod that found none. Where two deployments sleep side by side, a request waits for one of them, and
looks for the other, too: that look is no reason to start it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fairlead.api.quantity import parse_duration_s
from fairlead.api.resource import LLMRoute
from fairlead.api.route import RouteModelSpec
from fairlead.api.validation import parse_llmroute

__all__ = ["SEEN_S", "find_neighbours"]

#: Who waits for so long is seen by one who asks each second, seconds.
SEEN_S: Final = 3.0


def find_neighbours(raw: Mapping[str, Any]) -> Mapping[str, frozenset[str]]:
    """Backend -> the others of its priorities. Only backends for which every request waits that is drawn to them, long enough to be seen;
    of a route that is not valid, none."""
    route = parse_llmroute(raw)
    if not isinstance(route, LLMRoute):
        return {}
    found: dict[str, set[str]] = {}
    unseen: set[str] = set()
    for model in route.spec.models:
        for target in model.targets:
            beside = {other.backend for other in model.targets if other.priority == target.priority}
            found.setdefault(target.backend, set()).update(beside - {target.backend})
            if not _is_seen(model, target.priority):
                unseen.add(target.backend)
    return {backend: frozenset(beside) for backend, beside in found.items() if beside and backend not in unseen}


def _is_seen(model: RouteModelSpec, priority: int) -> bool:
    """With nobody of a later priority a request comes back after its look at the others, and waits for as long as patience."""
    if model.hold is None:
        return False
    overflow = model.hold.overflow_after
    is_last = all(target.priority <= priority for target in model.targets)
    return is_last or parse_duration_s(overflow if overflow is not None else model.hold.patience) >= SEEN_S
