"""Rules about how many replicas there may be, and by what it is decided."""

from __future__ import annotations

from typing import Any, Final

from fairlead.api.rules.names import DNS_LABEL
from fairlead.api.rules.serving import duration_rules
from fairlead.api.rules.table import Rule, pattern_rule

#: Five fields of what cron has: numbers, names, ranges, lists, steps. Whether they make sense is told when it is planned.
CRON_PATTERN: Final = "[A-Za-z0-9*,/#L-]+( [A-Za-z0-9*,/#L-]+){4}"
_TARGETS: Final = (
    "timeToFirstToken", "latency", "outputTokenLatency", "queuedRequests", "runningRequests", "kvCacheUsagePercent",
)  # fmt: skip


def _has_target(autoscaling: Any) -> bool:
    """One that only sleeps and wakes needs none."""
    if (autoscaling.min_replicas, autoscaling.max_replicas) == (0, 1):
        return True
    return autoscaling.targets is not None and bool(autoscaling.targets.model_dump(exclude_none=True))


def _names_decisions(autoscaling: Any) -> bool:
    """Whether it says how the operator should decide."""
    sections = (autoscaling.targets, autoscaling.behavior, autoscaling.idle_timeout)
    return any(one is not None for one in sections) or bool(autoscaling.schedules) or autoscaling.policy != "Apply"


def _may_sleep(autoscaling: Any) -> bool:
    """Whether the operator takes the last replica, too."""
    return autoscaling is not None and autoscaling.mode == "Operator" and autoscaling.min_replicas == 0


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
        cel="self.mode != 'Operator' || (self.minReplicas == 0 && self.maxReplicas == 1) || (has(self.targets) && ("
        + " || ".join(f"has(self.targets.{target})" for target in _TARGETS)
        + "))",
        message="mode Operator needs something to decide by",
        remedy="for instance targets: {queuedRequests: 5}, or timeToFirstToken: 1s",
    ),
    Rule(
        id="autoscaling.mode.external",
        at="spec.autoscaling",
        field=".mode",
        holds=lambda autoscaling: autoscaling.mode == "Operator" or not _names_decisions(autoscaling),
        cel="self.mode == 'Operator' || (!has(self.targets) && !has(self.behavior) && self.policy == 'Apply'"
        " && !has(self.idleTimeout) && (!has(self.schedules) || size(self.schedules) == 0))",
        message="with External somebody else decides: targets, behavior, schedules, idleTimeout and policy are not read",
        remedy="leave them out, or mode: Operator",
    ),
    Rule(
        id="autoscaling.idleTimeout.zero",
        at="spec.autoscaling",
        field=".idleTimeout",
        holds=lambda autoscaling: autoscaling.idle_timeout is None or autoscaling.min_replicas == 0,
        cel="!has(self.idleTimeout) || self.minReplicas == 0",
        message="is read with minReplicas 0 only",
        remedy="minReplicas: 0 would work",
    ),
    Rule(
        id="autoscaling.schedules.maximum",
        at="spec.autoscaling",
        field=".schedules",
        holds=lambda autoscaling: all(one.min_replicas <= autoscaling.max_replicas for one in autoscaling.schedules),
        cel="!has(self.schedules) || self.schedules.all(s, s.minReplicas <= self.maxReplicas)",
        message="a schedule asks for more replicas than maxReplicas",
        remedy="raise maxReplicas, or lower minReplicas of the schedule",
    ),
    pattern_rule(
        "autoscaling.schedules.name",
        "spec.autoscaling.schedules[*].name",
        DNS_LABEL,
        "is no name: lower-case letters, digits and -",
        "for instance office-hours",
    ),
    *(
        pattern_rule(
            f"autoscaling.schedules.{field}",
            f"spec.autoscaling.schedules[*].{field}",
            CRON_PATTERN,
            "is not a cron expression of five fields",
            "for instance 0 8 * * MON-FRI",
        )
        for field in ("start", "end")
    ),
    Rule(
        id="autoscaling.schedules.end.start",
        at="spec.autoscaling.schedules[*]",
        field=".end",
        holds=lambda schedule: schedule.start != schedule.end,
        cel="self.start != self.end",
        message="is when it starts, so that it would never end",
        remedy="name another time",
    ),
    pattern_rule(
        "autoscaling.schedules.timeZone",
        "spec.autoscaling.schedules[*].timeZone",
        "[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*",
        "is not the name of a time zone",
        "for instance Europe/Berlin",
    ),
    *duration_rules("autoscaling.idleTimeout", "spec.autoscaling.idleTimeout", "10s", "168h"),
    *duration_rules("autoscaling.targets.timeToFirstToken", "spec.autoscaling.targets.timeToFirstToken", "1ms", "1h"),
    *duration_rules("autoscaling.targets.latency", "spec.autoscaling.targets.latency", "1ms", "6h"),
    *duration_rules(
        "autoscaling.targets.outputTokenLatency", "spec.autoscaling.targets.outputTokenLatency", "1ms", "1m"
    ),
    Rule(
        id="autoscaling.minReplicas.gateway",
        at="spec",
        field=".autoscaling.minReplicas",
        holds=lambda spec: spec.gateway is None or not _may_sleep(spec.autoscaling),
        cel="!has(self.gateway) || !has(self.autoscaling) || self.autoscaling.mode != 'Operator' || self.autoscaling.minReplicas > 0",
        message="is 0, and the pods carry a gateway (spec.gateway): without a pod no gateway is left that a request could wake them by",
        remedy="minReplicas: 1 would work, or leave gateway out",
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
