"""What a provider file must hold. Unknown keys are refused: a typo must not become a provider without authentication.

Everything that the gateway, the docs and the policy need to know about a provider is here and nowhere else; nothing is
here that none of them acts on.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

__all__ = [
    "PLACEHOLDER",
    "REGION",
    "AdditionalCredential",
    "Authentication",
    "BaseURL",
    "Operation",
    "Overload",
    "Parameter",
    "ProviderDefinition",
    "Quirks",
    "Quota",
    "Unsupported",
    "Verified",
]

#: The parameter that has a field of its own in the CR, `provider.region`.
REGION: Final = "region"
PLACEHOLDER: Final = re.compile(r"\{([A-Za-z]+)\}")

HeaderName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
Status = Annotated[int, Field(ge=400, le=599)]
UpstreamPath = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._-]+)+$")]


class Operation(StrEnum):
    """What the gateway lets pass; everything else is 404. The value is the word that provider files use."""

    CHAT_COMPLETIONS = "chatCompletions"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    RERANK = "rerank"
    MESSAGES = "messages"
    MODELS = "models"

    @property
    def path(self) -> str:
        """The gateway's own path, such as /v1/chat/completions."""
        return "/v1/chat/completions" if self is Operation.CHAT_COMPLETIONS else f"/v1/{self.value}"

    @property
    def method(self) -> str:
        """The only HTTP method with which it is called."""
        return "GET" if self is Operation.MODELS else "POST"


class Verified(StrEnum):
    """What address and authentication were checked against: stored copies of the provider's documentation or client
    libraries that call it (`documentation`), or notes of this project and third parties only (`research note`). Nobody
    called the provider; `sources` say which copies."""

    DOCUMENTATION = "documentation"
    RESEARCH_NOTE = "research note"


