"""Prometheus rules for models, routes and the operator, as data: recording rules, and alerts with a runbook page each.

Only metrics that exist are asked for (a test looks): the engine's, the gateway's, the operator's. What is aggregated keeps
`llm_namespace` and `llm_name`, by which an alert finds its LLMDeployment again; the monitors beside these rules put them on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from fairlead.api.conditions import ConditionType, Reason

Json = dict[str, Any]

RUNBOOKS: Final = "docs/runbooks/"
#: Fewer requests than that within five minutes make no percentile.
REQUESTS_MIN: Final = 10
TIME_TO_FIRST_TOKEN_S: Final = 2
LATENCY_S: Final = 5

_BY_MODEL: Final = "llm_namespace, llm_name"
_BY_ROUTE: Final = "llm_namespace, llm_route, model"
_OF_MODEL: Final = "{{ $labels.llm_namespace }}/{{ $labels.llm_name }}"
_ROUTED: Final = "{{ $labels.model }}"
_OF_ROUTE: Final = "{{ $labels.llm_namespace }}/{{ $labels.llm_route }}"
_SECONDS: Final = "{{ $value | humanizeDuration }}"
_SEE: Final = "kubectl -n {{ $labels.llm_namespace }} describe llmdep {{ $labels.llm_name }}"
_SEE_ROUTE: Final = "kubectl -n {{ $labels.llm_namespace }} describe llmrt {{ $labels.llm_route }}"
_CONDITIONS: Final = "llm:condition:max"
_ROUTE_CONDITIONS: Final = "llm:route_condition:max"
#: A time for which every rule of averages has full windows.
_WINDOW: Final = "5m"


@dataclass(frozen=True, slots=True)
class Recording:
    """`name` is level:metric:operation, as Prometheus recommends."""

    name: str
    expr: str

    def render(self) -> Json:
        """As a rule file has it."""
        return {"record": self.name, "expr": self.expr}


@dataclass(frozen=True, slots=True)
class AlertRule:
    """One alert. `stays`: how long it goes on when its expression is no longer true, against flapping."""

    name: str
    expr: str
    lasts: str
    severity: str
    summary: str
    description: str
    stays: str = ""

    def render(self) -> Json:
        """As a rule file has it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.lasts,
            **({"keep_firing_for": self.stays} if self.stays else {}),
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{RUNBOOKS}{self.name}.md",
            },
        }


def _p95(names: tuple[str, ...], by: str, selector: str = "") -> str:
    """Aggregated before the quantile: one of several pods' quantiles says nothing of the whole. Of a metric with two names, the newer
    one counts where a pod has both."""
    rates = " or ".join(f"rate({name}_bucket{selector}[{_WINDOW}])" for name in names)
    return f"histogram_quantile(0.95, sum by (le, {by}) ({rates}))"


def _reason(kind: str, type_: ConditionType, status: str) -> str:
    """In an annotation, the reason of a condition as it is now. As a label it would make another alert with each change, which would
    begin its `for` anew."""
    recorded, label = {"model": (_CONDITIONS, "llm_name"), "route": (_ROUTE_CONDITIONS, "llm_route")}[kind]
    series = f"{recorded}{{type='{type_}',status='{status}',llm_namespace=%q,{label}=%q}} == 1"
    asked = f'printf "{series}" $labels.llm_namespace $labels.{label} | query'
    return f'{{{{ with {asked} }}}}{{{{ . | first | label "reason" }}}}{{{{ end }}}}'


def _conditions(metric: str, label: str) -> str:
    """Both replicas of the operator tell of the same. A scraper that does not honour labels has renamed the namespace."""
    named = f'label_replace({metric}, "{label}", "$1", "name", "(.+)")'
    here = f'label_replace({named}, "llm_namespace", "$1", "namespace", "(.+)")'
    there = f'label_replace({here}, "llm_namespace", "$1", "exported_namespace", "(.+)")'
    return f"max by (llm_namespace, {label}, type, status, reason) ({there})"


_MODEL: Final = '{llm_name!=""}'
_ROUTE: Final = '{llm_route!=""}'

