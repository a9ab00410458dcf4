"""Provider files: all load, all say where their requests go, and the docs' table says the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from pydantic import ValidationError

from fairlead.errors import RenderError
from fairlead.providers.definition import Operation, ProviderDefinition, Verified
from fairlead.providers.endpoint import Credential, ProviderEndpoint, resolve
from fairlead.providers.loader import ProviderCatalog
from fairlead.providers.table import make_provider_notes, make_provider_table

CATALOG = ProviderCatalog.builtin()
PATH = "spec.backends[1].provider"
OWN = "https://llm.example.com/v1"
BEARER = (Credential("authorization", "Bearer ", None),)

NAMES = [
    "Anthropic", "Anyscale", "AzureOpenAI", "Beam", "Bedrock", "Cerebras", "Cohere", "DeepInfra", "DeepSeek", "Fireworks",
    "Gemini", "Groq", "Mistral", "Modal", "OpenAI", "OpenAICompatible", "OpenRouter", "Replicate", "RunPod", "SambaNova",
    "Together", "VertexAI", "XAI",
]  # fmt: skip


def at(name: str, base_url: str | None = None, **parameters: str) -> ProviderEndpoint:
    return resolve(CATALOG.get(name), path=PATH, base_url=base_url, parameters=parameters)


def urls(endpoint: ProviderEndpoint) -> dict[str, str]:
    return {operation.value: endpoint.url(operation) for operation in endpoint.paths}


def below(base: str, *operations: str) -> dict[str, str]:
    tails = {"chatCompletions": "chat/completions"}
    return {operation: f"{base}/{tails.get(operation, operation)}" for operation in operations}


CHAT, TEXT, EMBED, RESP, RANK, MSG, LIST = (
    "chatCompletions", "completions", "embeddings", "responses", "rerank", "messages", "models",
)  # fmt: skip
VERTEX = "v1/projects/my-project/locations"

URLS: list[tuple[str, dict[str, str], str | None, dict[str, str]]] = [
    ("OpenAI", {}, None, below("https://api.openai.com/v1", CHAT, TEXT, EMBED, RESP, LIST)),
    ("OpenAI", {"region": "us"}, None, below("https://us.api.openai.com/v1", CHAT, TEXT, EMBED, RESP, LIST)),
    ("Anthropic", {}, None, below("https://api.anthropic.com/v1", CHAT, MSG, LIST)),
    ("Gemini", {}, None, below("https://generativelanguage.googleapis.com/v1beta/openai", CHAT, EMBED, LIST)),
    ("VertexAI", {"project": "my-project"}, None,
     below(f"https://aiplatform.googleapis.com/{VERTEX}/global/endpoints/openapi", CHAT)),
    ("VertexAI", {"project": "my-project", "region": "global"}, None,
     below(f"https://aiplatform.googleapis.com/{VERTEX}/global/endpoints/openapi", CHAT)),
    ("VertexAI", {"project": "my-project", "region": "eu"}, None,
     below(f"https://aiplatform.eu.rep.googleapis.com/{VERTEX}/eu/endpoints/openapi", CHAT)),
    ("VertexAI", {"project": "my-project", "region": "europe-west4"}, None,
     below(f"https://europe-west4-aiplatform.googleapis.com/{VERTEX}/europe-west4/endpoints/openapi", CHAT)),
    ("Bedrock", {"region": "us-gov-west-1"}, None,
     below("https://bedrock-runtime.us-gov-west-1.amazonaws.com/openai/v1", CHAT, RESP)),
    ("Bedrock", {"region": "eu-central-1"}, None,
     below("https://bedrock-runtime.eu-central-1.amazonaws.com/openai/v1", CHAT, RESP)),
    ("AzureOpenAI", {"resource": "contoso-llm"}, None,
     below("https://contoso-llm.openai.azure.com/openai/v1", CHAT, EMBED, RESP, LIST)),
    ("Cohere", {}, None, below("https://api.cohere.ai/compatibility/v1", CHAT, EMBED)
     | {RANK: "https://api.cohere.ai/v2/rerank"}),
    ("Mistral", {}, None, below("https://api.mistral.ai/v1", CHAT, EMBED, RESP, LIST)),
    ("Mistral", {"region": "eu"}, None, below("https://api.eu.mistral.ai/v1", CHAT, EMBED, RESP, LIST)),
    ("Together", {}, None, below("https://api.together.ai/v1", CHAT, TEXT, EMBED, RANK, LIST)),
    ("Fireworks", {}, None, below("https://api.fireworks.ai/inference/v1", CHAT, TEXT, EMBED, RESP, MSG, LIST)),
    ("DeepInfra", {}, None, below("https://api.deepinfra.com/v1/openai", CHAT, TEXT, EMBED, LIST)),
    ("Groq", {}, None, below("https://api.groq.com/openai/v1", CHAT, EMBED, RESP, LIST)),
    ("Cerebras", {}, None, below("https://api.cerebras.ai/v1", CHAT, TEXT, LIST)),
    ("SambaNova", {}, None, below("https://api.sambanova.ai/v1", CHAT, TEXT, EMBED, LIST)),
    ("OpenRouter", {}, None, below("https://openrouter.ai/api/v1", CHAT, TEXT, EMBED, RESP, MSG, LIST)),
    ("XAI", {}, None, below("https://api.x.ai/v1", CHAT, TEXT, RESP, LIST)),
    ("XAI", {"region": "us"}, None, below("https://us.api.x.ai/v1", CHAT, TEXT, RESP, LIST)),
    ("DeepSeek", {}, None, below("https://api.deepseek.com", CHAT, LIST)),
    ("RunPod", {"endpoint": "0a1b2c"}, None, below("https://api.runpod.ai/v2/0a1b2c/openai/v1", CHAT, TEXT, LIST)),
    ("Anyscale", {}, OWN, below(OWN, CHAT, TEXT, EMBED, LIST)),
    ("Modal", {}, "https://acme--llm-serve.modal.run/v1/",
     below("https://acme--llm-serve.modal.run/v1", CHAT, TEXT, EMBED, RESP, RANK, LIST)),
    ("Beam", {}, "https://llm-0a1b2c3-v1.app.beam.cloud/v1",
     below("https://llm-0a1b2c3-v1.app.beam.cloud/v1", CHAT, TEXT, EMBED, RESP, RANK, LIST)),
    ("OpenAICompatible", {}, "HTTPS://LLM.Example.com:8443/v1",
     below("https://llm.example.com:8443/v1", CHAT, TEXT, EMBED, RESP, RANK, LIST)),
]  # fmt: skip


def test_every_provider_of_the_api_has_one_file() -> None:
    assert CATALOG.names == NAMES
    assert len([entry for entry in files("fairlead.providers").iterdir() if entry.name.endswith(".yaml")]) == len(NAMES)
    assert ProviderCatalog.builtin() is CATALOG, "read once"
    with pytest.raises(KeyError):
        CATALOG.get("openai")


def test_the_table_of_urls_is_complete() -> None:
    assert {name for name, _, _, _ in URLS} == {*NAMES} - {"Replicate"}


@pytest.mark.parametrize(("name", "parameters", "base_url", "expected"), URLS, ids=lambda value: str(value)[:40])
def test_requests_go_where_the_provider_documents(
    name: str, parameters: dict[str, str], base_url: str | None, expected: dict[str, str]
) -> None:
    endpoint = at(name, base_url, **parameters)
    assert urls(endpoint) == expected
    parts = urlsplit(next(iter(expected.values())))
    assert (endpoint.scheme, endpoint.host, endpoint.server_name) == ("https", parts.hostname, parts.hostname)
    assert endpoint.authority == parts.netloc
    assert endpoint.port == (parts.port or 443)
    assert {operation.value for operation in CATALOG.get(name).operations} >= endpoint.paths.keys()


def test_keys_travel_in_the_right_header() -> None:
    special: dict[str, tuple[tuple[Credential, ...], tuple[tuple[str, str], ...]]] = {
        "Anthropic": ((Credential("x-api-key", "", None),), (("anthropic-version", "2023-06-01"),)),
        "AzureOpenAI": ((Credential("api-key", "", None),), ()),
        "Modal": ((Credential("modal-key", "", None), Credential("modal-secret", "", "modal-secret")), ()),
    }
    for name in NAMES:
        if CATALOG.get(name).unsupported is None:
            endpoint = at(name, OWN)
            assert (endpoint.credentials, endpoint.headers) == special.get(name, (BEARER, ())), name


def test_what_the_gateway_acts_on() -> None:
    stores = {name for name in NAMES if CATALOG.get(name).quirks.stores_by_default}
    assert stores == {
        "AzureOpenAI", "Beam", "Bedrock", "Fireworks", "Groq", "Modal", "OpenAI", "OpenAICompatible", "XAI",
    }  # fmt: skip
    for name in NAMES:
        definition = CATALOG.get(name)
        assert 429 in definition.quota.statuses, name
        assert not {*definition.quota.statuses} & {*definition.overload.statuses}, name
        assert not {*definition.quota.statuses, *definition.overload.statuses} & {400, 401, 403, 404, 422}, name
    assert at("Anthropic").overload_statuses == (529,)
    assert at("DeepSeek").exhausted_statuses == (402, 429)
    assert at("OpenAI").retry_after_headers == ("retry-after-ms", "retry-after")
    assert not at("Cohere").stream_usage


@pytest.mark.parametrize("name", NAMES)
def test_a_file_says_what_was_checked(name: str) -> None:
    definition = CATALOG.get(name)
    assert definition.sources
    assert definition.documentation.startswith("https://")
    expected = Verified.RESEARCH_NOTE if name in ("Anyscale", "Beam") else Verified.DOCUMENTATION
    assert definition.verified is expected
    if definition.unsupported is not None:
        alternatives = [other for other in NAMES if other != name and other in definition.unsupported.alternative]
        assert alternatives, "names a type that works"
        assert all(CATALOG.get(other).unsupported is None for other in alternatives)


def test_an_unsupported_provider_is_refused_with_an_alternative() -> None:
    for base_url in (None, OWN):
        with pytest.raises(RenderError) as caught:
            at("Replicate", base_url)
        assert caught.value.path == f"{PATH}.type"
        assert "predictions" in caught.value.message
        assert "OpenAICompatible" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "base_url", "parameters", "field", "words"),
    [
        ("Bedrock", None, {}, "region", "us-east-1"),
        ("Bedrock", None, {"region": "US-EAST-1"}, "region", "not a region"),
        ("Bedrock", None, {"region": "cn-north-1"}, "region", "baseURL"),
        ("Bedrock", None, {"region": "us-iso-east-1"}, "region", "baseURL"),
        ("Bedrock", None, {"region": "us-east-1.evil.example/"}, "region", "not a region"),
        ("Bedrock", None, {"region": "us-east-1\n"}, "region", "not a region"),
        ("Bedrock", None, {"region": "us-east-1#"}, "region", "not a region"),
        ("OpenAI", None, {"region": "xx"}, "region", "baseURL"),
        ("OpenAI", None, {"region": "evil.example/"}, "region", "not a region"),
        ("Groq", None, {"region": "us"}, "region", "no parameter"),
        ("Groq", None, {"project": "x"}, "parameters.project", "no parameter"),
        ("AzureOpenAI", None, {}, "parameters.resource", "missing"),
        ("AzureOpenAI", None, {"resource": ""}, "parameters.resource", "my-resource"),
        ("AzureOpenAI", None, {"resource": "evil.example/"}, "parameters.resource", "my-resource"),
        ("AzureOpenAI", None, {"resource": "evil.example:443@a"}, "parameters.resource", "my-resource"),
        ("AzureOpenAI", None, {"resource": "a" * 65}, "parameters.resource", "my-resource"),
        ("AzureOpenAI", None, {"resource": "Contoso"}, "parameters.resource", "my-resource"),
        ("AzureOpenAI", None, {"resource": "xn--80ak6aa92e"}, "parameters.resource", "would change"),
        ("VertexAI", None, {"region": "us-central1"}, "parameters.project", "missing"),
        ("VertexAI", None, {"project": "../../x"}, "parameters.project", "not a project"),
        ("VertexAI", None, {"project": "my-project", "region": "mars"}, "region", "not a region"),
        ("VertexAI", None, {"project": "my-project", "location": "eu"}, "parameters.location", "project, region"),
        ("RunPod", None, {"endpoint": "a/../b"}, "parameters.endpoint", "not a endpoint"),
        ("RunPod", None, {"endpoint": "a%2fb"}, "parameters.endpoint", "not a endpoint"),
        ("Bedrock", OWN, {"region": "us-east-1"}, "region", "no effect beside baseURL"),
        ("OpenAICompatible", OWN, {"resource": "x"}, "parameters.resource", "no effect"),
        ("OpenAICompatible", None, {}, "baseURL", "is missing"),
        ("Anyscale", None, {}, "baseURL", "is missing"),
        ("Modal", None, {}, "baseURL", "is missing"),
        ("Beam", None, {}, "baseURL", "is missing"),
    ],
)
def test_parameters_are_judged_in_the_words_of_the_route(
    name: str, base_url: str | None, parameters: dict[str, str], field: str, words: str
) -> None:
    with pytest.raises(RenderError) as caught:
        at(name, base_url, **parameters)
    assert caught.value.path == f"{PATH}.{field}"
    assert words in f"{caught.value.message}; {caught.value.remedy}"
    assert caught.value.remedy


def test_paths_of_the_providers_own_host_are_not_offered_below_somebody_elses() -> None:
    assert Operation.RERANK in at("Cohere").paths
    assert Operation.RERANK not in at("Cohere", OWN).paths


def test_the_gateways_own_paths() -> None:
    assert [(operation.method, operation.path) for operation in Operation] == [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/responses"),
        ("POST", "/v1/rerank"),
        ("POST", "/v1/messages"),
        ("GET", "/v1/models"),
    ]


def test_an_endpoint_is_frozen_and_can_be_a_key() -> None:
    assert at("OpenAI") == at("OpenAI")
    assert len({at("OpenAI"), at("OpenAI"), at("OpenAI", region="eu")}) == 2
    with pytest.raises(TypeError):
        at("OpenAI").paths[Operation.CHAT_COMPLETIONS] = "/x"  # type: ignore[index]


def read(name: str) -> dict[str, Any]:
    text = (files("fairlead.providers") / f"{name.lower()}.yaml").read_text(encoding="utf-8")
    value: dict[str, Any] = yaml.safe_load(text)
    return value


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("OpenAI", {"quriks": {}}, "quriks"),
        ("OpenAI", {"baseURLs": [{"url": "http://api.openai.com/v1"}]}, "baseURLs"),
        ("OpenAI", {"parameters": []}, "region is declared"),
        ("Bedrock", {"parameters": []}, "region is declared"),
        ("AzureOpenAI", {"parameters": []}, "declared are"),
        ("AzureOpenAI", {"baseURLs": [{"url": "https://a.openai.azure.com/openai/v1"}]}, "declared are"),
        ("Bedrock", {"baseURLs": [{"url": "https://a.{region}.amazonaws.com"}]}, "without a pattern"),
        ("OpenAI", {"endpoints": {"imageGenerations": "/images"}}, "imageGenerations"),
        ("OpenAI", {"endpoints": {"chatCompletions": "chat"}}, "pattern"),
        ("OpenAI", {"endpoints": {}}, "either endpoints or the reason"),
        ("OpenAI", {"unsupported": {"reason": "x" * 20, "alternative": "y" * 20}}, "either endpoints or the reason"),
        ("Replicate", {"unsupported": {"reason": "it has an API of its own", "alternative": ""}}, "alternative"),
        ("Cohere", {"hostEndpoints": {"embeddings": "/v2/embed"}}, "one path"),
        ("OpenAICompatible", {"hostEndpoints": {"messages": "/v1/messages"}}, "address of the provider's own"),
        ("Groq", {"overload": {"statuses": [200]}}, "statuses"),
        ("Groq", {"verified": "surely"}, "verified"),
        ("Groq", {"authentication": {"header": "X Key", "credential": "key"}}, "header"),
    ],
)
def test_a_broken_file_is_refused(name: str, change: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        ProviderDefinition.model_validate({**read(name), **change})


def test_a_parameters_required_and_example_are_held_to_the_addresses() -> None:
    value = read("Bedrock")
    for change, words in ({"required": False}, "required says"), ({"example": "US"}, "example does not match"):
        with pytest.raises(ValidationError, match=words):
            ProviderDefinition.model_validate({**value, "parameters": [{**value["parameters"][0], **change}]})


def test_the_docs_table_has_a_row_per_provider_and_is_markdown() -> None:
    lines = make_provider_table(CATALOG).splitlines()
    assert len(lines) == 2 + len(NAMES)
    assert [re.match(r"\| \[(\w+)\]\(https://", line)[1] for line in lines[2:]] == NAMES  # type: ignore[index]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {9}
    assert "`https://{resource}.openai.azure.com/openai/v1`" in lines[2 + NAMES.index("AzureOpenAI")]
    notes = make_provider_notes(CATALOG)
    assert "- **Replicate**: " in notes
    assert "Instead: " in notes
    assert not re.search(r"<(?!br>)", make_provider_table(CATALOG) + notes), "no text that Markdown takes for HTML"
