"""One simulated vLLM: its engine, its state, and the way of every request from prompt to text."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from fairlead_sim import answers, tokens
from fairlead_sim.engine import Engine, Generation
from fairlead_sim.latency import Sequence
from fairlead_sim.settings import Settings
from fairlead_sim.textstream import TextStream
from fairlead_sim.vllm.config import ServeConfig
from fairlead_sim.vllm.errors import EngineDeadError, QueueFullError, not_found, validation_error
from fairlead_sim.vllm.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Sampling:
    """What decides an answer's text and length."""

    max_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    seed: int | None = None
    stops: tuple[str, ...] = ()
    include_stop: bool = False
    n: int = 1
    #: What the user said last, where the prompt is a conversation.
    said: str | None = None
    #: The LoRA adapter that answers, instead of the model itself.
    adapter: str | None = None
    #: A text that must be answered (tool arguments, JSON), instead of prose.
    script: str | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer. The last one has a finish reason."""

    text: str
    tokens: int
    finish_reason: str | None = None
    stop_reason: str | None = None
    cached_tokens: int = 0


class Service:
    """State behind the HTTP surface."""

    def __init__(self, config: ServeConfig, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self.metrics = Metrics(config)
        self.engine = Engine(settings.speed, config.limits, self.metrics)
        self.dead = False
        #: Requests in the handlers that /load counts.
        self.load = 0

    def die(self) -> None:
        """The engine process dies: what runs fails, and so does everything after it."""
        self.dead = True
        error = EngineDeadError()
        self.engine.close(error)
        self.engine.abort_all(error)

    def check_model(self, name: str | None) -> str:
        """The model's name for the answer. Raises APIError 404 for one that is not served."""
        if not name:
            return self.config.name
        if name not in self.config.served_names and self.config.find_adapter(name) is None:
            aliases = ", ".join(self.config.served_names)
            raise not_found(f"The model `{name}` does not exist. Valid aliases: {aliases}.", "model")
        return name

    def adapter(self, model: str) -> str | None:
        """The adapter behind the name of an answer, if it is one."""
        return None if self.config.find_adapter(model) is None else model

    def check_length(self, prompt_tokens: int, max_tokens: int | None) -> int:
        """Output tokens that fit behind the prompt. Raises APIError 400 when prompt or wish are too long."""
        limit = self.config.max_model_len
        if prompt_tokens >= limit + (max_tokens == 0):
            raise validation_error(
                f"This model's maximum context length is {limit} tokens. However, your prompt contains {prompt_tokens} "
                "input tokens, which exceeds this limit even without any output tokens. Please reduce the length of "
                "the input prompt.",
                parameter="input_tokens",
                value=prompt_tokens,
            )
        if max_tokens is not None and prompt_tokens + max_tokens > limit:
            raise validation_error(
                f"This model's maximum context length is {limit} tokens. However, you requested {max_tokens} output "
                f"tokens and your prompt contains {prompt_tokens} input tokens, for a total of "
                f"{prompt_tokens + max_tokens} tokens. Please reduce the length of the input prompt or the number of "
                "requested output tokens.",
                parameter="input_tokens",
                value=prompt_tokens,
            )
        return limit - prompt_tokens

    def check_admission(self, sequences: int, prompt_tokens: int) -> None:
        """Raises APIError: 503 over a queue limit, or the engine's own state (dead, draining)."""
        config, waiting = self.config, self.engine.waiting
        if config.max_num_queued_reqs is not None and self.engine.unfinished + sequences > (
            config.limits.max_sequences + config.max_num_queued_reqs
        ):
            self.metrics.rejections["max_num_queued_reqs"].inc()
            raise QueueFullError(
                "The engine is currently busy and cannot accept new requests. "
                "Please try again later or on a different instance."
            )
        queued = self.engine.batch.queued_prompt_tokens
        if (
            config.max_num_queued_tokens is not None
            and waiting
            and queued + prompt_tokens > config.max_num_queued_tokens
        ):
            self.metrics.rejections["max_num_queued_tokens"].inc()
            raise QueueFullError(
                "The engine has reached its prefill token backlog limit. "
                "Please try again later or on a different instance."
            )

    def start_all(self, prompts: list[str], sampling: Sampling) -> list[Answer]:
        """Queue the n answers to each prompt, numbered through. Raises APIError if that cannot be."""
        split = [tokens.split(prompt) for prompt in prompts]
        rooms = [self.check_length(len(prompt_tokens), sampling.max_tokens) for prompt_tokens in split]
        self.check_admission(sampling.n * len(prompts), sampling.n * sum(map(len, split)))
        started: list[Answer] = []
        for prompt, prompt_tokens, room in zip(prompts, split, rooms, strict=True):
            prefix = tokens.prefix_blocks(prompt_tokens, self.config.limits.block_size, sampling.adapter or "")
            for number in range(sampling.n):
                script, length, natural = self._script(prompt, sampling, number, room)
                sequence = Sequence(max(1, len(prompt_tokens)), length, prefix)
                generation = self.engine.submit(
                    sequence, n=sampling.n, max_tokens=sampling.max_tokens, ends_as="stop" if natural else "length"
                )
                stream = TextStream(script, sampling.stops)
                started.append(Answer(self.engine, generation, len(started), stream, sampling))
        return started

    def start(self, prompt: str, sampling: Sampling) -> list[Answer]:
        """Queue the n answers to one prompt. Raises APIError if that cannot be."""
        return self.start_all([prompt], sampling)

    def _script(self, prompt: str, sampling: Sampling, index: int, room: int) -> tuple[Iterator[str], int, bool]:
        """The tokens to say, how many of them, and whether the last one is a natural end."""
        seed = sampling.seed or 0
        wanted = sampling.max_tokens
        if sampling.script is not None:
            said = tokens.split(sampling.script)
            length = min(len(said), room if wanted is None else wanted)
            return iter(said), length, length == len(said)
        script = answers.answer(
            sampling.adapter or self.config.name, prompt, said=sampling.said, seed=seed, index=index
        )
        if wanted is not None:
            return script, wanted, False
        if sampling.ignore_eos or sampling.min_tokens >= room:
            return script, room, False
        mean = max(self.settings.answer_tokens, 2 * sampling.min_tokens)
        said = answers.whole_answer(islice(script, room), prompt, mean_tokens=mean, seed=seed, index=index)
        return iter(said), len(said), said[-1] == "."

    async def prefill(self, prompts: Iterable[list[str]]) -> int:
        """Run prompts through the engine without output, as pooling does; the sum of their tokens. Raises APIError."""
        sizes = [max(1, len(prompt)) for prompt in prompts]
        for size in sizes:
            self.check_length(size, 0)
        self.check_admission(len(sizes), sum(sizes))
        running = [self.engine.submit(Sequence(size, 0), ends_as="stop") for size in sizes]
        try:
            for generation in running:
                await generation.next_tokens()
        finally:
            for generation in running:
                self.engine.finish(generation, "abort")
        return sum(sizes)


