"""A tokenizer without a vocabulary: readable pieces of at most six bytes, so that counts behave as real ones do.

A token's id is its UTF-8 bytes, packed behind a leading 1; ids can be turned back into text and stay below 2**53.
"""

from __future__ import annotations

import re
import zlib

MAX_TOKEN_BYTES = 6
_PIECES = re.compile(r" ?[^\W_]+|\s|[^\w\s]|_")


def split(text: str) -> list[str]:
    """The tokens of a text in order; joined they are the text again."""
    tokens: list[str] = []
    for match in _PIECES.finditer(text):
        piece = match.group()
        if len(piece.encode()) <= MAX_TOKEN_BYTES:
            tokens.append(piece)
        else:
            tokens.extend(_cut(piece))
    return tokens


def _cut(piece: str) -> list[str]:
    """Cut at characters, never within one."""
    parts: list[str] = []
    current, size = "", 0
    for character in piece:
        width = len(character.encode(errors="replace"))
        if size + width > MAX_TOKEN_BYTES:
            parts.append(current)
            current, size = "", 0
        current += character
        size += width
    return [*parts, current]


def count(text: str) -> int:
    """How many tokens a text has."""
    return len(split(text))


def encode(text: str) -> list[int]:
    """Token ids of a text."""
    return [int.from_bytes(b"\x01" + token.encode(errors="replace")) for token in split(text)]


def decode(ids: list[int]) -> str:
    """The text of token ids; bytes that are no text become U+FFFD. Raises ValueError for an id that no token has."""
    parts = []
    for token_id in ids:
        raw = token_id.to_bytes((token_id.bit_length() + 7) // 8) if token_id > 0 else b""
        if raw[:1] != b"\x01" or len(raw) > MAX_TOKEN_BYTES + 1:
            raise ValueError(f"Token id {token_id} is out of vocabulary")
        parts.append(raw[1:])
    return b"".join(parts).decode(errors="replace")


def prefix_blocks(text_tokens: list[str], block_size: int, adapter: str = "") -> tuple[int, ...]:
    """Chained hashes of the whole blocks at the beginning of a prompt: equal beginnings give equal hashes, with the same
    adapter: what one has computed is of no use to another."""
    blocks: list[int] = []
    chained = zlib.crc32(adapter.encode(errors="replace"))
    for start in range(0, len(text_tokens) - block_size + 1, block_size):
        chained = zlib.crc32("\0".join(text_tokens[start : start + block_size]).encode(errors="replace"), chained)
        blocks.append(chained << 32 | start)
    return tuple(blocks)
