"""What the person in front of the demo reads: one line per step, with the seconds since the start."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass, field


@dataclass
class Console:
    """Prints steps, shell commands and results to stdout."""

    started: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        """Seconds since this console was made."""
        return time.monotonic() - self.started

    def step(self, text: str) -> None:
        """The next step of the story."""
        print(f"\n[{self.elapsed_s:5.1f} s] ==> {text}", flush=True)

    def say(self, text: str) -> None:
        """One line (or several) of result, indented."""
        for line in text.rstrip("\n").splitlines():
            print(f"          {line}", flush=True)

    def command(self, *words: str) -> None:
        """The command that a user would type for what happens now."""
        print(f"          $ {shlex.join(words)}", flush=True)

    def fail(self, text: str) -> None:
        """The reason why the story ends here, to stderr."""
        print(f"\n[{self.elapsed_s:5.1f} s] FAILED: {text}", file=sys.stderr, flush=True)
