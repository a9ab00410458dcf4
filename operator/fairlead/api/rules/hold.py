"""Rules about how requests wait for a deployment at zero replicas."""

from __future__ import annotations

from typing import Any, Final

from fairlead.api.quantity import DURATION_PATTERN, is_duration, parse_duration_s
from fairlead.api.rules.serving import duration_rules
from fairlead.api.rules.table import Rule, matches

__all__ = ["HOLD_RULES"]

#: As the schema has them.
_PATIENCE: Final = "2m"
_REQUEST: Final = "10m"


def _models_without_pods(spec: Any) -> list[str]:
    """Models with a hold, and without a target that could wake."""
    local = {backend.name for backend in spec.backends if backend.deployment is not None}
    return [m.name for m in spec.models if m.hold is not None and not any(t.backend in local for t in m.targets)]


def _explain_pods(spec: Any) -> tuple[str, str]:
    model = _models_without_pods(spec)[0]
    what = f"model {model} has a hold and no target that is a deployment, so that there is nothing to wait for"
    return what, "leave hold out, or add a target whose backend is a deployment"


def _is_within(shorter: str, longer: str) -> bool:
    """What is no duration is told by another rule."""
    if not is_duration(shorter) or not is_duration(longer):
        return True
    return parse_duration_s(shorter) <= parse_duration_s(longer)


def _within(shorter: str, longer: str) -> str:
    """CEL for the same."""
    return (
        f"!{matches(DURATION_PATTERN, shorter)} || !{matches(DURATION_PATTERN, longer)}"
        f" || duration({shorter}) <= duration({longer})"
    )


def _request_of(model: Any) -> str:
    return str(model.timeouts.request if model.timeouts is not None else _REQUEST)


HOLD_RULES: Final = (
    Rule(
        id="models.hold.pods",
        at="spec",
        field=".models",
        holds=lambda spec: not _models_without_pods(spec),
        cel=(
            "[self.backends.filter(b, has(b.deployment)).map(b, b.name)].all(names,"
            " self.models.all(m, !has(m.hold) || m.targets.exists(t, t.backend in names)))"
        ),
        message="a model has a hold and no target that is a deployment, so that there is nothing to wait for",
        remedy="leave hold out, or add a target whose backend is a deployment",
        explain=_explain_pods,
    ),
    Rule(
        id="models.hold.overflowAfter.patience",
        at="spec.models[*].hold",
        field=".overflowAfter",
        holds=lambda hold: hold.overflow_after is None or _is_within(hold.overflow_after, hold.patience),
        cel="!has(self.overflowAfter) || "
        + _within("self.overflowAfter", f"(has(self.patience) ? self.patience : '{_PATIENCE}')"),
        message="is longer than patience, which ends before it",
        remedy="leave overflowAfter out, or give patience at least that long",
    ),
    Rule(
        id="models.hold.patience.request",
        at="spec.models[*]",
        field=".hold.patience",
        holds=lambda model: model.hold is None or _is_within(model.hold.patience, _request_of(model)),
        cel="!has(self.hold) || "
        + _within(
            f"(has(self.hold.patience) ? self.hold.patience : '{_PATIENCE}')",
            f"(has(self.timeouts) && has(self.timeouts.request) ? self.timeouts.request : '{_REQUEST}')",
        ),
        message="is longer than timeouts.request, which ends the request before it",
        remedy="give timeouts.request at least that long, or a shorter patience",
    ),
    *duration_rules("models.hold.patience", "spec.models[*].hold.patience", "1s", "1h"),
    *duration_rules("models.hold.overflowAfter", "spec.models[*].hold.overflowAfter", "0s", "1h"),
)