class ProviderModel(BaseModel):
    """camelCase in YAML, frozen, unknown keys refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


class Parameter(ProviderModel):
    """A part of the provider's address that the user gives: `region` as provider.region, any other in
    provider.parameters. `pattern` must match the whole value."""

    name: Annotated[str, Field(pattern=r"^[a-z][A-Za-z]*$")]
    required: bool
    pattern: str
    example: str
    description: str

    @model_validator(mode="after")
    def _example_fits(self) -> Parameter:
        if not re.fullmatch(self.pattern, self.example):
            raise ValueError(f"parameter {self.name}: the example does not match its pattern")
        return self


class BaseURL(ProviderModel):
    """An address with `{parameter}` in it. With `region` (a pattern) it is for those regions, without for no region."""

    url: Annotated[str, Field(pattern=r"^https://[a-z0-9.{}A-Z-]+(/[A-Za-z0-9._{}-]+)*$")]
    region: str | None = None

    @property
    def placeholders(self) -> frozenset[str]:
        """Names of the parameters that it needs."""
        return frozenset(PLACEHOLDER.findall(self.url))


class AdditionalCredential(ProviderModel):
    """A second header whose value is another key of the same Secret."""

    header: HeaderName
    prefix: str = ""
    secret_key: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]


class Authentication(ProviderModel):
    """How the provider knows the caller: `header` carries `prefix` and then the value of provider.secretRef.

    `headers` are constant and no secret. `credential` says what the Secret holds, for the docs.
    """

    header: HeaderName = "authorization"
    prefix: str = "Bearer "
    additional: tuple[AdditionalCredential, ...] = ()
    headers: dict[HeaderName, str] = Field(default_factory=dict)
    credential: str


class Quirks(ProviderModel):
    """Where a provider differs from OpenAI in a way that the gateway acts on.

    `stores_by_default`: endpoints that keep what they got unless the request says `store: false`, also where that is not known of the
    Responses API. `stream_usage`: a stream reports its tokens when `stream_options.include_usage` asks; false also where
    that is not known, so that no provider gets a field that it refuses.
    """

    stores_by_default: tuple[Operation, ...] = (Operation.RESPONSES,)
    stream_usage: bool = False


class Quota(ProviderModel):
    """Signs that this account has no more to give now: another attempt here is useless, the next target is not.

    `retry_after_headers` say when it may be tried again (seconds; names ending in -ms: milliseconds),
    `remaining_headers` how much is left; both only if the answer has them.
    """

    statuses: tuple[Status, ...] = (429,)
    retry_after_headers: tuple[HeaderName, ...] = ()
    remaining_headers: tuple[HeaderName, ...] = ()


class Overload(ProviderModel):
    """Statuses with which the provider says that it is overloaded, whoever asks."""

    statuses: tuple[Status, ...] = (503,)


class Unsupported(ProviderModel):
    """Why the provider cannot be a backend, in one sentence, and what can be used instead."""

    reason: Annotated[str, Field(min_length=20)]
    alternative: Annotated[str, Field(min_length=20)]


class ProviderDefinition(ProviderModel):
    """One provider file.

    `base_urls`: the first that fits the region is used; none: the user gives provider.baseURL. `endpoints` are below
    the base URL; `host_endpoints` are below the host and only served at the provider's own address, not below a user's
    baseURL. What neither lists is not served. `sources`: what was checked; `notes`: what a user should know.
    """

    name: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$")]
    title: str
    documentation: Annotated[str, Field(pattern=r"^https://")]
    verified: Verified
    sources: Annotated[tuple[str, ...], Field(min_length=1)]
    base_urls: tuple[BaseURL, ...] = Field(default=(), alias="baseURLs")
    parameters: tuple[Parameter, ...] = ()
    authentication: Authentication
    endpoints: dict[Operation, UpstreamPath] = Field(default_factory=dict)
    host_endpoints: dict[Operation, UpstreamPath] = Field(default_factory=dict)
    quirks: Quirks = Quirks()
    quota: Quota = Quota()
    overload: Overload = Overload()
    unsupported: Unsupported | None = None
    notes: tuple[str, ...] = ()

    @property
    def operations(self) -> list[Operation]:
        """What it serves, in the order of `Operation`."""
        return [operation for operation in Operation if operation in {*self.endpoints, *self.host_endpoints}]

    @field_validator("parameters")
    @classmethod
    def _names_are_unique(cls, value: tuple[Parameter, ...]) -> tuple[Parameter, ...]:
        if len({parameter.name for parameter in value}) != len(value):
            raise ValueError("a parameter is declared twice")
        return value

    @model_validator(mode="after")
    def _addresses_and_parameters_agree(self) -> ProviderDefinition:
        declared = {parameter.name: parameter for parameter in self.parameters}
        for entry in self.base_urls:
            wanted = declared.keys() - {REGION}
            if entry.placeholders - {REGION} != wanted:
                raise ValueError(f"{entry.url}: needs {sorted(entry.placeholders)}, declared are {sorted(wanted)}")
            if REGION in entry.placeholders and entry.region is None:
                raise ValueError(f"{entry.url}: says {{region}} without a pattern of regions")
        if any(entry.region for entry in self.base_urls) != (REGION in declared):
            raise ValueError("region is declared exactly when an address depends on it")
        for name, parameter in declared.items():
            optional = name == REGION and any(entry.region is None for entry in self.base_urls)
            if parameter.required == optional:
                raise ValueError(f"parameter {name}: required says {parameter.required}, the addresses say otherwise")
        return self

    @model_validator(mode="after")
    def _serves_something_or_says_why_not(self) -> ProviderDefinition:
        if bool(self.operations) == bool(self.unsupported):
            raise ValueError("either endpoints or the reason why there are none")
        if self.endpoints.keys() & self.host_endpoints.keys():
            raise ValueError("an operation has one path")
        if self.host_endpoints and not self.base_urls:
            raise ValueError("hostEndpoints need an address of the provider's own")
        return self
