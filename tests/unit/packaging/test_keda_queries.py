"""What KEDA asks: real promtool says what each query comes to, with many pods, with none, and with some that are not scraped."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tests.unit.packaging.conftest import find_monitoring
from tests.unit.planning.world import VLLM, make_resource

from fairlead.engines.loader import EngineCatalog
from fairlead.facts.observed import OperatorFacts
from fairlead.facts.prometheus import PodLabels
from fairlead.facts.scaling import Measure
from fairlead.planning.deployment.kedaqueries import make_activity_query, make_selector, make_target_query
from fairlead.planning.deployment.serving import decide_serving

A, B = 'namespace="ml",pod="m-5d9c7-abcde"', 'namespace="ml",pod="m-5d9c7-fghij"'
OTHERS = (
    'namespace="ml",pod="m-x-5d9c7-abcde"',
    'namespace="other",pod="m-5d9c7-abcde"',
    'namespace="ml",pod="m-abcde"',
)
#: A value each 15 s, for five minutes.
STEADY, IDLE = "0+15x20", "7x20"

Series = Mapping[str, str]


def names() -> Mapping[Measure, tuple[str, ...]]:
    metrics = decide_serving(make_resource(VLLM), EngineCatalog.builtin(), OperatorFacts()).metrics
    assert metrics is not None
    return metrics.by_measure()


def gauge(metric: str, values: Mapping[str, float]) -> dict[str, str]:
    return {f"{metric}{{{labels}}}": f"{value}x20" for labels, value in values.items()}


def times(metric: str, labels: str, seconds: float, values: str) -> dict[str, str]:
    """Requests that all take between half of `seconds` and `seconds`."""
    bounds = [0.25, 0.5, 1.0, 2.0, 4.0]
    buckets = {
        f'{metric}_bucket{{{labels},le="{bound:g}"}}': values if seconds <= bound else "0x20" for bound in bounds
    }
    return buckets | {f'{metric}_bucket{{{labels},le="+Inf"}}': values, f"{metric}_count{{{labels}}}": values}


TTFT, OLD_KV = "vllm:time_to_first_token_seconds", "vllm:gpu_cache_usage_perc"
WAITING, RUNNING, ENDED = "vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:e2e_request_latency_seconds"


@dataclass(frozen=True)
class Case:
    """`answer` None: no series, which KEDA takes for an error."""

    what: str
    measure: Measure | None  # None: whether anybody wants anything
    series: Series
    answer: float | None


NOISE = {f"{WAITING}{{{labels}}}": "900x20" for labels in OTHERS}
CASES = [
    Case("the mean of the pods", Measure.QUEUED_REQUESTS, gauge(WAITING, {A: 4, B: 8}) | NOISE, 6),
    Case("a pod that is not scraped is no empty one", Measure.QUEUED_REQUESTS, gauge(WAITING, {A: 8}) | NOISE, 8),
    Case("none of its pods", Measure.QUEUED_REQUESTS, NOISE, None),
    Case(
        "a pod that is scraped twice",
        Measure.QUEUED_REQUESTS,
        gauge(WAITING, {A + ',job="a"': 8, A + ',job="b"': 8, B: 2}),
        5,
    ),
    Case(
        "two engines in a pod, as with parallelism.data",
        Measure.RUNNING_REQUESTS,
        gauge(RUNNING, {A + ',engine="0"': 8, A + ',engine="1"': 6, B + ',engine="0"': 2, B + ',engine="1"': 4}),
        10,
    ),
    Case("an older engine's name, in percent", Measure.KV_CACHE_USAGE, gauge(OLD_KV, {A: 0.5, B: 0.7}), 60),
    Case(
        "the 90th percentile of all pods",
        Measure.TIME_TO_FIRST_TOKEN,
        times(TTFT, A, 1.0, STEADY) | times(TTFT, B, 1.0, STEADY),
        950,
    ),
    Case(
        "no requests take no time",
        Measure.TIME_TO_FIRST_TOKEN,
        times(TTFT, A, 1.0, IDLE) | times(TTFT, B, 1.0, IDLE),
        0,
    ),
    Case(
        "one pod idle, the other slow",
        Measure.TIME_TO_FIRST_TOKEN,
        times(TTFT, A, 1.0, IDLE) | times(TTFT, B, 4.0, STEADY),
        3800,
    ),
    Case("one look in two minutes", Measure.TIME_TO_FIRST_TOKEN, times(TTFT, A, 4.0, "_x19 900"), None),
    Case("no times", Measure.TIME_TO_FIRST_TOKEN, gauge(WAITING, {A: 1}), None),
    Case(
        "nobody wants anything",
        None,
        gauge(WAITING, {A: 0}) | gauge(RUNNING, {A: 0}) | times(ENDED, A, 1.0, IDLE),
        0,
    ),
    Case(
        "a long answer",
        None,
        gauge(WAITING, {A: 0}) | gauge(RUNNING, {A: 1}) | times(ENDED, A, 1.0, IDLE),
        1,
    ),
    Case(
        "short ones between two scrapes",
        None,
        gauge(WAITING, {A: 0}) | gauge(RUNNING, {A: 0}) | times(ENDED, A, 1.0, STEADY),
        120,
    ),
    Case("nobody knows", None, gauge(WAITING, {A: 0}) | gauge(RUNNING, {A: 0}), None),
]


def query_of(measure: Measure | None) -> str:
    labels = PodLabels()
    selector = make_selector("ml", "m", labels)
    if measure is None:
        return make_activity_query(names(), selector)
    return make_target_query(measure, names(), selector, labels)


def test_what_each_query_comes_to(tmp_path: Path) -> None:
    tests = [
        {
            "name": case.what,
            "interval": "15s",
            "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
            "promql_expr_test": [
                {
                    "expr": f"round({query_of(case.measure)}, 0.001)",
                    "eval_time": "5m",
                    "exp_samples": [] if case.answer is None else [{"labels": "{}", "value": case.answer}],
                }
            ],
        }
        for case in CASES
    ]
    (tmp_path / "tests.yml").write_text(
        yaml.safe_dump({"rule_files": [], "evaluation_interval": "15s", "tests": tests})
    )
    command = [str(find_monitoring().promtool), "test", "rules", str(tmp_path / "tests.yml")]
    run = subprocess.run(command, capture_output=True, check=False, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("measure", list(Measure))
def test_every_measure_of_the_engine_can_be_asked_for(measure: Measure) -> None:
    query = query_of(measure)
    assert all(f"{name}" in query for name in names()[measure])


@pytest.mark.parametrize("length", [1, 46, 47, 48])
@pytest.mark.parametrize("digest", ["7", "5d9c7", "5d9c7fghi", "5d9c7fghij"])
def test_pods_are_found_by_what_kubernetes_calls_them(length: int, digest: str) -> None:
    """Of a generated name 58 letters stay before the five by chance."""
    name = "m" * length
    [pods] = re.findall('pod=~"(.*)"', make_selector("ml", name, PodLabels()))
    assert re.fullmatch(pods, f"{name}-{digest}-"[:58] + "x2x4v")
    assert not re.fullmatch(pods, f"{name}-x-{digest}-x2x4v")
