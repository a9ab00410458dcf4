"""From an engine that becomes slow to an alert in status and back, through a real Prometheus and two real Alertmanagers that do not know of
each other."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from hack.prometheus import Monitoring
from tests.monitoring.stack import monitoring_stack
from tests.unit.packaging.conftest import find_monitoring
from tests.unit.runtime.alertdesk import KEY, TOKEN, alert_desk

from fairlead.runtime.alerts import PATH
from fairlead_cluster.errors import BuildError
from fairlead_cluster.operators import python_environment
from fairlead_cluster.ports import free_ports
from fairlead_cluster.processes import spawn, wait_until

#: So much that a short prompt is late on no machine: of forty in a window more than two would have to be.
FIRST_TOKEN_S = 1.0
#: Tokens are at most six bytes; a thousand of them are prefilled in a second.
SHORT, LONG = "Hi", "word " * 1600
CALM = 10
#: Far more than the some six seconds that it takes on an idle machine: scrape, window, `for`, group_wait.
PATIENCE_S = 60.0


@contextmanager
def engine(folder: Path) -> Iterator[str]:
    """host:port of a simulated vLLM."""
    (port,) = free_ports(1)
    environment = python_environment() | {
        "FAIRLEAD_SIM_LOAD_SECONDS": "0",
        "FAIRLEAD_SIM_PROMPT_TOKENS_PER_SECOND": "1000",
        "FAIRLEAD_SIM_OUTPUT_TOKENS_PER_SECOND": "1000",
    }
    command = [sys.executable, "-m", "fairlead_sim", "vllm", "serve", "org/tiny", "--port", str(port)]
    process = spawn("engine", [*command, "--no-enable-prefix-caching"], folder / "engine.log", env=environment)
    try:
        assert wait_until(lambda: is_up(f"http://127.0.0.1:{port}/health"), 30.0, 0.1), (
            folder / "engine.log"
        ).read_text()
        yield f"127.0.0.1:{port}"
    finally:
        process.stop()


def is_up(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@dataclass
class Traffic:
    """Requests one after the other, as long as it goes on."""

    prompt: str = SHORT


@asynccontextmanager
async def traffic(address: str) -> AsyncIterator[Traffic]:
    kind = Traffic()

    async def ask() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            while True:
                body = {"model": "org/tiny", "prompt": kind.prompt, "max_tokens": 2}
                (await client.post(f"http://{address}/v1/completions", json=body)).raise_for_status()
                await asyncio.sleep(0.1)

    task = asyncio.create_task(ask())
    try:
        yield kind
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def find_startable() -> Monitoring:
    """Prometheus and Alertmanager, or the end of the test."""
    tools = find_monitoring()
    try:
        _ = tools.alertmanager_command
    except BuildError as error:
        pytest.skip(f"Alertmanager cannot be started: {error}")
    return tools


async def until(condition: Callable[[], object], what: str) -> float:
    """Seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < PATIENCE_S, f"not in {PATIENCE_S:.0f} s: {what}"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def test_slow_engine_alert_status_and_back(tmp_path: Path) -> None:
    tools = find_startable()
    desk_folder, folder = tmp_path / "desk", tmp_path / "stack"
    desk_folder.mkdir()
    folder.mkdir()
    async with alert_desk(desk_folder) as desk:
        webhook = f"http://127.0.0.1:{desk.server.port}{PATH}"
        with (
            engine(folder) as address,
            monitoring_stack(
                tools,
                folder,
                engines=[address],
                webhook=webhook,
                token="a-token-that-is-wrong",
                first_token_s=FIRST_TOKEN_S,
                alertmanagers=2,
            ) as stack,
        ):
            async with traffic(address) as requests:
                await until(lambda: stack.judges_by(CALM), "short prompts, by which nothing alerts")
                assert desk.seen.results == {}, "nothing is slow yet"
                requests.prompt = LONG
                await until(
                    lambda: desk.seen.results["unauthorized"] >= 2, "deliveries with the wrong token, again and again"
                )
                assert desk.kept() == []
                stack.credentials.write_text(TOKEN)
                await until(desk.kept, "the alert in status")
                assert [one["name"] for one in desk.live()["status"]["scaling"]["alerts"]] == [
                    "LLMDeploymentHighTimeToFirstToken"
                ]
                assert set(desk.evaluated) == {KEY}
                requests.prompt = SHORT
                await until(lambda: not desk.kept(), "resolved")
                effects = desk.seen.effects
                await until(lambda: effects["repeated"] + effects["outdated"] >= 2, "what the other one says")
    assert set(desk.seen.results) - {"not_kept"} == {"unauthorized", "accepted"}
    assert effects["firing"] == effects["resolved"]
    assert desk.status_writes == effects["firing"] + effects["resolved"], "what the second one says is no news"
