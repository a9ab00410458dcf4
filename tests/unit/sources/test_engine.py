"""Engine pods asked over real sockets: what they answer, and what they answer instead."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.unit.sources.pods import OK, answer, serving_pods

from fairlead.facts.observed import ObjectKey
from fairlead.facts.scaling import Distribution, Measure, Sample, ScrapeWish, Target
from fairlead.sources.engine import EngineSource
from fairlead.sources.fetching import Fetcher
from fairlead_cluster.certificates import Authority

KEY = ObjectKey("LLMDeployment", "ml", "m")
TTFT = Measure.TIME_TO_FIRST_TOKEN
NAMES = {TTFT: ("ttft",), Measure.RUNNING_REQUESTS: ("running",)}


def text(ttft: int, running: int = 1) -> str:
    return f'ttft_bucket{{le="1"}} {ttft}\nttft_bucket{{le="+Inf"}} {ttft}\nrunning {running}\n'


def targets(*numbers: int) -> list[Target]:
    return [Target(f"m-{number}", f"u{number}", f"127.0.0.{number}") for number in numbers]


class Eye:
    """A source with a clock of its own."""

    def __init__(self, fetcher: Fetcher) -> None:
        self.now = 100.0
        self.source = EngineSource(fetcher, clock=lambda: self.now, wall=lambda: datetime(2026, 1, 1, tzinfo=UTC))

    async def look(self, port: int, *numbers: int, after_s: float = 5.0, is_tls: bool = False) -> Sample:
        self.now += after_s
        wish = ScrapeWish("/metrics", 1 if is_tls else port, port if is_tls else 1, NAMES, interval_s=5.0)
        pods = [replace(target, is_tls=is_tls) for target in targets(*numbers)]
        return await self.source.look(KEY, wish, pods)


@pytest.fixture
async def eye() -> AsyncIterator[Eye]:
    fetcher = Fetcher(timeout_s=0.5, max_bytes=10_000)
    yield Eye(fetcher)
    await fetcher.close()


async def test_two_looks_make_a_distribution(eye: Eye) -> None:
    said = {"127.0.0.2": 3, "127.0.0.3": 10}
    async with serving_pods(lambda address: answer(text(said[address], 2))) as pods:
        first = await eye.look(pods.port, 2, 3)
        said |= {"127.0.0.2": 5, "127.0.0.3": 11}
        second = await eye.look(pods.port, 2, 3)
    assert (first.times, first.over_s, first.running) == ({}, 0.0, 4)
    assert second.times == {TTFT: Distribution((1.0,), (3, 0))}
    assert (second.over_s, second.asked, second.answered, second.problem) == (5.0, 2, 2, "")
    assert {path for _, path in pods.asked} == {"/metrics"}
    assert all("accept-encoding: identity" in head and "accept: text/plain" in head for head in pods.heads)


async def test_a_pod_that_comes_later_counts_from_its_second_look_on(eye: Eye) -> None:
    count = 0
    async with serving_pods(lambda _: answer(text(count))) as pods:
        await eye.look(pods.port, 2)
        count = 4
        joined = await eye.look(pods.port, 2, 3)
        count = 5
        both = await eye.look(pods.port, 2, 3)
    assert joined.times[TTFT].total == 4, "what the new one counted before it was seen is nobody's"
    assert both.times[TTFT].total == 2


async def test_a_pod_that_was_started_again_is_a_new_one(eye: Eye) -> None:
    count = 50
    async with serving_pods(lambda _: answer(text(count))) as pods:
        await eye.look(pods.port, 2)
        count = 3
        assert (await eye.look(pods.port, 2)).times == {}
        count = 5
        assert (await eye.look(pods.port, 2)).times[TTFT].total == 2


async def test_a_missed_look_is_made_up_for_and_three_are_not(eye: Eye) -> None:
    count, silent = 0, False
    async with serving_pods(lambda _: None if silent else answer(text(count))) as pods:
        await eye.look(pods.port, 2)
        silent = True
        missed = await eye.look(pods.port, 2)
        count, silent = 4, False
        late = await eye.look(pods.port, 2)
        count = 6
        later = await eye.look(pods.port, 2, after_s=17.0)
    assert (missed.answered, missed.problem) == (0, "none of 1 pods told anything: m-2: no answer within 0.5 s")
    assert (late.over_s, late.times[TTFT].total) == (10.0, 4)
    assert (later.over_s, later.times) == (0.0, {})


async def test_what_was_forgotten_is_new(eye: Eye) -> None:
    async with serving_pods(lambda _: answer(text(1))) as pods:
        await eye.look(pods.port, 2)
        eye.source.forget(KEY)
        assert (await eye.look(pods.port, 2)).times == {}


@pytest.mark.parametrize(
    ("response", "why"),
    [
        (answer("down", "HTTP/1.1 503 Service Unavailable\r\n"), "HTTP status 503"),
        (answer("", "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n"), "HTTP status 302"),
        (answer("<html>hello</html>"), "/metrics has none of the engine's metrics"),
        (answer(""), "/metrics has none of the engine's metrics"),
        (answer("x" * 20_000), "more than 10000 bytes"),
        (
            answer(gzip.compress(text(1).encode()), OK + "Content-Encoding: gzip\r\n"),
            "an encoding that was not asked for",
        ),
        (b"running 1\n\n", "an answer that is no HTTP"),
        (OK.encode() + b"Content-Length: 90\r\n\r\nrunning 1\n", "an answer that breaks off"),
        (b"", "a connection that ends without an answer"),
        (None, "no answer within 0.5 s"),
    ],
)
async def test_what_is_no_answer_is_named_and_the_others_count(eye: Eye, response: bytes | None, why: str) -> None:
    async with serving_pods(lambda address: response if address == "127.0.0.3" else answer(text(1))) as pods:
        sample = await eye.look(pods.port, 2, 3)
    assert (sample.asked, sample.answered, sample.problem, sample.running) == (2, 1, "", 1)
    (failure,) = sample.failures
    assert failure == f"m-3: {why}"


async def test_nobody_listens(eye: Eye) -> None:
    async with serving_pods(lambda _: None) as pods:
        port = pods.port
    sample = await eye.look(port, 2)
    assert sample.failures == ("m-2: Connection refused",)


async def test_tls_is_taken_whoever_signed_it(eye: Eye, tmp_path: Path) -> None:
    issued = Authority("unknown").issue("somebody", ["somebody.test"])
    (tmp_path / "both.pem").write_bytes(issued.key + issued.cert)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    async with serving_pods(lambda _: answer(text(1)), tls=context) as pods:
        assert (await eye.look(pods.port, 2, is_tls=True)).running == 1


async def test_a_pod_that_has_no_tls_is_named(eye: Eye) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(text(1)))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.2", 0) as server:
        sample = await eye.look(server.sockets[0].getsockname()[1], 2, is_tls=True)
    assert sample.failures == ("m-2: no TLS",)


async def test_no_more_requests_at_a_time_than_the_budget() -> None:
    fetcher = Fetcher(timeout_s=5.0, parallel=4)
    async with serving_pods(lambda _: answer(text(1))) as pods:
        pods.delay_s = 0.01
        sample = await Eye(fetcher).look(pods.port, *range(2, 42))
    await fetcher.close()
    assert (sample.answered, pods.most) == (40, 4)


async def test_a_look_that_is_given_up_leaves_nothing_behind(eye: Eye) -> None:
    async with serving_pods(lambda _: None) as pods:
        look = asyncio.create_task(eye.look(pods.port, *range(2, 12)))
        while pods.open < 10:
            await asyncio.sleep(0.01)
        look.cancel()
        await asyncio.gather(look, return_exceptions=True)
        while pods.open:
            await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == {asyncio.current_task()}
