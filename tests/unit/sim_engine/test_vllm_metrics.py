"""`/metrics` of vLLM: the names that dashboards and scalers ask for, and values that follow the load."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from tests.unit.sim_engine.servers import StartVllm, Vllm

from fairlead_sim.settings import Settings

ASK: Any = [{"role": "user", "content": "Tell me about the sea, and take your time. " * 5}]

NAMES = [
    "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:num_requests_waiting_by_reason",
    "vllm:engine_sleep_state", "vllm:kv_cache_usage_perc", "vllm:cache_config_info", "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total", "vllm:external_prefix_cache_queries_total", "vllm:mm_cache_queries_total",
    "vllm:num_preemptions_total", "vllm:prompt_tokens_total", "vllm:prompt_tokens_by_source_total",
    "vllm:prompt_tokens_cached_total", "vllm:prompt_tokens_cached_by_source_total", "vllm:generation_tokens_total",
    "vllm:request_success_total", "vllm:admission_rejections_total", "vllm:request_prompt_tokens_bucket",
    "vllm:request_generation_tokens_bucket", "vllm:iteration_tokens_total_bucket",
    "vllm:request_max_num_generation_tokens_bucket", "vllm:request_params_n_bucket",
    "vllm:request_params_max_tokens_bucket", "vllm:time_to_first_token_seconds_bucket",
    "vllm:inter_token_latency_seconds_bucket", "vllm:request_time_per_output_token_seconds_bucket",
    "vllm:e2e_request_latency_seconds_bucket", "vllm:request_queue_time_seconds_bucket",
    "vllm:request_inference_time_seconds_bucket", "vllm:request_prefill_time_seconds_bucket",
    "vllm:request_decode_time_seconds_bucket", "vllm:request_num_preemptions_bucket",
    "vllm:request_prefill_kv_computed_tokens_bucket", "process_resident_memory_bytes", "http_requests_total",
]  # fmt: skip
GONE = ["vllm:gpu_cache_usage_perc", "vllm:time_per_output_token_seconds", "vllm:num_requests_swapped"]


async def test_names_are_those_of_0_33_and_none_of_the_renamed_ones(vllm: Vllm) -> None:
    await vllm.get("/health")
    response = await vllm.get("/metrics")
    names = set(re.findall(r"^([a-z0-9_:]+)[{ ]", response.text, re.MULTILINE))
    assert [name for name in NAMES if name not in names] == []
    assert [name for name in GONE if name in names] == []
    assert response.headers["content-type"].startswith("text/plain")


async def test_counters_and_histograms_follow_the_requests(vllm: Vllm) -> None:
    answer = await vllm.client.chat.completions.create(model="tiny", messages=ASK, max_tokens=20)
    assert answer.usage is not None
    assert await vllm.metric("vllm:prompt_tokens_total") == answer.usage.prompt_tokens
    assert await vllm.metric("vllm:generation_tokens_total") == 20
    assert await vllm.metric("vllm:request_success_total", finished_reason="length") == 1
    assert await vllm.metric("vllm:request_success_total", finished_reason="stop") == 0
    assert await vllm.metric("vllm:time_to_first_token_seconds_count") == 1
    assert await vllm.metric("vllm:inter_token_latency_seconds_count") == 19
    assert await vllm.metric("vllm:e2e_request_latency_seconds_count") == 1
    assert await vllm.metric("vllm:request_generation_tokens_sum") == 20
    e2e = await vllm.metric("vllm:e2e_request_latency_seconds_sum")
    assert 0 < await vllm.metric("vllm:time_to_first_token_seconds_sum") < e2e
    await vllm.client.chat.completions.create(model="tiny", messages=ASK)
    assert await vllm.metric("vllm:request_success_total", finished_reason="stop") == 1


async def test_a_repeated_prompt_hits_the_prefix_cache(start_vllm: StartVllm) -> None:
    vllm = await start_vllm("--enable-prompt-tokens-details")
    first = await vllm.client.chat.completions.create(model="tiny", messages=ASK, max_tokens=2)
    again = await vllm.client.chat.completions.create(model="tiny", messages=ASK, max_tokens=2)
    assert first.usage is not None
    assert first.usage.prompt_tokens_details is not None
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert again.usage is not None
    assert again.usage.prompt_tokens_details is not None
    cached = again.usage.prompt_tokens_details.cached_tokens or 0
    assert cached > 0
    assert await vllm.metric("vllm:prefix_cache_hits_total") == cached
    assert await vllm.metric("vllm:prefix_cache_queries_total") == 2 * first.usage.prompt_tokens


async def test_gauges_show_who_runs_and_who_waits(start_vllm: StartVllm) -> None:
    settings = Settings(output_tokens_per_second=20, prefill_overhead_seconds=0, kv_cache_tokens=33_000)
    vllm = await start_vllm("--max-num-seqs", "2", settings=settings)
    ask = vllm.client.chat.completions.create
    tasks = [asyncio.create_task(ask(model="tiny", messages=ASK, max_tokens=2000)) for _ in range(5)]
    while vllm.service.engine.running < 2 or vllm.service.engine.waiting < 3:
        await asyncio.sleep(0.01)
    assert await vllm.metric("vllm:num_requests_running") == 2
    assert await vllm.metric("vllm:num_requests_waiting") == 3
    assert await vllm.metric("vllm:num_requests_waiting_by_reason", reason="capacity") == 3
    assert 0 < await vllm.metric("vllm:kv_cache_usage_perc") < 0.1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.wait_for(vllm.service.engine.wait_idle(), 5)
    assert await vllm.metric("vllm:num_requests_running") == 0
    assert await vllm.metric("vllm:kv_cache_usage_perc") == 0


async def test_more_load_means_longer_waits(start_vllm: StartVllm) -> None:
    """What a scaler lives from: time to first token grows with the queue."""
    settings = Settings(output_tokens_per_second=400, prefill_overhead_seconds=0)

    async def mean_first_token_s(requests: int) -> float:
        vllm = await start_vllm("--max-num-seqs", "2", settings=settings)
        ask = vllm.client.chat.completions.create
        await asyncio.gather(*(ask(model="tiny", messages=ASK, max_tokens=20) for _ in range(requests)))
        total = await vllm.metric("vllm:time_to_first_token_seconds_sum")
        return total / await vllm.metric("vllm:time_to_first_token_seconds_count")

    assert await mean_first_token_s(12) > 2 * await mean_first_token_s(2)


@pytest.mark.parametrize(("length", "last"), [("4k", 2000.0), ("5000", 5000.0)])
async def test_token_buckets_end_at_the_context_length(start_vllm: StartVllm, length: str, last: float) -> None:
    vllm = await start_vllm("--max-model-len", length)
    text = (await vllm.get("/metrics")).text
    bounds = re.findall(r'vllm:request_prompt_tokens_bucket\{.*le="([\d.]+)"', text)
    assert float(bounds[-1]) == last
