"""POST /tokenize and /detokenize, with the simulator's own tokenizer."""

from __future__ import annotations

from aiohttp import web

from fairlead_sim import tokens
from fairlead_sim.vllm.chat import render_prompt
from fairlead_sim.vllm.errors import bad_request
from fairlead_sim.vllm.http import json_response
from fairlead_sim.vllm.requests import DetokenizeRequest, TokenizeRequest, read
from fairlead_sim.vllm.service import Service


async def tokenize(request: web.Request, service: Service) -> web.StreamResponse:
    """Ids of a prompt or of a conversation. Raises APIError."""
    asked = await read(request, TokenizeRequest)
    service.check_model(asked.model)
    if (asked.prompt is None) == (asked.messages is None):
        raise bad_request("Exactly one of `prompt` and `messages` must be given")
    text = asked.prompt if asked.prompt is not None else render_prompt(asked.messages or [])
    ids = tokens.encode(text)
    strings = tokens.split(text) if asked.return_token_strs else None
    limit = service.config.max_model_len
    return json_response({"count": len(ids), "max_model_len": limit, "tokens": ids, "token_strs": strings})


async def detokenize(request: web.Request, service: Service) -> web.StreamResponse:
    """The text of ids. Raises APIError."""
    asked = await read(request, DetokenizeRequest)
    service.check_model(asked.model)
    try:
        return json_response({"prompt": tokens.decode(asked.tokens)})
    except ValueError as error:
        raise bad_request(str(error), "tokens") from error
