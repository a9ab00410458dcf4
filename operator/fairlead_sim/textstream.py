"""Turning tokens into text with stop strings: what may be shown already, and where the text ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


class TextStream:
    """Collects tokens. Text that could still become a stop string is held back, as engines do."""

    def __init__(self, script: Iterable[str], stops: Sequence[str]) -> None:
        #: Tokens still to come.
        self.script: Iterator[str] = iter(script)
        self._stops = [stop for stop in stops if stop]
        self._held = max((len(stop) - 1 for stop in self._stops), default=0)
        self._text = ""
        self._shown = 0

    def feed(self, token: str) -> str | None:
        """Add a token; the stop string that it completed, if any. The text then ends before that string."""
        searched_from = max(0, len(self._text) - self._held)
        self._text += token
        found = [(at, stop) for stop in self._stops if (at := self._text.find(stop, searched_from)) >= 0]
        if not found:
            return None
        at, stop = min(found)
        self._text = self._text[:at]
        self._held = 0
        return stop

    def take(self, addition: str = "") -> str:
        """Text that can be shown and was not yet, with `addition` behind it."""
        end = max(self._shown, len(self._text) - self._held)
        text, self._shown = self._text[self._shown : end], end
        return text + addition

    def take_all(self) -> str:
        """The rest of the text: no stop string can come any more."""
        self._held = 0
        return self.take()
