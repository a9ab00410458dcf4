"""POST /v1/completions: one or several prompts, as texts or token ids."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from aiohttp import web

from fairlead_sim import tokens
from fairlead_sim.merge import merge
from fairlead_sim.vllm.errors import APIError, bad_request
from fairlead_sim.vllm.http import json_response, send_events
from fairlead_sim.vllm.reply import Reply, make_reply, usage
from fairlead_sim.vllm.requests import CompletionRequest, StreamOptions, read
from fairlead_sim.vllm.service import Answer, Sampling, Service

#: vLLM's default when a completion asks for no length.
DEFAULT_MAX_TOKENS = 16


async def handle(request: web.Request, service: Service) -> web.StreamResponse:
    """Answer one request. Raises APIError."""
    asked = await read(request, CompletionRequest)
    model = service.check_model(asked.model)
    prompts = texts_of(asked.prompt)
    sampling = Sampling(
        max_tokens=asked.max_tokens or DEFAULT_MAX_TOKENS,
        seed=asked.seed,
        stops=tuple(asked.stops),
        include_stop=asked.include_stop_str_in_output,
        n=asked.n or 1,
        adapter=service.adapter(model),
    )
    started = service.start_all(prompts, sampling)
    reply = make_reply(request, service, "cmpl", model, asked.request_id)
    echoes = [prompt if asked.echo else "" for prompt in prompts for _ in range(sampling.n)]
    if asked.stream:
        options = asked.stream_options or StreamOptions(include_usage=service.config.force_usage)
        return await send_events(request, stream_chunks(reply, started, echoes, options, sampling.n, service))
    choices = await asyncio.gather(*(collect(answer, echo) for answer, echo in zip(started, echoes, strict=True)))
    body = reply.head("text_completion") | {
        "choices": choices,
        "service_tier": None,
        "system_fingerprint": reply.fingerprint,
        "usage": usage(started, _prompt_tokens(started, sampling.n), service),
        "kv_transfer_params": None,
    }
    return json_response(body)


def texts_of(prompt: str | list[str] | list[int] | list[list[int]]) -> list[str]:
    """The prompts as texts. Raises APIError 400 for ids that no token has, or for no prompt at all."""
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise bad_request("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    given: list[Any] = [prompt] if isinstance(prompt[0], int) else list(prompt)
    try:
        return [text if isinstance(text, str) else tokens.decode(text) for text in given]
    except ValueError as error:
        raise bad_request(str(error), "prompt") from error


def _prompt_tokens(started: list[Answer], n: int) -> int:
    """Each prompt counts once, however many answers it has."""
    return sum(answer.prompt_tokens for answer in started[::n])


async def collect(answer: Answer, echo: str) -> dict[str, Any]:
    """One choice as a whole."""
    parts, reason, stop_reason = [echo], None, None
    async for delta in answer.deltas():
        parts.append(delta.text)
        reason, stop_reason = delta.finish_reason, delta.stop_reason
    return {
        "index": answer.index,
        "text": "".join(parts),
        "logprobs": None,
        "finish_reason": reason,
        "stop_reason": stop_reason,
        "token_ids": None,
        "prompt_logprobs": None,
        "prompt_token_ids": None,
    }


async def stream_chunks(
    reply: Reply, started: list[Answer], echoes: list[str], options: StreamOptions, n: int, service: Service
) -> AsyncGenerator[dict[str, Any]]:
    """Chunks of all choices, in the order in which they come."""
    head = reply.head("text_completion")
    waiting_echoes = dict(enumerate(echoes))
    try:
        async for index, delta in merge([answer.deltas() for answer in started]):
            text = waiting_echoes.pop(index, "") + delta.text
            choice = {"index": index, "text": text, "logprobs": None, "finish_reason": delta.finish_reason}
            chunk = head | {"choices": [choice | {"stop_reason": delta.stop_reason}]}
            if delta.finish_reason is not None and not options.include_usage:
                chunk["system_fingerprint"] = reply.fingerprint
            if options.include_usage and options.continuous_usage_stats:
                chunk["usage"] = usage([started[index]], started[index].prompt_tokens, service)
            yield chunk
        if options.include_usage:
            final: dict[str, Any] = {"choices": [], "system_fingerprint": reply.fingerprint}
            yield head | final | {"usage": usage(started, _prompt_tokens(started, n), service)}
    except APIError as error:
        yield error.body()
    finally:
        for answer in started:
            answer.cancel()
