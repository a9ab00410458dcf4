"""An explanation as text for people, and as one JSON object for machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fairlead.gateway.table import Limits, caller_of
from fairlead.policy.law import CLASSES, Role
from fairlead.rendering.explain import DEFAULT_RULE, FLOOR_RULE, HEADER_RULE, NO_BACKEND, Explanation, Share, Tried
from fairlead.rendering.routes import RenderedRoute

__all__ = ["to_json", "to_text"]


def to_json(rendered: RenderedRoute, explained: Explanation) -> dict[str, Any]:
    """Fields are always there; what is not known is null."""
    question = explained.question
    return {
        "route": rendered.route.metadata.name,
        "namespace": rendered.route.metadata.namespace,
        "model": question.model,
        "path": question.path,
        "consumer": question.consumer,
        "declared": question.declared,
        "bodyRead": question.body is not None,
        "allowed": explained.is_allowed,
        "status": explained.status,
        "code": explained.code or None,
        "message": explained.message or None,
        "class": explained.data_class,
        "rule": explained.rule,
        "order": list(explained.order),
        "stages": [
            [{"weight": share.weight, "tried": [_tried_json(one) for one in share.tried]} for share in stage]
            for stage in explained.stages
        ],
        "limits": _limits_json(rendered, explained),
        "notTried": [
            {"backend": one.backend, "reason": one.reason, "message": one.message} for one in explained.not_tried
        ],
        "remarks": list(explained.remarks),
    }


def to_text(rendered: RenderedRoute, explained: Explanation) -> str:
    """Some lines, each ended."""
    return "".join(f"{line}\n" for line in _lines(rendered, explained))


def _lines(rendered: RenderedRoute, explained: Explanation) -> Iterator[str]:
    question = explained.question
    who = f"from {question.consumer}" if question.consumer is not None else "without a key"
    what = f" for {question.model}" if question.model else ""
    yield f"LLMRoute/{rendered.route.metadata.name}: POST {question.path}{what}, {who}"
    if question.consumer is not None and not rendered.table.has_keys:
        yield "This route has no apiKeys: whoever calls is anonymous."
    if explained.data_class is not None:
        yield f"Class: {explained.data_class}, by {_tell_rule(rendered, explained)}."
        yield from _tell_declared(rendered, explained)
        if question.body is None:
            yield "No body was looked at (--body), so no detector could raise the class."
    if explained.is_allowed:
        yield "Allowed. Tried, in this order:"
        for number, stage in enumerate(explained.stages, 1):
            yield from (f"  {number}. {line}" for line in _tell_stage(stage))
        yield from explained.remarks
    else:
        answered = "Permitted, but answered" if explained.code == NO_BACKEND else "Denied"
        yield f"{answered} with {explained.status} {explained.code}: {explained.message}"
    yield from _tell_limits(rendered, explained)
    if explained.not_tried:
        yield "Not tried:"
        yield from (f"  {one.backend} [{one.reason}]: {one.message}" for one in explained.not_tried)


def _limits_of(rendered: RenderedRoute, explained: Explanation) -> Limits:
    table = rendered.table
    profile = table.profile_of(explained.question.consumer if table.has_keys else None)
    return profile.limits if profile is not None else Limits()


def _limits_json(rendered: RenderedRoute, explained: Explanation) -> dict[str, Any]:
    limits = _limits_of(rendered, explained)
    return {"requestsPerMinute": limits.requests, "tokensPerMinute": limits.tokens, "gateways": rendered.table.gateways}


def _tell_limits(rendered: RenderedRoute, explained: Explanation) -> Iterator[str]:
    table, limits = rendered.table, _limits_of(rendered, explained)
    said = [(limits.requests, "requests"), (limits.tokens, "tokens")]
    known = [(number, word) for number, word in said if number is not None]
    if not known:
        return
    is_known = explained.question.consumer is not None and table.has_keys
    whose = "this consumer by itself" if is_known else "all callers without a key together"
    numbers = " and ".join(f"{number} {word}" for number, word in known)
    shares = " and ".join(f"{table.share(number)} {word}" for number, word in known)
    each = f" ({shares} at each of {table.gateways} gateways)" if table.gateways > 1 else ""
    yield f"Limits of {whose}, per minute: {numbers}{each}."


def _tell_rule(rendered: RenderedRoute, explained: Explanation) -> str:
    rule = explained.rule
    if rule == FLOOR_RULE or _is_lowered(rendered, explained):
        return _tell_floor(rendered, explained)
    if rule == DEFAULT_RULE:
        return "the default of the route (dataPolicy.default)"
    if rule == HEADER_RULE:
        return f"what the caller declares in {rendered.table.policy.header}"
    if rule == "unchecked":
        return "text that is too long for patterns (dataPolicy.detectors)"
    if rule == "opaque":
        return "content that detectors cannot read (dataPolicy.opaqueContent)"
    return f"the detector {rule}"


def _roles_of(rendered: RenderedRoute, explained: Explanation) -> tuple[Role, ...]:
    caller = caller_of(rendered.route.spec, explained.question.consumer if rendered.table.has_keys else None)
    return caller.roles if caller is not None else ()


def _is_lowered(rendered: RenderedRoute, explained: Explanation) -> bool:
    """Whether the caller lowers the base below the default, so that a class which is the default's is a floor all the same."""
    roles = _roles_of(rendered, explained)
    declared = explained.question.declared
    return explained.rule == DEFAULT_RULE and bool(roles) and all(declared in role.may_declare for role in roles)


def _tell_floor(rendered: RenderedRoute, explained: Explanation) -> str:
    if rendered.table.policy.floor is explained.data_class:
        return "the floor of the route (dataPolicy.floor)"
    roles = [role.name for role in _roles_of(rendered, explained) if role.floor is explained.data_class]
    return f"the floor of the role {roles[0]} (roles[].floor)" if roles else "a floor of this route"


def _tell_declared(rendered: RenderedRoute, explained: Explanation) -> Iterator[str]:
    declared, data_class = explained.question.declared, explained.data_class
    if declared is None or data_class is None or CLASSES.index(declared) >= CLASSES.index(data_class):
        return
    if explained.rule == FLOOR_RULE or _is_lowered(rendered, explained):
        yield f"The declared {declared} does not count: it is below the floor."
    elif explained.rule == DEFAULT_RULE:
        yield f"The declared {declared} does not count: it is below the default, and no role may declare it here."


def _tell_stage(stage: Sequence[Share]) -> Iterator[str]:
    """Shares that go the same way are one."""
    weights: dict[tuple[Tried, ...], int] = {}
    for share in stage:
        weights[share.tried] = weights.get(share.tried, 0) + share.weight
    total = sum(weights.values())
    for tried, weight in weights.items():
        names = ", then ".join(map(_tell_tried, tried)) or "nobody"
        yield names if len(weights) == 1 else f"{weight} of {total}: {names}"


def _tell_tried(tried: Tried) -> str:
    waits = f", waiting up to {tried.wait_s:g}s for its first pod" if tried.wait_s is not None else ""
    return f"{tried.backend} (as {tried.model}{waits})"


def _tried_json(tried: Tried) -> dict[str, Any]:
    waits = {"waitSeconds": tried.wait_s} if tried.wait_s is not None else {}
    return {"backend": tried.backend, "model": tried.model, **waits}
