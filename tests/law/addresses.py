"""Where a backend is and how it must be called: the oracle's own copy, taken from the providers' documentation. Imports nothing of
fairlead.

Few providers, but each way of calling that there is: Bearer and other headers, constant headers, regions and parameters in the
host, endpoints beside the base path, ports, own authorities, IP addresses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

__all__ = [
    "BAD_HOSTS",
    "Facts",
    "Hosts",
    "hosts_of",
    "is_forbidden_address",
    "local_facts",
    "provider_facts",
    "wanted_keys",
]

Json = Mapping[str, Any]
NAMESPACE: Final = "ml"
#: "loopback, link-local, private literals and the API server": as the host of a URL.
BAD_HOSTS: Final = (
    "127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.1.2.3", "192.168.7.7", "172.16.0.9", "[fd00::1]", "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local", "metadata.google.internal",
)  # fmt: skip
DEFAULT_AUTHORITIES: Final = "/etc/ssl/certs/ca-certificates.crt"


class Facts(NamedTuple):
    """All that is observable of one request to a backend. `tls`: SNI, kind of name, name, authorities; `credentials`: header, prefix,
    file; `leaks`: headers of ours that would leave with it."""

    addresses: tuple[tuple[str, int], ...]
    host: str
    path: str
    model: str
    access: str
    tls: tuple[str | None, str, str, str] | None
    credentials: tuple[tuple[str, str, str], ...]
    headers: tuple[tuple[str, str], ...]
    leaks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hosts:
    """Of a provider, without the brackets of an IPv6 address."""

    host: str
    port: int
    base: str


@dataclass(frozen=True, slots=True)
class _Provider:
    url: str
    endpoints: tuple[str, ...]
    beside: Mapping[str, str]
    header: str = "authorization"
    prefix: str = "Bearer "
    headers: tuple[tuple[str, str], ...] = ()


_PROVIDERS: Final[Mapping[str, _Provider]] = {
    "OpenAI": _Provider(
        "https://{region}api.openai.com/v1", ("chat/completions", "completions", "embeddings", "responses"), {}
    ),
    "Anthropic": _Provider(
        "https://api.anthropic.com/v1",
        ("chat/completions", "messages"),
        {},
        header="x-api-key",
        prefix="",
        headers=(("anthropic-version", "2023-06-01"),),
    ),
    "AzureOpenAI": _Provider(
        "https://{resource}.openai.azure.com/openai/v1",
        ("chat/completions", "embeddings", "responses"),
        {},
        header="api-key",
        prefix="",
    ),
    "Groq": _Provider("https://api.groq.com/openai/v1", ("chat/completions", "embeddings", "responses"), {}),
    "Cohere": _Provider(
        "https://api.cohere.ai/compatibility/v1", ("chat/completions", "embeddings"), {"rerank": "/v2/rerank"}
    ),
    "OpenAICompatible": _Provider("", ("chat/completions", "completions", "embeddings", "responses", "rerank"), {}),
}


def hosts_of(provider: Json) -> Hosts:
    """Where a provider of a spec is."""
    known = _PROVIDERS[provider["type"]]
    region = f"{provider['region']}." if "region" in provider else ""
    url = provider.get("baseURL") or known.url.format(region=region, **provider.get("parameters", {}))
    parts = urlsplit(url)
    assert parts.hostname is not None
    return Hosts(parts.hostname, parts.port or 443, parts.path.rstrip("/"))


def is_forbidden_address(provider: Json) -> bool:
    """Whether its host is one that only the operator can vouch for."""
    host = hosts_of(provider).host
    return host in {bad.strip("[]") for bad in BAD_HOSTS} or _is_address(host)


def wanted_keys(provider: Json) -> set[str]:
    """Keys of its Secret that are needed."""
    return {provider["secretRef"]["key"]}


def provider_facts(name: str, provider: Json, endpoint: str, model: str) -> Facts | None:
    """How it must be called for an endpoint such as /v1/embeddings; None if it does not speak it."""
    known, hosts = _PROVIDERS[provider["type"]], hosts_of(provider)
    operation = endpoint.removeprefix("/v1/")
    if operation in known.endpoints:
        path = f"{hosts.base}/{operation}"
    elif operation in known.beside and "baseURL" not in provider:
        path = known.beside[operation]
    else:
        return None
    tls, secret = provider.get("tls", {}), provider["secretRef"]
    server_name = tls.get("serverName") or hosts.host
    literal = _is_address(server_name)
    authorities = (
        f"/etc/envoy/authorities/{ca['name']}/{ca['key']}" if (ca := tls.get("caSecretRef")) else DEFAULT_AUTHORITIES
    )
    bracketed = f"[{hosts.host}]" if ":" in hosts.host else hosts.host
    return Facts(
        addresses=((hosts.host, hosts.port),),
        host=bracketed if hosts.port == 443 else f"{bracketed}:{hosts.port}",
        path=path,
        model=model,
        access="Cloud",
        tls=(None if literal else server_name, "IP_ADDRESS" if literal else "DNS", server_name, authorities),
        credentials=((known.header, known.prefix, f"/etc/envoy/providers/{secret['name']}/{secret['key']}"),),
        headers=known.headers,
    )


def local_facts(deployment: str, port: int, endpoint: str, model: str, *, is_tls: bool) -> Facts:
    """Pods of a deployment, by the headless Service (an absolute name); no credential, and no other path. One that serves TLS must show
    a certificate for the deployment's own name, by the authorities in its own Secret."""
    host, name = f"{deployment}-pods.{NAMESPACE}.svc.cluster.local.", f"{deployment}.{NAMESPACE}.svc"
    tls = (name, "DNS", name, f"/etc/envoy/authorities/tls-{deployment}/ca.crt") if is_tls else None
    return Facts(((host, port),), name, endpoint, model, "Local", tls, (), ())


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