RECORDINGS: Final = (
    Recording("llm:time_to_first_token_seconds:p95_5m", _p95(("vllm:time_to_first_token_seconds",), _BY_MODEL, _MODEL)),
    Recording("llm:e2e_latency_seconds:p95_5m", _p95(("vllm:e2e_request_latency_seconds",), _BY_MODEL, _MODEL)),
    Recording(
        "llm:output_token_latency_seconds:p95_5m",
        _p95(("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"), _BY_MODEL, _MODEL),
    ),
    Recording(
        "llm:requests:increase_5m",
        f"sum by ({_BY_MODEL}) (increase(vllm:e2e_request_latency_seconds_count{_MODEL}[{_WINDOW}]))",
    ),
    Recording("llm:requests_running:sum", f"sum by ({_BY_MODEL}) (vllm:num_requests_running{_MODEL})"),
    Recording("llm:requests_waiting:sum", f"sum by ({_BY_MODEL}) (vllm:num_requests_waiting{_MODEL})"),
    Recording(
        "llm:kv_cache_usage:avg",
        f"avg by ({_BY_MODEL}) (vllm:kv_cache_usage_perc{_MODEL} or vllm:gpu_cache_usage_perc{_MODEL})",
    ),
    Recording(_CONDITIONS, _conditions("fairlead_llmdeployment_condition", "llm_name")),
    Recording(_ROUTE_CONDITIONS, _conditions("fairlead_llmroute_condition", "llm_route")),
    Recording(
        "llm:route_requests:increase_5m",
        f"sum by ({_BY_ROUTE}) (increase(envoy_fairlead_requests{_ROUTE}[{_WINDOW}]))",
    ),
    Recording(
        "llm:route_errors:ratio_5m",
        f'sum by ({_BY_ROUTE}) (increase(envoy_fairlead_requests{{llm_route!="",code=~"5.."}}[{_WINDOW}]))'
        " / llm:route_requests:increase_5m",
    ),
    Recording(
        "llm:route_time_to_first_token_seconds:p95_5m",
        _p95(("envoy_fairlead_time_to_first_token_ms",), _BY_ROUTE, _ROUTE) + " / 1000",
    ),
)


def _condition(type_: ConditionType, status: str, reasons: tuple[Reason, ...] = (), *, but: bool = False) -> str:
    chosen = f',reason{"!~" if but else "=~"}"{"|".join(reasons)}"' if reasons else ""
    return f'max by ({_BY_MODEL}) ({_CONDITIONS}{{type="{type_}",status="{status}"{chosen}}}) == 1'


