"""POST /v1/chat/completions: prompt, tools, answer or stream of chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from aiohttp import web

from fairlead_sim import answers
from fairlead_sim.merge import merge
from fairlead_sim.vllm.errors import APIError, bad_request
from fairlead_sim.vllm.http import json_response, send_events
from fairlead_sim.vllm.reply import Reply, make_reply, usage
from fairlead_sim.vllm.requests import ChatRequest, Function, NamedTool, StreamOptions, read
from fairlead_sim.vllm.service import Answer, Delta, Sampling, Service, random_id


async def handle(request: web.Request, service: Service) -> web.StreamResponse:
    """Answer one request. Raises APIError."""
    asked = await read(request, ChatRequest)
    model = service.check_model(asked.model)
    tool = choose_tool(asked, auto_tools=service.config.auto_tools)
    sampling = make_sampling(asked, tool, service.adapter(model))
    started = service.start(render_prompt(asked.messages), sampling)
    reply = make_reply(request, service, "chatcmpl", model, asked.request_id)
    if asked.stream:
        options = asked.stream_options or StreamOptions(include_usage=service.config.force_usage)
        return await send_events(request, stream_chunks(reply, started, tool, asked, options, service))
    choices = await asyncio.gather(*(collect(answer, tool, asked) for answer in started))
    body = reply.head("chat.completion") | {
        "choices": choices,
        "service_tier": None,
        "system_fingerprint": reply.fingerprint,
        "usage": usage(started, started[0].prompt_tokens, service),
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "kv_transfer_params": None,
    }
    return json_response(body)


def make_sampling(asked: ChatRequest, tool: Function | None, adapter: str | None) -> Sampling:
    """The sampling parameters of a request."""
    script = None
    if tool is not None:
        script = answers.arguments_for(tool.parameters or {})
    elif asked.response_format is not None and asked.response_format.type != "text":
        schema = (asked.response_format.json_schema or {}).get("schema") or {
            "type": "object",
            "required": ["simulated"],
        }
        script = answers.arguments_for(schema)
    return Sampling(
        max_tokens=asked.max_completion_tokens or asked.max_tokens,
        min_tokens=asked.min_tokens,
        ignore_eos=asked.ignore_eos,
        seed=asked.seed,
        stops=tuple(asked.stops),
        include_stop=asked.include_stop_str_in_output,
        n=asked.n or 1,
        said=last_user_text(asked.messages),
        script=script,
        adapter=adapter,
    )


def choose_tool(asked: ChatRequest, *, auto_tools: bool) -> Function | None:
    """The tool that the simulated model calls; None when it answers in prose. Raises APIError 400."""
    if not asked.tools:
        if asked.tool_choice in (None, "none", "auto"):
            return None
        raise bad_request("When using `tool_choice`, `tools` must be set.")
    functions = [tool.function for tool in asked.tools]
    choice = asked.tool_choice or "auto"
    if isinstance(choice, NamedTool):
        named = next((function for function in functions if function.name == choice.function.name), None)
        if named is None:
            raise bad_request(
                "The tool specified in `tool_choice` does not match any of the specified `tools`", "tool_choice"
            )
        return named
    if choice == "required":
        return functions[0]
    if choice == "none":
        return None
    if not auto_tools:
        raise bad_request('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
    return next((function for function in functions if function.name in last_user_text(asked.messages)), None)


def text_of(content: Any) -> str:
    """The text of a message's content, which may be a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part.get("text") for part in content if isinstance(part, dict))
    return "\n".join(part for part in parts if isinstance(part, str))


def last_user_text(messages: list[dict[str, Any]]) -> str:
    """What the user said last."""
    said = [text_of(message.get("content")) for message in messages if message.get("role") == "user"]
    return said[-1] if said else ""


def render_prompt(messages: list[dict[str, Any]]) -> str:
    """The chat template: roles and texts."""
    lines = [f"<|{message.get('role', 'user')}|>{text_of(message.get('content'))}\n" for message in messages]
    return "".join([*lines, "<|assistant|>"])


def finish_reason(delta: Delta, tool: Function | None, asked: ChatRequest) -> str | None:
    """A complete call of a tool that the model chose ends with `tool_calls`; a named one with `stop`."""
    if tool is not None and delta.finish_reason == "stop" and not isinstance(asked.tool_choice, NamedTool):
        return "tool_calls"
    return delta.finish_reason


async def collect(answer: Answer, tool: Function | None, asked: ChatRequest) -> dict[str, Any]:
    """One choice as a whole."""
    parts: list[str] = []
    last = Delta("", 0)
    async for delta in answer.deltas():
        parts.append(delta.text)
        last = delta
    text = "".join(parts)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text if tool is None else None,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "reasoning": None,
    }
    if tool is not None:
        call = {
            "id": random_id("chatcmpl-tool"),
            "type": "function",
            "function": {"name": tool.name, "arguments": text},
        }
        message["tool_calls"] = [call]
    return {
        "index": answer.index,
        "message": message,
        "logprobs": None,
        "finish_reason": finish_reason(last, tool, asked),
        "stop_reason": last.stop_reason,
        "token_ids": None,
    }


async def stream_chunks(
    reply: Reply,
    started: list[Answer],
    tool: Function | None,
    asked: ChatRequest,
    options: StreamOptions,
    service: Service,
) -> AsyncGenerator[dict[str, Any]]:
    """Chunks of all choices, in the order in which they come."""
    head = reply.head("chat.completion.chunk")
    continuous = bool(options.include_usage and options.continuous_usage_stats)
    began: set[int] = set()
    try:
        async for index, delta in merge([answer.deltas() for answer in started]):
            if not began:
                for answer in started:
                    yield head | {"choices": [choice(answer.index, {"role": "assistant", "content": ""})]}
            content = chunk_delta(delta, tool, first=index not in began)
            began.add(index)
            reason = finish_reason(delta, tool, asked)
            chunk = head | {"choices": [choice(index, content, reason, delta.stop_reason)]}
            if reason is not None and not options.include_usage:
                chunk["system_fingerprint"] = reply.fingerprint
            if continuous:
                chunk["usage"] = usage([started[index]], started[index].prompt_tokens, service)
            yield chunk
        if options.include_usage:
            yield head | {
                "choices": [],
                "system_fingerprint": reply.fingerprint,
                "usage": usage(started, started[0].prompt_tokens, service),
            }
    except APIError as error:
        yield error.body()
    finally:
        for answer in started:
            answer.cancel()


def chunk_delta(delta: Delta, tool: Function | None, *, first: bool) -> dict[str, Any]:
    """The `delta` of a chunk: text, or a piece of a tool call's arguments."""
    if tool is None:
        return {"content": delta.text}
    function: dict[str, Any] = {"arguments": delta.text}
    call: dict[str, Any] = {"index": 0, "function": function}
    if first:
        call |= {"id": random_id("chatcmpl-tool"), "type": "function"}
        call["function"] = {"name": tool.name} | function
    return {"tool_calls": [call]}


def choice(
    index: int, delta: dict[str, Any], reason: str | None = None, stop_reason: str | None = None
) -> dict[str, Any]:
    """A choice of a chunk."""
    made: dict[str, Any] = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
    if reason is not None:
        made["stop_reason"] = stop_reason
    return made
