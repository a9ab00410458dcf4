"""What all tests share: real API servers, and that CI does not let a skipped test pass for a green one.

The servers start when the first test asks and are shared until the last. There are two, because they answer different
questions. `control_plane` has no nodes: pods stay Pending and a test may write their status itself. `cluster` has nodes
that run pods, Services that forward, and DNS. Both know the repository's CRDs and the operator's RBAC; neither runs the
operator: a test starts it if it needs it.

Each cluster is looked at before it goes (`tests/witness.py`): at the end of the session the rights that operators used, all of
them together, must be those that are granted, and no planted secret may have got out.
"""

from __future__ import annotations

import fnmatch
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.witness import Witness

from fairlead_cluster.audit import AuditLog
from fairlead_cluster.build import Binaries, find
from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.errors import BuildError
from fairlead_cluster.kubectl import Kubectl
from fairlead_cluster.node.options import Engines, Options


def allowed_skips(path: Path) -> list[str]:
    """Patterns of test ids that may be skipped, from a file with one a line and reasons behind `#`."""
    lines = (line.split("#", 1)[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


WITNESS = Witness()
_CLUSTER_TESTS = frozenset((Path(__file__).parent / "cluster").glob("test_*.py"))


@pytest.hookimpl(tryfirst=True)  # before markers take tests away: the long ones may be left out of a whole run
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note whether all tests of the operator on a cluster are in this run, but perhaps the long ones. Those alone are no whole run."""
    hasty = [item.nodeid for item in items if item.get_closest_marker("alone") and not item.get_closest_marker("long")]
    if hasty:
        raise pytest.UsageError(f"marked alone and not long, so that `make test` would run them beside others: {hasty}")
    everything = config.option.markexpr in ("", "not long", "not alone") and not config.option.keyword
    WITNESS.whole = everything and {item.path for item in items} >= _CLUSTER_TESTS


@pytest.fixture(scope="session", autouse=True)
def witnessed() -> Iterator[Witness]:
    """Looks at each cluster just before it stops."""
    stop = LocalCluster.stop

    def look_and_stop(cluster: LocalCluster) -> None:
        try:
            WITNESS.look_at(cluster)
        finally:
            stop(cluster)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalCluster, "stop", look_and_stop)
        yield WITNESS


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Where tests run in several processes, each has its own witness: hear what it saw."""
    WITNESS.hear(getattr(node, "workeroutput", {}).get("witness"))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run for what the witness found, and for skips that are not allowed by name."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["witness"] = WITNESS.testify()
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    findings = WITNESS.judge(failed=bool(session.testsfailed))
    if reporter is not None and findings:
        for finding in findings:
            reporter.write_line(finding, red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    _judge_skips(session)


def _judge_skips(session: pytest.Session) -> None:
    """Turn skips that are not allowed by name into a failure, where FAIRLEAD_ALLOWED_SKIPS says so."""
    listed = os.environ.get("FAIRLEAD_ALLOWED_SKIPS")
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not listed or reporter is None:
        return
    patterns = allowed_skips(Path(listed))
    skipped = {report.nodeid for report in reporter.stats.get("skipped", [])}
    offending = sorted(s for s in skipped if not any(fnmatch.fnmatchcase(s, pattern) for pattern in patterns))
    if offending:
        reporter.write_line(f"skipped without being allowed by {listed}:", red=True)
        for nodeid in offending:
            reporter.write_line(f"  {nodeid}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    """The control plane's binaries; tests skip where there are none, since a test must not build for minutes."""
    if sys.platform != "linux":
        pytest.skip("the local cluster needs Linux")
    try:
        found = find()
    except BuildError as error:
        pytest.skip(f"no control plane: {error}")
    if found is None:
        pytest.skip("no control plane in the cache: `make control-plane` builds it once (about 6 minutes)")
    return found


@pytest.fixture(scope="session")
def control_plane(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """API server, controllers and scheduler without nodes; CRDs and RBAC installed."""
    with LocalCluster(tmp_path_factory.mktemp("control-plane"), nodes=(), binaries=binaries) as running:
        yield running


@pytest.fixture(scope="session")
def cluster(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """The whole cluster with nodes, Services and DNS; CRDs and RBAC installed; no operator."""
    # Simulated engines: what this machine happens to have in its cache must not decide a test.
    options = Options(engines=Engines.SIMULATED, crash_back_off_s=1.0)
    with LocalCluster(tmp_path_factory.mktemp("cluster"), node_options=options, binaries=binaries) as running:
        yield running


@pytest.fixture
def namespace(control_plane: LocalCluster) -> Iterator[str]:
    """A fresh namespace on `control_plane`."""
    with control_plane.namespace() as name:
        yield name


@pytest.fixture
def cluster_namespace(cluster: LocalCluster) -> Iterator[str]:
    """A fresh namespace on `cluster`."""
    with cluster.namespace() as name:
        yield name


@pytest.fixture
def kubectl(control_plane: LocalCluster) -> Kubectl:
    """kubectl as the administrator of `control_plane`."""
    return control_plane.kubectl


@pytest.fixture
def audit(control_plane: LocalCluster) -> AuditLog:
    """The audit log of `control_plane`."""
    return control_plane.audit


@pytest.fixture
def fresh_directory(tmp_path: Path) -> Path:
    """Where a test starts a cluster of its own."""
    return tmp_path / "local"
