"""Rules about how many replicas there may be, and by what it is decided."""

from __future__ import annotations

import re
from typing import Any, Final

from fairlead.api.quantity import DURATION_PATTERN, is_duration, parse_duration_s
from fairlead.api.rules.names import DNS_LABEL, DNS_SUBDOMAIN
from fairlead.api.rules.serving import duration_rules
from fairlead.api.rules.table import Rule, matches, pattern_rule

#: Five fields of what cron has: numbers, names, ranges, lists, steps. Whether they make sense is told when it is planned.
CRON_PATTERN: Final = "[A-Za-z0-9*,/#L-]+( [A-Za-z0-9*,/#L-]+){4}"
#: What cron has here and KEDA does not (the last of a month, the nth day of the week, 7 for Sunday), or reads otherwise: days of the month
#: and of the week that are both said, one of them as */n, of which here both must hold and there one.
_NOT_CRON_OF_KEDA: Final = (
    "(^|[ ,0-9])L|#| ([^ ]*[,-])?7([,/-][^ ]*)?$"
    "|^[^ ]+ [^ ]+ [*]/[^ ]+ [^ ]+ ([^*]|[*]/)|^[^ ]+ [^ ]+ [^*][^ ]* [^ ]+ [*]/"
)
#: Metadata of KEDA's Prometheus triggers that an LLMDeployment does not say otherwise.
KEDA_METADATA: Final = (
    "authModes", "customHeaders", "queryParameters", "namespace", "awsRegion", "identityOwner", "timeout", "unsafeSsl",
)  # fmt: skip
_GUARDED_HEADER: Final = "(?i)(authorization|cookie|api-key)[^=]*="
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
    """Whether the last replica goes, too, and comes back for a request."""
    return autoscaling is not None and autoscaling.mode != "External" and autoscaling.min_replicas == 0


def _is_cron_of_keda(text: str) -> bool:
    return not re.search(_NOT_CRON_OF_KEDA, text)


def _fits_one_node(spec: Any) -> bool:
    storage, autoscaling = spec.storage, spec.autoscaling
    if storage is None or autoscaling is None:
        return True
    return autoscaling.max_replicas <= 1 or "ReadWriteOncePod" not in storage.access_modes


