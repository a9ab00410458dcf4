"""vLLM's HTTP surface, asked with the official openai client, and with plain HTTP where that is what matters."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import openai
import pytest
from tests.unit.sim_engine.servers import StartVllm, Vllm, openai_client

from fairlead_sim.settings import Settings

ASK: Any = [{"role": "user", "content": "Who are you?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


async def test_a_chat_answer_says_who_answers(vllm: Vllm) -> None:
    answer = await vllm.client.chat.completions.create(model="tiny", messages=ASK)
    choice = answer.choices[0]
    assert (choice.message.content or "").startswith('tiny here, simulated. You said: "Who are you?".')
    assert choice.finish_reason == "stop"
    assert answer.model == "tiny"
    assert (answer.system_fingerprint or "").startswith("vllm-0.33.0-")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_a_stream_is_the_same_answer_in_pieces_with_usage_at_the_end(vllm: Vllm) -> None:
    whole = await vllm.client.chat.completions.create(model="tiny", messages=ASK, seed=7)
    stream = await vllm.client.chat.completions.create(
        model="tiny", messages=ASK, seed=7, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert len(chunks) > 10, "token by token"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_the_raw_stream_ends_with_done(vllm: Vllm) -> None:
    response = await vllm.post("/v1/chat/completions", {"messages": ASK, "max_tokens": 2, "stream": True})
    events = response.text.strip().split("\n\n")
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert events[-1] == "data: [DONE]"
    last = json.loads(events[-2].removeprefix("data: "))
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["choices"][0]["stop_reason"] is None


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_a_wish_for_length_is_fulfilled_exactly(vllm: Vllm, name: str) -> None:
    wish: Any = {name: 250}
    answer = await vllm.client.chat.completions.create(model="tiny", messages=ASK, **wish)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 250
    assert answer.choices[0].finish_reason == "length"


async def test_a_stream_lasts_as_long_as_its_tokens_take(start_vllm: StartVllm) -> None:
    vllm = await start_vllm(settings=Settings(output_tokens_per_second=100, prefill_overhead_seconds=0))
    began = time.monotonic()
    stream = await vllm.client.chat.completions.create(model="tiny", messages=ASK, max_tokens=51, stream=True)
    async for _chunk in stream:
        pass
    assert 0.5 <= time.monotonic() - began < 1.5, "50 steps of 10 ms behind the first token"


async def test_n_answers_differ_and_the_seed_decides(vllm: Vllm) -> None:
    first = await vllm.client.chat.completions.create(model="tiny", messages=ASK, n=3, seed=1, max_tokens=80)
    again = await vllm.client.chat.completions.create(model="tiny", messages=ASK, n=3, seed=1, max_tokens=80)
    texts = [choice.message.content for choice in first.choices]
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert texts == [choice.message.content for choice in again.choices]
    assert first.usage is not None
    assert first.usage.completion_tokens == 240


async def test_n_streams_carry_their_index(vllm: Vllm) -> None:
    stream = await vllm.client.chat.completions.create(model="tiny", messages=ASK, n=2, max_tokens=20, stream=True)
    ended = [c.choices[0].index async for c in stream if c.choices[0].finish_reason is not None]
    assert sorted(ended) == [0, 1]


async def test_a_stop_string_ends_the_answer(vllm: Vllm) -> None:
    answer = await vllm.client.chat.completions.create(model="tiny", messages=ASK, stop=["simulated"], max_tokens=500)
    assert answer.choices[0].message.content == "tiny here, "
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].model_extra is not None
    assert answer.choices[0].model_extra["stop_reason"] == "simulated"


async def test_a_named_tool_is_called(vllm: Vllm) -> None:
    choice: Any = {"type": "function", "function": {"name": "get_weather"}}
    answer = await vllm.client.chat.completions.create(model="tiny", messages=ASK, tools=[WEATHER], tool_choice=choice)
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "simulated city"})
    assert answer.choices[0].finish_reason == "stop", "as in vLLM for a named tool"


async def test_a_required_tool_is_called_in_a_stream_too(vllm: Vllm) -> None:
    stream = await vllm.client.chat.completions.create(
        model="tiny", messages=ASK, tools=[WEATHER], tool_choice="required", stream=True
    )
    calls, reason = [], None
    async for chunk in stream:
        calls += chunk.choices[0].delta.tool_calls or []
        reason = chunk.choices[0].finish_reason or reason
    assert calls[0].function is not None
    assert calls[0].function.name == "get_weather"
    assert json.loads("".join(call.function.arguments or "" for call in calls if call.function)) == {
        "city": "simulated city"
    }
    assert reason == "tool_calls"


async def test_tools_by_choice_of_the_model_need_a_parser(vllm: Vllm, start_vllm: StartVllm) -> None:
    with pytest.raises(openai.BadRequestError, match="requires --enable-auto-tool-choice"):
        await vllm.client.chat.completions.create(model="tiny", messages=ASK, tools=[WEATHER])
    able = await start_vllm("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    asked: Any = [{"role": "user", "content": "use get_weather, please"}]
    called = await able.client.chat.completions.create(model="tiny", messages=asked, tools=[WEATHER])
    plain = await able.client.chat.completions.create(model="tiny", messages=ASK, tools=[WEATHER])
    assert called.choices[0].finish_reason == "tool_calls"
    assert plain.choices[0].message.tool_calls is None


async def test_json_is_answered_where_json_is_asked_for(vllm: Vllm) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": WEATHER["function"]["parameters"]}}
    answer = await vllm.client.chat.completions.create(model="tiny", messages=ASK, response_format=wanted)
    assert json.loads(answer.choices[0].message.content or "") == {"city": "simulated city"}


async def test_completions_take_texts_and_token_ids(vllm: Vllm) -> None:
    ids = (await vllm.post("/tokenize", {"prompt": "Once upon"})).json()["tokens"]
    from_text = await vllm.client.completions.create(model="tiny", prompt="Once upon", echo=True)
    from_ids = await vllm.client.completions.create(model="tiny", prompt=ids, echo=True)
    assert from_text.choices[0].text.startswith("Once upontiny here")
    assert from_text.choices[0].text == from_ids.choices[0].text
    assert from_text.usage is not None
    assert from_text.usage.completion_tokens == 16, "vLLM's default"


async def test_several_prompts_and_a_stream_of_completions(vllm: Vllm) -> None:
    many = await vllm.client.completions.create(model="tiny", prompt=["a", "b"], n=2, max_tokens=5)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
    stream = await vllm.client.completions.create(
        model="tiny", prompt="a", max_tokens=5, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].text for c in chunks if c.choices) == many.choices[0].text
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5


async def test_responses_whole_and_as_events(vllm: Vllm) -> None:
    whole = await vllm.client.responses.create(model="tiny", input="Hello", instructions="Be brief.")
    assert whole.status == "completed"
    assert whole.output_text.startswith('tiny here, simulated. You said: "Hello".')
    assert whole.usage is not None
    assert whole.usage.output_tokens > 0
    events = [
        event
        async for event in await vllm.client.responses.create(
            model="tiny", input="Hello", instructions="Be brief.", stream=True
        )
    ]
    assert [event.type for event in events[:4]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == whole.output_text


async def test_a_response_that_was_cut_is_incomplete(vllm: Vllm) -> None:
    cut = await vllm.client.responses.create(model="tiny", input="Hello", max_output_tokens=3)
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    with pytest.raises(openai.NotFoundError):
        await vllm.client.responses.retrieve(cut.id)


async def test_embeddings_of_a_pooling_model(start_vllm: StartVllm) -> None:
    pooling = await start_vllm("--runner", "pooling")
    found = await pooling.client.embeddings.create(model="tiny", input=["a ship", "a ship"], dimensions=64)
    assert [len(item.embedding) for item in found.data] == [64, 64]
    assert found.data[0].embedding == found.data[1].embedding
    assert sum(value * value for value in found.data[0].embedding) == pytest.approx(1, abs=1e-5)
    plain = await pooling.client.embeddings.create(model="tiny", input="a ship", dimensions=64, encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(found.data[0].embedding, abs=1e-6)
    with pytest.raises(openai.BadRequestError, match="384 dimensions"):
        await pooling.client.embeddings.create(model="tiny", input="x", dimensions=385)


async def test_scores_and_reranking(start_vllm: StartVllm) -> None:
    pooling = await start_vllm("--runner", "pooling")
    documents = ["tax report", "a red ship in the harbour", "a ship"]
    ranked = (await pooling.post("/v1/rerank", {"query": "red ship", "documents": documents, "top_n": 2})).json()
    assert [result["index"] for result in ranked["results"]] == [1, 2]
    scores = (await pooling.post("/score", {"text_1": "red ship", "text_2": documents})).json()["data"]
    assert max(scores, key=lambda item: item["score"])["index"] == 1
    uneven = await pooling.post("/score", {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]})
    assert uneven.status_code == 400


async def test_a_model_has_the_routes_of_its_kind_only(vllm: Vllm, start_vllm: StartVllm) -> None:
    pooling = await start_vllm("--runner", "pooling")
    with pytest.raises(openai.NotFoundError):
        await vllm.client.embeddings.create(model="tiny", input="x")
    with pytest.raises(openai.NotFoundError):
        await pooling.client.chat.completions.create(model="tiny", messages=ASK)


async def test_tokenize_and_back(vllm: Vllm) -> None:
    made = (await vllm.post("/tokenize", {"prompt": "Grüße, world", "return_token_strs": True})).json()
    assert made["count"] == len(made["tokens"]) == len(made["token_strs"])
    assert made["max_model_len"] == 32_768
    assert (await vllm.post("/detokenize", {"tokens": made["tokens"]})).json() == {"prompt": "Grüße, world"}
    assert (await vllm.post("/detokenize", {"tokens": [7]})).status_code == 400


async def test_models_version_and_load(start_vllm: StartVllm) -> None:
    vllm = await start_vllm("--served-model-name", "tiny", "small", "--max-model-len", "4k")
    models = [model async for model in vllm.client.models.list()]
    assert [model.id for model in models] == ["tiny", "small"]
    assert models[0].model_extra is not None
    assert (models[0].owned_by, models[0].model_extra["root"]) == ("vllm", "org/tiny-1B")
    assert models[0].model_extra["max_model_len"] == 4000
    other_name = await vllm.client.chat.completions.create(model="small", messages=ASK)
    assert other_name.model == "small"
    assert (await vllm.get("/version")).json() == {"version": "0.33.0"}
    assert (await vllm.get("/load")).json() == {"server_load": 0}
    assert (await vllm.get("/ping")).status_code == 200


async def test_errors_have_vllms_form_and_become_the_clients_exceptions(vllm: Vllm) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await vllm.client.chat.completions.create(model="gpt-7", messages=ASK)
    assert unknown.value.body == {
        "message": "The model `gpt-7` does not exist. Valid aliases: tiny.", "type": "NotFoundError", "param": "model", "code": 404
    }  # fmt: skip
    with pytest.raises(openai.BadRequestError, match="maximum context length is 32768 tokens"):
        await vllm.client.chat.completions.create(model="tiny", messages=ASK, max_tokens=40_000)
    with pytest.raises(openai.BadRequestError, match="even without any output tokens"):
        await vllm.client.completions.create(model="tiny", prompt="a b " * 20_000)
    invalid = await vllm.post("/v1/chat/completions", {"model": "tiny"})
    assert invalid.status_code == 400
    assert invalid.json()["error"]["param"] == "body.messages"
    assert "Field required" in invalid.json()["error"]["message"]
    assert (await vllm.post("/v1/nothing", {})).json()["error"] == {
        "message": "Not Found", "type": "Not Found", "param": None, "code": 404
    }  # fmt: skip


async def test_a_body_that_is_not_json(vllm: Vllm) -> None:
    import httpx

    async with httpx.AsyncClient(trust_env=False) as client:
        url = vllm.url + "/v1/chat/completions"
        assert (await client.post(url, content=b"{}", headers={"Content-Type": "text/plain"})).status_code == 415
        assert (await client.post(url, content=b"{", headers={"Content-Type": "application/json"})).status_code == 400


async def test_api_keys_guard_v1_and_nothing_else(start_vllm: StartVllm) -> None:
    vllm = await start_vllm("--api-key", "right", "also-right")
    with pytest.raises(openai.AuthenticationError):
        await vllm.client.models.list()
    for key in ("right", "also-right"):
        async with openai_client(vllm.url, key) as client:
            assert [model.id async for model in client.models.list()] == ["tiny"]
    for path in ("/health", "/metrics", "/version"):
        assert (await vllm.get(path)).status_code == 200
    assert (await vllm.post("/tokenize", {"prompt": "x"})).status_code == 200, "open in vLLM, so open here"


async def test_over_the_queue_limit_requests_are_refused_with_503(start_vllm: StartVllm) -> None:
    slow = Settings(output_tokens_per_second=20, prefill_overhead_seconds=0)
    vllm = await start_vllm("--max-num-seqs", "1", "--max-num-queued-reqs", "1", settings=slow)
    ask = vllm.client.chat.completions.create
    held = [asyncio.create_task(ask(model="tiny", messages=ASK, max_tokens=500)) for _ in range(2)]
    while vllm.service.engine.unfinished < 2:
        await asyncio.sleep(0.01)
    with pytest.raises(openai.InternalServerError) as refused:
        await ask(model="tiny", messages=ASK)
    assert refused.value.status_code == 503
    assert "currently busy" in str(refused.value)
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    assert vllm.service.metrics.registry.get_sample_value(
        "vllm:admission_rejections_total", {"model_name": "tiny", "reason": "max_num_queued_reqs"}
    ) == 1  # fmt: skip


async def test_a_client_that_goes_away_ends_its_generation(start_vllm: StartVllm) -> None:
    vllm = await start_vllm(settings=Settings(output_tokens_per_second=50))
    stream = await vllm.client.chat.completions.create(model="tiny", messages=ASK, max_tokens=5000, stream=True)
    await anext(aiter(stream))
    assert vllm.service.engine.unfinished == 1
    await stream.close()
    await asyncio.wait_for(vllm.service.engine.wait_idle(), 5)
    assert await vllm.metric("vllm:request_success_total", finished_reason="abort") == 1


async def test_a_request_id_comes_back(start_vllm: StartVllm) -> None:
    vllm = await start_vllm("--enable-request-id-headers")
    answer = await vllm.post("/v1/completions", {"prompt": "x", "max_tokens": 1}, **{"X-Request-Id": "mine"})
    assert answer.headers["x-request-id"] == "mine"
    assert answer.json()["id"] == "cmpl-mine"


async def test_a_dead_engine_fails_all_requests_and_health(start_vllm: StartVllm) -> None:
    vllm = await start_vllm(settings=Settings(output_tokens_per_second=20))
    ask = vllm.client.chat.completions.create
    running = asyncio.create_task(ask(model="tiny", messages=ASK, max_tokens=500))
    while not vllm.service.engine.running:
        await asyncio.sleep(0.01)
    vllm.service.die()
    with pytest.raises(openai.InternalServerError, match="The server had an error"):
        await running
    with pytest.raises(openai.InternalServerError) as refused:
        await ask(model="tiny", messages=ASK)
    assert refused.value.status_code == 500
    assert (await vllm.get("/health")).status_code == 503
