"""`make demo` is the main job, so it is a test: three models from YAML to streamed answers, a change under load, a deletion."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fairlead_cluster.build import Binaries

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(280)]


def processes_with(marker: str) -> set[int]:
    """Pids of the processes that carry the marker in their environment."""
    found = set()
    for process in psutil.process_iter():
        try:
            if marker in process.environ().values():
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


def test_the_story_is_told_as_promised_and_leaves_nothing_running(binaries: Binaries) -> None:
    marker = f"demo-of-{os.getpid()}"
    environment = {**os.environ, "FAIRLEAD_ENGINES": "simulated", "FAIRLEAD_TEST_MARKER": marker}
    done = subprocess.run(
        [sys.executable, "-m", "fairlead_cluster.demo"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    for model in ("llama-3.1-8b", "llama-3.3-70b", "llama-3.2-1b"):
        assert re.search(rf"^ +{re.escape(model)}: \S+", done.stdout, re.MULTILINE), f"no answer of {model} was printed"
    counted = re.search(
        r"(\d+) requests \(([\d.]+)/s\), 0 failed; (\d+) streams, 0 cut, the shortest was open ([\d.]+) s", done.stdout
    )
    assert counted, "the clients' counts were not printed"
    assert float(counted[2]) >= 20
    assert int(counted[3]) >= 10
    assert float(counted[4]) >= 20
    assert "nothing is left" in done.stdout
    assert not processes_with(marker), "processes of the demo are still running"
