"""A provider, resolved for one backend of a route: where its requests go, with which headers, and what answers mean."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from fairlead.errors import RenderError
from fairlead.providers.definition import PLACEHOLDER, REGION, BaseURL, Operation, Parameter, ProviderDefinition
from fairlead.providers.hosts import HTTPS_PORT, BaseAddress, parse_base_url

__all__ = ["Credential", "ProviderEndpoint", "resolve"]

#: Whatever a provider file's pattern allows, a value can never be more than one piece of one label, or of one segment.
_HOST_VALUE: Final = re.compile(r"(?!xn--)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PATH_VALUE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Credential:
    """A request header that is `prefix` and then a value of the Secret. `secret_key` None: the key that
    provider.secretRef names; else that key of the same Secret."""

    header: str
    prefix: str
    secret_key: str | None


@dataclass(frozen=True, slots=True)
class ProviderEndpoint:
    """All that a gateway needs to call a provider; no secret is in it.

    `host` is lower case (an IPv6 address without brackets); `server_name` is what TLS asks for and the certificate must
    name, None when the host is an IP address (then the certificate must name that). `paths` are whole upstream paths per
    operation; what is missing is not served. `headers` are constants to set. `exhausted_statuses` mean: not here again,
    take the next target; `overload_statuses`: the same, and count it against the endpoint's health.
    """

    provider: str
    host: str
    port: int
    base_path: str
    server_name: str | None
    credentials: tuple[Credential, ...]
    headers: tuple[tuple[str, str], ...]
    paths: Mapping[Operation, str] = field(hash=False)
    exhausted_statuses: tuple[int, ...]
    overload_statuses: tuple[int, ...]
    retry_after_headers: tuple[str, ...]
    remaining_headers: tuple[str, ...]
    stores_by_default: tuple[Operation, ...]
    stream_usage: bool
    scheme: str = "https"

    @property
    def authority(self) -> str:
        """What the Host header says: the host, with the port unless it is 443."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == HTTPS_PORT else f"{host}:{self.port}"

    def url(self, operation: Operation) -> str:
        """Where `operation` goes, as one URL. Raises KeyError when the provider does not serve it."""
        return f"{self.scheme}://{self.authority}{self.paths[operation]}"


def resolve(
    definition: ProviderDefinition,
    *,
    path: str,
    base_url: str | None,
    parameters: Mapping[str, str],
    trusted_hosts: Collection[str] = (),
) -> ProviderEndpoint:
    """The endpoint that `definition` means for one backend.

    `path` is the backend's provider in the CR's own terms, such as `spec.backends[1].provider`; errors name fields below
    it. `parameters` are provider.parameters and, as `region`, provider.region. `trusted_hosts` is the operator's list.
    Raises RenderError when the provider cannot be used, an address is not allowed, or a parameter is missing, unknown,
    malformed or without effect.
    """
    if definition.unsupported is not None:
        raise RenderError(f"{path}.type", definition.unsupported.reason, definition.unsupported.alternative)
    if base_url is not None:
        _refuse_parameters(definition, path, parameters)
        address = parse_base_url(base_url, path=f"{path}.baseURL", trusted_hosts=trusted_hosts)
    else:
        address = _own_address(definition, path, parameters)
    paths = {operation: address.path + tail for operation, tail in definition.endpoints.items()}
    if base_url is None:
        paths.update(definition.host_endpoints)
    return _make_endpoint(definition, address, paths)


def _make_endpoint(
    definition: ProviderDefinition, address: BaseAddress, paths: dict[Operation, str]
) -> ProviderEndpoint:
    authentication = definition.authentication
    return ProviderEndpoint(
        provider=definition.name,
        host=address.host,
        port=address.port,
        base_path=address.path,
        server_name=None if address.is_address else address.host,
        credentials=(
            Credential(authentication.header, authentication.prefix, None),
            *(Credential(item.header, item.prefix, item.secret_key) for item in authentication.additional),
        ),
        headers=tuple(sorted(authentication.headers.items())),
        paths=MappingProxyType({operation: paths[operation] for operation in Operation if operation in paths}),
        exhausted_statuses=definition.quota.statuses,
        overload_statuses=definition.overload.statuses,
        retry_after_headers=definition.quota.retry_after_headers,
        remaining_headers=definition.quota.remaining_headers,
        stores_by_default=definition.quirks.stores_by_default,
        stream_usage=definition.quirks.stream_usage,
    )


def _field(path: str, name: str) -> str:
    return f"{path}.{REGION}" if name == REGION else f"{path}.parameters.{name}"


def _refuse_parameters(definition: ProviderDefinition, path: str, parameters: Mapping[str, str]) -> None:
    for name in sorted(parameters):
        raise RenderError(
            _field(path, name),
            f"has no effect beside baseURL, which is the whole address of {definition.name}",
            "leave one of both out",
        )


def _own_address(definition: ProviderDefinition, path: str, parameters: Mapping[str, str]) -> BaseAddress:
    if not definition.base_urls:
        raise RenderError(
            f"{path}.baseURL",
            f"is missing, {definition.name} has no address that is the same for everybody",
            "give the https URL below which its OpenAI-compatible API begins, such as https://llm.example.com/v1",
        )
    declared = {parameter.name: parameter for parameter in definition.parameters}
    for name in sorted(parameters.keys() - declared.keys()):
        known = ", ".join(sorted(declared)) or "none"
        raise RenderError(
            _field(path, name), f"is no parameter of {definition.name}", f"leave it out; its parameters: {known}"
        )
    for name, parameter in declared.items():
        _check_value(parameter, parameters.get(name), _field(path, name), definition.name)
    entry = _choose(definition, path, parameters.get(REGION))
    return parse_base_url(_substitute(entry, path, parameters), path=f"{path}.baseURL")


def _check_value(parameter: Parameter, value: str | None, path: str, provider: str) -> None:
    if value is None:
        if parameter.required:
            raise RenderError(
                path, f"is missing, the address of {provider} needs it", f"for instance {parameter.example}"
            )
    elif not re.fullmatch(parameter.pattern, value):
        raise RenderError(path, f"is not a {parameter.name} of {provider}", f"write it like {parameter.example}")


def _choose(definition: ProviderDefinition, path: str, region: str | None) -> BaseURL:
    for entry in definition.base_urls:
        if (entry.region is None and region is None) or (
            entry.region is not None and region is not None and re.fullmatch(entry.region, region)
        ):
            return entry
    raise RenderError(
        f"{path}.{REGION}", f"is not a region of {definition.name} that fairlead knows", "give baseURL instead"
    )


def _substitute(entry: BaseURL, path: str, parameters: Mapping[str, str]) -> str:
    """The address with its parameters. A value stays inside of its label or segment, whatever its pattern allows."""
    authority, slash, tail = entry.url.removeprefix("https://").partition("/")

    def fill(text: str, allowed: re.Pattern[str]) -> str:
        def value_of(match: re.Match[str]) -> str:
            value = parameters[match[1]]
            if not allowed.fullmatch(value):
                raise RenderError(_field(path, match[1]), "would change the host or the path", "use letters and digits")
            return value

        return PLACEHOLDER.sub(value_of, text)

    return f"https://{fill(authority, _HOST_VALUE)}{slash}{fill(tail, _PATH_VALUE)}"
