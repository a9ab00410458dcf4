"""What the packaging tests share: the files as they are shipped, and the third-party tools that judge them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hack import prometheus
from hack.tools import build

from fairlead_cluster.errors import BuildError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def tools() -> build.Tools:
    """Helm, kind and kstatus. Built in CI; elsewhere a test must not build for minutes, so it skips."""
    found = build.find()
    if found is None and os.environ.get("CI"):
        try:
            found = build.find_or_build(print)
        except BuildError as error:
            pytest.fail(f"the tools could not be built: {error}")
    if found is None:
        pytest.skip("helm, kind and kstatus are not in the cache: `python -m hack.tools` builds them once")
    return found


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus' own judge of rules. In CI it is fetched; where that is not possible tests skip, which CI does not allow."""
    return find_monitoring().promtool


def find_monitoring() -> prometheus.Monitoring:
    """Prometheus and Alertmanager, or the end of the test."""
    found = prometheus.find()
    if found is None and os.environ.get("CI"):
        try:
            found = prometheus.find_or_unpack(print)
        except BuildError as error:
            pytest.skip(f"no Prometheus: {error}")
    if found is None:
        pytest.skip("no Prometheus on PATH or in the cache: `python -m hack.prometheus` fetches it once")
    return found
