"""LoRA adapters of the simulated vLLM: which it takes, what it calls them, and that nobody else is served by their names."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from tests.unit.sim_engine.servers import StartVllm
from tests.unit.sim_engine.test_vllm_command_line import configure, parsed

from fairlead_sim.vllm.adapters import Adapter
from fairlead_sim.vllm.flags import CommandLineError

ASK: Any = [{"role": "user", "content": "Who are you?"}]
LORA = ("--enable-lora", "--lora-modules", "acme=/adapters/acme", "hf=org/adapter")


@pytest.mark.parametrize(
    ("said", "adapters"),
    [
        ("acme=/a", (Adapter("acme", "/a"),)),
        ("acme=/a other=org/b", (Adapter("acme", "/a"), Adapter("other", "org/b"))),
        (
            '{"name":"acme","path":"/a","base_model_name":"m","is_3d_lora_weight":true}',
            (Adapter("acme", "/a", "m"),),
        ),
        ('{"name":"acme","path":"/a"} other=/b', (Adapter("acme", "/a"), Adapter("other", "/b"))),
        ("", ()),
    ],
)
def test_both_ways_to_name_an_adapter(said: str, adapters: tuple[Adapter, ...]) -> None:
    config = configure(f"m --enable-lora --lora-modules {said}")
    assert config.adapters == adapters
    assert not {"lora_modules", "enable_lora"} & set(config.without_effect)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("acme", "Invalid JSON format for --lora-modules: acme"),
        ("a=/a,b=/b", "Invalid JSON format for --lora-modules: a=/a,b=/b"),
        ('{"name":"acme"}', "Invalid fields for --lora-modules"),
        ('{"name":"acme","path":"/a","rank":8}', "Invalid fields for --lora-modules"),
    ],
)
def test_what_ends_vllm_with_usage(said: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(f"m --lora-modules {said}")
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_second_equals_sign_is_an_exception() -> None:
    with pytest.raises(CommandLineError, match="too many values to unpack"):
        parsed("m --lora-modules acme=/a=b")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--lora-modules acme=/a", "Use --enable-lora to enable LoRA"),
        ("--enable-lora --lora-modules acme=/a acme=/b", "'acme' has already been loaded"),
        ("--enable-lora --lora-modules acme=", "'lora_path' must be provided"),
    ],
)
def test_adapters_that_cannot_be_loaded_end_the_start(line: str, message: str) -> None:
    with pytest.raises(Exception, match=message) as refused:
        configure(f"m {line}")
    assert type(refused.value).__name__ == "StartupError"


async def test_models_lists_adapters_with_their_parent(start_vllm: StartVllm) -> None:
    vllm = await start_vllm(*LORA[:3], '{"name": "other", "path": "/o", "base_model_name": "no-such"}')
    cards = (await vllm.get("/v1/models")).json()["data"]
    told = [(card["id"], card["root"], card["parent"], card["max_model_len"]) for card in cards]
    assert told == [
        ("tiny", "org/tiny-1B", None, 32_768),
        ("acme", "/adapters/acme", "tiny", None),
        ("other", "/o", "tiny", None),
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_adapter_answers_under_its_name(start_vllm: StartVllm, stream: bool) -> None:
    vllm = await start_vllm(*LORA)
    if stream:
        chunks = [c async for c in await vllm.client.chat.completions.create(model="acme", messages=ASK, stream=True)]
        model, said = {chunk.model for chunk in chunks}, "".join(c.choices[0].delta.content or "" for c in chunks)
    else:
        answer = await vllm.client.chat.completions.create(model="acme", messages=ASK)
        model, said = {answer.model}, answer.choices[0].message.content or ""
    assert model == {"acme"}
    assert said.startswith("acme here, simulated.")


async def test_completions_and_responses_know_adapters_too(start_vllm: StartVllm) -> None:
    vllm = await start_vllm(*LORA)
    completed = await vllm.client.completions.create(model="hf", prompt="x")
    responded = await vllm.client.responses.create(model="hf", input="x")
    assert (completed.model, responded.model) == ("hf", "hf")
    assert completed.choices[0].text.startswith("hf here")
    assert responded.output_text.startswith("hf here")


async def test_other_names_are_not_found_and_the_base_answers_as_itself(start_vllm: StartVllm) -> None:
    vllm = await start_vllm(*LORA)
    for name in ("nobody", "acm", "/adapters/acme"):
        with pytest.raises(openai.NotFoundError):
            await vllm.client.chat.completions.create(model=name, messages=ASK)
    answer = await vllm.client.chat.completions.create(model="tiny", messages=ASK)
    assert (answer.choices[0].message.content or "").startswith("tiny here")


async def test_a_prompt_that_the_model_has_computed_is_new_to_an_adapter(start_vllm: StartVllm) -> None:
    vllm = await start_vllm(*LORA, "--enable-prompt-tokens-details")
    long: Any = [{"role": "user", "content": "a b c d " * 40}]

    async def cached(model: str) -> int:
        answer = await vllm.client.chat.completions.create(model=model, messages=long, max_tokens=1)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        return answer.usage.prompt_tokens_details.cached_tokens or 0

    assert [await cached(model) for model in ("tiny", "acme", "hf")] == [0, 0, 0]
    assert all([await cached(model) > 0 for model in ("tiny", "acme", "hf")])
