"""The words in which the conformance tests of the node stand-in speak of pods."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fairlead_cluster.api import CONFIG_MAPS, EVENTS, PODS, SECRETS, Api, ApiError
from fairlead_cluster.processes import ManagedProcess, spawn

Json = dict[str, Any]

#: The end of a script that stays until SIGTERM.
STAY = "trap 'exit 0' TERM; while :; do sleep 0.05; done"
#: A volume of the pod, and its mount in a container.
SHARED: Json = {"volumes": [{"name": "shared", "emptyDir": {}}]}
MOUNT: Json = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
SOURCE_ROOT = Path(__file__).parents[3] / "operator"
SHELL, PYTHON = "fairlead.test/shell:1", "fairlead.test/python:1"
CRASH_BACK_OFF_S = 1.0
#: For what takes a second or two on an idle machine.
PATIENCE_S = 45.0
QUICK = (f"--crash-back-off-s={CRASH_BACK_OFF_S}", "--image-back-off-s=2", "--sync-retry-s=0.5")


@dataclass(frozen=True)
class NodeProcess:
    """A running `python -m fairlead_cluster.node`."""

    process: ManagedProcess
    data_dir: Path
    kubeconfig: Path

    @property
    def pods_dir(self) -> Path:
        """Where the files of pods are."""
        return self.data_dir / "pods"


def start_nodes(kubeconfig: Path, data_dir: Path, *arguments: str) -> NodeProcess:
    """Start the stand-in as users do."""
    command = [sys.executable, "-m", "fairlead_cluster.node", f"--kubeconfig={kubeconfig}", f"--data-dir={data_dir}"]
    env = {"PYTHONPATH": str(SOURCE_ROOT), "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(data_dir)}
    log = data_dir.with_suffix(".log")
    process = spawn("nodes", [*command, *arguments], log, env=env)
    return NodeProcess(process, data_dir, kubeconfig)


@dataclass
class Pods:
    """Pods of one namespace: make them, wait for them, look into their files."""

    api: Api
    namespace: str
    nodes: NodeProcess
    _made: list[str] = field(default_factory=list)

    async def create(self, name: str, *containers: Json, **spec: Any) -> Json:
        """A pod with these containers; no token volume unless asked for."""
        annotations = spec.pop("annotations", {})
        body = {
            "metadata": {"name": name, "labels": {"app": name}, "annotations": annotations},
            "spec": {
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": 5,
                "containers": list(containers),
                **spec,
            },
        }
        self._made.append(name)
        return await self.api.create(PODS, body, self.namespace)

    async def config_map(self, name: str, **data: str) -> None:
        """Create or change a ConfigMap."""
        await self.api.apply(
            CONFIG_MAPS, {"metadata": {"name": name}, "data": data}, self.namespace, field_manager="test"
        )

    async def secret(self, name: str, **data: str) -> None:
        """Create or change a Secret."""
        body = {"metadata": {"name": name}, "stringData": data}
        await self.api.apply(SECRETS, body, self.namespace, field_manager="test")

    async def get(self, name: str) -> Json:
        """The pod now."""
        return await self.api.get(PODS, name, self.namespace)

    async def until(self, name: str, holds: Callable[[Json], Any], timeout_s: float = PATIENCE_S) -> Json:
        """The first state of the pod for which `holds` is true; fails with the last one seen."""
        last: Json = {}
        try:
            async with asyncio.timeout(timeout_s):
                watch = self.api.watch(PODS, self.namespace, field_selector=f"metadata.name={name}")
                async with contextlib.aclosing(watch) as events:
                    async for event in events:
                        if event.type not in ("SYNCED", "DELETED"):
                            last = event.object
                            if holds(last):
                                return last
        except TimeoutError:
            pytest.fail(f"pod {name} did not get there in {timeout_s} s; last status: {last.get('status')}")
        raise AssertionError("the watch ended")

    async def ready(self, name: str) -> Json:
        """The pod when it is ready."""
        return await self.until(name, is_ready)

    async def finished(self, name: str) -> Json:
        """The pod when it has succeeded or failed."""
        return await self.until(name, lambda pod: phase(pod) in ("Succeeded", "Failed"))

    async def gone(self, name: str, timeout_s: float = PATIENCE_S) -> float:
        """Wait until the object does not exist; the seconds that took."""
        started_s = time.monotonic()
        async with asyncio.timeout(timeout_s):
            while await self.api.find(PODS, name, self.namespace) is not None:
                await asyncio.sleep(0.05)
        return time.monotonic() - started_s

    async def delete(self, name: str, grace_period_s: int | None = None) -> float:
        """Delete and wait; the seconds that took."""
        await self.api.delete(PODS, name, self.namespace, grace_period_s=grace_period_s)
        return await self.gone(name)

    async def events(self, name: str) -> list[Json]:
        """All events about the pod."""
        found: list[Json] = await self.api.list_all(
            EVENTS, self.namespace, field_selector=f"involvedObject.name={name}"
        )
        return found

    async def event(self, name: str, reason: str, *, containing: str = "", timeout_s: float = PATIENCE_S) -> Json:
        """The first event of that reason whose message contains the text."""
        async with asyncio.timeout(timeout_s):
            while True:
                for event in await self.events(name):
                    if event["reason"] == reason and containing in event["message"]:
                        return event
                await asyncio.sleep(0.05)

    def file(self, pod: Json, path: str) -> Path:
        """A file of a running pod: `<volume>/<path>`."""
        return self.nodes.pods_dir / pod["metadata"]["uid"][:8] / path

    async def text(
        self, pod: Json, path: str, holds: Callable[[str], Any] = bool, timeout_s: float = PATIENCE_S
    ) -> str:
        """The text of a file of a running pod, once `holds` is true for it."""
        return await _text(self.file(pod, path), holds, timeout_s)

    async def log(self, pod: Json, container: str = "main", holds: Callable[[str], Any] = bool, run: int = 0) -> str:
        """What a container's run has printed, once `holds` is true for it."""
        metadata = pod["metadata"]
        name = f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"
        return await _text(self.nodes.data_dir / "logs" / name / container / f"{run}.log", holds, PATIENCE_S)

    async def clean_up(self) -> None:
        """Delete without waiting."""
        for name in self._made:
            with contextlib.suppress(ApiError):
                await self.api.delete(PODS, name, self.namespace, grace_period_s=0)