class Answer:
    """One answer under way."""

    def __init__(
        self, engine: Engine, generation: Generation, index: int, stream: TextStream, sampling: Sampling
    ) -> None:
        self.index = index
        self.prompt_tokens = generation.sequence.prompt_tokens
        self.output_tokens = 0
        self._engine = engine
        self._generation = generation
        self._stream = stream
        self._include_stop = sampling.include_stop

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that the prefix cache had."""
        return self._generation.sequence.cached_tokens

    async def deltas(self) -> AsyncGenerator[Delta]:
        """The answer piece by piece. Raises APIError when the engine dies. Whoever stops listening ends the generation."""
        try:
            while fresh := await self._generation.next_tokens():
                for token in islice(self._stream.script, fresh):
                    self.output_tokens += 1
                    if (stop := self._stream.feed(token)) is not None:
                        self._engine.finish(self._generation, "stop")
                        text = self._stream.take(stop if self._include_stop else "")
                        yield Delta(text, 1, "stop", stop)
                        return
                ended = self._generation.reason is not None and self._generation.tokens == self.output_tokens
                if ended:
                    yield Delta(self._stream.take_all(), fresh, self._generation.ends_as)
                    return
                yield Delta(self._stream.take(), fresh)
            if self._generation.reason is not None:
                yield Delta(self._stream.take_all(), 0, self._generation.ends_as)
        finally:
            self._engine.finish(self._generation, "abort")

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self._engine.finish(self._generation, "abort")


def random_id(prefix: str, given: str | None = None) -> str:
    """An object's id, as `chatcmpl-…`."""
    return f"{prefix}-{given or uuid.uuid4().hex}"
