"""The rules: real promtool says when they fire, every metric in them exists, and every alert has its page."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hack.generate.monitoring import make_monitors, make_scrape_configs
from hack.generate.rules import ALERTS, RECORDINGS, make_groups
from tests.unit.packaging.conftest import find_monitoring

from fairlead.api import names
from fairlead.config import OperatorConfig
from fairlead.facts.prometheus import PodLabels
from fairlead.gateway.envoy import GatewaySettings
from fairlead.runtime.alerts import PATH
from fairlead.runtime.metrics import ConditionCollector, Metrics
from fairlead_sim.settings import Settings
from fairlead_sim.vllm import flags
from fairlead_sim.vllm.config import make_config
from fairlead_sim.vllm.metrics import Metrics as VllmMetrics

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]
MODEL = 'llm_namespace="ml",llm_name="m"'
ROUTE = 'llm_namespace="ml",llm_route="r",model="chat"'
VALUES = 60  # one a minute
#: Values of a minute each: requests that all take from 10 to 20 s, at one a second; or 0.1 s; or one an hour.
SLOW, FAST, SELDOM = "0+60x60", "0+60x60", "0+1x3 3x57"


@dataclass(frozen=True)
class Case:
    """Series, and labels of what fires after so many minutes (None: nothing does)."""

    alert: str
    series: Mapping[str, str]
    at_m: int
    fires: Mapping[str, str] | None = None


def histogram(metric: str, labels: str, seconds: float, values: str, unit: float = 1.0) -> dict[str, str]:
    """All requests between half of `seconds` and `seconds`."""
    bounds = [0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0]
    series = {
        f'{metric}_bucket{{{labels},pod="a",le="{bound * unit:g}"}}': values if seconds <= bound else "0x60"
        for bound in bounds
    }
    return series | {
        f'{metric}_bucket{{{labels},pod="a",le="+Inf"}}': values,
        f'{metric}_count{{{labels},pod="a"}}': values,
    }


def latency(first_token_s: float, whole_s: float, values: str = SLOW) -> dict[str, str]:
    """Of a vLLM."""
    return histogram("vllm:time_to_first_token_seconds", MODEL, first_token_s, values) | histogram(
        "vllm:e2e_request_latency_seconds", MODEL, whole_s, values
    )


def route(first_token_s: float, failed: str, values: str = SLOW) -> dict[str, str]:
    """Of a gateway: requests that were served, and those that failed."""
    requests = {
        f'envoy_fairlead_requests{{{ROUTE},pod="a",code="200"}}': values,
        f'envoy_fairlead_requests{{{ROUTE},pod="a",code="503"}}': failed,
    }
    return requests | histogram("envoy_fairlead_time_to_first_token_ms", ROUTE, first_token_s, values, 1000.0)


def condition(
    type_: str,
    status: str,
    reason: str,
    values: str = "1x60",
    metric: str = "llmdeployment",
    namespace: str = "namespace",
) -> dict[str, str]:
    """As the operator's two replicas tell it; `namespace`: under which label."""
    labels = f'{namespace}="ml",name="m",type="{type_}",status="{status}",reason="{reason}"'
    return {f'fairlead_{metric}_condition{{{labels},pod="{pod}"}}': values for pod in "ab"}


