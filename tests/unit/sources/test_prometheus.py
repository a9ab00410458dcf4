"""Prometheus asked over real sockets: answers, what is none, and what it may see of us. (A real one: test_prometheus_agrees.py.)"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from tests.unit.sources.pods import Pods, answer, serving_pods

from fairlead.facts.observed import ObjectKey
from fairlead.facts.prometheus import PodLabels
from fairlead.facts.scaling import Distribution, Measure, Sample, ScrapeWish, Source, Target
from fairlead.sources.prometheus import PrometheusSettings, PrometheusSource
from fairlead.sources.promql import make_query, read_answer
from fairlead_cluster.certificates import Authority

Json = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = ObjectKey("LLMDeployment", "ml", "m")
TTFT = Measure.TIME_TO_FIRST_TOKEN
NAMES = {TTFT: ("ttft", "old_ttft"), Measure.RUNNING_REQUESTS: ("running",), Measure.KV_CACHE_USAGE: ("kv",)}
WISH = ScrapeWish("/metrics", 8000, names=NAMES, over_s=60.0, source=Source.PROMETHEUS)
TARGETS = [Target("m-1", "u1", "10.0.0.1"), Target("m-2", "u2", "10.0.0.2")]
JSON_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
TOKEN = "token-of-the-operator"


def series(signal: str, pod: str, value: float | str, **labels: str) -> Json:
    return {"metric": {"signal": signal, "pod": pod, **labels}, "value": [1767225600.5, str(value)]}


def told_by(pod: str, ttft: tuple[float, float, float] = (1, 2, 3), running: float = 2, age: float = 5) -> list[Json]:
    buckets = zip(("0.5", "1", "+Inf"), ttft, strict=True)
    return [
        *(series("timeToFirstToken", pod, value, le=le) for le, value in buckets),
        series("runningRequests", pod, running),
        series("kvCacheUsagePercent", pod, 0.25),
        series("age", pod, age),
    ]


BOTH = [*told_by("m-1"), *told_by("m-2")]


def vector(result: list[Json], **more: Any) -> str:
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}, **more})


def read(result: list[Json]) -> Sample:
    return read_answer(result, WISH, TARGETS, PodLabels(), NOW)


def test_the_query_asks_for_exactly_these_pods_and_for_old_names_too() -> None:
    query = make_query(WISH, "ml", ["m-2", "m.x-1"], PodLabels("ns", "p"))
    selector = '{ns="ml",p=~"m-2|m[.]x-1"}'
    scrapers = "job, instance, endpoint, service, container, prometheus, prometheus_replica, replica"
    counted = f"increase(ttft_bucket{selector}[60s]) or increase(old_ttft_bucket{selector}[60s])"
    ages = " or ".join(f"timestamp({name}{selector})" for name in ("ttft_count", "old_ttft_count", "running", "kv"))
    assert query == " or ".join(
        [
            f'label_replace(sum by (p, le) (max without ({scrapers}) ({counted})), "signal", "timeToFirstToken", "", "")',
            f'label_replace(sum by (p) (max without ({scrapers}) (running{selector})), "signal", "runningRequests", "", "")',
            f'label_replace(avg by (p) (max without ({scrapers}) (kv{selector})), "signal", "kvCacheUsagePercent", "", "")',
            f'label_replace(time() - max by (p) ({ages}), "signal", "age", "", "")',
        ]
    )


def test_a_sample_of_two_pods() -> None:
    sample = read(BOTH)
    assert sample.times == {TTFT: Distribution((0.5, 1.0), (2, 2, 2))}
    assert (sample.running, sample.waiting, sample.kv_cache_usage) == (4, None, 0.25)
    assert (sample.asked, sample.answered, sample.over_s, sample.problem, sample.failures) == (2, 2, 60.0, "", ())


def test_fractions_and_a_bucket_that_came_out_too_small() -> None:
    sample = read([*told_by("m-1", (1.5, 1.4, 2.25)), *told_by("m-2", (0, 0, 0))])
    assert sample.times == {TTFT: Distribution((0.5, 1.0), (1.5, 0, 0.75))}


def test_no_request_is_a_distribution_and_no_histogram_is_none() -> None:
    assert read([*told_by("m-1", (0, 0, 0)), *told_by("m-2", (0, 0, 0))]).times[TTFT].total == 0
    bare = [one for one in BOTH if one["metric"]["signal"] != "timeToFirstToken"]
    sample = read(bare)
    assert (sample.times, sample.answered, sample.problem, sample.over_s) == ({}, 2, "", 60.0)


def test_pods_with_old_and_new_buckets_are_added_up_where_they_agree() -> None:
    other = [series("timeToFirstToken", "m-2", value, le=le) for le, value in (("1.0", 4), ("9", 5), ("+Inf", 6))]
    rest = [one for one in told_by("m-2") if one["metric"]["signal"] != "timeToFirstToken"]
    assert read([*told_by("m-1"), *other, *rest]).times == {TTFT: Distribution((1.0,), (6, 3))}


def test_a_pod_that_is_not_scraped_and_one_whose_samples_are_old_have_not_answered() -> None:
    sample = read(told_by("m-1"))
    assert (sample.asked, sample.answered, sample.problem, sample.running) == (2, 1, "", 2)
    assert sample.failures == ("m-2: Prometheus has no series of it",)
    sample = read([*told_by("m-1"), *told_by("m-2", age=61)])
    assert (sample.answered, sample.failures) == (1, ("m-2: the newest sample is 61 s old",))
    assert sample.times[TTFT].total == 3, "nor does what it told count"


def test_nothing_at_all_is_a_problem_that_names_a_pod() -> None:
    assert read([]).problem == "none of 2 pods told anything: m-1: Prometheus has no series of it"
    assert read([series("age", "m-1", 5)]).problem.endswith("m-1: Prometheus has none of the engine's metrics")


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf"])
@pytest.mark.parametrize("signal", ["runningRequests", "kvCacheUsagePercent", "age"])
def test_what_is_no_number_is_named(signal: str, value: str) -> None:
    sample = read([*told_by("m-1"), series(signal, "m-2", value)])
    assert sample.problem == f"m-2: {signal} is {value}"


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        (series("runningRequests", "m-1", 3), "m-1: several series where one is needed"),
        (series("age", "m-1", 3), "m-1: several series where one is needed"),
        (series("runningRequests", "m-3", 3), "Prometheus answers with series that nobody asked for: do its labels name the pods?"),
        (series("shoeSize", "m-1", 3), "Prometheus answers with series that nobody asked for: do its labels name the pods?"),
        ({"metric": {}, "value": [1, "1"]}, "Prometheus answers with series that nobody asked for: do its labels name the pods?"),
        ({"metric": ["x"], "value": [1, "1"]}, "Prometheus answers with series that nobody asked for: do its labels name the pods?"),
        ({"metric": {"pod": ["m-1"], "signal": {}}, "value": [1, "1"]},
         "Prometheus answers with series that nobody asked for: do its labels name the pods?"),
        ({"metric": {"pod": "m-1", "signal": "age"}, "value": [1, 10**400]}, "Prometheus answers with a series that has no value"),
        ({"metric": {"pod": "m-1"}, "value": {"a": 1}}, "Prometheus answers with a series that has no value"),
        ({"metric": {"pod": "m-1"}, "values": []}, "Prometheus answers with a series that has no value"),
        ({"metric": {"pod": "m-1"}, "histogram": [1, {}]}, "Prometheus answers with a series that has no value"),
    ],
)  # fmt: skip
def test_series_that_are_not_what_was_asked_for_are_named(extra: Json, problem: str) -> None:
    assert read([*BOTH, extra]).problem == problem


@asynccontextmanager
async def asking(
    say: Callable[[str], bytes | None], prefix: str = "", tls: ssl.SSLContext | None = None, **settings: Any
) -> AsyncIterator[tuple[PrometheusSource, Pods]]:
    async with serving_pods(say, tls) as pods:
        host = "localhost" if tls else "127.0.0.1"
        url = f"{'https' if tls else 'http'}://{host}:{pods.port}{prefix}"
        source = PrometheusSource(PrometheusSettings(url, **settings), wall=lambda: NOW)
        yield source, pods
        await source.close()
    await asyncio.sleep(0.05)
    for thread in [one for one in threading.enumerate() if one.name.startswith("prometheus")]:
        thread.join(2.0)
        assert not thread.is_alive()


async def test_one_post_with_the_query_headers_and_the_token_of_now(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    good = answer(vector(BOTH), JSON_HEAD)
    more = {"headers": {"X-Scope-OrgID": "ml"}, "token_file": str(token)}
    async with asking(lambda _: good, "/prometheus", **more) as (source, prometheus):
        sample = await source.look(KEY, WISH, TARGETS)
        token.write_text("another")
        await source.look(KEY, WISH, TARGETS)
    assert (sample.running, sample.at, sample.problem) == (4, NOW, "")
    assert [path for _, path in prometheus.asked] == ["/prometheus/api/v1/query"] * 2
    first, second = prometheus.heads
    assert first.startswith("post ")
    assert "x-scope-orgid: ml" in first
    assert f"authorization: bearer {TOKEN}" in first
    assert "authorization: bearer another" in second
    assert parse_qs(prometheus.bodies[0].decode())["query"] == [make_query(WISH, "ml", ["m-1", "m-2"], PodLabels())]


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        (answer("<html>login</html>", "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"),
         "Prometheus answers with text/html that is not its API's: is the URL's prefix right?"),
        (answer("", "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\n"), "Prometheus answers with HTTP status 302"),
        (answer("no", "HTTP/1.1 401 Unauthorized\r\n"), "Prometheus answers with HTTP status 401"),
        (answer("busy", "HTTP/1.1 503 Service Unavailable\r\n"), "Prometheus answers with HTTP status 503"),
        (answer('{"status":"error","errorType":"bad_data","error":"parse error"}', "HTTP/1.1 400 Bad Request\r\n"),
         "Prometheus refuses the query with HTTP status 400, bad_data: parse error"),
        (answer('{"status":"error","errorType":"timeout","error":"query timed out"}', JSON_HEAD),
         "Prometheus refuses the query with HTTP status 200, timeout: query timed out"),
        (answer(vector(BOTH, warnings=["No StoreAPIs matched"]), JSON_HEAD),
         "Prometheus warns, so that its answer may not be whole: No StoreAPIs matched"),
        (answer(vector(BOTH, warnings={"a": 1}), JSON_HEAD), "Prometheus warns, so that its answer may not be whole: {'a': 1}"),
        (answer(vector(BOTH, warnings="partial"), JSON_HEAD), "Prometheus warns, so that its answer may not be whole: partial"),
        (answer("[" * 100_000, JSON_HEAD), "Prometheus answers with application/json that is not its API's: is the URL's prefix right?"),
        (answer('{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}', JSON_HEAD),
         "Prometheus answers with a scalar where a vector is asked for"),
        (answer('{"status":"success","data":null}', JSON_HEAD), "Prometheus answers with a nothing where a vector is asked for"),
        (answer("[]", JSON_HEAD), "Prometheus answers with application/json that is not its API's: is the URL's prefix right?"),
        (answer(vector([]), JSON_HEAD), "none of 2 pods told anything: m-1: Prometheus has no series of it"),
        (b"garbage\r\n\r\n", "Prometheus cannot be asked: no connection"),
        (JSON_HEAD.encode() + b"Content-Length: 900\r\n\r\n{", "Prometheus cannot be asked: ChunkedEncodingError"),
        (b"", "Prometheus cannot be asked: no connection"),
    ],
)  # fmt: skip
async def test_what_is_no_answer_is_named_after_one_request(response: bytes, problem: str) -> None:
    async with asking(lambda _: response) as (source, prometheus):
        sample = await source.look(KEY, WISH, TARGETS)
    assert (sample.problem, sample.asked, sample.answered, sample.times) == (problem, 2, 0, {})
    assert len(prometheus.asked) == 1, "nothing is tried again"


async def test_infos_are_no_warnings() -> None:
    async with asking(lambda _: answer(vector(BOTH, infos=["metric might not be a counter"]), JSON_HEAD)) as (
        source,
        _,
    ):
        assert (await source.look(KEY, WISH, TARGETS)).problem == ""


async def test_time_is_up_for_who_is_silent_and_the_next_question_is_asked() -> None:
    said: bytes | None = None
    async with asking(lambda _: said, timeout_s=0.3) as (source, _):
        began = time.monotonic()
        sample = await source.look(KEY, WISH, TARGETS)
        assert time.monotonic() - began < 2
        assert sample.problem in ("Prometheus does not answer within 0.3 s", "Prometheus cannot be asked: it is silent")
        said = answer(vector(BOTH), JSON_HEAD)
        assert (await source.look(KEY, WISH, TARGETS)).running == 4


@pytest.mark.parametrize(
    "head", ["HTTP/1.1 200 OK\r\nX-", f"{JSON_HEAD}Content-Length: 9999\r\n\r\n"], ids=["head", "body"]
)
async def test_time_is_up_for_who_sends_a_byte_now_and_then(head: str) -> None:
    async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(head.encode())
            while True:
                writer.write(b"a")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            writer.close()

    async with await asyncio.start_server(trickle, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        source = PrometheusSource(PrometheusSettings(url, timeout_s=0.4), wall=lambda: NOW)
        for _ in range(2):
            began = time.monotonic()
            sample = await source.look(KEY, WISH, TARGETS)
            assert sample.problem == "Prometheus does not answer within 0.4 s"
            assert time.monotonic() - began < 2, "the thread was free for the second question"
        await source.close()


async def test_a_look_that_is_given_up_frees_the_thread() -> None:
    said: bytes | None = None
    async with asking(lambda _: said, timeout_s=30.0) as (source, prometheus):
        look = asyncio.create_task(source.look(KEY, WISH, TARGETS))
        while not prometheus.open:
            await asyncio.sleep(0.01)
        look.cancel()
        await asyncio.gather(look, return_exceptions=True)
        said = answer(vector(BOTH), JSON_HEAD)
        async with asyncio.timeout(5):
            assert (await source.look(KEY, WISH, TARGETS)).running == 4


async def test_what_was_given_up_is_not_asked_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a name is not resolved for half a minute, which no closed socket ends."""
    free, asked = threading.Event(), list[str]()

    def ask(self: PrometheusSource, query: str) -> list[Json]:
        asked.append(query)
        free.wait(30)
        return []

    monkeypatch.setattr(PrometheusSource, "_ask", ask)
    source = PrometheusSource(PrometheusSettings("http://p", timeout_s=0.05), wall=lambda: NOW)
    for name in ("a", "b", "c", "d"):
        sample = await source.look(ObjectKey("LLMDeployment", name, "m"), WISH, TARGETS)
        assert sample.problem == "Prometheus does not answer within 0.05 s"
    free.set()
    async with asyncio.timeout(10):
        while (await source.look(ObjectKey("LLMDeployment", "e", "m"), WISH, TARGETS)).problem.startswith("Prometheus"):
            pass
    await source.close()
    assert 'namespace="a"' in asked[0]
    assert all('namespace="e"' in query for query in asked[1:])


