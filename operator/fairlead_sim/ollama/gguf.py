"""The head of GGUF files: enough to write a small valid one and to read the metadata of a real one."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"GGUF"
_VERSION = 3
_STRING, _ARRAY, _UINT64 = 8, 9, 10
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
#: A metadata value larger than this is a broken file.
_MAX_BYTES = 64 * 1024 * 1024


class NotGGUFError(ValueError):
    """The file is not a GGUF file that can be read."""


def make_header(metadata: dict[str, str | int]) -> bytes:
    """A GGUF file without tensors that carries this metadata."""
    parts = [MAGIC, struct.pack("<IQQ", _VERSION, 0, len(metadata))]
    for key, value in metadata.items():
        parts.append(_pack_string(key))
        if isinstance(value, str):
            parts += [struct.pack("<I", _STRING), _pack_string(value)]
        else:
            parts.append(struct.pack("<IQ", _UINT64, value))
    return b"".join(parts)


def _pack_string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def read_metadata(path: Path) -> dict[str, Any]:
    """Key-values of a file's head; arrays longer than five entries are empty, as Ollama shows them. NotGGUFError."""
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise NotGGUFError("invalid file magic")
        try:
            version, _tensors, count = struct.unpack("<IQQ", file.read(20))
            if version not in (2, 3):
                raise NotGGUFError(f"unsupported GGUF version {version}")
            return {_read_string(file): _read_value(file) for _ in range(count)}
        except (struct.error, UnicodeDecodeError, KeyError) as error:
            raise NotGGUFError(f"broken GGUF file: {error}") from error


def _read_string(file: BinaryIO) -> str:
    (size,) = struct.unpack("<Q", file.read(8))
    if size > _MAX_BYTES:
        raise NotGGUFError(f"a string of {size} bytes")
    return file.read(size).decode(errors="replace")


def _read_value(file: BinaryIO, kind: int | None = None) -> Any:
    if kind is None:
        (kind,) = struct.unpack("<I", file.read(4))
    if kind == _STRING:
        return _read_string(file)
    if kind != _ARRAY:
        layout = _SCALARS[kind]
        return struct.unpack(layout, file.read(struct.calcsize(layout)))[0]
    inner, count = struct.unpack("<IQ", file.read(12))
    if count > _MAX_BYTES:
        raise NotGGUFError(f"an array of {count} entries")
    if inner in _SCALARS and count > 5:
        file.seek(count * struct.calcsize(_SCALARS[inner]), 1)
        return []
    values = [_read_value(file, inner) for _ in range(count)]
    return values if count <= 5 else []
