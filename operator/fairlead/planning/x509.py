"""Reads certificates: pure, and forgiving. What cannot be read is not there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

__all__ = ["is_issued_by", "is_valid", "names_of", "read_all", "read_pair", "to_pem"]

_BLOCK: Final = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
#: What the library raises for text and for certificates that are none, or none that it knows.
_UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.UnsupportedGeneralNameType)


def read_all(text: str) -> tuple[x509.Certificate, ...]:
    """The certificates in a PEM text that can be read, in its order."""
    found: list[x509.Certificate] = []
    for block in _BLOCK.findall(text):
        try:
            found.append(x509.load_pem_x509_certificate(block.encode()))
        except _UNREADABLE:
            continue
    return tuple(found)


def read_pair(data: Mapping[str, Any]) -> x509.Certificate | None:
    """The certificate in `tls.crt`, decoded, if `tls.key` is its key."""
    certificates = read_all(str(data.get("tls.crt", "")))
    try:
        key = load_pem_private_key(str(data.get("tls.key", "")).encode(), None).public_key()
        if not certificates:
            return None
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        is_pair = key.public_bytes(*form) == certificates[0].public_key().public_bytes(*form)
    except _UNREADABLE:
        return None
    return certificates[0] if is_pair else None


def to_pem(certificates: Iterable[x509.Certificate]) -> tuple[str, ...]:
    """Each as text that ends its last line."""
    return tuple(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)


def is_valid(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether it holds at that time."""
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the issuer's name stands in it and the issuer's key has signed it."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *_UNREADABLE):
        return False
    return True


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    """Its DNS names."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return frozenset(found.value.get_values_for_type(x509.DNSName))
    except (x509.ExtensionNotFound, x509.DuplicateExtension, *_UNREADABLE):
        return frozenset()
