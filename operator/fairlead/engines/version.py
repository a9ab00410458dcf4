"""Engine versions: what a template may ask about them, and how one is read from an image's tag.

PEP 440 is more than engines need and would be one more dependency in the pure core: numbers between dots are compared,
whatever follows them (`rc1`, `.post1`, `-rocm`) is kept for the image tag and ignored in comparisons.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Version", "read_image_version"]

_VERSION = re.compile(r"v?(\d+(?:\.\d+)+)(.*)", re.DOTALL)
_TAG_VERSION = re.compile(r"(?:^|[^0-9.])v?(\d+\.\d+(?:\.\d+)*)")


@dataclass(frozen=True, slots=True)
class Version:
    """A version as the user wrote it, without a leading `v`. Templates print it and ask `version.at_least("0.18")`."""

    text: str
    release: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Version:
        """`0.33.0`, `v0.33.0`, `0.33.0rc1`. Raises ValueError when there are no two numbers with a dot between them."""
        match = _VERSION.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not a version like 0.33.0")
        return cls(text=text.strip().removeprefix("v"), release=tuple(int(part) for part in match[1].split(".")))

    def at_least(self, other: str) -> bool:
        """True when this is `other` or newer; missing numbers count as 0."""
        wanted = Version.parse(other).release
        width = max(len(wanted), len(self.release))
        return self.release + (0,) * (width - len(self.release)) >= wanted + (0,) * (width - len(wanted))

    def __str__(self) -> str:
        return self.text


def read_image_version(image: str) -> str | None:
    """The version in an image's tag (`v0.33.0-x86_64` → `0.33.0`), or None: no tag, a digest alone, `latest`, a word."""
    name = image.partition("@")[0]
    _, colon, tag = name.rpartition("/")[2].partition(":")
    match = _TAG_VERSION.search(tag) if colon else None
    return match[1] if match else None
