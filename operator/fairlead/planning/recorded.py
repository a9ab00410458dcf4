"""Pod templates as a Deployment's annotation holds them, so that a newer operator can keep them (law 8)."""

from __future__ import annotations

import base64
import json
import zlib
from hashlib import blake2b
from typing import Any

import orjson

from fairlead.api.names import ANNOTATION_RESTARTED_AT

__all__ = ["decode_template", "digest_record", "encode_template", "with_restart"]

Json = dict[str, Any]
#: A recorded template is some kilobytes; more than this was not written by us.
_MAX_TEMPLATE_BYTES = 1_000_000


def encode_template(template: Json) -> str:
    """As it is recorded: JSON with sorted keys, packed, in base64. Another zlib may pack the same template differently."""
    text = orjson.dumps(template, option=orjson.OPT_SORT_KEYS)
    # A window of 4 KiB: the usual one of 32 takes 256 KiB of memory and longer than the packing.
    packer = zlib.compressobj(9, zlib.DEFLATED, 12, 5)
    return base64.b64encode(packer.compress(text) + packer.flush()).decode()


def decode_template(encoded: str) -> Json | None:
    """The recorded template, or None when it is not one of ours: somebody edited the annotation."""
    try:
        decompressor = zlib.decompressobj()
        text = decompressor.decompress(base64.b64decode(encoded, validate=True), _MAX_TEMPLATE_BYTES)
        template = json.loads(text)
    except (ValueError, zlib.error):
        return None
    whole = decompressor.eof and isinstance(template, dict) and {"metadata", "spec"} == set(template)
    if not whole or not all(isinstance(part, dict) for part in template.values()):
        return None
    return template if template["spec"].get("containers") else None


def digest_record(encoded: str) -> bytes:
    """Of a record, to compare it without keeping it."""
    return blake2b(encoded.encode(), digest_size=16).digest()


def with_restart(template: Json, restarted_at: str) -> Json:
    """The same pods, made anew: `kubectl annotate … fairlead.dev/restartedAt=…`."""
    metadata = template["metadata"]
    annotations = {**(metadata.get("annotations") or {}), ANNOTATION_RESTARTED_AT: restarted_at}
    return {**template, "metadata": {**metadata, "annotations": annotations}}
