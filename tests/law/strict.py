"""Reading messages of which every field must be known: what is not understood is a finding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Json", "Unreadable", "only", "typed"]

Json = Mapping[str, Any]


class Unreadable(AssertionError):
    """The files say something that this reader does not know the meaning of."""


def only(message: Json, where: str, *known: str) -> Json:
    unknown = sorted(message.keys() - set(known))
    if unknown:
        raise Unreadable(f"{where} says {', '.join(unknown)}")
    return message


def typed(message: Json, where: str, type_name: str, *known: str) -> Json:
    if message.get("@type") != f"type.googleapis.com/{type_name}":
        raise Unreadable(f"{where} is a {message.get('@type')}")
    return only(message, where, "@type", *known)
