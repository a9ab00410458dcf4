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


def tell(story: str, marker: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FAIRLEAD_ENGINES": "simulated", "FAIRLEAD_TEST_MARKER": marker}
    command = [sys.executable, "-m", "fairlead_cluster.demo", "--story", story]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done


@pytest.mark.alone
@pytest.mark.long
def test_the_story_of_scaling_is_told_as_promised(binaries: Binaries) -> None:
    marker = f"scaling-demo-of-{os.getpid()}"
    done = tell("scale", marker)
    assert re.search(r"decided [\d.]+ s after the clients came: .* -> 2 replicas", done.stdout)
    assert re.search(r"\d+ streams and \d+ requests, 0 failed", done.stdout)
    assert "one replica is left" in done.stdout
    assert "Ready: True (ScaledToZero)" in done.stdout
    assert "all 50 are answered" in done.stdout
    assert not processes_with(marker), "processes of the demo are still running"


def test_the_story_is_told_as_promised_and_leaves_nothing_running(binaries: Binaries) -> None:
    marker = f"demo-of-{os.getpid()}"
    done = tell("serve", marker)
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
