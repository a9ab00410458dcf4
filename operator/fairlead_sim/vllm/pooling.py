"""Embeddings, scores and reranking: what `--runner pooling` serves."""

from __future__ import annotations

import base64
import struct
import time
from typing import Any

from aiohttp import web

from fairlead_sim import answers, tokens
from fairlead_sim.vllm.completions import texts_of
from fairlead_sim.vllm.errors import bad_request
from fairlead_sim.vllm.http import json_response
from fairlead_sim.vllm.requests import EmbeddingRequest, RerankRequest, ScoreRequest, read
from fairlead_sim.vllm.service import Service, random_id


async def embeddings(request: web.Request, service: Service) -> web.StreamResponse:
    """POST /v1/embeddings. Raises APIError."""
    asked = await read(request, EmbeddingRequest)
    model = service.check_model(asked.model)
    width = service.settings.embedding_dimensions
    if asked.dimensions is not None and asked.dimensions > width:
        raise bad_request(
            f"Model {model!r} has embeddings of {width} dimensions; {asked.dimensions} were asked for", "dimensions"
        )
    texts = texts_of(asked.input)
    used = await service.prefill(tokens.split(text) for text in texts)
    data = []
    for index, text in enumerate(texts):
        vector = answers.embedding(text, asked.dimensions or width)
        shown = vector if asked.encoding_format == "float" else _packed(vector)
        data.append({"index": index, "object": "embedding", "embedding": shown})
    return json_response(_head("embd", "list", model) | {"data": data, "usage": _usage(used)})


async def score(request: web.Request, service: Service) -> web.StreamResponse:
    """POST /score: one text against many, or pairs. Raises APIError."""
    asked = await read(request, ScoreRequest)
    model = service.check_model(asked.model)
    left = [asked.text_1] if isinstance(asked.text_1, str) else asked.text_1
    right = [asked.text_2] if isinstance(asked.text_2, str) else asked.text_2
    if len(left) not in (1, len(right)):
        raise bad_request("Input lengths must be either 1:1, 1:N or N:N")
    pairs = list(zip(left * len(right) if len(left) == 1 else left, right, strict=True))
    used = await service.prefill(tokens.split(one) + tokens.split(other) for one, other in pairs)
    data = [
        {"index": index, "object": "score", "score": answers.similarity(one, other)}
        for index, (one, other) in enumerate(pairs)
    ]
    return json_response(_head("score", "list", model) | {"data": data, "usage": _usage(used)})


async def rerank(request: web.Request, service: Service) -> web.StreamResponse:
    """POST /v1/rerank: the documents by relevance. Raises APIError."""
    asked = await read(request, RerankRequest)
    model = service.check_model(asked.model)
    texts = [document if isinstance(document, str) else str(document.get("text", "")) for document in asked.documents]
    used = await service.prefill(tokens.split(asked.query) + tokens.split(text) for text in texts)
    results: list[dict[str, Any]] = [
        {
            "index": index,
            "document": {"text": text, "multi_modal": None},
            "relevance_score": answers.similarity(asked.query, text),
        }
        for index, text in enumerate(texts)
    ]
    results.sort(key=lambda result: -result["relevance_score"])
    usage = {"prompt_tokens": used, "total_tokens": used}
    shown = results[: asked.top_n or len(results)]
    return json_response({"id": random_id("rerank"), "model": model, "usage": usage, "results": shown})


def _head(prefix: str, kind: str, model: str) -> dict[str, Any]:
    return {"id": random_id(prefix), "object": kind, "created": int(time.time()), "model": model}


def _usage(used: int) -> dict[str, Any]:
    return {"prompt_tokens": used, "total_tokens": used, "completion_tokens": 0, "prompt_tokens_details": None}


def _packed(vector: list[float]) -> str:
    """Little-endian 32-bit floats in base64, as the official client asks for by default."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