OF_MODEL = {"llm_namespace": "ml", "llm_name": "m"}
OF_ROUTE = {"llm_namespace": "ml", "llm_route": "r", "model": "chat"}
GONE = condition("Available", "False", "ReplicasUnavailable", "_x9 1x50")
#: Five minutes of the one, five of the other, and so on.
FIRST, THEN = "1x4 stale _x4 1x4 stale _x4", "_x5 1x4 stale _x4 1x4"
ALTERNATING = condition("ScalingActive", "False", "SignalsMissing", FIRST) | condition(
    "ScalingActive", "False", "SignalsPartial", THEN
)
UNHEALTHY = condition("BackendsHealthy", "False", "BackendsNotReady", "_x9 1x50", "llmroute")
OF_UNHEALTHY = {"llm_namespace": "ml", "llm_route": "m"}
WAS = condition("Available", "True", "MinimumReplicasAvailable", "1x9")
CASES = (
    Case("LLMDeploymentHighTimeToFirstToken", latency(5, 10), 8, OF_MODEL),
    Case("LLMDeploymentHighTimeToFirstToken", latency(1, 10), 8),
    Case("LLMDeploymentHighTimeToFirstToken", latency(5, 10, SELDOM), 3),
    Case("LLMDeploymentHighLatency", latency(1, 10), 8, OF_MODEL),
    Case("LLMDeploymentHighLatency", latency(1, 5, FAST), 8),
    Case("LLMDeploymentHighLatency", latency(1, 10, SELDOM), 3),
    Case("LLMDeploymentHighLatency", latency(1, 10, "0x60"), 8),  # no requests: NaN, which is no alert
    Case("LLMDeploymentNoReadyReplicas", GONE | WAS, 13, OF_MODEL),
    Case("LLMDeploymentNoReadyReplicas", GONE, 13),  # starts, and never served
    Case("LLMDeploymentNoReadyReplicas", condition("Available", "False", "NoReplicas", "_x9 1x50") | WAS, 13),
    Case("LLMDeploymentNoReadyReplicas", WAS | GONE | condition("Available", "False", "NoReplicas", "_x4 1x4"), 13),  # wakes from zero
    Case("LLMDeploymentStalled", condition("Stalled", "True", "CrashLoop"), 6, OF_MODEL),
    Case("LLMDeploymentStalled", condition("Stalled", "True", "CrashLoop", namespace="exported_namespace"), 6,
         OF_MODEL),
    Case("LLMDeploymentStalled", condition("Stalled", "True", "CrashLoop"), 4),
    Case("LLMDeploymentStalled", condition("Stalled", "False", "NotStalled"), 6),
    *(Case("LLMDeploymentScalingSignalsMissing", condition("ScalingActive", "False", reason), 11, OF_MODEL)
      for reason in ("SignalsMissing", "SignalsStale", "SignalsPartial")),
    Case("LLMDeploymentScalingSignalsMissing", ALTERNATING, 12, OF_MODEL),
    Case("LLMDeploymentScalingSignalsMissing", ALTERNATING, 9),
    Case("LLMDeploymentScalingSignalsMissing", condition("ScalingActive", "False", "FixedReplicas"), 11),
    Case("LLMDeploymentScalingSignalsMissing", condition("ScalingActive", "True", "SignalsReady"), 11),
    Case("LLMDeploymentCapacityBlocked", condition("ScalingActive", "False", "CapacityBlocked"), 11,
         OF_MODEL),
    Case("LLMDeploymentCapacityBlocked", condition("ScalingActive", "False", "CapacityBlocked"), 9),
    Case("LLMDeploymentAtMaximum", condition("ScalingActive", "False", "AtMaximum"), 16, OF_MODEL),
    Case("LLMDeploymentAtMaximum", condition("ScalingActive", "True", "SignalsReady"), 16),
    Case("LLMRouteStalled", condition("Stalled", "True", "TooLarge", metric="llmroute"), 6,
         {"llm_namespace": "ml", "llm_route": "m"}),
    Case("LLMRouteStalled", condition("Stalled", "True", "TooLarge", FIRST, "llmroute")
         | condition("Stalled", "True", "RefNotResolved", THEN, "llmroute"), 7, {"llm_namespace": "ml", "llm_route": "m"}),
    Case("LLMRouteStalled", condition("Stalled", "False", "NotStalled", metric="llmroute"), 6),
    Case("LLMRouteBackendsUnhealthy", condition("BackendsHealthy", "False", "BackendsNotReady", metric="llmroute"), 6,
         {"llm_namespace": "ml", "llm_route": "m"}),
    Case("LLMRouteBackendsUnhealthy", UNHEALTHY | GONE | condition("Available", "False", "NoReplicas", "_x4 1x4"), 20),  # wakes from zero
    Case("LLMRouteBackendsUnhealthy", UNHEALTHY | GONE | condition("Available", "False", "NoReplicas", "_x4 1x4"), 50, OF_UNHEALTHY),
    Case("LLMRouteBackendsUnhealthy", UNHEALTHY | GONE, 16, OF_UNHEALTHY),  # nothing was at zero
    Case("LLMRouteBackendsUnhealthy", UNHEALTHY | condition("Available", "False", "NoReplicas"), 16, OF_UNHEALTHY),  # nothing wakes
    Case("LLMRouteBackendsUnhealthy", condition("BackendsHealthy", "True", "BackendsReady", metric="llmroute"), 6),
    Case("LLMRouteHighErrorRate", route(1, "0+6x60"), 9, OF_ROUTE),
    Case("LLMRouteHighErrorRate", route(1, "0+2x60"), 9),
    Case("LLMRouteHighErrorRate", route(1, "0+1x3 3x57", SELDOM), 4),
    Case("LLMRouteHighTimeToFirstToken", route(5, "0x60"), 9, OF_ROUTE),
    Case("LLMRouteHighTimeToFirstToken", route(1, "0x60"), 9),
    Case("FairleadNoLeader", {f'{metric}{{instance="{one}"}}': value for one in "ab" for metric, value in
                              (("leader_election_master_status", "0x60"), ("fairlead_tasks", "50x60"))}, 4, {}),
    Case("FairleadNoLeader", {}, 4, {}),
    Case("FairleadNoLeader", {'leader_election_master_status{instance="a"}': "1x60", 'fairlead_tasks{instance="a"}': "50x60",
                              'leader_election_master_status{instance="b"}': "0x60", 'fairlead_tasks{instance="b"}': "50x60",
                              'leader_election_master_status{instance="of-another-operator"}': "0x60"}, 4),
    Case("FairleadKeysFailing", {'fairlead_failing_keys{pod="a"}': "2x60", 'fairlead_failing_keys{pod="b"}': "0x60"}, 11, {}),
    Case("FairleadKeysFailing", {'fairlead_failing_keys{pod="a"}': "0x60"}, 11),
    Case("FairleadAlertsRefused", {'fairlead_alert_deliveries_total{result="unauthorized",pod="a"}': "0+4x60"}, 15,
         {"result": "unauthorized"}),
    Case("FairleadAlertsRefused", {'fairlead_alert_deliveries_total{result="accepted",pod="a"}': "0+4x60",
                                   'fairlead_alert_deliveries_total{result="not_leading",pod="a"}': "0+4x60"}, 15),
)  # fmt: skip


