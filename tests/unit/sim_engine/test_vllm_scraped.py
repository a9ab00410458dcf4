"""What the operator reads of a simulated vLLM, by the names of its own engine file."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.unit.planning.world import VLLM, make_resource
from tests.unit.sim_engine.servers import StartVllm

from fairlead.engines.loader import EngineCatalog
from fairlead.facts.observed import ObjectKey, OperatorFacts
from fairlead.facts.scaling import Measure, Target
from fairlead.planning.deployment.serving import decide_serving
from fairlead.planning.deployment.signals import make_scrape_wish
from fairlead.sources.engine import EngineSource
from fairlead.sources.fetching import Fetcher
from fairlead_sim.settings import Settings

ASK: Any = [{"role": "user", "content": "Tell me about the sea."}]


async def test_requests_between_two_looks_and_what_runs_and_waits(start_vllm: StartVllm) -> None:
    vllm = await start_vllm("--max-num-seqs", "2", settings=Settings(load_seconds=0, output_tokens_per_second=400))
    address = urlsplit(vllm.url)
    fetcher = Fetcher()
    source = EngineSource(fetcher, clock=time.monotonic, wall=lambda: datetime.now(UTC))
    serving = decide_serving(make_resource(VLLM), EngineCatalog.builtin(), OperatorFacts())
    wish = make_scrape_wish(serving, OperatorFacts())
    assert address.hostname
    assert address.port
    key, targets = ObjectKey("LLMDeployment", "ml", "m"), [Target("m-1", "u1", address.hostname)]
    ask = vllm.client.chat.completions.create

    async def look() -> Any:
        return await source.look(key, replace(wish, port=address.port or 0), targets)

    await ask(model="tiny", messages=ASK, max_tokens=4)
    await look()
    await asyncio.gather(*(ask(model="tiny", messages=ASK, max_tokens=8) for _ in range(3)))
    busy = [asyncio.create_task(ask(model="tiny", messages=ASK, max_tokens=2000)) for _ in range(3)]
    while vllm.service.engine.running < 2 or vllm.service.engine.waiting < 1:
        await asyncio.sleep(0.01)
    sample = await look()
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)
    await source.close()
    assert (sample.asked, sample.answered, sample.problem, sample.failures) == (1, 1, "", ())
    assert (sample.running, sample.waiting) == (2, 1)
    assert sample.kv_cache_usage == pytest.approx(0.0, abs=0.1)
    assert sample.kv_cache_usage > 0
    totals = {measure: found.total for measure, found in sample.times.items()}
    assert totals[Measure.LATENCY] == totals[Measure.OUTPUT_TOKEN_LATENCY] == 3, (
        "the one before the first look is not in it"
    )
    assert totals[Measure.TIME_TO_FIRST_TOKEN] in (3, 4, 5), "those that run may have begun to answer"
    assert sum(sample.times[Measure.LATENCY].counts[:-1]) == 3, "none took longer than the last bound"
