"""`kubectl logs` and `kubectl exec`, through the API server to the stand-in's kubelet endpoint."""

from __future__ import annotations

import asyncio
import subprocess
import time
from typing import Any

import pytest
from tests.cluster.node.pods import MOUNT, SHARED, STAY, Pods, container_status, shell

from fairlead_cluster.cluster import LocalCluster

pytestmark = pytest.mark.cluster


@pytest.fixture
def kubectl(node_control_plane: LocalCluster, pods: Pods) -> Any:
    """kubectl in the test's namespace, without stopping the event loop; gives exit status, stdout, stderr."""

    async def run(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        tool = node_control_plane.kubectl
        command = [str(tool.binary), f"--kubeconfig={tool.kubeconfig}", f"--namespace={pods.namespace}", *arguments]
        done = await asyncio.to_thread(subprocess.run, command, input=stdin, capture_output=True, text=True, timeout=30)
        return done.returncode, done.stdout, done.stderr

    return run


async def test_logs_of_this_run_and_the_one_before(pods: Pods, kubectl: Any) -> None:
    script = f"echo run >>/shared/runs; seq 1 5; wc -l </shared/runs; [ -e /shared/again ] || {{ touch /shared/again; exit 1; }}; {STAY}"
    await pods.create("twice", shell(script, **MOUNT), **SHARED)
    pod = await pods.until("twice", lambda pod: container_status(pod).get("restartCount") == 1)
    await pods.log(pod, run=1, holds=lambda text: text.endswith("2\n"))

    assert await kubectl("logs", "twice") == (0, "1\n2\n3\n4\n5\n2\n", "")
    assert await kubectl("logs", "twice", "--previous") == (0, "1\n2\n3\n4\n5\n1\n", "")
    assert await kubectl("logs", "twice", "--tail=2") == (0, "5\n2\n", "")
    assert (await kubectl("logs", "twice", "--limit-bytes=3"))[1] == "1\n2"


async def test_following_a_log_ends_with_the_container(pods: Pods, kubectl: Any) -> None:
    await pods.create("short", shell("for i in 1 2 3; do echo $i; sleep 0.4; done"), restartPolicy="Never")
    await pods.until("short", lambda pod: container_status(pod).get("state", {}).get("running"))
    started_s = time.monotonic()
    assert await kubectl("logs", "--follow", "short") == (0, "1\n2\n3\n", "")
    assert time.monotonic() - started_s > 0.5


async def test_logs_that_do_not_exist_are_an_error(pods: Pods, kubectl: Any) -> None:
    await pods.create("first", shell(STAY))
    await pods.ready("first")
    code, _, words = await kubectl("logs", "first", "--previous")
    assert code == 1
    assert 'previous terminated container "main" in pod "first" not found' in words
    code, _, words = await kubectl("logs", "first", "--timestamps")
    assert code == 1
    assert "keeps no times of log lines" in words


async def test_exec_runs_in_the_container_and_gives_its_exit_status(pods: Pods, kubectl: Any) -> None:
    env = [{"name": "WORD", "value": "hello"}]
    await pods.create("target", shell(f"echo file >/shared/file; {STAY}", env=env, **MOUNT), **SHARED)
    pod = await pods.ready("target")
    await pods.text(pod, "shared/file")

    assert await kubectl("exec", "target", "--", "sh", "-c", 'echo "$WORD"; cat /shared/file') == (
        0,
        "hello\nfile\n",
        "",
    )
    assert await kubectl("exec", "-i", "target", "--", "cat", stdin="through\n") == (0, "through\n", "")
    code, out, words = await kubectl("exec", "target", "--", "sh", "-c", "echo out; echo wrong >&2; exit 3")
    assert (code, out) == (3, "out\n")
    assert words.startswith("wrong\n")
    code, _, words = await kubectl("exec", "target", "--", "no-such-program")
    assert code != 0
    assert "executable file not found in $PATH" in words


async def test_exec_passes_a_megabyte_both_ways(pods: Pods, kubectl: Any) -> None:
    await pods.create("target", shell(STAY))
    await pods.ready("target")
    data = "0123456789abcde\n" * 65536
    code, out, _ = await kubectl("exec", "-i", "target", "--", "cat", stdin=data)
    assert code == 0
    assert out == data


async def test_exec_ends_with_its_container(pods: Pods, kubectl: Any) -> None:
    await pods.create("target", shell(STAY))
    await pods.ready("target")
    async with asyncio.TaskGroup() as group:
        executing = group.create_task(kubectl("exec", "target", "--", "sleep", "60"))
        await asyncio.sleep(0.7)
        assert not executing.done()
        await pods.delete("target")
    assert executing.result()[0] == 137