def _make_keda_schedule_rule(field: str) -> Rule:
    def holds(autoscaling: Any) -> bool:
        return autoscaling.mode != "KEDA" or all(_is_cron_of_keda(getattr(one, field)) for one in autoscaling.schedules)

    return Rule(
        id=f"autoscaling.schedules.{field}.keda",
        at="spec.autoscaling",
        field=".schedules",
        holds=holds,
        cel="self.mode != 'KEDA' || !has(self.schedules) ||"
        f" self.schedules.all(s, !s.{field}.matches('{_NOT_CRON_OF_KEDA}'))",
        message=f"{field} has what KEDA's cron does not know",
        remedy="leave out L and #, write 0 or SUN for Sunday, and no */n of days where other days are said, too",
    )


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
        holds=lambda autoscaling: autoscaling.mode == "External" or _has_target(autoscaling),
        cel="self.mode == 'External' || (self.minReplicas == 0 && self.maxReplicas == 1) || (has(self.targets) && ("
        + " || ".join(f"has(self.targets.{target})" for target in _TARGETS)
        + "))",
        message="there must be something to decide by",
        remedy="for instance targets: {queuedRequests: 5}, or timeToFirstToken: 1s",
    ),
    Rule(
        id="autoscaling.mode.external",
        at="spec.autoscaling",
        field=".mode",
        holds=lambda autoscaling: autoscaling.mode != "External" or not _names_decisions(autoscaling),
        cel="self.mode != 'External' || (!has(self.targets) && !has(self.behavior) && self.policy == 'Apply'"
        " && !has(self.idleTimeout) && (!has(self.schedules) || size(self.schedules) == 0))",
        message="with External somebody else decides: targets, behavior, schedules, idleTimeout and policy are not read",
        remedy="leave them out, or mode: Operator",
    ),
    Rule(
        id="autoscaling.policy.keda",
        at="spec.autoscaling",
        field=".policy",
        holds=lambda autoscaling: autoscaling.mode != "KEDA" or autoscaling.policy != "Recommend",
        cel="self.mode != 'KEDA' || self.policy != 'Recommend'",
        message="KEDA does not recommend, it decides",
        remedy="Apply and Pause would work, or mode: Operator",
    ),
    Rule(
        id="autoscaling.keda.mode",
        at="spec.autoscaling",
        field=".keda",
        holds=lambda autoscaling: autoscaling.keda is None or autoscaling.mode == "KEDA",
        cel="!has(self.keda) || self.mode == 'KEDA'",
        message="is read with mode KEDA only",
        remedy="mode: KEDA would work, or leave it out",
    ),
    pattern_rule(
        "autoscaling.keda.serverAddress",
        "spec.autoscaling.keda.serverAddress",
        "https?://[A-Za-z0-9._:\\[\\]-]+(/[A-Za-z0-9._~/-]*)?",
        "is not a URL without user, query and fragment",
        "for instance http://prometheus.monitoring:9090",
    ),
    pattern_rule(
        "autoscaling.keda.authenticationRef.name",
        "spec.autoscaling.keda.authenticationRef.name",
        DNS_SUBDOMAIN,
        "is not the name of an object",
        "use lower-case letters, digits, - and .",
    ),
    Rule(
        id="autoscaling.keda.metadata",
        at="spec.autoscaling.keda",
        field=".metadata",
        holds=lambda keda: all(key in KEDA_METADATA for key in keda.metadata),
        cel="!has(self.metadata) || self.metadata.all(k, k in ["
        + ", ".join(f"'{key}'" for key in KEDA_METADATA)
        + "])",
        message="has a key that is fairlead's own, or that KEDA's Prometheus triggers do not know",
        remedy=f"{', '.join(KEDA_METADATA)} would work",
    ),
    Rule(
        id="autoscaling.keda.metadata.secret",
        at="spec.autoscaling.keda",
        field=".metadata",
        holds=lambda keda: not re.search(_GUARDED_HEADER, keda.metadata.get("customHeaders", "")),
        cel=f"!has(self.metadata) || !('customHeaders' in self.metadata) || !self.metadata['customHeaders'].matches('{_GUARDED_HEADER}')",
        message="customHeaders hold a secret",
        remedy="authenticationRef would work",
    ),
    _make_keda_schedule_rule("start"),
    _make_keda_schedule_rule("end"),
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
        id="autoscaling.idleTimeout.keda",
        at="spec.autoscaling",
        field=".idleTimeout",
        holds=lambda autoscaling: (
            autoscaling.mode != "KEDA"
            or autoscaling.idle_timeout is None
            or not is_duration(autoscaling.idle_timeout)
            or parse_duration_s(autoscaling.idle_timeout) >= 60
        ),
        cel="self.mode != 'KEDA' || !has(self.idleTimeout) ||"
        f" !{matches(DURATION_PATTERN, 'self.idleTimeout')} || duration(self.idleTimeout) >= duration('1m')",
        message="is too short for KEDA, which hears of a request by Prometheus, up to a minute later",
        remedy="1m is the shortest that works with mode KEDA",
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
    Rule(
        id="autoscaling.spot.maximum",
        at="spec.autoscaling",
        field=".spot.minReplicas",
        holds=lambda autoscaling: autoscaling.spot is None or autoscaling.spot.min_replicas <= autoscaling.max_replicas,
        cel="!has(self.spot) || self.spot.minReplicas <= self.maxReplicas",
        message="is more than maxReplicas",
        remedy="raise maxReplicas, or lower spot.minReplicas",
    ),
    Rule(
        id="autoscaling.spot.zero",
        at="spec.autoscaling",
        field=".spot",
        holds=lambda autoscaling: autoscaling.spot is None or autoscaling.min_replicas > 0,
        cel="!has(self.spot) || self.minReplicas > 0",
        message="keeps replicas that minReplicas 0 would take away",
        remedy="minReplicas: 1 would work, or leave spot out",
    ),
    Rule(
        id="autoscaling.spot.mode",
        at="spec.autoscaling",
        field=".spot",
        holds=lambda autoscaling: autoscaling.spot is None or autoscaling.mode == "Operator",
        cel="!has(self.spot) || self.mode == 'Operator'",
        message="is read with mode Operator only",
        remedy="leave it out, or mode: Operator",
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
        cel="!has(self.gateway) || !has(self.autoscaling) || self.autoscaling.mode == 'External' || self.autoscaling.minReplicas > 0",
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
