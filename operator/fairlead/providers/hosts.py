"""Which base URLs a route may name: https, a public host name, and nothing that could mean the cluster or the node.

A base URL is a tenant's text, and the gateway sends a key and somebody's prompt to it. So it is read by one strict
grammar of our own, not by a lenient parser whose idea of a host may differ from Envoy's, and every host that can only
be internal is refused unless the operator's `trustedHosts` lists it. What a public name resolves to is not known here
(pure core); the gateway's NetworkPolicy and resolver settings answer for that.

Errors never repeat a URL: a password may stand in it (law 6).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from fairlead.errors import RenderError

__all__ = ["HTTPS_PORT", "BaseAddress", "is_trusted", "parse_base_url"]

HTTPS_PORT: Final = 443
MAX_URL_LENGTH: Final = 2048
_MAX_HOST_LENGTH: Final = 253

#: scheme, authority and the rest. Whatever a lenient parser would forgive (tabs, backslashes, one slash) does not match.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(/[^?#]*)?([?#].*)?")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(.*))?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
#: Whatever ends so is an IPv4 address to some parser: decimal, octal, hexadecimal, with fewer than four parts.
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
_SEGMENT = re.compile(r"[A-Za-z0-9._~:+=-]+")
_DOTS = re.compile(r"\.{1,2}")

#: Top-level names (or ends) that exist only inside of somebody's network.
_INTERNAL_SUFFIXES: Final = (
    "localhost", "local", "localdomain", "internal", "intranet", "private", "corp", "home", "lan", "svc",
    "home.arpa", "test", "invalid",
)  # fmt: skip
#: First labels of the clouds' metadata services (metadata.google.internal, metadata.tencentyun.com, instance-data.…).
_METADATA_LABELS: Final = ("metadata", "instance-data")
#: Public names that resolve to whatever address their text asks for, or to loopback.
_ADDRESS_SERVICES: Final = (
    "nip.io", "sslip.io", "xip.io", "traefik.me", "localtest.me", "lvh.me", "vcap.me", "lacolhost.com", "local.gd",
)  # fmt: skip

_REMEDY_HOST: Final = "use the provider's public host name, or have the operator's trustedHosts list this host"


@dataclass(frozen=True, slots=True)
class BaseAddress:
    """A base URL, taken apart. `host` is lower case, an IPv6 address without brackets; `path` is "" or begins with a
    slash and ends without one. `is_address`: the host is an IP literal (only ever a trusted one)."""

    host: str
    port: int
    path: str
    is_address: bool


def is_trusted(host: str, trusted_hosts: Collection[str]) -> bool:
    """True when the operator's list names `host`: exactly, or by `*.suffix`, which stands for one or more labels in
    front of the suffix and not for the suffix itself. Case does not matter. An IP address is only ever named exactly.
    `*` alone names nothing.
    """
    name = host.lower()
    if not name or name.endswith("."):
        return False
    address = _parse_address(name)
    for entry in trusted_hosts:
        wanted = entry.strip().lower()
        if address is not None:
            if _parse_address(wanted) == address:
                return True
        elif wanted == name or (wanted.startswith("*.") and len(wanted) > 2 and _is_below(name, wanted[2:])):
            return True
    return False


def parse_base_url(url: str, *, path: str, trusted_hosts: Collection[str] = ()) -> BaseAddress:
    """`url` as an address that may be called. `path` is what errors call the field, in the CR's own terms.

    Raises RenderError for anything but `https://<host>[:port][/path]`, and for hosts that are not public names unless
    `trusted_hosts` names them.
    """
    if len(url) > MAX_URL_LENGTH or not re.fullmatch(r"[\x21-\x7e]+", url) or "\\" in url:
        raise RenderError(path, "is not a URL of printable ASCII characters", "write it as https://llm.example.com/v1")
    match = _URL.fullmatch(url)
    if match is None:
        raise RenderError(path, "is not a complete URL", "write it as https://llm.example.com/v1")
    scheme, authority, tail, extra = match.groups()
    if scheme.lower() != "https":
        raise RenderError(path, "is not an https URL, keys and prompts would travel in the clear", "use https://")
    if "@" in authority:
        raise RenderError(path, "carries a user name or password", "put the key into the Secret of provider.secretRef")
    if extra:
        raise RenderError(path, "carries a query or a fragment", "end the base URL with its path")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise RenderError(path, "has no host that can be read", "write it as https://llm.example.com/v1")
    host, is_address = _check_host(parts[1].lower(), path, trusted_hosts)
    return BaseAddress(host, _parse_port(parts[2], path), _parse_path(tail or "", path), is_address)


def _parse_port(text: str | None, path: str) -> int:
    if text is None:
        return HTTPS_PORT
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise RenderError(path, "has a port that is not a number from 1 to 65535", "leave the port out to use 443")
    return int(text)


def _parse_path(text: str, path: str) -> str:
    """Envoy prefixes requests with it, so it must mean the same to everybody: no escapes, dots or empty segments."""
    trimmed = text.removesuffix("/")
    for segment in trimmed.split("/")[1:]:
        if not _SEGMENT.fullmatch(segment) or _DOTS.fullmatch(segment):
            raise RenderError(
                path, "has a path with an empty, dotted or escaped segment", "write the path plainly, as /v1"
            )
    return trimmed


def _check_host(host: str, path: str, trusted_hosts: Collection[str]) -> tuple[str, bool]:
    """`host` (lower case) and whether it is an IP literal; raises RenderError when it may not be called."""
    if host.endswith("."):
        raise RenderError(path, "has a host that ends with a dot", "leave the last dot out")
    labels = host.split(".")
    if host.startswith("[") or _NUMERIC_LABEL.fullmatch(labels[-1]):
        return _check_address(host, path, trusted_hosts), True
    if len(host) > _MAX_HOST_LENGTH or not all(_LABEL.fullmatch(label) for label in labels):
        raise RenderError(path, "has a host that is not a DNS name", "use letters, digits, hyphens and dots")
    if not is_trusted(host, trusted_hosts):
        reason = _why_not_public(host, labels)
        if reason:
            raise RenderError(path, f"host {host} {reason}", _REMEDY_HOST)
    return host, False


def _check_address(host: str, path: str, trusted_hosts: Collection[str]) -> str:
    address = _parse_address(host)
    if address is None:
        raise RenderError(path, "has a host that is a number but not a plain IP address", _REMEDY_HOST)
    if not is_trusted(str(address), trusted_hosts):
        raise RenderError(path, f"host {address} is an IP address, no certificate says who answers", _REMEDY_HOST)
    return str(address)


def _parse_address(host: str) -> IPv4Address | IPv6Address | None:
    """The address in its one canonical spelling (brackets aside), else None: 0x7f.1 and 010.0.0.1 are no addresses."""
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return None if bracketed else address
    return None if address.scope_id is not None else address


def _is_below(name: str, suffix: str) -> bool:
    """True when `name` is `suffix` with at least one whole label in front."""
    return name.endswith(f".{suffix}") and len(name) > len(suffix) + 1


def _is_or_below(name: str, suffix: str) -> bool:
    return name == suffix or _is_below(name, suffix)


def _why_not_public(host: str, labels: list[str]) -> str:
    """What is wrong with a host that nobody vouched for, as the end of a sentence; "" when it can be public."""
    if any(_is_or_below(host, suffix) for suffix in _INTERNAL_SUFFIXES):
        return "is a name of an internal network"
    if len(labels) == 1:
        return "has a single label, which the cluster's search domains complete"
    if "svc" in labels[1:] or labels[:2] == ["kubernetes", "default"]:
        return "is a Service of a cluster"
    if labels[0] in _METADATA_LABELS:
        return "is a metadata service"
    if any(_is_or_below(host, suffix) for suffix in _ADDRESS_SERVICES):
        return "resolves to whatever address its text asks for"
    if any(label.startswith("xn--") for label in labels):
        return "is an internationalised name, which can look like another one"
    return ""
