"""Runs `fairlead` under a sampler of its CPU: `python -m tests.bench.sampler OUTPUT run …`, no flag of the product.

Every two milliseconds of CPU the process looks at its own stack. A sample belongs to the part whose code is innermost, so
that a library's time is the library's and not its caller's; what runs below no Python code of these (TLS, uvloop) is the loop's.
cProfile would double the time of small functions, and cannot see into coroutines that uvloop resumes.
"""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

INTERVAL_S = 0.002
#: Part: what its file names contain. The first that matches, from the innermost frame outward.
PARTS = (
    ("kopf: the watch of custom resources", ("/kopf/",)),
    (
        "HTTP client (aiohttp, yarl)",
        ("/aiohttp/", "/yarl/", "/multidict/", "/frozenlist/", "/propcache/", "/aiosignal/"),
    ),
    ("log lines and metrics", ("/logging/", "/prometheus_client/", "/runtime/logs.py", "/runtime/metrics.py")),
    ("planning: rendering engine files", ("/jinja2/", "/yaml/", "/engines/", "<template>")),
    ("planning: parsing specs", ("/pydantic/", "/api/")),
    ("planning: children and status", ("/planning/", "/hardware/", "/facts/")),
    ("cache: pruning, digests, bytes", ("/kube/cache.py", "/kube/prune.py", "/kube/informer.py", "/runtime/feed.py")),
    ("applying: comparing and JSON", ("/kube/compare.py", "/kube/client.py", "/runtime/applier.py")),
    ("the worker loop, queue and status", ("/runtime/",)),
    ("TLS and sockets", ("/kube/session.py", "/ssl.py")),
)
REST = "event loop, TLS and what is left"


class Sampler:
    """Counts samples by part, and by the three innermost frames."""

    def __init__(self) -> None:
        self.parts: Counter[str] = Counter()
        self.frames: Counter[str] = Counter()

    def start(self) -> None:
        """From now on, in this thread. SIGUSR2 forgets what was counted before: start and imports are no part of the work."""
        signal.signal(signal.SIGPROF, self._sample)
        signal.signal(signal.SIGUSR2, self._clear)
        signal.siginterrupt(signal.SIGPROF, False)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)

    def stop(self) -> None:
        """No more samples."""
        signal.setitimer(signal.ITIMER_PROF, 0)

    def write(self, path: Path) -> None:
        """{"parts": {part: samples}, "frames": {…}}."""
        path.write_text(json.dumps({"parts": dict(self.parts), "frames": dict(self.frames.most_common(400))}))

    def _clear(self, _signal: int, _frame: FrameType | None) -> None:
        self.parts.clear()
        self.frames.clear()

    def _sample(self, _signal: int, frame: FrameType | None) -> None:
        part, innermost = None, []
        while frame is not None:
            code = frame.f_code
            if len(innermost) < 8:
                innermost.append(f"{'/'.join(code.co_filename.split('/')[-2:])}:{code.co_name}")
            if part is None:
                part = next((name for name, where in PARTS if any(one in code.co_filename for one in where)), None)
            frame = frame.f_back
        self.parts[part or REST] += 1
        self.frames[" < ".join(innermost)] += 1


def main() -> int:
    """As `fairlead` itself, and the counts when it has ended."""
    from fairlead.cli import main as fairlead

    output, sampler = Path(sys.argv[1]), Sampler()
    sys.argv = ["fairlead", *sys.argv[2:]]
    sampler.start()
    try:
        return int(fairlead() or 0)
    finally:
        sampler.stop()
        sampler.write(output)


if __name__ == "__main__":
    sys.exit(main())
