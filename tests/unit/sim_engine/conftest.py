"""Fixtures that start simulated engines and end them with the test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.sim_engine.servers import (
    FAST,
    Ollama,
    Simulator,
    Spawn,
    StartOllama,
    StartVllm,
    Vllm,
    bare_environment,
    openai_client,
    serving,
)

from fairlead_sim.ollama.environment import read_environment
from fairlead_sim.ollama.server import make_app as make_ollama_app
from fairlead_sim.ollama.service import Service as OllamaService
from fairlead_sim.settings import Settings
from fairlead_sim.vllm import flags
from fairlead_sim.vllm.app import make_app as make_vllm_app
from fairlead_sim.vllm.config import make_config
from fairlead_sim.vllm.service import Service as VllmService


@pytest.fixture
async def start_vllm() -> AsyncIterator[StartVllm]:
    """Starts simulated vLLMs that end with the test."""
    opened: list[Callable[[], Any]] = []

    async def start(*arguments: str, settings: Settings = FAST, **environment: str) -> Vllm:
        listed = flags.load_flags()
        given = ["serve", "org/tiny-1B", "--served-model-name", "tiny", *arguments]
        service = VllmService(make_config(flags.parse(given, listed), listed, environment, settings), settings)
        service.engine.start()
        context = serving(make_vllm_app(service))
        url = await context.__aenter__()
        client = openai_client(url)

        async def close() -> None:
            await client.close()
            await service.engine.stop()
            await context.__aexit__(None, None, None)

        opened.append(close)
        return Vllm(url, service, client)

    yield start
    for close in opened:
        await close()


@pytest.fixture
async def vllm(start_vllm: StartVllm) -> Vllm:
    """One with defaults."""
    return await start_vllm()


@pytest.fixture
async def start_ollama(tmp_path: Path) -> AsyncIterator[StartOllama]:
    """Starts simulated Ollamas that end with the test; they share a volume unless told otherwise."""
    opened: list[Callable[[], Any]] = []

    async def start(*, settings: Settings = FAST, **environment: str) -> Ollama:
        service = OllamaService(read_environment({"OLLAMA_MODELS": str(tmp_path / "models"), **environment}), settings)
        context = serving(make_ollama_app(service))
        url = await context.__aenter__()

        async def close() -> None:
            await service.scheduler.close()
            await context.__aexit__(None, None, None)

        opened.append(close)
        return Ollama(url, service)

    yield start
    for close in opened:
        await close()


@pytest.fixture
async def ollama_server(start_ollama: StartOllama) -> Ollama:
    """One with defaults."""
    return await start_ollama()


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    """Starts simulator processes that do not outlive the test."""
    started: list[Simulator] = []

    def start(*arguments: str, port: int | None = None, **environment: str) -> Simulator:
        output = tmp_path / f"output-{len(started)}.txt"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "fairlead_sim", *arguments],
                env=bare_environment(tmp_path, **environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=tmp_path,
            )
        started.append(Simulator(process, f"http://127.0.0.1:{port}", output))
        return started[-1]

    yield start
    for simulator in started:
        if simulator.process.poll() is None:
            simulator.process.kill()
            simulator.process.wait()
