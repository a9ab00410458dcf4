"""What it costs to ask 1,000 engine pods for their metrics: each of an LLMDeployment of its own, every five seconds, by the operator's own
collector. The pods are one process that answers with what the simulated vLLM tells. And what it costs to ask a Prometheus that knows
the answer at once."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psutil
import uvloop
from tests.bench.figures import Figure
from tests.unit.planning.world import VLLM, make_resource

from fairlead.api import names
from fairlead.config import OperatorConfig
from fairlead.engines.loader import EngineCatalog
from fairlead.facts.observed import ObjectKey, OperatorFacts
from fairlead.facts.prometheus import PrometheusFacts
from fairlead.facts.scaling import TIMES, ScrapeWish, Target
from fairlead.kube.cache import Cache
from fairlead.planning.deployment.serving import decide_serving
from fairlead.planning.deployment.signals import make_scrape_wish
from fairlead.runtime.signals import Collector, make_sources
from fairlead.sources.prometheus import PrometheusSettings, PrometheusSource

PODS = 1000
ROUNDS = 4
_SERVER = """
import asyncio
from prometheus_client import generate_latest
from fairlead_sim.settings import Settings
from fairlead_sim.vllm import flags
from fairlead_sim.vllm.config import make_config
from fairlead_sim.vllm.service import Service

async def main():
    settings, listed = Settings(), flags.load_flags()
    given = flags.parse(["serve", "org/tiny-1B", "--served-model-name", "tiny"], listed)
    body = generate_latest(Service(make_config(given, listed, {}, settings), settings).metrics.registry)
    head = f"HTTP/1.1 200 OK\\r\\nContent-Type: text/plain\\r\\nConnection: close\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"

    class Pod(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, _):
            self.transport.write(head.encode() + body)
            self.transport.close()

    server = await asyncio.get_running_loop().create_server(Pod, "0.0.0.0", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], len(body), flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


_PROMETHEUS = """
import asyncio, re, sys

async def main():
    body = open(sys.argv[1], "rb").read()
    head = f"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n".encode()

    async def answer(reader, writer):
        while not reader.at_eof():
            try:
                request = await reader.readuntil(b"\\r\\n\\r\\n")
            except asyncio.IncompleteReadError:
                break
            await reader.readexactly(int(re.search(rb"(?i)content-length: (\\d+)", request)[1]))
            writer.write(head + body)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], len(body), flush=True)
    await server.serve_forever()

asyncio.run(main())
"""
QUERIES = 200


def measure_scraping() -> list[Figure]:
    """CPU of the process that asks, and bytes."""
    with _serving("-c", _SERVER) as (port, size_bytes):
        looks, cpu_s, wall_s, rss_mib, failed = uvloop.run(_scrape(port))
    return [
        Figure(f"metrics of {PODS} pods: CPU per look and pod", 1000 * cpu_s / looks, "ms", "<= 1.3"),
        Figure(f"metrics of {PODS} pods: CPU, asked every 5 s", 100 * cpu_s / wall_s, "% of a core", "<= 26"),
        Figure(f"metrics of {PODS} pods: bytes per look and pod", size_bytes / 1000, "kB", ""),
        Figure(f"metrics of {PODS} pods: memory of {ROUNDS} looks at each", rss_mib, "MiB", ""),
        Figure(f"metrics of {PODS} pods: looks without an answer", failed, "", "= 0"),
        *(Figure(f"Prometheus, {pods} pods: CPU per look", _ask_prometheus(pods), "ms", "") for pods in (1, 8)),
    ]


def _ask_prometheus(pods: int) -> float:
    """Milliseconds of CPU."""
    wish = _make_wish(OperatorFacts(prometheus=PrometheusFacts("http://prometheus:9090")))
    targets = [Target(f"m-{number}", f"u{number}", "") for number in range(pods)]
    result = [
        {"metric": {"signal": measure.value, "pod": target.name, **le}, "value": [1.5, "7"]}
        for target in targets
        for measure in wish.names
        for le in ([{"le": str(bound)} for bound in (*range(22), "+Inf")] if measure in TIMES else [{}])
    ]
    result += [{"metric": {"signal": "age", "pod": target.name}, "value": [1.5, "3"]} for target in targets]
    answer = {"status": "success", "data": {"resultType": "vector", "result": result}}

    async def ask(port: int) -> float:
        settings = PrometheusSettings(f"http://127.0.0.1:{port}")
        source = PrometheusSource(settings, wall=lambda: datetime.now(UTC))
        key = ObjectKey(names.LLMDEPLOYMENT, "ml", "m")
        sample = await source.look(key, wish, targets)
        assert (sample.answered, sample.problem) == (pods, "")
        began = time.process_time()
        for _ in range(QUERIES):
            await source.look(key, wish, targets)
        spent_s = time.process_time() - began
        await source.close()
        return 1000 * spent_s / QUERIES

    with tempfile.NamedTemporaryFile("w") as file:
        file.write(json.dumps(answer))
        file.flush()
        with _serving("-c", _PROMETHEUS, file.name) as (port, _):
            return uvloop.run(ask(port))


def _make_wish(facts: OperatorFacts) -> ScrapeWish:
    return make_scrape_wish(decide_serving(make_resource(VLLM), EngineCatalog.builtin(), facts), facts)


async def _scrape(port: int) -> tuple[int, float, float, float, int]:
    cache, told = Cache(), []
    for number in range(PODS):
        cache.put(_make_pod(number))
    process = psutil.Process()
    clock = asyncio.get_running_loop().time
    collector = Collector(cache, make_sources(OperatorConfig(), clock), told.append, clock=clock)
    wish = replace(_make_wish(OperatorFacts()), port=port)
    collector.start()
    keys = [ObjectKey(names.LLMDEPLOYMENT, "ml", f"m{number}") for number in range(PODS)]
    before, cpu, began = process.memory_info().rss, time.process_time(), time.monotonic()
    for key in keys:
        collector.watch(key, wish)
    await asyncio.sleep(ROUNDS * wish.interval_s)
    cpu_s, wall_s = time.process_time() - cpu, time.monotonic() - began
    rss_mib = (process.memory_info().rss - before) / 1_048_576
    failed = sum(sample.answered == 0 for key in keys for sample in collector.samples(key))
    await collector.close()
    return len(told), cpu_s, wall_s, rss_mib, failed


def _make_pod(number: int) -> dict[str, Any]:
    name = f"m{number}"
    labels = names.make_engine_labels(name)
    metadata = {"name": f"{name}-x", "namespace": "ml", "uid": f"u{number}", "resourceVersion": "1", "labels": labels}
    address = f"127.1.{number // 250}.{number % 250 + 1}"
    status = {"podIP": address, "conditions": [{"type": "Ready", "status": "True"}]}
    spec = {"containers": [{"name": "engine", "image": "vllm/vllm-openai:v0.33.0", "args": ["--port", "8000"] * 20}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


@contextmanager
def _serving(*arguments: str) -> Iterator[tuple[int, int]]:
    """Port and size of an answer."""
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port, size = server.stdout.readline().split()
            yield int(port), int(size)
        finally:
            server.kill()
