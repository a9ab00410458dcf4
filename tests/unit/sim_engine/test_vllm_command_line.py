"""`vllm serve`'s command line: what vLLM's own parser takes and refuses, and what the flags mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fairlead_sim.settings import Settings
from fairlead_sim.vllm import flags
from fairlead_sim.vllm.config import EFFECTIVE, ServeConfig, StartupError, make_config

DUMPED = Path(__file__).resolve().parents[2] / "data" / "vllm" / "0.33.0.json"


def configure(line: str, settings: Settings | None = None, **environment: str) -> ServeConfig:
    listed = flags.load_flags()
    return make_config(flags.parse(["serve", *line.split()], listed), listed, environment, settings or Settings())


def parsed(line: str) -> dict[str, Any]:
    given = vars(flags.parse(["serve", *line.split()], flags.load_flags()))
    return {name: value for name, value in given.items() if value is not None}


def test_the_flags_are_those_that_vllms_own_parser_listed() -> None:
    assert json.loads(DUMPED.read_text()) == flags.load_flags()


def test_every_flag_with_an_effect_is_a_flag() -> None:
    known = {name.lstrip("-").replace("-", "_") for flag in flags.load_flags()["flags"] for name in flag["names"]}
    assert EFFECTIVE - known == {"subparser", "model_tag"}


def test_every_flag_with_an_effect_is_documented() -> None:
    text = (DUMPED.parents[3] / "docs" / "simulator.md").read_text()
    flags_ = {"--" + name.replace("_", "-") for name in EFFECTIVE - {"subparser", "model_tag"}}
    sizes = {f"--{axis}-parallel-size" for axis in ("tensor", "pipeline", "data")}
    assert sorted(flag for flag in flags_ - sizes if flag not in text) == []
    assert "and the parallel sizes" in text


def test_what_an_operator_renders() -> None:
    config = configure(
        "org/model --host 0.0.0.0 --port 8001 --served-model-name a b --max-model-len 32k --max-num-seqs 64 "
        "--tensor-parallel-size 2 --shutdown-timeout 30 --revision abc --dtype bfloat16 --quantization fp8 "
        "--kv-cache-dtype fp8 --gpu-memory-utilization 0.9 --trust-remote-code --max-num-queued-reqs 10 --runner generate"
    )
    assert (config.model, config.served_names, config.port) == ("org/model", ("a", "b"), 8001)
    assert (config.max_model_len, config.limits.max_sequences, config.shutdown_timeout_s) == (32_000, 64, 30)
    assert config.fingerprint is not None
    assert "-tp2-" in config.fingerprint
    assert set(config.without_effect) == {"dtype", "kv_cache_dtype", "trust_remote_code"}


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("m --max-model-len 32K", "max_model_len", 32_768),
        ("m --max-model-len 25.6k", "max_model_len", 25_600),
        ("m --max-model-len auto", "max_model_len", -1),
        ("m --max_num_seqs 7", "max_num_seqs", 7),
        ("m --max-num-seqs=7", "max_num_seqs", 7),
        ("m -tp 4", "tensor_parallel_size", 4),
        ("m --no-enable-prefix-caching", "enable_prefix_caching", False),
        ("m --api-key one two", "api_key", ["one", "two"]),
        ("--port 9000 --model org/m", "model_tag", "org/m"),
        ("--model=org/m --port 9000", "model_tag", "org/m"),
        ('m --speculative-config {"model":"d"}', "speculative_config", {"model": "d"}),
        ("m --compilation-config.mode 3 --compilation-config.pass_config.fuse true", "compilation_config",
         {"mode": 3, "pass_config": {"fuse": True}}),
        ("m -O3", "optimization_level", "3"),
        ("m --revision None", "revision", None),
    ],
)  # fmt: skip
def test_spellings_that_vllm_accepts(line: str, name: str, value: Any) -> None:
    assert parsed(line).get(name) == value


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("m --no-such-flag", "vllm: error: unrecognized arguments: --no-such-flag"),
        ("m --swap-space 4", "unrecognized arguments: --swap-space 4"),
        ("m --task embed", "use --runner pooling"),
        ("m --runner fast", "argument --runner: invalid choice: 'fast'"),
        ("m --port many", "argument --port: invalid int value: 'many'"),
        ("m --max-model-len 3.5K", "Did you mean to use 3.5k instead?"),
        ("m --speculative-config {", "argument --speculative-config"),
        ("m another", "unrecognized arguments: another"),
    ],
)
def test_what_ends_vllm_with_usage_and_exit_code_2(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(line)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: vllm")
    assert message in said


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--served-model-name x", "should be provided as the first positional argument"),
        ("m --config", "No config file specified"),
        ("m --config settings.json", "must be of a yaml/yml type"),
        ("--config empty.yaml", "No model specified"),
    ],
)
def test_what_vllm_refuses_with_an_exception(
    line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(flags.CommandLineError, match=message):
        parsed(line)


def test_a_config_file_gives_way_to_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(
        "model: org/from-file\nport: 9001\nmax-num-seqs: 3\ntrust-remote-code: true\nenforce-eager: false\n"
    )
    given = parsed(f"--config {file} --port 9002")
    assert given["model_tag"] == "org/from-file"
    assert (given["port"], given["max_num_seqs"], given["trust_remote_code"]) == (9002, 3, True)
    assert "enforce_eager" not in given


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("m --quantization gguf", "Unknown quantization method: gguf"),
        ("m --gpu-memory-utilization 1.2", "less than or equal to 1"),
        ("m --tensor-parallel-size 0", "greater than or equal to 1"),
        ("m --max-model-len 0", "greater than or equal to 1"),
        ("m --enable-auto-tool-choice", "requires --tool-call-parser"),
        ("m --ssl-keyfile x", "go together"),
    ],
)
def test_values_that_vllm_refuses_before_it_loads(line: str, message: str) -> None:
    with pytest.raises(StartupError, match=message):
        configure(line)


def test_a_context_that_does_not_fit_the_kv_cache_is_refused_and_auto_makes_it_fit() -> None:
    small = Settings(kv_cache_tokens=1000)
    with pytest.raises(StartupError, match="more KV cache memory"):
        configure("m --max-model-len 1001", small)
    assert configure("m --max-model-len auto", small).max_model_len == 1000


def test_a_service_called_vllm_breaks_vllm() -> None:
    with pytest.raises(StartupError, match="appears to be a URI"):
        configure("m", VLLM_PORT="tcp://10.0.0.1:8000")


def test_api_keys_come_from_the_flag_or_the_environment() -> None:
    assert configure("m", VLLM_API_KEY="secret").api_keys == ("secret",)
    assert configure("m --api-key one two", VLLM_API_KEY="secret").api_keys == ("one", "two")
    assert configure("m").api_keys == ()


@pytest.mark.parametrize(
    ("line", "pooling"),
    [
        ("org/llama-8B", False),
        ("BAAI/bge-m3", True),
        ("BAAI/bge-m3 --runner generate", False),
        ("org/llama-8B --runner pooling", True),
        ("org/llama-8B --convert embed", True),
    ],
)
def test_what_a_model_is_for(line: str, pooling: bool) -> None:
    assert configure(line).pooling is pooling


@pytest.mark.parametrize(
    ("line", "fingerprint"),
    [("--fingerprint-mode none", None), ("--fingerprint-mode custom --fingerprint-value mine", "mine")],
)
def test_fingerprints(line: str, fingerprint: str | None) -> None:
    assert configure(f"m {line}").fingerprint == fingerprint
