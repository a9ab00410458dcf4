"""What an affinity by the prompt's beginning gives: the share of prompts that engines find in their prefix caches, the time to first
token and the throughput, beside the gateway's usual choice between pods and beside chance.

Conversations as KubeAI's benchmark has them (docs/benchmarks/prefix-aware-load-balancing.md there), with fewer pods and less at once. Pods
are the engine simulator with half the speed of an 8B model on an L4, so that two cores keep up with it; ratios are the same. Each turn of a
conversation sends all that was said before, and all conversations together just fit into the caches of all pods. The ways take turns
in one run; each slice has conversations of its own, so that none profits from another. The simulator says what was cached, by vLLM's
own counters.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import httpx
import orjson
from tests.bench.figures import Figure
from tests.bench.gateway.routes import KEY, Files, model_names
from tests.bench.gateway.subjects import Stand

from fairlead_cluster.operators import python_environment
from fairlead_cluster.ports import free_ports
from fairlead_cluster.processes import spawn, wait_until

__all__ = ["measure_affinity"]

Json = dict[str, Any]
PREFIX, USUAL, CHANCE = "promptPrefix", "least request", "random"
_PODS: Final = 4
_CONVERSATIONS: Final = 50 * _PODS
_TURNS: Final = 5
_ROUNDS: Final = 2
#: Words of a question, and of an answer at least and at most, each a token: 76 of an answer in the middle as there, and 560 of a prompt
#: (there 832). Lengths differ and conversations begin one after the other: else all turns of a pod would be one batch.
_QUESTION_WORDS, _ANSWER_WORDS = 110, (20, 132)
_BEGIN_WITHIN_S: Final = 20.0
_SYSTEM: Final = "You are an assistant of the harbour office and answer in few words. " * 4
#: Half of what KubeAI's figures come to: 6,000 tokens of prompts a second without cache, 27 ms for a token of one stream, 80 among 50.
#: The cache holds a little more than a pod's share of all that is said.
_SPEED: Final = {
    "FAIRLEAD_SIM_LOAD_SECONDS": "0",
    "FAIRLEAD_SIM_PROMPT_TOKENS_PER_SECOND": "3000",
    "FAIRLEAD_SIM_OUTPUT_TOKENS_PER_SECOND": "18.5",
    "FAIRLEAD_SIM_BATCH_SLOWDOWN": "0.04",
    "FAIRLEAD_SIM_KV_CACHE_TOKENS": "70000",
}
_START_TIMEOUT_S: Final = 60.0
_COUNTERS: Final = re.compile(r"^vllm:prefix_cache_(queries|hits)_total\{[^}]*\} (\S+)$", re.MULTILINE)


@dataclass
class Slice:
    """One way's turn. Times to first token in seconds, over all requests; `hits` and `queries` in prompt tokens."""

    first_s: list[float] = field(default_factory=list)
    took_s: float = 0.0
    hits: float = 0.0
    queries: float = 0.0

    @property
    def mean_first_s(self) -> float:
        """Over all requests, those that begin a conversation included."""
        return statistics.fmean(self.first_s)

    @property
    def hit_ratio(self) -> float:
        """Share of the prompts' tokens that were cached."""
        return self.hits / self.queries

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.first_s) / self.took_s


def measure_affinity() -> list[Figure]:
    """All figures; none has a target, since they are the simulator's."""
    with (
        tempfile.TemporaryDirectory(prefix="fl-gw-") as directory,
        Stand(Path(directory)) as stand,
        _running_pods(Path(directory)) as ports,
    ):
        ways = {
            PREFIX: stand.gateway(PREFIX, affinity={"promptPrefix": {}}, patch=lambda files: _lead_to(files, ports)),
            USUAL: stand.gateway(USUAL, patch=lambda files: _lead_to(files, ports)),
            CHANCE: stand.gateway(CHANCE, patch=lambda files: _lead_to(files, ports, policy="RANDOM")),
        }
        slices = asyncio.run(_take_turns({name: one.port for name, one in ways.items()}, ports))
    return _figures(slices)


@contextmanager
def _running_pods(directory: Path) -> Iterator[list[int]]:
    """Simulated engines; their ports."""
    ports = free_ports(_PODS)
    command = [
        sys.executable,
        "-m",
        "fairlead_sim",
        "vllm",
        "serve",
        "acme/llama-8b",
        "--served-model-name",
        "engine-0-model",
    ]
    command += ["--max-model-len", "16384", "--max-num-batched-tokens", "16384", "--enable-prefix-caching"]
    with contextlib.ExitStack() as stack:
        for port in ports:
            line = [*command, "--host", "127.0.0.1", "--port", str(port)]
            process = spawn("engine", line, directory / f"engine-{port}.log", env={**python_environment(), **_SPEED})
            stack.callback(process.stop)
            assert wait_until(lambda port=port: _is_up(port), _START_TIMEOUT_S, 0.2), process.log_path  # type: ignore[misc]
        yield ports


