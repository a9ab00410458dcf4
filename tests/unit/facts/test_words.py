"""Law 6 for the words of others: no credential that we can know for one stands in what we quote, and what people need stays."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.facts.words import REDACTED, redact

CANARY = "c4naryZq7Xw93LmKd82Tb"
LEAKS = [
    # What engines, hubs and clients print when they die.
    "401 Client Error: Unauthorized for url: https://huggingface.co/api/models/org/m (token hf_{})",
    "OSError: bad token hf_{}",
    "requests.exceptions.ProxyError: https://user:{}@proxy.example.com:3128/",
    "redis.exceptions.ConnectionError: redis://:{}@cache:6379/0",
    "curl: Authorization: Bearer {}",
    "headers: {{'authorization': 'Bearer {}', 'accept': 'application/json'}}",
    "Authorization: Basic {}==",
    "openai.AuthenticationError: Incorrect API key provided: sk-proj-{}",
    "remote: HTTP Basic: Access denied: glpat-{}",
    "fatal: could not read from ghp_{}",
    "HF_TOKEN={} is not valid",
    "environment: HUGGING_FACE_HUB_TOKEN: {}",
    '{{"api_key": "{}", "model": "m"}}',
    "config: {{'api-key': '{}'}}",
    "AWS_SECRET_ACCESS_KEY={}",
    "password={}",
    "Password: {}",
    "db_passwd: '{}'",
    "client_secret={}&grant_type=client_credentials",
    "vllm serve m --api-key {} --port 8000",
    "vllm serve m --hf-token={}",
    "error: unrecognized arguments: --ssl-password {}",
    "download of https://cdn.example.com/w.safetensors?Expires=1&Signature={}&Key-Pair-Id=K1 failed",
    "GET https://bucket.example.com/w?X-Amz-Credential={}%2Fus&X-Amz-Date=2026 403",
    "https://account.example.net/c/w?sv=2024&sig={}",
    "https://hub.example.com/api?token={}",
    "Unauthorized: eyJhbGciOiJSUzI1NiJ9.{}.{}",
    "-----BEGIN PRIVATE KEY-----\n{}\n{}\n-----END PRIVATE KEY-----",
    "-----BEGIN RSA PRIVATE KEY----- {} {}",
    # What the API server quotes of a value that it refuses.
    'spec.template.spec.containers[0].env[1].value: Invalid value: "HF_TOKEN={}": must be short',
]
HARMLESS = [
    "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`.",
    'MountVolume.SetUp failed for volume "w" : secret "hf-token" not found',
    "couldn't find key token in Secret ml/hf-token",
    'secrets "hf-token" is forbidden: User "u" cannot get resource "secrets"',
    "Invalid user token.",
    "SyntaxError: unexpected token: integer",
    "max_tokens: 4096, max_num_batched_tokens=8192",
    "KeyError: 'api_key'",
    "spec.model.secretRef.key: is not a key of a Secret",
    "Bearer authentication is required",
    "exceeded quota: gpus, requested: requests.nvidia.com/gpu=8, used: requests.nvidia.com/gpu=0, limited: 4",
    "0/3 nodes are available: 1 node(s) had untolerated taint {key: value}, 2 Insufficient nvidia.com/gpu.",
    "see https://docs.example.com/en/latest?page=2 and http://10.0.0.1:8000/health",
    "image registry.example.com:5000/vllm/vllm-openai@sha256:0123456789abcdef cannot be pulled",
    "Revision 1605565b47bb9346c5515c34102e054115b4f98b of hf://meta-llama/Llama-3.1-8B-Instruct",
    "sk-1 is a Service and task-runner a pod",
    "the flag --tokenizer-mode auto and --tokenizer mistralai/m",
]


@pytest.mark.parametrize("words", LEAKS)
def test_a_credential_is_not_repeated(words: str) -> None:
    said = words.format(*[CANARY] * words.count("{}"))
    assert CANARY in said
    shown = redact(said)
    assert CANARY not in shown
    assert REDACTED in shown


@pytest.mark.parametrize("words", HARMLESS)
def test_what_is_no_credential_stays_as_it_is(words: str) -> None:
    assert redact(words) == words


def test_what_stands_around_it_stays() -> None:
    said = f"401 for https://me:{CANARY}@hub/m with HF_TOKEN={CANARY}, see --api-key {CANARY} --port 80"
    assert redact(said) == (
        f"401 for https://{REDACTED}@hub/m with HF_TOKEN={REDACTED}, see --api-key {REDACTED} --port 80"
    )


@given(st.text(max_size=60), st.sampled_from([words for words in LEAKS if "{}" in words]), st.text(max_size=60))
def test_the_quick_look_misses_nothing_that_the_patterns_would_find(before: str, words: str, after: str) -> None:
    said = f"{before} {words.format(*[CANARY] * 4)} {after}"
    assert CANARY not in redact(said)


@given(st.text(max_size=200) | st.lists(st.sampled_from([*LEAKS, *HARMLESS, " ", "\n"]), max_size=4).map("".join))
def test_twice_is_once(words: str) -> None:
    assert redact(redact(words)) == redact(words)


SLOW = ("a", "://", "eyJ", "token", "token:", "-----BEGIN PRIVATE KEY", "--key", "--", "password= ", "AKIA")


@pytest.mark.parametrize("piece", SLOW)
def test_a_hostile_message_takes_no_time_to_speak_of(piece: str) -> None:
    """In proportion to its length, that is: ten times the longest termination message."""
    started = time.process_time()
    redact(piece * (40_000 // len(piece)))
    assert time.process_time() - started < 20.0
