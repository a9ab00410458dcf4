"""Order and repetition: init containers, sidecars, main containers, restarts and what is kept of the end."""

from __future__ import annotations

import itertools

import pytest
from tests.cluster.node.pods import (
    CRASH_BACK_OFF_S,
    MOUNT,
    SHARED,
    STAY,
    Pods,
    condition,
    container_status,
    is_ready,
    phase,
    shell,
    terminated,
    waiting,
)

from fairlead_cluster.api import PODS, STRATEGIC_MERGE_PATCH

pytestmark = pytest.mark.cluster


async def test_init_containers_then_sidecars_then_main_containers_start_in_order(pods: Pods) -> None:
    inits = [
        shell("sleep 0.3; echo first >>/shared/order", "first", **MOUNT),
        shell(f"echo sidecar >>/shared/order; {STAY}", "sidecar", restartPolicy="Always", **MOUNT),
        shell("echo second >>/shared/order", "second", **MOUNT),
    ]
    main = shell(f"echo main >>/shared/order; {STAY}", **MOUNT)
    await pods.create("ordered", main, initContainers=inits, **SHARED)

    pod = await pods.ready("ordered")

    assert await pods.text(pod, "shared/order", lambda text: text.count("\n") == 4) == "first\nsidecar\nsecond\nmain\n"
    assert container_status(pod, "first")["state"]["terminated"]["reason"] == "Completed"
    assert container_status(pod, "first")["ready"]
    assert container_status(pod, "sidecar")["started"]
    assert condition(pod, "Initialized")["status"] == "True"


async def test_a_sidecar_must_have_started_before_the_next_container_begins(pods: Pods) -> None:
    sidecar = shell(
        f"sleep 1; touch /shared/up; {STAY}",
        "sidecar",
        restartPolicy="Always",
        startupProbe={"exec": {"command": ["test", "-e", "/shared/up"]}, "periodSeconds": 1},
        **MOUNT,
    )
    await pods.create("gated", shell(f"ls /shared; {STAY}", **MOUNT), initContainers=[sidecar], **SHARED)

    pod = await pods.until("gated", lambda pod: container_status(pod, "sidecar").get("state", {}).get("running"))
    assert not container_status(pod, "sidecar")["started"]
    assert waiting(pod)["reason"] == "PodInitializing"
    assert phase(pod) == "Pending"
    assert condition(pod, "Initialized")["message"] == "containers with incomplete status: [sidecar]"

    pod = await pods.ready("gated")
    assert await pods.log(pod) == "up\n"


async def test_a_failing_init_container_is_repeated_until_it_succeeds(pods: Pods) -> None:
    init = shell("echo x >>/shared/tries; [ $(wc -l </shared/tries) -ge 2 ]", "init", **MOUNT)
    await pods.create("retrying", shell(STAY), initContainers=[init], **SHARED)

    pod = await pods.ready("retrying")

    assert container_status(pod, "init")["restartCount"] == 1
    assert container_status(pod, "init")["lastState"]["terminated"]["exitCode"] == 1


async def test_a_failing_init_container_fails_the_pod_that_may_not_restart(pods: Pods) -> None:
    await pods.create("failing", shell(STAY), initContainers=[shell("exit 7", "init")], restartPolicy="Never")

    pod = await pods.finished("failing")

    assert phase(pod) == "Failed"
    assert terminated(pod, "init")["exitCode"] == 7
    assert waiting(pod)["reason"] == "PodInitializing"


async def test_a_pod_whose_work_is_done_ends_its_sidecars_and_succeeds(pods: Pods) -> None:
    sidecar = shell(STAY, "sidecar", restartPolicy="Always")
    await pods.create("job", shell("sleep 0.2"), initContainers=[sidecar], restartPolicy="Never")

    pod = await pods.finished("job")

    assert phase(pod) == "Succeeded"
    assert terminated(pod)["reason"] == "Completed"
    assert terminated(pod, "sidecar")["exitCode"] == 0
    assert condition(pod, "Ready")["reason"] == "PodCompleted"
    assert condition(pod, "Initialized")["status"] == "True"


async def test_on_failure_restarts_a_failure_and_accepts_success(pods: Pods) -> None:
    script = "echo x >>/shared/tries; [ $(wc -l </shared/tries) -ge 2 ]"
    await pods.create("worker", shell(script, **MOUNT), restartPolicy="OnFailure", **SHARED)

    pod = await pods.finished("worker")

    assert phase(pod) == "Succeeded"
    assert container_status(pod)["restartCount"] == 1


async def test_never_leaves_a_failed_pod_with_its_exit_code(pods: Pods) -> None:
    await pods.create("once", shell("exit 3"), restartPolicy="Never")

    pod = await pods.finished("once")

    assert phase(pod) == "Failed"
    assert terminated(pod)["exitCode"] == 3
    assert terminated(pod)["reason"] == "Error"
    assert container_status(pod)["restartCount"] == 0


async def test_a_crash_loop_backs_off_twice_as_long_each_time(pods: Pods) -> None:
    await pods.create("crashing", shell("date +%s.%N >>/shared/starts; exit 1", **MOUNT), **SHARED)

    first = await pods.until("crashing", lambda pod: waiting(pod).get("reason") == "CrashLoopBackOff")
    second = await pods.until("crashing", lambda pod: waiting(pod).get("message", "").startswith("back-off 2s"))

    name = f"crashing_{pods.namespace}({first['metadata']['uid']})"
    assert waiting(first)["message"] == f"back-off 1s restarting failed container=main pod={name}"
    assert container_status(first)["restartCount"] == 1, "the first restart is immediate"
    assert container_status(first)["lastState"]["terminated"]["exitCode"] == 1
    assert phase(first) == "Running"
    assert container_status(second)["restartCount"] == 2
    starts = await pods.text(second, "shared/starts", lambda text: text.count("\n") >= 4)
    times = [float(line) for line in starts.split()]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps[0] < CRASH_BACK_OFF_S
    assert CRASH_BACK_OFF_S <= gaps[1] < 2 * CRASH_BACK_OFF_S
    assert 2 * CRASH_BACK_OFF_S <= gaps[2] < 4 * CRASH_BACK_OFF_S
    assert (await pods.event("crashing", "BackOff"))["message"].startswith("Back-off restarting failed container main")