def _is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).is_success
    except httpx.TransportError:
        return False


def _lead_to(files: Files, ports: Sequence[int], policy: str = "") -> Files:
    """The same with these pods behind the deployment, as its DNS name would have them; `policy` in place of the usual one."""
    document = orjson.loads(files.routing["cds.json"])
    for cluster in document["resources"]:
        if not cluster["name"].startswith(("be~", "pin~")):
            continue
        addresses = [{"socket_address": {"address": "127.0.0.1", "port_value": port}} for port in ports]
        endpoints = [{"endpoint": {"address": address}} for address in addresses]
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = endpoints
        if policy:
            cluster["lb_policy"] = policy
    return Files(files.bootstrap, {**files.routing, "cds.json": orjson.dumps(document).decode()}, files.clients)


async def _take_turns(ways: Mapping[str, int], pods: Sequence[int]) -> Mapping[str, list[Slice]]:
    slices: dict[str, list[Slice]] = {name: [] for name in ways}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=600)) as session:
        for turn in range(_ROUNDS):
            for name in random.sample(list(ways), len(ways)):
                before = await _count(session, pods)
                began = time.monotonic()
                one = Slice()
                dice = random.Random(f"{turn} {name}")
                talks = [_converse(session, ways[name], one, dice.randrange(1 << 30)) for _ in range(_CONVERSATIONS)]
                await asyncio.gather(*talks)
                one.took_s = time.monotonic() - began
                after = await _count(session, pods)
                one.queries, one.hits = (after[kind] - before[kind] for kind in ("queries", "hits"))
                slices[name].append(one)
                print(f"{name}: {one.hit_ratio:.0%} cached, {one.mean_first_s:.2f} s, {one.rate:.1f}/s", flush=True)
    return slices


async def _count(session: aiohttp.ClientSession, pods: Sequence[int]) -> Mapping[str, float]:
    totals = {"queries": 0.0, "hits": 0.0}
    for port in pods:
        async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            for kind, value in _COUNTERS.findall(await answer.text()):
                totals[kind] += float(value)
    return totals


async def _converse(session: aiohttp.ClientSession, port: int, one: Slice, seed: int) -> None:
    """All turns of a conversation, each as soon as the one before is answered."""
    dice = random.Random(seed)
    said: list[Json] = [{"role": "system", "content": _SYSTEM}]
    await asyncio.sleep(dice.uniform(0, _BEGIN_WITHIN_S))
    for _ in range(_TURNS):
        said.append({"role": "user", "content": _words(dice, _QUESTION_WORDS)})
        length = dice.randint(*_ANSWER_WORDS)
        one.first_s.append(await _ask(session, port, said, length))
        said.append({"role": "assistant", "content": _words(dice, length)})


async def _ask(session: aiohttp.ClientSession, port: int, said: Sequence[Json], length: int) -> float:
    """Seconds until the first token; returns when all have come."""
    body = {"model": model_names(1)[0], "messages": said, "max_tokens": length, "stream": True}
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    began = time.monotonic()
    first_s = 0.0
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    async with session.post(url, data=json.dumps(body), headers=headers) as answer:
        answer.raise_for_status()
        async for line in answer.content:
            if not first_s and b'"content":"' in line and b'"content":""' not in line:
                first_s = time.monotonic() - began
    assert first_s, "an answer without a token"
    return first_s


def _words(dice: random.Random, count: int) -> str:
    """Of five letters each, with its space a token of the simulator's."""
    return " ".join("".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(count))


def _figures(slices: Mapping[str, list[Slice]]) -> list[Figure]:
    figures = []
    for name, found in slices.items():
        hit = statistics.median(one.hit_ratio for one in found)
        first = statistics.median(one.mean_first_s for one in found)
        rate = statistics.median(one.rate for one in found)
        figures += [
            Figure(f"affinity, {name}: prompt tokens from the prefix cache", 100 * hit, "%", ""),
            Figure(f"affinity, {name}: mean time to first token", 1000 * first, "ms", ""),
            Figure(f"affinity, {name}: requests", rate, "1/s", ""),
        ]
    for other in (USUAL, CHANCE):
        pairs = list(zip(slices[PREFIX], slices[other], strict=True))
        first = statistics.median(one.mean_first_s / beside.mean_first_s for one, beside in pairs)
        rate = statistics.median(one.rate / beside.rate for one, beside in pairs)
        figures += [
            Figure(f"affinity: mean time to first token, beside {other}", first, "times", ""),
            Figure(f"affinity: throughput, beside {other}", rate, "times", ""),
        ]
    return figures
