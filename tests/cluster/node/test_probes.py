"""Probes: timing, thresholds, what counts as success, and what follows from failure."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from tests.cluster.node.pods import (
    MOUNT,
    PYTHON,
    SHARED,
    STAY,
    Json,
    Pods,
    container_status,
    is_ready,
    phase,
    shell,
    terminated,
)

pytestmark = pytest.mark.cluster

# Answers each path with the status that the file of that name in /shared says, else 404; writes down who asked.
SERVER = """
import http.server, pathlib
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open("/shared/requests", "a") as log:
            log.write(f"{self.path} {self.headers['User-Agent']} {self.headers['X-Extra']} {self.headers['Host']}\\n")
        file = pathlib.Path("/shared" + self.path)
        status = int(file.read_text()) if file.is_file() else 404
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://192.0.2.1/elsewhere" if "away" in self.path else "/ok")
        self.end_headers()
    def log_message(self, *arguments): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""


def server(**container: Any) -> Json:
    ports = [{"name": "web", "containerPort": 8080}]
    return {"name": "main", "image": PYTHON, "command": ["python3", "-c", SERVER], "ports": ports, **MOUNT, **container}


def answers(path: str, status: int) -> Json:
    """An init container that makes the server answer."""
    name = path.strip("/").replace("/", "-")
    return shell(f"echo {status} >/shared{path}", f"answer-{name}", **MOUNT)


def get(path: str, **probe: Any) -> Json:
    return {"httpGet": {"path": path, "port": "web"}, "periodSeconds": 1, **probe}


@pytest.mark.parametrize("status", [200, 204, 302])
async def test_http_readiness_takes_200_to_399(pods: Pods, status: int) -> None:
    inits = [answers("/probe", status), answers("/ok", 200)]
    await pods.create("good", server(readinessProbe=get("/probe")), initContainers=inits, **SHARED)
    await pods.ready("good")


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_http_readiness_refuses_others(pods: Pods, status: int) -> None:
    probe = get("/probe", failureThreshold=1)
    await pods.create("bad", server(readinessProbe=probe), initContainers=[answers("/probe", status)], **SHARED)

    words = f"Readiness probe failed: HTTP probe failed with statuscode: {status}"
    await pods.event("bad", "Unhealthy", containing=words)
    pod = await pods.get("bad")
    assert not is_ready(pod)
    assert phase(pod) == "Running"
    assert container_status(pod)["started"]


async def test_nobody_is_ready_before_the_first_success(pods: Pods) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 100}
    await pods.create("patient", shell(STAY, readinessProbe=probe))
    pod = await pods.until("patient", lambda pod: container_status(pod).get("started"))
    assert not container_status(pod)["ready"]
    assert not is_ready(pod)


async def test_a_redirect_to_another_host_is_not_followed_and_counts_as_success(pods: Pods) -> None:
    await pods.create("away", server(readinessProbe=get("/away")), initContainers=[answers("/away", 302)], **SHARED)
    await pods.ready("away")


async def test_http_probes_call_themselves_kube_probe_and_send_the_headers_of_the_spec(pods: Pods) -> None:
    probe = get("/ok")
    headers = [{"name": "X-Extra", "value": "given"}, {"name": "Host", "value": "model.example"}]
    probe["httpGet"]["httpHeaders"] = headers
    await pods.create("headers", server(readinessProbe=probe), initContainers=[answers("/ok", 200)], **SHARED)

    pod = await pods.ready("headers")

    assert (await pods.text(pod, "shared/requests")).splitlines()[0] == "/ok kube-probe/1.36 given model.example"


async def test_the_server_listens_on_the_pods_address_only(pods: Pods) -> None:
    await pods.create("address", server(readinessProbe=get("/ok")), initContainers=[answers("/ok", 200)], **SHARED)
    pod = await pods.ready("address")
    assert pod["status"]["podIP"].startswith("127.244.")
    _, writer = await asyncio.open_connection(pod["status"]["podIP"], 8080)
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", 8080)


async def test_tcp_probes_need_no_more_than_a_connection(pods: Pods) -> None:
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    await pods.create("tcp", server(readinessProbe=probe), **SHARED)
    await pods.ready("tcp")


async def test_exec_probes_run_in_the_container_with_its_environment_and_paths(pods: Pods) -> None:
    command = ["/bin/sh", "-c", 'test "$WORD" = yes && test -e /shared/up']
    probe = {"exec": {"command": command}, "periodSeconds": 1}
    env = [{"name": "WORD", "value": "yes"}]
    await pods.create("exec", shell(f"touch /shared/up; {STAY}", readinessProbe=probe, env=env, **MOUNT), **SHARED)
    await pods.ready("exec")


async def test_an_exec_probe_over_its_time_is_a_failure_and_is_killed(pods: Pods) -> None:
    probe = {"exec": {"command": ["sleep", "31"]}, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 1}
    await pods.create("hanging", shell(STAY, readinessProbe=probe))
    await pods.event("hanging", "Unhealthy", containing="timed out after 1s")
    assert not is_ready(await pods.get("hanging"))


async def test_a_command_that_does_not_exist_is_neither_success_nor_failure(pods: Pods) -> None:
    probe = {"exec": {"command": ["no-such-program"]}, "periodSeconds": 1, "failureThreshold": 1}
    await pods.create("unknown", shell(STAY, livenessProbe=probe))
    await pods.event("unknown", "Unhealthy", containing="resulted in unknown state")
    assert container_status(await pods.get("unknown"))["restartCount"] == 0


