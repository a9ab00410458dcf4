"""What clients may send, as far as the simulator acts on it; unknown fields are allowed, as in vLLM.

A body that does not fit answers 400 with vLLM's text of pydantic's findings.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Literal, TypeVar

from aiohttp import web
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from fairlead_sim.vllm.errors import APIError


class _Request(BaseModel):
    model_config = ConfigDict(extra="allow")

    model: str | None = None


class StreamOptions(BaseModel):
    """Whether usage is streamed."""

    include_usage: bool | None = True
    continuous_usage_stats: bool | None = False


class _Generate(_Request):
    n: int | None = Field(1, ge=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    include_stop_str_in_output: bool = False
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    min_tokens: int = Field(0, ge=0)
    ignore_eos: bool = False
    temperature: float | None = Field(None, ge=0)
    request_id: str | None = None

    @property
    def stops(self) -> list[str]:
        """Stop strings."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class Function(BaseModel):
    """A tool's function."""

    model_config = ConfigDict(extra="allow")

    name: str
    parameters: dict[str, Any] | None = None


class Tool(BaseModel):
    """A tool that the model may call."""

    type: Literal["function"] = "function"
    function: Function


class NamedFunction(BaseModel):
    """The function that must be called."""

    name: str


class NamedTool(BaseModel):
    """`tool_choice` by name."""

    function: NamedFunction
    type: Literal["function"] = "function"


class ResponseFormat(BaseModel):
    """`response_format`."""

    model_config = ConfigDict(extra="allow")

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: dict[str, Any] | None = None


class ChatRequest(_Generate):
    """POST /v1/chat/completions."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    response_format: ResponseFormat | None = None


class CompletionRequest(_Generate):
    """POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool | None = False


class EmbeddingRequest(_Request):
    """POST /v1/embeddings."""

    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)


class RerankRequest(_Request):
    """POST /v1/rerank."""

    query: str
    documents: list[str | dict[str, Any]]
    top_n: int = 0


class ScoreRequest(_Request):
    """POST /score."""

    text_1: str | list[str] = Field(validation_alias=AliasChoices("text_1", "queries", "data_1"))
    text_2: str | list[str] = Field(validation_alias=AliasChoices("text_2", "documents", "data_2"))


class TokenizeRequest(_Request):
    """POST /tokenize, of a prompt or of messages."""

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    add_special_tokens: bool = True
    return_token_strs: bool = False


class DetokenizeRequest(_Request):
    """POST /detokenize."""

    tokens: list[int]


class ResponsesRequest(_Request):
    """POST /v1/responses."""

    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    stream: bool | None = False
    temperature: float | None = None
    metadata: dict[str, str] | None = None
    previous_response_id: str | None = None
    store: bool | None = True
    background: bool | None = False


_Parsed = TypeVar("_Parsed", bound=BaseModel)


async def read(request: web.Request, kind: type[_Parsed]) -> _Parsed:
    """The body as `kind`. Raises APIError (415 or 400) as vLLM answers."""
    if request.content_type != "application/json":
        raise APIError(
            "Unsupported Media Type: Only 'application/json' is allowed",
            status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            kind=HTTPStatus.UNSUPPORTED_MEDIA_TYPE.phrase,
        )
    try:
        return kind.model_validate_json(await request.read())
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError) -> APIError:
    findings = error.errors(include_url=False, include_context=False)
    lines = []
    for finding in findings[:10]:
        place = ".".join(["body", *map(str, finding["loc"])])
        shown = finding["input"]
        if isinstance(shown, (list, dict)):
            shown = f"<{type(shown).__name__} of {len(shown)} items>"
        entry = {"type": finding["type"], "loc": place, "msg": finding["msg"], "input": shown}
        lines.append(f"  {str(entry)[:1000]}")
    if len(findings) > 10:
        lines.append(f"  ...and {len(findings) - 10} more {'error' if len(findings) == 11 else 'errors'}")
    label = "error" if len(findings) == 1 else "errors"
    first = ".".join(["body", *map(str, findings[0]["loc"])])
    return APIError(
        f"{len(findings)} validation {label}:\n" + "\n".join(lines),
        status=HTTPStatus.BAD_REQUEST,
        kind=HTTPStatus.BAD_REQUEST.phrase,
        param=first,
    )
