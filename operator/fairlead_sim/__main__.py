"""`fairlead-sim vllm …` and `fairlead-sim ollama …`; called through a link named `vllm` or `ollama`, it is that command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

ENGINES = ("vllm", "ollama")
USAGE = """usage: fairlead-sim vllm serve MODEL [vLLM's flags]
       fairlead-sim ollama serve|pull|list|ps|show|run|stop|cp|rm|create|push|--version [...]

Imitates the inference engines: HTTP surface, metrics, load time, latency, drain. See docs/simulator.md.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the engine that is named, and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None and Path(sys.argv[0]).name in ENGINES:
        given.insert(0, Path(sys.argv[0]).name)
    sys.exit(run(given))


def run(arguments: list[str]) -> int:
    """The exit code of `fairlead-sim ARGUMENTS`."""
    # Imported late: `ollama ps` runs as a probe every few seconds and must not load an HTTP server.
    match arguments[:1]:
        case ["vllm"]:
            from fairlead_sim.vllm.lifecycle import main as vllm

            return vllm(arguments[1:])
        case ["ollama"]:
            from fairlead_sim.ollama.cli import main as ollama

            return ollama(arguments[1:])
        case ["-h" | "--help"]:
            print(USAGE, end="")
            return 0
        case _:
            print(USAGE, end="", file=sys.stderr)
            return 2


if __name__ == "__main__":
    main()
