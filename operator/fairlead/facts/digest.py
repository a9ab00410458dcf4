"""When two JSON values are the same: a short name for each, which every room and every process works out alike."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import orjson

__all__ = ["digest_of"]


def digest_of(body: Mapping[str, Any]) -> str:
    """128 bits over a JSON value, the same in every process and for every order of keys."""
    return blake2b(orjson.dumps(body, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()
