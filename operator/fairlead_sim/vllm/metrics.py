"""`/metrics` of vLLM 0.33: the same names, labels and buckets, with values from the simulated scheduler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from fairlead_sim.engine import Engine, Generation
from fairlead_sim.latency import Step
from fairlead_sim.vllm.config import ServeConfig

# vllm/v1/metrics/buckets.py of 0.33.0
_LATENCY = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
            960.0, 1920.0, 7680.0)  # fmt: skip
_FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
                80.0, 160.0, 640.0, 2560.0)  # fmt: skip
_INTER_TOKEN = (
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.4,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
    80.0,
)
_ITERATION = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_N = (1, 2, 5, 10, 20)
_PREEMPTIONS = (1, 2, 3, 4, 5, 10, 20)

FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")
CACHE_SOURCES = ("device", "host", "p2p", "disk", "external_unspecified")
REJECTIONS = ("max_num_queued_reqs", "max_num_queued_tokens")


def token_buckets(max_model_len: int) -> list[float]:
    """1, 2, 5, 10, 20, 50, ... up to the context length."""
    buckets: list[float] = []
    power = 1
    while power <= max_model_len:
        buckets += [factor * power for factor in (1, 2, 5) if factor * power <= max_model_len]
        power *= 10
    return buckets


class Metrics:
    """Counts what the engine does. An `Observer` of the engine."""

    def __init__(self, config: ServeConfig) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._labels = {"model_name": config.name, "engine": "0"}
        self._make_gauges(config)
        self._make_counters(config)
        self._make_histograms(token_buckets(config.max_model_len))
        self.http_requests = Counter(
            "http_requests_total",
            "Total number of requests by method, status and handler.",
            ["handler", "method", "status"],
            registry=self.registry,
        )
        self.http_duration = Histogram(
            "http_request_duration_seconds",
            "Latency with only few buckets by handler.",
            ["handler", "method"],
            buckets=(0.1, 0.5, 1),
            registry=self.registry,
        )

    def _gauge(self, name: str, documentation: str) -> Gauge:
        return Gauge(name, documentation, list(self._labels), registry=self.registry).labels(**self._labels)

    def _counter(self, name: str, documentation: str) -> Counter:
        return Counter(name, documentation, list(self._labels), registry=self.registry).labels(**self._labels)

    def _counters(self, name: str, documentation: str, label: str, values: Sequence[str]) -> dict[str, Counter]:
        counter = Counter(name, documentation, [*self._labels, label], registry=self.registry)
        return {value: counter.labels(**self._labels, **{label: value}) for value in values}

    def _histogram(self, name: str, documentation: str, buckets: Sequence[float]) -> Histogram:
        histogram = Histogram(name, documentation, list(self._labels), buckets=buckets, registry=self.registry)
        return histogram.labels(**self._labels)

    def _make_gauges(self, config: ServeConfig) -> None:
        self.running = self._gauge("vllm:num_requests_running", "Number of requests in model execution batches.")
        self.waiting = self._gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.")
        by_reason = Gauge(
            "vllm:num_requests_waiting_by_reason",
            "Number of waiting requests by reason.",
            [*self._labels, "reason"],
            registry=self.registry,
        )
        self.waiting_for_capacity = by_reason.labels(**self._labels, reason="capacity")
        by_reason.labels(**self._labels, reason="deferred").set(0)
        sleep_state = Gauge(
            "vllm:engine_sleep_state",
            "Engine sleep state; awake = 1 means engine is awake.",
            [*self._labels, "sleep_state"],
            registry=self.registry,
        )
        for state in ("awake", "weights_offloaded", "discard_all"):
            sleep_state.labels(**self._labels, sleep_state=state).set(state == "awake")
        self.kv_usage = self._gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.")
        limits = config.limits
        info = {
            "block_size": str(limits.block_size),
            "enable_prefix_caching": str(limits.prefix_caching),
            "num_gpu_blocks": str(limits.kv_blocks),
            "engine": "0",
        }
        cache_info = Gauge(
            "vllm:cache_config_info", "Information of the LLMEngine CacheConfig", list(info), registry=self.registry
        )
        cache_info.labels(**info).set(1)

    def _make_counters(self, config: ServeConfig) -> None:
        self.prefix_queries = self._counter(
            "vllm:prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens."
        )
        self.prefix_hits = self._counter(
            "vllm:prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens."
        )
        self._counter("vllm:external_prefix_cache_queries", "External prefix cache queries from KV connector.")
        self._counter("vllm:external_prefix_cache_hits", "External prefix cache hits from KV connector.")
        self._counter("vllm:mm_cache_queries", "Multi-modal cache queries, in terms of number of queried items.")
        self._counter("vllm:mm_cache_hits", "Multi-modal cache hits, in terms of number of cached items.")
        self.preemptions = self._counter("vllm:num_preemptions", "Cumulative number of preemption from the engine.")
        self.prompt_tokens = self._counter("vllm:prompt_tokens", "Number of prefill tokens processed.")
        self.prompt_tokens_by_source = self._counters(
            "vllm:prompt_tokens_by_source",
            "Number of prompt tokens by source.",
            "source",
            ("local_compute", "local_cache_hit", "external_kv_transfer"),
        )
        self.prompt_tokens_cached = self._counter(
            "vllm:prompt_tokens_cached", "Number of cached prompt tokens (local + external)."
        )
        self.cached_by_source = self._counters(
            "vllm:prompt_tokens_cached_by_source",
            "Prefix-cache hit tokens by the cache tier that supplied them.",
            "source",
            CACHE_SOURCES,
        )
        self.generation_tokens = self._counter("vllm:generation_tokens", "Number of generation tokens processed.")
        self.success = self._counters(
            "vllm:request_success", "Count of successfully processed requests.", "finished_reason", FINISH_REASONS
        )
        rejections = Counter(
            "vllm:admission_rejections",
            "Number of admission attempts rejected by a queue limit, by reason.",
            ["model_name", "reason"],
            registry=self.registry,
        )
        self.rejections = {reason: rejections.labels(model_name=config.name, reason=reason) for reason in REJECTIONS}

    def _make_histograms(self, tokens: Sequence[float]) -> None:
        make: Callable[[str, str, Sequence[float]], Any] = self._histogram
        self.request_prompt_tokens = make("vllm:request_prompt_tokens", "Number of prefill tokens processed.", tokens)
        self.request_generation_tokens = make(
            "vllm:request_generation_tokens", "Number of generation tokens processed.", tokens
        )
        self.iteration_tokens = make(
            "vllm:iteration_tokens_total", "Histogram of number of tokens per engine_step.", _ITERATION
        )
        self.max_generation_tokens = make(
            "vllm:request_max_num_generation_tokens",
            "Histogram of maximum number of requested generation tokens.",
            tokens,
        )
        self.params_n = make("vllm:request_params_n", "Histogram of the n request parameter.", _N)
        self.params_max_tokens = make(
            "vllm:request_params_max_tokens", "Histogram of the max_tokens request parameter.", tokens
        )
        self.first_token = make(
            "vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", _FIRST_TOKEN
        )
        self.inter_token = make(
            "vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", _INTER_TOKEN
        )
        self.per_output_token = make(
            "vllm:request_time_per_output_token_seconds",
            "Histogram of time_per_output_token_seconds per request.",
            _INTER_TOKEN,
        )
        self.e2e = make("vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", _LATENCY)
        phases = (("queue", "WAITING"), ("inference", "RUNNING"), ("prefill", "PREFILL"), ("decode", "DECODE"))
        self.phases = {
            phase: make(
                f"vllm:request_{phase}_time_seconds", f"Histogram of time spent in {name} phase for request.", _LATENCY
            )
            for phase, name in phases
        }
        self.request_preemptions = make(
            "vllm:request_num_preemptions", "Histogram of the number of times a request was preempted.", _PREEMPTIONS
        )
        self.prefill_computed = make(
            "vllm:request_prefill_kv_computed_tokens", "Histogram of new KV tokens computed during prefill.", tokens
        )

    def on_step(self, step: Step) -> None:
        """Count a step that has ended."""
        self.prefix_queries.inc(step.queried_tokens)
        self.prefix_hits.inc(step.cached_tokens)
        self.cached_by_source["device"].inc(step.cached_tokens)
        self.prompt_tokens_cached.inc(step.cached_tokens)
        self.prompt_tokens_by_source["local_cache_hit"].inc(step.cached_tokens)
        self.prompt_tokens_by_source["local_compute"].inc(step.prefill_tokens)
        self.prompt_tokens.inc(step.prefill_tokens + step.cached_tokens)
        self.generation_tokens.inc(len(step.produced))
        self.preemptions.inc(len(step.preempted))
        self.iteration_tokens.observe(step.prefill_tokens + len(step.produced))

    def on_tokens(self, generation: Generation, gap_s: float | None) -> None:
        """Count a token's latency."""
        if gap_s is None:
            assert generation.first_token_s is not None
            self.first_token.observe(generation.first_token_s - generation.arrived_s)
        else:
            self.inter_token.observe(gap_s)

    def on_finished(self, generation: Generation) -> None:
        """Count a request that has ended."""
        assert generation.reason is not None
        assert generation.finished_s is not None
        self.success[generation.reason].inc()
        self.request_prompt_tokens.observe(generation.sequence.prompt_tokens)
        self.request_generation_tokens.observe(generation.tokens)
        self.max_generation_tokens.observe(generation.tokens)
        self.params_n.observe(generation.n)
        if generation.max_tokens is not None:
            self.params_max_tokens.observe(generation.max_tokens)
        self.request_preemptions.observe(generation.sequence.preemptions)
        self.e2e.observe(generation.finished_s - generation.arrived_s)
        if generation.scheduled_s is None:
            return
        self.phases["queue"].observe(generation.scheduled_s - generation.arrived_s)
        self.phases["inference"].observe(generation.finished_s - generation.scheduled_s)
        if generation.first_token_s is None or generation.last_token_s is None:
            return
        self.prefill_computed.observe(generation.sequence.prompt_tokens - generation.sequence.cached_tokens)
        self.phases["prefill"].observe(generation.first_token_s - generation.scheduled_s)
        decode_s = generation.last_token_s - generation.first_token_s
        self.phases["decode"].observe(decode_s)
        if generation.tokens > 1:
            self.per_output_token.observe(decode_s / (generation.tokens - 1))

    def render(self, engine: Engine) -> bytes:
        """The text of `/metrics`, with the scheduler's state of this moment."""
        self.running.set(engine.running)
        self.waiting.set(engine.waiting)
        self.waiting_for_capacity.set(engine.waiting)
        self.kv_usage.set(engine.batch.kv_usage)
        return generate_latest(self.registry)