async def test_a_signal_shows_as_128_and_its_number(pods: Pods) -> None:
    await pods.create("killed", shell("kill -KILL $$$$"), restartPolicy="Never")  # Kubernetes makes one `$` of two
    assert terminated(await pods.finished("killed"))["exitCode"] == 137


async def test_the_termination_message_is_what_the_container_wrote(pods: Pods) -> None:
    await pods.create("message", shell("echo last words >/dev/termination-log; exit 1"), restartPolicy="Never")
    assert terminated(await pods.finished("message"))["message"] == "last words\n"


async def test_the_termination_message_path_may_be_chosen(pods: Pods) -> None:
    container = shell("printf elsewhere >/tmp/end/message; exit 1", terminationMessagePath="/tmp/end/message")
    await pods.create("path", container, restartPolicy="Never")
    assert terminated(await pods.finished("path"))["message"] == "elsewhere"


@pytest.mark.parametrize(("policy", "exit_code"), [("File", 1), ("FallbackToLogsOnError", 0)])
async def test_logs_are_not_taken_without_policy_or_without_error(pods: Pods, policy: str, exit_code: int) -> None:
    container = shell(f"echo noise; exit {exit_code}", terminationMessagePolicy=policy)
    await pods.create("silent", container, restartPolicy="Never")
    assert "message" not in terminated(await pods.finished("silent"))


async def test_after_an_error_the_message_falls_back_to_the_end_of_the_log(pods: Pods) -> None:
    container = shell("seq 1 2000; exit 1", terminationMessagePolicy="FallbackToLogsOnError")
    await pods.create("fallback", container, restartPolicy="Never")

    message = terminated(await pods.finished("fallback"))["message"]

    assert message.splitlines()[-1] == "2000"
    assert len(message.splitlines()) <= 80
    assert len(message) <= 2048


async def test_a_program_that_does_not_exist_is_a_start_error(pods: Pods) -> None:
    container = {"name": "main", "image": "fairlead.test/shell:1", "command": ["no-such-program"]}
    await pods.create("absent", container, restartPolicy="Never")

    pod = await pods.finished("absent")

    assert terminated(pod)["exitCode"] == 128
    assert terminated(pod)["reason"] == "StartError"
    assert 'exec: "no-such-program": executable file not found in $PATH' in terminated(pod)["message"]


async def test_a_container_over_its_memory_limit_is_oom_killed(pods: Pods) -> None:
    script = "x = bytearray(200 << 20)\nimport time; time.sleep(30)"
    limits = {"resources": {"limits": {"memory": "100Mi"}}}
    python = {"name": "main", "image": "fairlead.test/python:1", "command": ["python3", "-c", script], **limits}
    await pods.create("greedy", python, restartPolicy="Never")

    pod = await pods.finished("greedy")

    assert terminated(pod)["reason"] == "OOMKilled"
    assert terminated(pod)["exitCode"] == 137


async def test_post_start_runs_before_the_container_counts_as_running(pods: Pods) -> None:
    hook = {"postStart": {"exec": {"command": ["/bin/sh", "-c", "sleep 0.7; touch /shared/hooked"]}}}
    containers = [shell(STAY, lifecycle=hook, **MOUNT), shell(f"ls /shared; {STAY}", "next", **MOUNT)]
    await pods.create("hooked", *containers, **SHARED)

    pod = await pods.until("hooked", is_ready)

    assert await pods.log(pod, "next") == "hooked\n", "the next container starts after the hook of the one before"


async def test_a_failing_post_start_hook_kills_the_container(pods: Pods) -> None:
    hook = {"postStart": {"exec": {"command": ["/bin/sh", "-c", "echo broken; exit 9"]}}}
    await pods.create("unhooked", shell(STAY, lifecycle=hook), restartPolicy="Never", terminationGracePeriodSeconds=1)

    pod = await pods.finished("unhooked")

    assert terminated(pod)
    assert "broken" in (await pods.event("unhooked", "FailedPostStartHook"))["message"]


async def test_a_pod_that_is_active_too_long_fails(pods: Pods) -> None:
    await pods.create("slow", shell(STAY), activeDeadlineSeconds=1)

    pod = await pods.finished("slow")

    assert (phase(pod), pod["status"]["reason"]) == ("Failed", "DeadlineExceeded")


async def test_a_readiness_gate_holds_the_pod_back_until_somebody_sets_it(pods: Pods) -> None:
    await pods.create("gate", shell(STAY), readinessGates=[{"conditionType": "example.com/ready"}])

    pod = await pods.until("gate", lambda pod: condition(pod, "ContainersReady").get("status") == "True")
    assert condition(pod, "Ready")["reason"] == "ReadinessGatesNotReady"

    gate = {"status": {"conditions": [{"type": "example.com/ready", "status": "True"}]}}
    await pods.api.patch(PODS, "gate", gate, pods.namespace, subresource="status", content_type=STRATEGIC_MERGE_PATCH)
    assert condition(await pods.ready("gate"), "example.com/ready")["status"] == "True"