def make_test(case: Case, number: int) -> Json:
    """As promtool takes it: by the series that a firing alert is."""
    severity = next(rule.severity for rule in ALERTS if rule.name == case.alert)
    labels = {"alertname": case.alert, "alertstate": "firing", "severity": severity, **(case.fires or {})}
    told = ", ".join(f'{name}="{value}"' for name, value in labels.items())
    expected = [{"labels": f"ALERTS{{{told}}}", "value": 1}] if case.fires is not None else []
    return {
        "name": f"{number} {case.alert}",
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "promql_expr_test": [
            {
                "expr": f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}',
                "eval_time": f"{case.at_m}m",
                "exp_samples": expected,
            }
        ],
    }


def run_promtool(promtool: Path, tests: list[Json], folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "tests.yaml"
    rules = str(ROOT / "manifests/monitoring/rules.yaml")
    file.write_text(yaml.safe_dump({"rule_files": [rules], "evaluation_interval": "15s", "tests": tests}))
    return subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)


def test_alerts_fire_when_they_should_and_only_then(promtool: Path, tmp_path: Path) -> None:
    done = run_promtool(promtool, [make_test(case, number) for number, case in enumerate(CASES)], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    fires = {case.alert for case in CASES if case.fires is not None}
    quiet = {case.alert for case in CASES if case.fires is None}
    assert fires == quiet == {rule.name for rule in ALERTS}


def test_promtool_would_notice(promtool: Path, tmp_path: Path) -> None:
    wrong = Case("LLMDeploymentHighLatency", latency(1, 10), 8)
    assert run_promtool(promtool, [make_test(wrong, 0)], tmp_path).returncode == 1


def test_what_people_read_names_the_model_and_the_number(promtool: Path, tmp_path: Path) -> None:
    case = Case("LLMDeploymentHighLatency", latency(1, 10), 8)
    test = make_test(case, 0) | {"promql_expr_test": [], "alert_rule_test": [{
        "alertname": "LLMDeploymentHighLatency", "eval_time": "8m", "exp_alerts": [{
            "exp_labels": {"severity": "warning", **OF_MODEL},
            "exp_annotations": {
                "summary": "Requests to ml/m take long",
                "description": "The 95th percentile of whole requests to ml/m is 9.75s over five minutes, more than 5 s, for more than a"
                " minute.",
                "runbook_url": "docs/runbooks/LLMDeploymentHighLatency.md",
            }}]}]}  # fmt: skip
    done = run_promtool(promtool, [test], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("at_m", "reason"), [(11, "SignalsMissing"), (16, "SignalsPartial")])
def test_the_reason_is_told_as_it_is_now(promtool: Path, at_m: int, reason: str, tmp_path: Path) -> None:
    """As an annotation: a label would make another alert of it, which begins anew with each change."""
    name = "LLMDeploymentScalingSignalsMissing"
    test = make_test(Case(name, ALTERNATING, at_m, OF_MODEL), 0) | {"promql_expr_test": [], "alert_rule_test": [{
        "eval_time": f"{at_m}m", "alertname": name, "exp_alerts": [{
            "exp_labels": {**OF_MODEL, "severity": "warning"},
            "exp_annotations": {
                "summary": f"ml/m is not scaled: {reason}",
                "description": "What the replicas of ml/m are decided from is missing, stale or partial for more than ten"
                " minutes, so none is taken away. Why: kubectl -n ml describe llmdep m",
                "runbook_url": f"docs/runbooks/{name}.md",
            }}]}]}  # fmt: skip
    done = run_promtool(promtool, [test], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_recordings_have_one_series_for_each_model_and_honour_old_names(promtool: Path, tmp_path: Path) -> None:
    old = histogram("vllm:time_per_output_token_seconds", MODEL, 0.5, SLOW)
    gauges = {
        f'vllm:num_requests_waiting{{{MODEL},pod="a"}}': "2x60",
        f'vllm:num_requests_waiting{{{MODEL},pod="b"}}': "3x60",
        f'vllm:num_requests_running{{{MODEL},pod="a"}}': "7x60",
        f'vllm:gpu_cache_usage_perc{{{MODEL},pod="a"}}': "0.5x60",
        f'vllm:kv_cache_usage_perc{{{MODEL},pod="b"}}': "0.7x60",
        'vllm:num_requests_waiting{pod="of-somebody-else"}': "9x60",
    }
    wanted = {
        "llm:output_token_latency_seconds:p95_5m": 0.4875,
        "llm:requests_waiting:sum": 5,
        "llm:requests_running:sum": 7,
        "llm:kv_cache_usage:avg": 0.6,
    }
    label = '{llm_name="m", llm_namespace="ml"}'
    test = {
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in (old | gauges).items()],
        "promql_expr_test": [
            {
                "expr": f"round({name}, 0.0001)",
                "eval_time": "8m",
                "exp_samples": [{"labels": label, "value": value}],
            }
            for name, value in wanted.items()
        ],
    }
    done = run_promtool(promtool, [test], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", ["manifests/monitoring/rules.yaml", "charts/fairlead/files/rules.yaml"])
def test_promtool_accepts_the_files(promtool: Path, file: str) -> None:
    done = subprocess.run([promtool, "check", "rules", ROOT / file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RECORDINGS) + len(ALERTS)} rules found" in done.stdout


def test_promtool_accepts_the_scrape_configs(promtool: Path, tmp_path: Path) -> None:
    """Debian's Prometheus is built without the discovery of pods: everything but that."""
    configs = [{**config, "kubernetes_sd_configs": None} for config in make_scrape_configs()]
    plain = [{key: value for key, value in config.items() if value is not None} for config in configs]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": plain}))
    command = [promtool, "check", "config", tmp_path / "prometheus.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_metric_that_is_asked_for_exists() -> None:
    exposed = known_metrics()
    text = " ".join(rule["expr"] for group in make_groups()["groups"] for rule in group["rules"])
    asked = set(re.findall(r"\b(?:vllm:|fairlead_|envoy_|leader_)\w+", text))
    assert len(asked) > 12
    assert asked - exposed == {
        "vllm:time_per_output_token_seconds_bucket",  # names of older releases
        "vllm:gpu_cache_usage_perc",
    }


def known_metrics() -> set[str]:
    """Names of the operator, of the simulated vLLM, and of gateways as docs/gateway.md has them, which a real Envoy is tested with."""
    metrics = Metrics()
    listed, given = flags.load_flags(), ["serve", "org/tiny-1B"]
    kinds = (names.LLMDEPLOYMENT, names.LLMROUTE)
    metrics.registry.register(ConditionCollector(dict.fromkeys(kinds, list), dict))
    families = [
        *metrics.registry.collect(),
        *VllmMetrics(make_config(flags.parse(given, listed), listed, {}, Settings())).registry.collect(),
    ]
    described = re.findall(r"`(envoy_fairlead_\w+)`", (ROOT / "docs/gateway.md").read_text())
    bare = {family.name for family in families} | set(described)
    return bare | {f"{name}{suffix}" for name in bare for suffix in ("_total", "_bucket", "_count", "_sum")}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule.name)
def test_every_alert_follows_the_rules_of_the_house(rule: Any) -> None:
    rendered = rule.render()
    assert re.fullmatch(r"(LLMDeployment|LLMRoute|Fairlead)[A-Z][A-Za-z]+", rule.name)
    assert rule.severity in ("critical", "warning", "info")
    assert "\n" not in rendered["annotations"]["summary"]
    page = ROOT / rendered["annotations"]["runbook_url"]
    text = page.read_text()
    assert text.startswith(f"# {rule.name}\n")
    for heading in ("## What it means", "## What to do", "## What it is not"):
        assert f"\n{heading}\n" in text, heading


def test_there_is_no_page_without_its_alert() -> None:
    pages = {page.stem for page in (ROOT / "docs/runbooks").glob("*.md")}
    assert pages == {rule.name for rule in ALERTS}


def test_every_rule_is_named_once() -> None:
    everything = [rule.name for rule in (*RECORDINGS, *ALERTS)]
    assert len(everything) == len(set(everything))
    assert all(re.fullmatch(r"llm:\w+:\w+", rule.name) for rule in RECORDINGS)


def test_monitors_find_the_pods_that_are_made() -> None:
    engines, gateways, operator = (monitor["spec"] for monitor in make_monitors())
    labels = names.make_engine_labels("m")
    assert engines["selector"]["matchLabels"].items() <= labels.items()
    assert names.LABEL_LLMROUTE not in labels  # else gateways would be looked for in all of them
    assert GatewaySettings().status_port == 9901
    assert gateways["podMetricsEndpoints"][0]["port"] == "status"
    base = yaml.safe_load((ROOT / "manifests/base/deployment.yaml").read_text())
    assert operator["selector"]["matchLabels"] == base["spec"]["selector"]["matchLabels"]


def test_what_is_scraped_is_what_scaling_asks_prometheus_for() -> None:
    """The labels of its query, an interval of which two fit into its window, and pods that encrypt."""
    configs = make_scrape_configs()
    for config in configs:
        targets = {
            one["target_label"]: one["source_labels"] for one in config["relabel_configs"] if "target_label" in one
        }
        assert targets["namespace"] == ["__meta_kubernetes_namespace"]
        assert targets["pod"] == ["__meta_kubernetes_pod_name"]
    assert (PodLabels().namespace, PodLabels().pod) == ("namespace", "pod")
    plain, encrypted = (config for config in configs if config["job_name"].startswith("fairlead-engines"))
    endpoints = make_monitors()[0]["spec"]["podMetricsEndpoints"]
    assert {plain["scrape_interval"], encrypted["scrape_interval"], *(one["interval"] for one in endpoints)} == {"15s"}
    assert encrypted["scheme"] == "https"
    assert {"source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": "https", "action": "keep"} in (
        encrypted["relabel_configs"]
    )
    assert [(one["port"], one.get("scheme", "http")) for one in endpoints] == [("http", "http"), ("https", "https")]


def test_the_receiver_in_the_guide_is_one_for_alertmanager(tmp_path: Path) -> None:
    amtool = find_monitoring().alertmanager.with_name("amtool")
    if not amtool.exists():
        pytest.skip("no amtool beside Alertmanager")
    guide = (ROOT / "docs/alertmanager.md").read_text()
    [block] = re.findall(r"^   ```yml\n(.*?)^   ```$", guide, re.DOTALL | re.MULTILINE)
    config = yaml.safe_load(block)
    (tmp_path / "alertmanager.yml").write_text(yaml.safe_dump(config))
    command = [amtool, "check-config", tmp_path / "alertmanager.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [webhook] = config["receivers"][1]["webhook_configs"]
    port = OperatorConfig.model_fields["alerts_port"].default
    assert webhook["url"] == f"http://fairlead.fairlead-system.svc:{port}{PATH}"
    route = config["route"]["routes"][0]
    matched = [rule.name for rule in ALERTS if re.fullmatch("LLMDeploymentHigh.+", rule.name)]
    assert 'alertname=~"LLMDeploymentHigh.+"' in route["matchers"]
    assert matched == ["LLMDeploymentHighTimeToFirstToken", "LLMDeploymentHighLatency"]