async def test_only_one_question_at_a_time() -> None:
    async with asking(lambda _: answer(vector(BOTH), JSON_HEAD)) as (source, prometheus):
        prometheus.delay_s = 0.02
        samples = await asyncio.gather(*(source.look(KEY, WISH, TARGETS) for _ in range(5)))
    assert {sample.problem for sample in samples} == {""}
    assert prometheus.most == 1


async def test_the_environments_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with asking(lambda _: answer(vector(BOTH), JSON_HEAD)) as (source, _):
        assert (await source.look(KEY, WISH, TARGETS)).problem == ""


async def test_a_token_that_cannot_be_read_is_named_and_nothing_sent(tmp_path: Path) -> None:
    async with asking(lambda _: b"", token_file=str(tmp_path / "none")) as (source, prometheus):
        sample = await source.look(KEY, WISH, TARGETS)
    assert sample.problem == "the token for Prometheus cannot be read: FileNotFoundError"
    assert prometheus.asked == []


async def test_its_certificate_is_checked_against_the_given_authorities(tmp_path: Path) -> None:
    authority = Authority("ours")
    issued = authority.issue("prometheus", ["localhost"])
    (tmp_path / "both.pem").write_bytes(issued.key + issued.cert)
    (tmp_path / "ca.crt").write_bytes(authority.cert)
    (tmp_path / "other.crt").write_bytes(Authority("others").cert)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    good = answer(vector(BOTH), JSON_HEAD)
    problems = {}
    for name in ("ca.crt", "other.crt", "none.crt", ""):
        ca_file = str(tmp_path / name) if name else ""
        async with asking(lambda _: good, tls=context, ca_file=ca_file) as (source, _):
            problems[name] = (await source.look(KEY, WISH, TARGETS)).problem
    unknown = "Prometheus cannot be asked: its certificate is not one of the authorities', or it speaks no TLS"
    missing = "Prometheus cannot be asked: the file with its authorities cannot be read"
    assert problems == {"ca.crt": "", "other.crt": unknown, "none.crt": missing, "": unknown}