async def test_thresholds_count_results_in_a_row(pods: Pods) -> None:
    # Fails unless the number of attempts so far is 3 or more; ready only after two successes in a row.
    script = "echo x >>/shared/tries; [ $(wc -l </shared/tries) -ge 3 ]"
    probe = {"exec": {"command": ["sh", "-c", script]}, "periodSeconds": 1, "successThreshold": 2}
    await pods.create("counting", shell(STAY, readinessProbe=probe, **MOUNT), **SHARED)
    pod = await pods.ready("counting")
    assert len((pods.file(pod, "shared/tries")).read_text().splitlines()) == 4


async def test_readiness_drops_only_after_the_failure_threshold_and_comes_back(pods: Pods) -> None:
    probe = {"exec": {"command": ["test", "-e", "/shared/up"]}, "periodSeconds": 1, "failureThreshold": 2}
    await pods.create("flapping", shell(f"touch /shared/up; {STAY}", readinessProbe=probe, **MOUNT), **SHARED)
    pod = await pods.ready("flapping")

    pods.file(pod, "shared/up").unlink()
    removed_s = time.monotonic()
    pod = await pods.until("flapping", lambda pod: not is_ready(pod))
    assert time.monotonic() - removed_s >= 1.0, "one failure is not enough"
    assert container_status(pod)["restartCount"] == 0
    assert container_status(pod)["started"]

    pods.file(pod, "shared/up").touch()
    await pods.ready("flapping")


async def test_the_initial_delay_and_the_period_are_kept(pods: Pods) -> None:
    probe = {
        "exec": {"command": ["sh", "-c", "date +%s.%N >>/shared/probes"]},
        "initialDelaySeconds": 1,
        "periodSeconds": 1,
    }
    script = f"date +%s.%N >/shared/start; {STAY}"
    await pods.create("timed", shell(script, readinessProbe=probe, **MOUNT), **SHARED)
    pod = await pods.ready("timed")
    times = [float(line) for line in (await pods.text(pod, "shared/probes", lambda t: t.count("\n") >= 3)).split()]
    start = float(pods.file(pod, "shared/start").read_text())
    assert 0.8 <= times[0] - start < 1.8
    assert times[2] - times[0] == pytest.approx(2.0, abs=0.6)


async def test_liveness_restarts_the_container_after_its_threshold(pods: Pods) -> None:
    probe = {"exec": {"command": ["test", "-e", "/shared/up"]}, "periodSeconds": 1, "failureThreshold": 2}
    script = f"echo x >>/shared/starts; touch /shared/up; {STAY}"
    await pods.create("dying", shell(script, livenessProbe=probe, **MOUNT), **SHARED)
    pod = await pods.ready("dying")
    await pods.text(pod, "shared/up", lambda _: True)

    pods.file(pod, "shared/up").unlink()

    pod = await pods.until("dying", lambda pod: container_status(pod)["restartCount"] == 1)
    assert await pods.text(pod, "shared/starts", lambda text: text.count("\n") == 2)
    assert terminated(pod)["exitCode"] == 0, "SIGTERM first, and this one obeys"
    await pods.event("dying", "Killing", containing="Container main failed liveness probe, will be restarted")
    await pods.ready("dying")


async def test_the_grace_of_a_liveness_probe_replaces_the_pods(pods: Pods) -> None:
    probe = {
        "exec": {"command": ["test", "!", "-e", "/shared/deaf"]},
        "periodSeconds": 1,
        "failureThreshold": 1,
        "terminationGracePeriodSeconds": 1,
    }
    deaf = "trap '' TERM; touch /shared/deaf; while :; do sleep 0.05; done"
    container = shell(deaf, livenessProbe=probe, **MOUNT)
    await pods.create("deaf", container, terminationGracePeriodSeconds=300, restartPolicy="Never", **SHARED)
    started_s = time.monotonic()
    pod = await pods.finished("deaf")
    assert terminated(pod)["exitCode"] == 137
    assert time.monotonic() - started_s < 60
    assert phase(pod) == "Failed", "who may not be restarted stays dead"


async def test_startup_holds_the_others_back(pods: Pods) -> None:
    startup = {"exec": {"command": ["test", "-e", "/shared/up"]}, "periodSeconds": 1, "failureThreshold": 60}
    liveness = {"exec": {"command": ["sh", "-c", "echo x >>/shared/liveness; test -e /shared/up"]}}
    liveness |= {"periodSeconds": 1, "failureThreshold": 1}
    readiness = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    probes = {"startupProbe": startup, "livenessProbe": liveness, "readinessProbe": readiness}
    await pods.create("starting", shell(STAY, **probes, **MOUNT), **SHARED)

    pod = await pods.until("starting", lambda pod: container_status(pod).get("state", {}).get("running"))
    assert not container_status(pod)["started"]
    assert not container_status(pod)["ready"]
    await asyncio.sleep(1.2)
    assert not pods.file(pod, "shared/liveness").exists()

    pods.file(pod, "shared/up").touch()
    pod = await pods.ready("starting")
    assert container_status(pod)["started"]
    assert container_status(pod)["restartCount"] == 0


async def test_a_startup_probe_that_never_succeeds_restarts_the_container(pods: Pods) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 2}
    await pods.create("never", shell(STAY, startupProbe=probe))
    pod = await pods.until("never", lambda pod: container_status(pod).get("restartCount") == 1)
    assert not container_status(pod)["ready"]
    await pods.event("never", "Killing", containing="failed startup probe, will be restarted")
