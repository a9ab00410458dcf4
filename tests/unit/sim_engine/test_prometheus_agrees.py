"""A real Prometheus that scrapes simulated vLLMs, and the operator that asks them itself: the same numbers from both."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml
from tests.unit.packaging.conftest import find_monitoring
from tests.unit.planning.world import VLLM, make_resource
from tests.unit.sim_engine.servers import StartVllm, Vllm, free_port

from fairlead.engines.loader import EngineCatalog
from fairlead.facts.observed import ObjectKey, OperatorFacts
from fairlead.facts.prometheus import PodLabels
from fairlead.facts.scaling import Measure, Sample, ScrapeWish, Source, Target
from fairlead.planning.deployment.serving import decide_serving
from fairlead.planning.deployment.signals import make_scrape_wish
from fairlead.sources.engine import EngineSource
from fairlead.sources.fetching import Fetcher
from fairlead.sources.prometheus import PrometheusSettings, PrometheusSource
from fairlead.sources.promql import make_query
from fairlead_sim.settings import Settings

ASK: Any = [{"role": "user", "content": "Tell me about the sea."}]
KEY = ObjectKey("LLMDeployment", "ml", "m")
LEN = {"m-1": 3, "m-2": 5, "m-1-of-another": 20}


@contextmanager
def prometheus(directory: Path, pods: dict[str, str]) -> Iterator[str]:
    """Scrapes these addresses each second, and each of them twice as if by two monitors; labels as a PodMonitor gives them."""
    groups = [{"targets": [address], "labels": {"namespace": "ml", "pod": pod}} for pod, address in pods.items()]
    jobs = [{"job_name": name, "scrape_interval": "1s", "static_configs": groups} for name in ("one", "other")]
    (directory / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": jobs}))
    address = f"127.0.0.1:{free_port()}"
    command = [
        str(find_monitoring().prometheus),
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/data",
    ]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()


async def scraped(url: str, value: float) -> None:
    """Until all pods are scraped, for some seconds, and those of the deployment told so many whole requests."""
    counted = 'sum(vllm:e2e_request_latency_seconds_count{pod=~"m-[12]",job="one"})'
    query = f"{counted} == {value} and on () count(count_over_time(up[30s]) > 6 and up == 1) == {2 * len(LEN)}"
    async with httpx.AsyncClient(trust_env=False) as client:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                answer = (await client.get(f"{url}/api/v1/query", params={"query": query})).json()
                if answer["data"]["result"]:
                    return
            except (httpx.HTTPError, KeyError, ValueError):
                pass
            await asyncio.sleep(0.1)
    raise AssertionError(f"not scraped: {query}")


async def test_the_same_numbers_from_both(start_vllm: StartVllm, tmp_path: Path) -> None:
    engines = {pod: await start_vllm(settings=Settings(load_seconds=0, output_tokens_per_second=400)) for pod in LEN}
    addresses = {pod: urlsplit(engine.url).netloc for pod, engine in engines.items()}
    serving = decide_serving(make_resource(VLLM), EngineCatalog.builtin(), OperatorFacts())
    wish = replace(make_scrape_wish(serving, OperatorFacts()), over_s=20.0)
    eyes = {pod: EngineSource(Fetcher(), clock=time.monotonic, wall=_now) for pod in ("m-1", "m-2")}

    async def look_at(pod: str) -> Sample:
        address = urlsplit(engines[pod].url)
        here = replace(wish, port=address.port or 0, interval_s=60.0)
        return await eyes[pod].look(KEY, here, [Target(pod, pod, str(address.hostname))])

    with prometheus(tmp_path, addresses) as url:
        await scraped(url, 0)
        for pod in eyes:
            await look_at(pod)
        await asyncio.gather(*(_ask(engine, 20) for pod, engine in engines.items() for _ in range(LEN[pod])))
        busy = [asyncio.create_task(_ask(engines["m-2"], 4000)) for _ in range(2)]
        await scraped(url, LEN["m-1"] + LEN["m-2"])
        while engines["m-2"].service.engine.running < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.5)  # both have been scraped with the two that run
        source = PrometheusSource(PrometheusSettings(url), wall=_now)
        targets = [Target(pod, pod, "10.0.0.1") for pod in eyes]
        told = await source.look(KEY, replace(wish, source=Source.PROMETHEUS), targets)
        seen = [await look_at(pod) for pod in eyes]
        lacking = await source.look(
            KEY, replace(wish, source=Source.PROMETHEUS), [*targets, Target("m-3", "u", "10.0.0.3")]
        )
        await source.close()
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)
    for eye in eyes.values():
        await eye.close()

    assert (told.asked, told.answered, told.problem, told.failures) == (2, 2, "", ())
    assert (told.running, told.waiting) == (sum(one.running or 0 for one in seen), 0)
    assert told.running == 2
    assert (told.kv_cache_usage or 0) == pytest.approx(sum(one.kv_cache_usage or 0 for one in seen) / 2, abs=0.02)
    for measure in (Measure.LATENCY, Measure.TIME_TO_FIRST_TOKEN, Measure.OUTPUT_TOKEN_LATENCY):
        counts = [sum(some) for some in zip(*(one.times[measure].counts for one in seen), strict=True)]
        assert told.times[measure].bounds == seen[0].times[measure].bounds
        found = told.times[measure]
        # Prometheus extrapolates from its last scrape to the end of the window: a second of the eight or more that it has seen.
        assert sum(counts) - 1e-6 <= found.total <= 1.25 * sum(counts)
        shares = [count / found.total for count in found.counts]
        assert shares == pytest.approx([count / sum(counts) for count in counts], abs=0.05)
    assert sum(one.times[Measure.LATENCY].total for one in seen) == LEN["m-1"] + LEN["m-2"], "and none of another's"
    assert (lacking.asked, lacking.answered) == (3, 2)
    assert lacking.failures == ("m-3: Prometheus has no series of it",)


def test_every_name_of_every_engine_makes_a_query_that_parses(tmp_path: Path) -> None:
    """By Prometheus' own parser, as a rule."""
    serving = decide_serving(make_resource(VLLM), EngineCatalog.builtin(), OperatorFacts())
    wishes = [
        make_scrape_wish(serving, OperatorFacts()),
        ScrapeWish("/", 1, names={Measure.RUNNING_REQUESTS: ("a:b",)}),
    ]
    rules = [{"record": "x", "expr": make_query(wish, "ml", ["m-1", "m.2-x"], PodLabels())} for wish in wishes]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": rules}]}))
    run = subprocess.run(
        [str(find_monitoring().promtool), "check", "rules", str(tmp_path / "rules.yml")],
        capture_output=True,
        check=False,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr


async def _ask(engine: Vllm, tokens: int) -> None:
    await engine.client.chat.completions.create(model="tiny", messages=ASK, max_tokens=tokens)


def _now() -> datetime:
    return datetime.now(UTC)
