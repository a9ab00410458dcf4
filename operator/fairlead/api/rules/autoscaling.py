"""Rules about how many replicas there may be, and by what it is decided."""

from __future__ import annotations

from typing import Any, Final

from fairlead.api.rules.serving import duration_rules
from fairlead.api.rules.table import Rule

_TARGETS: Final = (
    "timeToFirstToken", "latency", "outputTokenLatency", "queuedRequests", "runningRequests", "kvCacheUsagePercent",
)  # fmt: skip


def _has_target(autoscaling: Any) -> bool:
    return autoscaling.targets is not None and bool(autoscaling.targets.model_dump(exclude_none=True))


def _fits_one_node(spec: Any) -> bool:
    storage, autoscaling = spec.storage, spec.autoscaling
    if storage is None or autoscaling is None:
        return True
    return autoscaling.max_replicas <= 1 or "ReadWriteOncePod" not in storage.access_modes


RULES: Final = (
    Rule(
        id="autoscaling.bounds",
        at="spec.autoscaling",
        field=".maxReplicas",
        holds=lambda autoscaling: autoscaling.min_replicas <= autoscaling.max_replicas,
        cel="self.minReplicas <= self.maxReplicas",
        message="must not be less than minReplicas",
        remedy="raise maxReplicas or lower minReplicas",
        explain=lambda autoscaling: (
            f"{autoscaling.max_replicas} is less than minReplicas {autoscaling.min_replicas}",
            f"maxReplicas: {autoscaling.min_replicas} would work",
        ),
    ),
    Rule(
        id="autoscaling.targets",
        at="spec.autoscaling",
        field=".targets",
        holds=lambda autoscaling: autoscaling.mode != "Operator" or _has_target(autoscaling),
        cel="self.mode != 'Operator' || (has(self.targets) && ("
        + " || ".join(f"has(self.targets.{target})" for target in _TARGETS)
        + "))",
        message="mode Operator needs something to decide by",
        remedy="for instance targets: {queuedRequests: 5}, or timeToFirstToken: 1s",
    ),
    Rule(
        id="autoscaling.mode.external",
        at="spec.autoscaling",
        field=".mode",
        holds=lambda autoscaling: (
            autoscaling.mode == "Operator"
            or (autoscaling.targets is None and autoscaling.behavior is None and autoscaling.policy == "Apply")
        ),
        cel="self.mode == 'Operator' || (!has(self.targets) && !has(self.behavior) && self.policy == 'Apply')",
        message="targets, behavior and policy are read with mode Operator only: with External somebody else decides",
        remedy="leave them out, or mode: Operator",
    ),
    *duration_rules("autoscaling.targets.timeToFirstToken", "spec.autoscaling.targets.timeToFirstToken", "1ms", "1h"),
    *duration_rules("autoscaling.targets.latency", "spec.autoscaling.targets.latency", "1ms", "6h"),
    *duration_rules(
        "autoscaling.targets.outputTokenLatency", "spec.autoscaling.targets.outputTokenLatency", "1ms", "1m"
    ),
    Rule(
        id="autoscaling.storage",
        at="spec",
        field=".autoscaling.maxReplicas",
        holds=_fits_one_node,
        cel="!has(self.autoscaling) || self.autoscaling.maxReplicas <= 1 || !has(self.storage)"
        " || !has(self.storage.accessModes) || !('ReadWriteOncePod' in self.storage.accessModes)",
        message="ReadWriteOncePod serves one replica only",
        remedy="ReadWriteMany would work, or maxReplicas: 1",
    ),
)