ALERTS: Final = (
    AlertRule(
        "LLMDeploymentHighTimeToFirstToken",
        f"llm:time_to_first_token_seconds:p95_5m > {TIME_TO_FIRST_TOKEN_S} and llm:requests:increase_5m >= {REQUESTS_MIN}",
        "1m",
        "warning",
        f"{_OF_MODEL} answers late",
        f"The 95th percentile of the time to the first token of {_OF_MODEL} is {_SECONDS} over five minutes, more than"
        f" {TIME_TO_FIRST_TOKEN_S} s, for more than a minute.",
        stays="2m",
    ),
    AlertRule(
        "LLMDeploymentHighLatency",
        f"llm:e2e_latency_seconds:p95_5m > {LATENCY_S} and llm:requests:increase_5m >= {REQUESTS_MIN}",
        "1m",
        "warning",
        f"Requests to {_OF_MODEL} take long",
        f"The 95th percentile of whole requests to {_OF_MODEL} is {_SECONDS} over five minutes, more than {LATENCY_S} s, for"
        " more than a minute.",
        stays="2m",
    ),
    AlertRule(
        "LLMDeploymentNoReadyReplicas",
        f"({_condition(ConditionType.AVAILABLE, 'False', (Reason.REPLICAS_UNAVAILABLE,))})"
        f" and on ({_BY_MODEL}) max_over_time(llm:condition:max"
        f'{{type="{ConditionType.AVAILABLE}",status="True"}}[1h]) == 1'
        f" unless on ({_BY_MODEL}) max_over_time(llm:condition:max"
        f'{{type="{ConditionType.AVAILABLE}",reason="{Reason.NO_REPLICAS}"}}[30m]) == 1',
        "2m",
        "critical",
        f"{_OF_MODEL} no longer serves",
        f"Of the replicas of {_OF_MODEL} too few serve, for more than two minutes; within the last hour there were enough. Why: {_SEE}",
    ),
    AlertRule(
        "LLMDeploymentStalled",
        _condition(ConditionType.STALLED, "True"),
        "5m",
        "warning",
        f"{_OF_MODEL} waits for a person ({_reason('model', ConditionType.STALLED, 'True')})",
        f"{_OF_MODEL} is Stalled for more than five minutes. What to do: {_SEE}",
    ),
    AlertRule(
        "LLMDeploymentScalingSignalsMissing",
        _condition(
            ConditionType.SCALING_ACTIVE,
            "False",
            (Reason.SIGNALS_MISSING, Reason.SIGNALS_STALE, Reason.SIGNALS_PARTIAL),
        ),
        "10m",
        "warning",
        f"{_OF_MODEL} is not scaled: {_reason('model', ConditionType.SCALING_ACTIVE, 'False')}",
        f"What the replicas of {_OF_MODEL} are decided from is missing, stale or partial for more than ten minutes, so none is taken away."
        f" Why: {_SEE}",
    ),
    AlertRule(
        "LLMDeploymentCapacityBlocked",
        _condition(ConditionType.SCALING_ACTIVE, "False", (Reason.CAPACITY_BLOCKED,)),
        "10m",
        "warning",
        f"{_OF_MODEL} needs accelerators that are not there",
        f"{_OF_MODEL} wants more replicas than accelerators permit, for more than ten minutes. How many: {_SEE}",
    ),
    AlertRule(
        "LLMDeploymentAtMaximum",
        _condition(ConditionType.SCALING_ACTIVE, "False", (Reason.AT_MAXIMUM,)),
        "15m",
        "warning",
        f"{_OF_MODEL} wants more than maxReplicas",
        f"{_OF_MODEL} misses a target with all replicas that maxReplicas permits, for more than 15 minutes. Which target: {_SEE}",
    ),
    AlertRule(
        "LLMRouteStalled",
        f'max by (llm_namespace, llm_route) ({_ROUTE_CONDITIONS}{{type="{ConditionType.STALLED}",status="True"}}) == 1',
        "5m",
        "warning",
        f"{_OF_ROUTE} waits for a person ({_reason('route', ConditionType.STALLED, 'True')})",
        f"{_OF_ROUTE} is Stalled for more than five minutes. What to do: {_SEE_ROUTE}",
    ),
    AlertRule(
        "LLMRouteBackendsUnhealthy",
        f"max by (llm_namespace, llm_route) ({_ROUTE_CONDITIONS}"
        f'{{type="{ConditionType.BACKENDS_HEALTHY}",status="False"}}) == 1'
        # While a model of the namespace loads that was at zero: which of them a route leads to, no metric says.
        f" unless on (llm_namespace) ({_condition(ConditionType.AVAILABLE, 'False', (Reason.REPLICAS_UNAVAILABLE,))}"
        f" and on ({_BY_MODEL}) max_over_time({_CONDITIONS}"
        f'{{type="{ConditionType.AVAILABLE}",reason="{Reason.NO_REPLICAS}"}}[30m]) == 1)',
        "5m",
        "critical",
        f"A model of {_OF_ROUTE} has no backend that answers",
        f"BackendsHealthy of {_OF_ROUTE} is False for more than five minutes. Which one: {_SEE_ROUTE}",
    ),
    AlertRule(
        "LLMRouteHighErrorRate",
        f"llm:route_errors:ratio_5m > 0.05 and llm:route_requests:increase_5m >= {REQUESTS_MIN}",
        "2m",
        "warning",
        f"Requests for {_ROUTED} of {_OF_ROUTE} fail",
        f"{{{{ $value | humanizePercentage }}}} of the requests for {_ROUTED} to {_OF_ROUTE} got 5xx over five minutes, after all"
        " failovers, more than 5 %, for more than two minutes.",
        stays="2m",
    ),
    AlertRule(
        "LLMRouteHighTimeToFirstToken",
        f"llm:route_time_to_first_token_seconds:p95_5m > {TIME_TO_FIRST_TOKEN_S}"
        f" and llm:route_requests:increase_5m >= {REQUESTS_MIN}",
        "2m",
        "warning",
        f"{_ROUTED} of {_OF_ROUTE} answers late",
        f"The 95th percentile of the time to the first token of {_ROUTED} at {_OF_ROUTE} is {_SECONDS} over"
        f" five minutes, more than {TIME_TO_FIRST_TOKEN_S} s, for more than two minutes.",
        stays="2m",
    ),
    AlertRule(
        "FairleadNoLeader",
        "max(leader_election_master_status and on (instance) fairlead_tasks) == 0 or absent(fairlead_tasks)",
        "3m",
        "critical",
        "No replica of the operator leads",
        "No replica of fairlead has led for more than three minutes: models serve, and no change is carried out.",
    ),
    AlertRule(
        "FairleadKeysFailing",
        "sum(fairlead_failing_keys) > 0",
        "10m",
        "warning",
        "The operator fails at custom resources",
        "Passes over {{ $value }} custom resources have ended in an error for more than ten minutes, and are tried again.",
    ),
    AlertRule(
        "FairleadAlertsRefused",
        'sum by (result) (increase(fairlead_alert_deliveries_total{result=~"unauthorized|junk|oversized|limited|no_token"}[10m])) > 0',
        "10m",
        "warning",
        "Deliveries of alerts are refused ({{ $labels.result }})",
        "What is sent to the operator's port for alerts is refused ({{ $labels.result }}) for more than ten minutes.",
    ),
)


def make_table() -> str:
    """The alerts and their pages, for docs/monitoring.md."""
    rows = ["| Alert | Severity | Fires after | When |", "| --- | --- | --- | --- |"]
    for rule in ALERTS:
        expr = rule.expr.replace("|", "\\|")
        rows.append(f"| [{rule.name}](runbooks/{rule.name}.md) | {rule.severity} | {rule.lasts} | `{expr}` |")
    return "\n".join(rows) + "\n"


def make_groups() -> Json:
    """The rule file. Recording rules come first: rules of a group are evaluated in their order, groups side by side."""
    return {
        "groups": [
            {"name": "fairlead.rules", "rules": [rule.render() for rule in (*RECORDINGS, *ALERTS)]},
        ]
    }
