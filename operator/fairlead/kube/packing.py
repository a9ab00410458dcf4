"""The bodies of cached objects in a tenth of their bytes: what differs from the first object of the kind.

The objects of one kind are much alike (the same engine's script in each Deployment, the same words in each Service), and with
thousands of custom resources they are most of the memory. Each is deflated with the first one as preset dictionary (RFC 1950,
`zdict` of `zlib.compressobj`), which costs some microseconds: a tenth of what the event cost that brought it.
"""

from __future__ import annotations

import zlib
from typing import Final

_LEVEL: Final = 1
_MEMORY_LEVEL: Final = 6  # 64 KiB at most beside the window; each object that is packed copies it once
_LOOK_AHEAD: Final = 262  # MIN_LOOKAHEAD of zlib's deflate.h
_MIN_WINDOW_BITS: Final = 9
_MAX_WINDOW_BITS: Final = 15


class Sample:
    """The first object of a kind. `pack` gives equal bytes for equal texts, and only `unpack` of the same sample reads them."""

    __slots__ = ("_compressor", "_text", "_window_bits")

    def __init__(self, text: bytes) -> None:
        # Deflate finds what is at most a window less its look-ahead ago: one that holds the sample and some of the text.
        bits = (len(text) * 5 // 4 + _LOOK_AHEAD).bit_length()
        self._text = bytes(memoryview(text)[-(1 << _MAX_WINDOW_BITS) :])  # a copy, of just the size that can be of use
        self._window_bits = -min(_MAX_WINDOW_BITS, max(_MIN_WINDOW_BITS, bits))
        self._compressor = zlib.compressobj(
            _LEVEL, zlib.DEFLATED, self._window_bits, _MEMORY_LEVEL, zlib.Z_DEFAULT_STRATEGY, self._text
        )

    def pack(self, text: bytes) -> bytes:
        """What is to be kept of `text`."""
        compressor = self._compressor.copy()  # it has read the sample already
        return compressor.compress(text) + compressor.flush()

    def unpack(self, packed: bytes) -> bytes:
        """The text again."""
        return zlib.decompressobj(self._window_bits, self._text).decompress(packed)


class Samples:
    """One sample for each kind, which stays."""

    def __init__(self) -> None:
        self._by_kind: dict[str, Sample] = {}

    def of(self, kind: str, text: bytes) -> Sample:
        """The kind's sample; `text` becomes it when there is none yet."""
        sample = self._by_kind.get(kind)
        if sample is None:
            sample = self._by_kind[kind] = Sample(text)
        return sample
