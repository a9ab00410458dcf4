"""Simulated engines on loopback: in this process where their answers matter, as processes where their end does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
from aiohttp import web
from openai import AsyncOpenAI

from fairlead_sim.ollama.service import Service as OllamaService
from fairlead_sim.settings import Settings
from fairlead_sim.vllm.service import Service as VllmService

OPERATOR = Path(__file__).resolve().parents[3] / "operator"
#: Fast enough that no test waits, slow enough that streams are seen to be streams.
FAST = Settings(
    load_seconds=0.0,
    output_tokens_per_second=2000.0,
    prefill_overhead_seconds=0.001,
    pull_seconds=0.15,
    teardown_seconds=0.0,
)


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """The base URL of an application that is served while the context is open."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@dataclass
class Vllm:
    """A running simulated vLLM and the official client for it."""

    url: str
    service: VllmService
    client: AsyncOpenAI

    async def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """A plain request."""
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.post(self.url + path, json=body, headers=headers)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """A plain request."""
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.get(self.url + path, headers=headers)

    async def metric(self, name: str, **labels: str) -> float:
        """The value of a sample of /metrics."""
        (await self.get("/metrics")).raise_for_status()
        value = self.service.metrics.registry.get_sample_value(name, {"model_name": "tiny", "engine": "0", **labels})
        assert value is not None, f"there is no {name}{labels}"
        return value


class StartVllm(Protocol):
    """Starts a simulated vLLM with these arguments behind `serve`."""

    async def __call__(self, *arguments: str, settings: Settings = FAST, **environment: str) -> Vllm: ...


def openai_client(url: str, key: str = "none") -> AsyncOpenAI:
    """The official client, which fails at the first failure."""
    http = httpx.AsyncClient(trust_env=False)
    return AsyncOpenAI(base_url=url + "/v1", api_key=key, max_retries=0, http_client=http, timeout=30)


@dataclass
class Ollama:
    """A running simulated Ollama."""

    url: str
    service: OllamaService


class StartOllama(Protocol):
    """Starts a simulated Ollama on a volume."""

    async def __call__(self, *, settings: Settings = FAST, **environment: str) -> Ollama: ...


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def status_of(url: str) -> int:
    """HTTP status of a GET; 0 when the connection is refused."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionRefusedError):
            return 0
        raise


@dataclass
class Simulator:
    """A simulator process."""

    process: subprocess.Popen[bytes]
    url: str
    output: Path

    def wait_until(self, path: str, status: int, timeout_s: float = 15.0) -> float:
        """Wait until a GET answers so; seconds that it took."""
        began = time.monotonic()
        while status_of(self.url + path) != status:
            assert self.process.poll() is None, self.said
            assert time.monotonic() - began < timeout_s, self.said
            time.sleep(0.02)
        return time.monotonic() - began

    def end(self, signum: signal.Signals = signal.SIGTERM, timeout_s: float = 15.0) -> tuple[int, float]:
        """Send a signal and wait: exit code, seconds."""
        began = time.monotonic()
        self.process.send_signal(signum)
        return self.process.wait(timeout_s), time.monotonic() - began

    @property
    def said(self) -> str:
        """stdout and stderr so far."""
        return self.output.read_text()


class Spawn(Protocol):
    """Starts `fairlead-sim ARGUMENTS` with this environment on top of a bare one."""

    def __call__(self, *arguments: str, port: int | None = None, **environment: str) -> Simulator: ...


def bare_environment(tmp_path: Path, **environment: str) -> dict[str, str]:
    """What a container would have; nothing of the test run's own environment but PATH."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": str(OPERATOR),
        "FAIRLEAD_SIM_LOAD_SECONDS": "0",
        "FAIRLEAD_SIM_TEARDOWN_SECONDS": "0",
        "FAIRLEAD_SIM_PULL_SECONDS": "0.1",
        **environment,
    }
