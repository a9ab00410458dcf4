"""What gateways tell of an engine that has no metrics of its own. (At a real Envoy: tests/gateway/test_signals.py.)"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from tests.unit.sources.pods import answer, serving_pods

from fairlead.facts.observed import ObjectKey
from fairlead.facts.scaling import Distribution, Measure, Sample, ScrapeWish, Source, Target
from fairlead.sources.fetching import Fetcher
from fairlead.sources.gatewaymetrics import GatewayMetricsSource

TTFT, LATENCY = Measure.TIME_TO_FIRST_TOKEN, Measure.LATENCY


def buckets(backend: str, total: int, consumer: str = "a", name: str = "time_to_first_token_ms") -> str:
    labels = f'model="chat",consumer="{consumer}",data_class="Internal",backend="{backend}"'
    pairs = ((10, total // 2), (25, total), ("+Inf", total))
    return "".join(f'envoy_fairlead_{name}_bucket{{{labels},le="{le}"}} {count}\n' for le, count in pairs)


def text(*parts: str, **active: int) -> str:
    """`be_alpha=2`: two requests to alpha's own hosts."""
    gauges = (
        f'envoy_cluster_upstream_rq_active{{envoy_cluster_name="{name.replace("_", "~")}~bd8f"}} {value}\n'
        for name, value in active.items()
    )
    return "# TYPE envoy_server_uptime gauge\nenvoy_server_uptime{} 5\n" + "".join(parts) + "".join(gauges)


class Eye:
    """A source with a clock of its own, and gateways that say what `said` says."""

    def __init__(self, fetcher: Fetcher) -> None:
        self.now = 100.0
        bounds = {TTFT: [10, 25], LATENCY: [10, 25]}
        self.source = GatewayMetricsSource(
            fetcher, bounds, clock=lambda: self.now, wall=lambda: datetime(2026, 1, 1, tzinfo=UTC)
        )

    async def look(self, port: int, *numbers: int, backends: str = "alpha", after_s: float = 5.0) -> Sample:
        self.now += after_s
        wish = ScrapeWish("/metrics", port, source=Source.GATEWAY)
        called = frozenset(backends.split())
        targets = [Target(f"g-{number}", f"u{number}", f"127.0.0.{number}", backends=called) for number in numbers]
        return await self.source.look(ObjectKey("LLMDeployment", "ml", backends), wish, targets)


@pytest.fixture
async def eye() -> AsyncIterator[Eye]:
    made = Eye(Fetcher(timeout_s=0.5))
    yield made
    await made.source.close()


async def test_requests_to_one_backend_of_all_consumers_and_gateways(eye: Eye) -> None:
    said = text(buckets("alpha", 4), buckets("beta", 100), be_alpha=2, pin_alpha=1, be_beta=9, to_61=7)
    async with serving_pods(lambda _: answer(said)) as pods:
        first = await eye.look(pods.port, 2, 3)
        said = text(buckets("alpha", 6), buckets("alpha", 2, "b"), buckets("beta", 300), be_alpha=0)
        second = await eye.look(pods.port, 2, 3)
    assert (first.running, first.times) == (6, {})
    assert second.times[TTFT] == Distribution((0.01, 0.025), (4, 4, 0)), "milliseconds told, seconds read"
    assert (second.running, second.waiting, second.kv_cache_usage) == (0, None, None)
    assert (second.asked, second.answered) == (2, 2)


async def test_the_first_request_ever_is_counted(eye: Eye) -> None:
    said = text()
    async with serving_pods(lambda _: answer(said)) as pods:
        await eye.look(pods.port, 2)
        idle = await eye.look(pods.port, 2)
        said = text(buckets("alpha", 3), buckets("alpha", 3, name="request_duration_ms"), be_alpha=1)
        busy = await eye.look(pods.port, 2)
    assert (idle.times[TTFT], idle.running) == (Distribution((0.01, 0.025), (0, 0, 0)), 0)
    assert (busy.times[TTFT].total, busy.times[LATENCY].total) == (3, 3)


async def test_gateways_of_which_some_have_had_no_request(eye: Eye) -> None:
    said = {"127.0.0.2": text(buckets("alpha", 1)), "127.0.0.3": text()}
    async with serving_pods(lambda address: answer(said[address])) as pods:
        await eye.look(pods.port, 2, 3)
        said["127.0.0.2"] = text(buckets("alpha", 5))
        assert (await eye.look(pods.port, 2, 3)).times[TTFT].total == 4


async def test_names_of_several_backends_that_are_one_deployment(eye: Eye) -> None:
    said = text(buckets("alpha", 1), buckets("other", 1), be_alpha=1, be_other=2)
    async with serving_pods(lambda _: answer(said)) as pods:
        assert (await eye.look(pods.port, 2, backends="alpha other")).running == 3


async def test_one_answer_serves_all_that_are_looked_at_about_that_time(eye: Eye) -> None:
    async with serving_pods(lambda _: answer(text(be_alpha=1, be_beta=2))) as pods:
        assert (await eye.look(pods.port, 2)).running == 1
        assert (await eye.look(pods.port, 2, backends="beta", after_s=2.0)).running == 2
        assert len(pods.asked) == 1
        await eye.look(pods.port, 2, after_s=3.0)
        assert len(pods.asked) == 2


async def test_what_is_no_gateway_is_named(eye: Eye) -> None:
    async with serving_pods(lambda _: answer("<html></html>")) as pods:
        sample = await eye.look(pods.port, 2)
    assert sample.problem == "none of 1 pods told anything: g-2: /metrics has no metrics of a gateway"


async def test_an_answer_of_megabytes_is_read_beside_the_loop(eye: Eye) -> None:
    said = text(*(buckets("alpha", 2, f"team-{number}") for number in range(4000)), be_alpha=1)
    assert len(said) > 1_500_000
    async with serving_pods(lambda _: answer(said)) as pods:
        await eye.look(pods.port, 2)
        sample = await eye.look(pods.port, 2)
    assert (sample.running, sample.times[TTFT].total) == (1, 0)
