"""A model of an engine that batches, as events: prefill, decode, KV cache, queue. It shares no code with the law that it judges.

All requests that decode advance by one token with each step of the engine, so their progress is one number, the steps made so far, and a
request is done when that number has grown by its tokens. Between two events the time of a step is constant, so nothing is simulated
step by step."""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

__all__ = ["LLAMA_8B_L4", "OLLAMA_8B_L4", "QWEN3_32B_2H100", "Engine", "Pod", "Request"]


@dataclass(frozen=True, slots=True)
class Engine:
    """`step_s`: of a step with an empty context; `token_s`: more for each token of context that the step reads;
    `prefill_tokens_s`: tokens a second; `chunk`: tokens of prompts in one step; `kv_tokens`: what the KV cache holds;
    `sequences`: at once at most; `load_s`: from the wish to a ready pod; `tells_kv`: whether its metrics tell of the KV cache."""

    step_s: float
    token_s: float
    prefill_tokens_s: float
    chunk: int
    kv_tokens: float
    sequences: int
    load_s: float
    tells_kv: bool = True


#: Qwen3-32B in BF16 on two H100 (tensor parallel), by arithmetic:
#: - 32.8e9 parameters x 2 bytes = 65.6 GB are read for each step: 12.2 ms at 2 x 3.35 TB/s and 80 % of it; 2 ms for launches and
#:   all-reduce.
#: - KV cache: 64 layers x 8 heads x 128 x 2 (K, V) x 2 bytes = 256 KiB a token; read at the same speed: 49 ns a token.
#: - prefill: 2 x 32.8e9 FLOP a token at 2 x 989 TFLOP/s and 53 % of it: 16,000 tokens/s.
#: - 0.95 x 160 GB less weights and 6 GB of activations leave 80 GB, 305,000 tokens; 2,048 tokens a step are vLLM's default for chunks.
#: It follows that a replica bears 1.4 requests/s of 4,000 + 1,000 tokens; "1.4-1.5" was measured (llm-d, SLO-aware autoscaling guide).
#: 100 s until a pod is ready are theirs, too.
QWEN3_32B_2H100: Final = Engine(0.0142, 49e-9, 16_000, 2048, 305_000, 256, 100.0)
#: An 8B model in BF16 with vLLM on an L4: 16.1 GB at 240 GB/s; 128 KiB of KV cache a token, 4.6 GB of it; 60 TFLOP/s of prefill.
LLAMA_8B_L4: Final = Engine(0.069, 546e-9, 3_750, 2048, 35_000, 256, 90.0)
#: An 8B model in Q4_K_M with Ollama on an L4 (4.9 GB at 300 GB/s, 80 %), OLLAMA_NUM_PARALLEL=4; it tells nothing of its KV cache.
OLLAMA_8B_L4: Final = Engine(0.022, 550e-9, 2_500, 512, 32_768, 4, 40.0, tells_kv=False)


@dataclass(slots=True, eq=False)
class Request:
    """One request; times are filled in as it goes."""

    at: float
    prompt: int
    output: int
    first_token: float = math.nan
    end: float = math.nan

    @property
    def time_to_first_token_s(self) -> float:
        """From arrival."""
        return self.first_token - self.at

    @property
    def output_token_s(self) -> float:
        """Mean time of the tokens after the first."""
        return (self.end - self.first_token) / max(self.output - 1, 1)


@dataclass(slots=True, eq=False)
class Pod:
    """One replica. `advance` must be called before anything is asked of it."""

    engine: Engine
    ready_at: float
    now: float = 0.0
    steps: float = 0.0
    waiting: deque[Request] = field(default_factory=deque)
    prefill: Request | None = None
    prefill_end: float = math.inf
    running: list[tuple[float, int, Request]] = field(default_factory=list)
    reserved: float = 0.0
    prompts: float = 0.0
    starts: float = 0.0
    serial: int = 0
    finished: list[Request] = field(default_factory=list)
    begun: list[Request] = field(default_factory=list)

    @property
    def in_flight(self) -> int:
        """Requests in it, waiting ones too."""
        return len(self.waiting) + self.active

    @property
    def active(self) -> int:
        """Requests that hold KV cache."""
        return len(self.running) + (self.prefill is not None)

    @property
    def kv_used(self) -> float:
        """Tokens in the KV cache."""
        decoding = max(self.prompts + len(self.running) * self.steps - self.starts, 0.0) if self.running else 0.0
        return decoding + (self.prefill.prompt if self.prefill else 0)

    def add(self, request: Request, now: float) -> None:
        """A request arrives."""
        self.advance(now)
        self.waiting.append(request)
        self._admit()

    def advance(self, now: float) -> None:
        """Run until `now`."""
        while True:
            step = self._step_s()
            end = self.now + (self.running[0][0] - self.steps) * step if self.running else math.inf
            event = min(end, self.prefill_end)
            if event > now:
                self.steps += (now - self.now) / step
                self.now = now
                return
            self.steps += (event - self.now) / step
            self.now = event
            if event == self.prefill_end:
                self._begin_decode()
            else:
                self._finish()
            self._admit()

    def _step_s(self) -> float:
        """Seconds in which each decoding request gets one token more; longer while a prompt is in the steps."""
        plain = self.engine.step_s + self.engine.token_s * self.kv_used
        if self.prefill is None:
            return plain
        chunks = math.ceil(self.prefill.prompt / self.engine.chunk)
        return plain + self.prefill.prompt / self.engine.prefill_tokens_s / chunks

    def _admit(self) -> None:
        """One prompt at a time, first come, first served, when its whole answer has room (so nothing is ever preempted)."""
        if self.prefill is not None or not self.waiting or self.active >= self.engine.sequences:
            return
        request = self.waiting[0]
        need = request.prompt + request.output
        if self.reserved + need > self.engine.kv_tokens and self.active:
            return
        self.waiting.popleft()
        self.reserved += need
        chunks = math.ceil(request.prompt / self.engine.chunk)
        plain = self.engine.step_s + self.engine.token_s * self.kv_used
        self.prefill = request
        self.prefill_end = self.now + request.prompt / self.engine.prefill_tokens_s + chunks * plain

    def _begin_decode(self) -> None:
        request = self.prefill
        assert request is not None
        request.first_token = self.now
        self.begun.append(request)
        self.serial += 1
        heapq.heappush(self.running, (self.steps + request.output, self.serial, request))
        self.prompts += request.prompt
        self.starts += self.steps
        self.prefill, self.prefill_end = None, math.inf

    def _finish(self) -> None:
        steps, _, request = heapq.heappop(self.running)
        self.steps = max(self.steps, steps)
        request.end = self.now
        self.finished.append(request)
        self.prompts -= request.prompt
        self.starts -= steps - request.output
        self.reserved -= request.prompt + request.output
