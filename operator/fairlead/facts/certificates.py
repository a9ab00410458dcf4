"""What is known of the certificates that the operator issues itself. Text is PEM; keys are never shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

__all__ = ["Authority", "KeyPair", "WantedAuthority", "WantedCertificate"]


@dataclass(frozen=True, slots=True)
class Authority:
    """The operator's certificate authority, without its key. `certificates`: the one that signs, then earlier ones that are still
    trusted. None at all: nothing can be issued, and `problem` says why and what mends it."""

    certificates: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key."""

    certificate: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class WantedAuthority:
    """An authority that must be made. `retired`: certificates of earlier ones, which stay trusted."""

    not_before: datetime
    not_after: datetime
    retired: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WantedCertificate:
    """A server certificate that the operator's authority must issue: for these DNS names, from when to when."""

    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