async def _text(file: Path, holds: Callable[[str], Any], timeout_s: float) -> str:
    seen = ""
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                with contextlib.suppress(FileNotFoundError):
                    seen = file.read_text()
                    if holds(seen):
                        return seen
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"{file.name} did not become what it should; it is {seen!r}")


def shell(script: str, name: str = "main", **container: Any) -> Json:
    """A container that runs a script."""
    return {"name": name, "image": SHELL, "command": ["/bin/sh", "-c", script], **container}


def phase(pod: Json) -> str:
    """Of a pod."""
    return str(pod.get("status", {}).get("phase"))


def condition(pod: Json, kind: str) -> Json:
    """One condition, empty if it is not there."""
    return next((one for one in pod.get("status", {}).get("conditions", []) if one["type"] == kind), {})


def is_ready(pod: Json) -> bool:
    """Whether the Ready condition is true."""
    return condition(pod, "Ready").get("status") == "True"


def container_status(pod: Json, name: str = "main") -> Json:
    """Of a container or init container; empty if there is none yet."""
    status = pod.get("status", {})
    every = [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]
    return next((one for one in every if one["name"] == name), {})


def waiting(pod: Json, name: str = "main") -> Json:
    """`state.waiting` of a container."""
    return container_status(pod, name).get("state", {}).get("waiting") or {}


def terminated(pod: Json, name: str = "main") -> Json:
    """`state.terminated`, else `lastState.terminated`."""
    status = container_status(pod, name)
    found: Json = status.get("state", {}).get("terminated") or status.get("lastState", {}).get("terminated") or {}
    return found
