"""The latency model: continuous batching over KV blocks, as arithmetic without clock or I/O.

An engine works in steps. In each step every running sequence decodes one token, and prompts are prefilled as far as
the step's token budget goes; a step lasts as long as that work takes. Queueing, time to first token and the slowdown
of a full batch all follow from this, as they do in vLLM and llama-server, so rehearsed scaling sees what it would see.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast the simulated hardware is. Rates in tokens per second, durations in seconds."""

    prompt_tokens_per_s: float = 20_000.0
    #: Of one stream that is alone.
    output_tokens_per_s: float = 50.0
    #: How much longer a step takes for each further sequence in it, as a fraction of the step of a single one.
    batch_slowdown: float = 0.01
    #: Fixed cost of a step that prefills.
    prefill_overhead_s: float = 0.01

    def step_duration_s(self, *, prefill_tokens: int, decoding: int) -> float:
        """Seconds that a step takes which prefills so many tokens and decodes one token for each of `decoding` sequences."""
        duration_s = 0.0
        if prefill_tokens:
            duration_s += self.prefill_overhead_s + prefill_tokens / self.prompt_tokens_per_s
        if decoding:
            duration_s += (1.0 + self.batch_slowdown * (decoding - 1)) / self.output_tokens_per_s
        return duration_s


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine admits at once."""

    max_sequences: int = 256
    kv_blocks: int = 16_384
    block_size: int = 16
    #: Tokens (prefilled and decoded) per step.
    max_batched_tokens: int = 8192
    prefix_caching: bool = True

    @property
    def kv_tokens(self) -> int:
        """Tokens that fit in the KV cache."""
        return self.kv_blocks * self.block_size

    def blocks(self, tokens: int) -> int:
        """KV blocks that so many tokens need."""
        return -(-tokens // self.block_size)


@dataclass(slots=True, eq=False)
class Sequence:
    """One generation: its prompt, how far it has got, and when it ends."""

    prompt_tokens: int
    #: Ends after this many output tokens at the latest; 0 for a request that is only prefilled (embeddings).
    max_output_tokens: int
    #: Hashes of the prompt's leading whole blocks; what an earlier prompt shares with them is not computed again.
    prefix: tuple[int, ...] = ()
    computed: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    #: Prefix cache already asked? A preempted sequence starts over.
    looked_up: bool = False
    preemptions: int = 0
    blocks: int = 0

    @property
    def goal(self) -> int:
        """Tokens whose KV must be computed before the next output token."""
        return self.prompt_tokens + self.output_tokens

    @property
    def decoding(self) -> bool:
        """Past its prefill: one token a step from here."""
        return self.output_tokens > 0 and self.computed >= self.goal - 1

    @property
    def finished(self) -> bool:
        """Nothing more to compute."""
        return self.computed >= self.prompt_tokens and self.output_tokens >= self.max_output_tokens


@dataclass(slots=True)
class Step:
    """What one step does. Outputs appear when it ends, `duration_s` after it began."""

    duration_s: float = 0.0
    prefill_tokens: int = 0
    cached_tokens: int = 0
    queried_tokens: int = 0
    #: Sequences that left the queue in this step.
    admitted: list[Sequence] = field(default_factory=list)
    #: Sequences that get a token when the step ends.
    produced: list[Sequence] = field(default_factory=list)
    #: Sequences that were pushed back to the queue, since the KV cache is full.
    preempted: list[Sequence] = field(default_factory=list)
    #: Sequences that are done when the step ends.
    finished: list[Sequence] = field(default_factory=list)


class Batch:
    """The running batch and the queue in front of it."""

    def __init__(self, speed: Speed, limits: Limits) -> None:
        self.speed = speed
        self.limits = limits
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._free_blocks = limits.kv_blocks
        # An entry for each cached prompt block, oldest first; as many as the KV cache has blocks.
        self._cached: dict[int, None] = {}

    @property
    def kv_usage(self) -> float:
        """Share of the KV blocks held by running sequences, 0 to 1."""
        return 1.0 - self._free_blocks / self.limits.kv_blocks

    @property
    def queued_prompt_tokens(self) -> int:
        """Prompt tokens that wait for their prefill."""
        return sum(sequence.goal - sequence.computed for sequence in self.waiting)

    def add(self, sequence: Sequence) -> None:
        """Put a sequence at the end of the queue. Its tokens must fit in the KV cache, or ValueError."""
        needed = sequence.prompt_tokens + sequence.max_output_tokens
        if needed > self.limits.kv_tokens:
            raise ValueError(f"{needed} tokens do not fit in a KV cache of {self.limits.kv_tokens}")
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out wherever it is; one that is not here is left alone."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def step(self) -> Step | None:
        """Plan the next step and account for it; None when there is nothing to do.

        Outputs are already counted in the sequences; finished ones have left the batch.
        """
        step = Step()
        budget = self.limits.max_batched_tokens
        scheduled: dict[Sequence, int] = {}
        for sequence in list(self.running):
            if sequence in self.running:  # it may have been preempted for one before it
                budget -= self._schedule(sequence, budget, scheduled, step)
        if not step.preempted:
            self._admit(budget, scheduled, step)
        if not scheduled:
            return None
        self._account(scheduled, step)
        return step

    def _schedule(self, sequence: Sequence, budget: int, scheduled: dict[Sequence, int], step: Step) -> int:
        tokens = min(sequence.goal - sequence.computed, budget)
        if tokens <= 0:
            return 0
        while not self._grow(sequence, sequence.computed + tokens):
            victim = self.running[-1]
            self._preempt(victim, scheduled, step)
            if victim is sequence:
                return 0
        scheduled[sequence] = tokens
        return tokens

    def _admit(self, budget: int, scheduled: dict[Sequence, int], step: Step) -> None:
        while self.waiting and budget > 0 and len(self.running) < self.limits.max_sequences:
            sequence = self.waiting[0]
            if not sequence.looked_up:
                self._look_up(sequence, step)
            tokens = min(sequence.goal - sequence.computed, budget)
            if not self._grow(sequence, sequence.computed + tokens):
                return
            self.waiting.popleft()
            self.running.append(sequence)
            step.admitted.append(sequence)
            scheduled[sequence] = tokens
            budget -= tokens

    def _account(self, scheduled: dict[Sequence, int], step: Step) -> None:
        decoding = 0
        for sequence, tokens in scheduled.items():
            if sequence.decoding:
                decoding += 1
            else:
                step.prefill_tokens += tokens
            sequence.computed += tokens
            if sequence.computed >= sequence.goal:
                self._remember(sequence)
                if sequence.output_tokens < sequence.max_output_tokens:
                    sequence.output_tokens += 1
                    step.produced.append(sequence)
                if sequence.finished:
                    step.finished.append(sequence)
        for sequence in step.finished:
            self.remove(sequence)
        step.duration_s = self.speed.step_duration_s(prefill_tokens=step.prefill_tokens, decoding=decoding)

    def _grow(self, sequence: Sequence, tokens: int) -> bool:
        missing = self.limits.blocks(tokens) - sequence.blocks
        if missing > self._free_blocks:
            return False
        if missing > 0:
            self._free_blocks -= missing
            sequence.blocks += missing
        return True

    def _release(self, sequence: Sequence) -> None:
        self._free_blocks += sequence.blocks
        sequence.blocks = 0

    def _preempt(self, sequence: Sequence, scheduled: dict[Sequence, int], step: Step) -> None:
        scheduled.pop(sequence, None)
        self.running.remove(sequence)
        self._release(sequence)
        sequence.computed = 0
        sequence.looked_up = False
        sequence.preemptions += 1
        step.preempted.append(sequence)
        self.waiting.appendleft(sequence)

    def _look_up(self, sequence: Sequence, step: Step) -> None:
        sequence.looked_up = True
        if not self.limits.prefix_caching or not sequence.prefix:
            return
        hits = 0
        for block in sequence.prefix:
            if block not in self._cached:
                break
            hits += 1
        # The last prompt token is always computed: its output is the first token.
        cached = min(hits * self.limits.block_size, sequence.prompt_tokens - 1)
        sequence.computed = sequence.cached_tokens = cached
        step.queried_tokens += sequence.prompt_tokens
        step.cached_tokens += cached

    def _remember(self, sequence: Sequence) -> None:
        if not self.limits.prefix_caching or sequence.output_tokens:
            return
        for block in sequence.prefix:
            self._cached.pop(block, None)
            self._cached[block] = None
        while len(self._cached) > self.limits.kv_blocks:
            del self._cached[next(iter(self._cached))]
