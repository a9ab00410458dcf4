"""What scaling reads of, and through, a real Envoy: a gateway's requests to one backend, and an engine behind TLS."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
from tests.gateway.asking import make_body
from tests.gateway.mounts import Mount
from tests.gateway.world import backend_entries, make_world
from tests.unit.gateway.envoy_process import envoy_binary
from tests.unit.sim_engine.servers import free_port
from tests.unit.sources.pods import answer, serving_pods

from fairlead.config import OperatorConfig
from fairlead.facts.observed import ObjectKey
from fairlead.facts.scaling import Measure, Sample, ScrapeWish, Source, Target
from fairlead.gateway.envoy.certificate import CERTIFICATE_FILE, make_certificate_source
from fairlead.gateway.envoy.terminator import make_terminator
from fairlead.runtime.signals import make_sources
from fairlead_cluster.certificates import Authority
from fairlead_cluster.providers import Fault, Kind

KEY = ObjectKey("LLMDeployment", "ml", "m")
SPEC: dict[str, Any] = {
    "gateway": {"replicas": 1},
    "backends": backend_entries("alpha", "beta"),
    "authentication": {"anonymous": {}},
    "dataPolicy": {"default": "Public"},
    "models": [
        {"name": "chat", "targets": [{"backend": "alpha"}]},
        {"name": "other", "targets": [{"backend": "beta"}]},
        {"name": "sticky", "targets": [{"backend": "alpha"}], "affinity": {"header": "x-session"}},
    ],
}


async def test_requests_to_a_backend_and_their_times(tmp_path: Path) -> None:
    with make_world(SPEC, tmp_path) as world:
        source = make_sources(OperatorConfig(), time.monotonic)[Source.GATEWAY]
        wish = ScrapeWish("/metrics", world.gateway.settings.status_port, interval_s=1.0, source=Source.GATEWAY)
        targets = [Target("g-1", "u1", "127.0.0.1", backends=frozenset({"alpha"}))]

        end = time.monotonic() + 30
        counts = {measure: [0.0] * 64 for measure in (Measure.LATENCY, Measure.TIME_TO_FIRST_TOKEN)}

        async def look() -> Sample:
            """Whatever it tells of times is added up: no look can miss what another one was told."""
            await asyncio.sleep(0.55)  # an answer is kept for half of an interval
            found = await source.look(KEY, wish, targets)
            for measure, sums in counts.items():
                if measure in found.times:
                    for number, count in enumerate(found.times[measure].counts):
                        sums[number] += count
            assert time.monotonic() < end, (found, counts)
            return found

        async def until_running(count: int) -> Sample:
            while (sample := await look()).running != count:
                await asyncio.sleep(0.02)
            return sample

        async with httpx.AsyncClient(timeout=30) as client:

            async def ask(model: str, **more: Any) -> int:
                headers = {"x-session": "a"} if model == "sticky" else {}
                url = f"{world.gateway.url}/v1/chat/completions"
                return (await client.post(url, json=make_body(model, **more), headers=headers)).status_code

            await look()
            world["alpha"].fail(Fault(Kind.SLOW, delay_s=2.0))
            held = [asyncio.create_task(ask(model)) for model in ("chat", "chat", "sticky", "other")]
            await until_running(3)
            assert [await task for task in held] == [200] * 4
            sample = await until_running(0)
            # Envoy adds up histograms every five seconds.
            while any(sum(sums) < 3 for sums in counts.values()):
                await asyncio.sleep(0.02)
                sample = await look()
        await source.close()
    assert (sample.asked, sample.answered, sample.problem, sample.waiting, sample.kv_cache_usage) == (
        1,
        1,
        "",
        None,
        None,
    )
    for measure, sums in counts.items():
        assert sum(sums) == 3, "and none of beta's"
        bounds = (*sample.times[measure].bounds, 1e9)
        assert sum(count for bound, count in zip(bounds, sums, strict=False) if bound >= 1.0) == 3, (
            "each took two seconds"
        )


async def test_an_engine_behind_the_tls_of_its_pod_is_read(tmp_path: Path) -> None:
    """By the Envoy that a pod with spec.encryption has. Nobody verifies its certificate."""
    issued = Authority("somebody").issue("m", ["m.ml.svc"])
    Mount(tmp_path / "tls").write({"tls.crt": issued.cert.decode(), "tls.key": issued.key.decode()})
    source = json.dumps(make_certificate_source(str(tmp_path / "tls")))
    Mount(tmp_path / "source").write({CERTIFICATE_FILE: source})
    port = free_port()
    async with serving_pods(lambda _: answer("running 3\n")) as engine:
        config = make_terminator("127.0.0.1", port, engine.port, str(tmp_path / "source"))
        command = [str(envoy_binary()), "--config-yaml", config, "--concurrency", "1", "--disable-hot-restart"]
        with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as envoy:
            try:
                eye = make_sources(OperatorConfig(), time.monotonic)[Source.ENGINE]
                wish = ScrapeWish("/metrics", engine.port, port, names={Measure.RUNNING_REQUESTS: ("running",)})
                targets, end = [Target("m-1", "u1", "127.0.0.1", is_tls=True)], time.monotonic() + 20
                while (sample := await eye.look(KEY, wish, targets)).answered < 1:
                    assert time.monotonic() < end, (sample, (tmp_path / "log").read_text())
                    await asyncio.sleep(0.05)
                await eye.close()
            finally:
                envoy.kill()
    assert (sample.running, sample.problem) == (3, "")
    assert all(path == "/metrics" for _, path in engine.asked)
