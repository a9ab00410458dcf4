"""One simulated Ollama server: its models, its runners, and the way of a prompt to text."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import islice
from typing import Any

import orjson
from aiohttp import web

from fairlead_sim import answers, tokens
from fairlead_sim.durations import parse_keep_alive
from fairlead_sim.engine import EngineStoppedError
from fairlead_sim.latency import Sequence
from fairlead_sim.ollama.environment import Environment
from fairlead_sim.ollama.errors import OllamaError, bad_request, not_found
from fairlead_sim.ollama.names import parse_name
from fairlead_sim.ollama.runner import Runner, Scheduler
from fairlead_sim.ollama.store import Model, Store, StoreError
from fairlead_sim.settings import Settings
from fairlead_sim.textstream import TextStream

#: Answers do not go on for ever when nothing bounds them.
MAX_OUTPUT_TOKENS = 1_000_000


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is to be answered, and how."""

    text: str
    said: str
    options: dict[str, Any] = field(default_factory=dict)
    #: A text that must be answered (tool arguments, JSON), instead of prose.
    script: str | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer; the last one has a reason, no text, and the counts."""

    text: str
    reason: str | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0
    prompt_s: float = 0.0
    output_s: float = 0.0
    #: The whole answer, with the last piece.
    whole: str = ""


class Service:
    """State behind the HTTP surface."""

    def __init__(self, environment: Environment, settings: Settings) -> None:
        self.environment = environment
        self.settings = settings
        self.store = Store(environment.models)
        self.scheduler = Scheduler(environment, settings)
        self.version = settings.ollama_version

    def find(self, text: str) -> Model:
        """The model of this name. Raises OllamaError 404."""
        name = parse_name(text)
        if not name.is_valid:
            raise not_found(text)
        try:
            model = self.store.find(self.store.resolve(name))
        except StoreError as error:
            raise OllamaError(str(error)) from error
        if model is None:
            raise not_found(text)
        return model

    def options(self, model: Model, given: dict[str, Any] | None) -> dict[str, Any]:
        """The request's options over those of the model."""
        return {**model.parameters, **(given or {})}

    async def answer(self, runner: Runner, prompt: Prompt) -> AsyncGenerator[Piece]:
        """Run a prompt. Raises OllamaError when the runner is unloaded meanwhile."""
        prompt_tokens = max(1, min(tokens.count(prompt.text), runner.context_length))
        script, length, natural = self._script(runner.model, prompt)
        stops = prompt.options.get("stop") or []
        stream = TextStream(script, [stops] if isinstance(stops, str) else stops)
        generation = runner.engine.submit(Sequence(prompt_tokens, length))
        reason = "stop" if natural else "length"
        produced = 0
        said: list[str] = []
        began_s = generation.arrived_s
        try:
            while fresh := await generation.next_tokens():
                stop = None
                for token in islice(stream.script, fresh):
                    produced += 1
                    if (stop := stream.feed(token)) is not None:
                        runner.engine.finish(generation, "stop")
                        reason = "stop"
                        break
                if text := stream.take():
                    said.append(text)
                    yield Piece(text)
                if stop is not None:
                    break
        except EngineStoppedError as error:
            raise OllamaError("an error was encountered while running the model: unexpected EOF") from error
        finally:
            runner.engine.finish(generation, "abort")
        if text := stream.take_all():
            said.append(text)
            yield Piece(text)
        first_s = generation.first_token_s or time.monotonic()
        last_s = generation.last_token_s or first_s
        yield Piece("", reason, prompt_tokens, produced, first_s - began_s, last_s - first_s, "".join(said))

    def _script(self, model: Model, prompt: Prompt) -> tuple[Iterator[str], int, bool]:
        """The tokens to say, how many of them, and whether the last one is a natural end."""
        seed = int(prompt.options.get("seed") or 0)
        wanted = int(prompt.options.get("num_predict") or -1)
        if prompt.script is not None:
            said = tokens.split(prompt.script)
            length = len(said) if wanted < 0 else min(wanted, len(said))
            return iter(said), length, length == len(said)
        script = answers.answer(display_name(model), prompt.text, said=prompt.said, seed=seed)
        if wanted >= 0:
            return script, min(wanted, MAX_OUTPUT_TOKENS), False
        said = answers.whole_answer(script, prompt.text, mean_tokens=self.settings.answer_tokens, seed=seed)
        return iter(said), len(said), True

    async def embed(self, runner: Runner, texts: list[str], dimensions: int | None) -> tuple[list[list[float]], int]:
        """Vectors of texts, and how many tokens these have. Raises OllamaError."""
        sizes = [max(1, min(tokens.count(text), runner.context_length)) for text in texts]
        running = [runner.engine.submit(Sequence(size, 0)) for size in sizes]
        try:
            for generation in running:
                await generation.next_tokens()
        except EngineStoppedError as error:
            raise OllamaError("an error was encountered while running the model: unexpected EOF") from error
        finally:
            for generation in running:
                runner.engine.finish(generation, "abort")
        width = self.embedding_width(runner.model)
        wanted = min(dimensions or width, width)
        return [answers.embedding(text, wanted) for text in texts], sum(sizes)

    def embedding_width(self, model: Model) -> int:
        """Dimensions of the model's vectors, by its weights."""
        architecture = model.metadata.get("general.architecture", "")
        return int(model.metadata.get(f"{architecture}.embedding_length") or self.settings.embedding_dimensions)


def display_name(model: Model) -> str:
    """How a model calls itself: its short name, without a tag that says nothing."""
    return model.name.short.removesuffix(":latest")


async def read_json(request: web.Request) -> dict[str, Any]:
    """The body as an object, whatever its content type says. Raises OllamaError 400."""
    raw = await request.read()
    if not raw.strip():
        raise bad_request("missing request body")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"invalid JSON: {error}") from error
    if not isinstance(body, dict):
        raise bad_request(f"json: cannot unmarshal {type(body).__name__} into Go value")
    return body


def field_of(body: dict[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """A field of this type, or None if it is absent or null. Raises OllamaError 400 for another type."""
    value = body.get(name)
    wrong_bool = isinstance(value, bool) and kind is not bool
    if value is not None and (wrong_bool or not isinstance(value, kind)):
        raise OllamaError(
            f"json: cannot unmarshal {type(value).__name__} into Go struct field .{name}", HTTPStatus.BAD_REQUEST
        )
    return value


def keep_alive_of(body: dict[str, Any]) -> float | None:
    """`keep_alive` in seconds; None if it is not given. Raises OllamaError 400."""
    if body.get("keep_alive") is None:
        return None
    try:
        return parse_keep_alive(body["keep_alive"])
    except ValueError as error:
        raise bad_request(str(error)) from error
