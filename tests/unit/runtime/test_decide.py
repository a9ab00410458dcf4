"""Planning in the operator: built-in engines here, other people's in a process that may be stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.unit.planning.authorities import LocalAuthority

from fairlead.config import make_config
from fairlead.facts.observed import Observed, OperatorFacts
from fairlead.kube.cache import Cache
from fairlead.planning.plan import Plan
from fairlead.runtime.certificates import Certificates
from fairlead.runtime.decide import ENGINE_KEY, DeploymentPlanner, decide
from fairlead.runtime.sandbox import Sandbox

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VLLM = (Path(__file__).parents[3] / "operator/fairlead/engines/vllm.yaml.j2").read_text()
MINE = VLLM.replace("name: vLLM", "name: Mine", 1)
HEADER = MINE.split("\n---\n", 1)[0] + "\n---\n"
#: Nested loops over a list of 26 entries, 26^6 rounds: minutes. Small, allowed, no function is called, nothing is printed.
_LOOPS = "".join(f"{{% for v{number} in letters %}}" for number in range(6)) + "{% endfor %}" * 6
ENDLESS = HEADER + "{% set letters = 'abcdefghijklmnopqrstuvwxyz'|list %}" + _LOOPS
#: Each step doubles a text.
GREEDY = HEADER + "{% set s = 'sixteen letters!' %}" + "{% set s = s ~ s %}" * 40


def cr(engine: str = "vLLM", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": "m", "namespace": "ml", "uid": "u", "generation": 1},
        "spec": {
            "model": {"source": "hf://meta-llama/Llama-3.1-8B-Instruct"},
            "engine": {"type": engine},
            "accelerator": {"count": 1},
            **spec,
        },
    }


def engine_map(text: str | None, name: str = "mine", engine: str = "Mine", version: int = 1) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "fairlead-system",
            "uid": name,
            "resourceVersion": str(version),
            "labels": {"fairlead.dev/engine": engine},
        },
        "data": {} if text is None else {ENGINE_KEY: text},
    }


@asynccontextmanager
async def planning(*maps: dict[str, Any], time_limit_s: float = 1.0) -> AsyncIterator[tuple[DeploymentPlanner, Cache]]:
    cache = Cache()
    for config_map in maps:
        cache.put(config_map, "ConfigMap")
    planner = DeploymentPlanner(make_config({}, {}), cache, Sandbox(time_limit_s=time_limit_s), LocalAuthority)
    try:
        yield planner, cache
    finally:
        await planner.close()


def stalled(plan: Plan) -> tuple[str, str]:
    condition = next(c for c in plan.status["conditions"] if c["type"] == "Stalled")
    return str(condition["reason"]), str(condition["message"])


async def test_a_built_in_engine_is_planned_here() -> None:
    async with planning() as (planner, _):
        plan = await planner.plan(cr(), Observed(), NOW)
        assert plan == decide(cr(), Observed(), {}, OperatorFacts(), NOW)
        assert planner._sandbox._process is None
        assert stalled(plan)[0] == "NotStalled"


async def test_a_certificate_is_there_before_the_pods_and_its_key_is_never_in_the_sandbox() -> None:
    async with planning(engine_map(MINE)) as (planner, _):
        sandboxed: list[Observed] = []
        decide_there = planner._sandbox.decide

        async def spy(raw: Any, observed: Observed, *more: Any) -> Plan:
            sandboxed.append(observed)
            return await decide_there(raw, observed, *more)

        planner._sandbox.decide = spy  # type: ignore[method-assign]
        for engine in ("vLLM", "Mine"):
            plan = await planner.plan(cr(engine, encryption={}), Observed(), NOW)
            first = plan.children[0]
            assert str(first.key) == f"Secret/{cr()['metadata']['name']}-pods-tls"
            again = await planner.plan(cr(engine, encryption={}), Observed({first.key: first.body}), NOW)
            assert again.children[0] == first
        assert [len(one.children) for one in sandboxed] == [0, 0]


async def test_without_an_authority_status_says_so_and_everything_else_is_applied() -> None:
    async with planning() as (planner, _):
        authority = LocalAuthority()
        authority.problem = "Secret fairlead-ca is broken. Next: mend it."
        planner._certificates = Certificates(lambda: authority)
        plan = await planner.plan(cr(encryption={}), Observed(), NOW)
        assert {child.key.kind for child in plan.children} >= {"Deployment", "Service"}
        assert stalled(plan) == (
            "CertificateNotIssued",
            "The certificate of the pods is not issued: Secret fairlead-ca is broken. Next: mend it.",
        )
        assert plan.requeue_after_s is not None
        assert plan.requeue_after_s <= 60


async def test_an_invalid_resource_is_planned_as_such() -> None:
    async with planning() as (planner, _):
        plan = await planner.plan(cr(parallelism={"tensor": 3}), Observed(), NOW)
        assert plan.children == ()
        assert stalled(plan)[0] == "InvalidSpec"
        assert "spec.parallelism.tensor" in stalled(plan)[1]


@pytest.mark.parametrize("spec", [{"engine": "vLLM"}, {"engine": None}, {"engine": {"type": 7}}])
async def test_a_resource_of_the_wrong_shape_does_not_end_the_pass(spec: dict[str, Any]) -> None:
    async with planning() as (planner, _):
        resource = cr()
        resource["spec"] |= spec
        assert stalled(await planner.plan(resource, Observed(), NOW))[0] == "InvalidSpec"


async def test_an_engine_of_ones_own_gives_the_same_plan_as_the_one_it_was_copied_from() -> None:
    async with planning(engine_map(MINE)) as (planner, _):
        mine = await planner.plan(cr("Mine"), Observed(), NOW)
        built_in = await planner.plan(cr(), Observed(), NOW)
        assert planner._sandbox._process is not None
        images = [
            next(c for c in plan.children if c.key.kind == "Deployment").body["spec"]["template"]["spec"]["containers"][
                0
            ]["image"]
            for plan in (mine, built_in)
        ]
        assert images[0] == images[1]


async def test_an_endless_template_is_stopped_stalls_its_user_and_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with planning(
        engine_map(ENDLESS), engine_map(MINE.replace("name: Mine", "name: Good", 1), "good", "Good")
    ) as (planner, _):
        await planner.plan(cr("Good"), Observed(), NOW)  # the process is up
        started = time.monotonic()
        endless = asyncio.create_task(planner.plan(cr("Mine"), Observed(), NOW))
        await asyncio.sleep(0.1)
        assert stalled(await planner.plan(cr(), Observed(), NOW))[0] == "NotStalled", "the loop is free meanwhile"
        reason, message = stalled(await endless)
        assert time.monotonic() - started < 5
        assert reason == "EngineInvalid"
        assert "longer than 1 s" in message
        assert "ConfigMap fairlead-system/mine" in message
        assert "was ended: a template took longer than it may" in caplog.text
        assert stalled(await planner.plan(cr("Good"), Observed(), NOW))[0] == "NotStalled", (
            "a new process serves the others"
        )


async def test_a_greedy_template_is_told_its_limit() -> None:
    async with planning(engine_map(GREEDY), time_limit_s=10.0) as (planner, _):
        reason, message = stalled(await planner.plan(cr("Mine"), Observed(), NOW))
        assert reason == "EngineInvalid"
        assert "64 MiB" in message or "MemoryError" in message
        assert stalled(await planner.plan(cr(), Observed(), NOW))[0] == "NotStalled"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEADER + "{% if %}\n", f":{HEADER.count(chr(10)) + 1}:"),
        (HEADER + "image: {{ nothing.at.all }}\n", "nothing"),
        ("no header", "no line `---`"),
        (None, f"has no key {ENGINE_KEY}"),
    ],
)
async def test_a_broken_template_is_told_with_file_line_and_reason(text: str | None, said: str) -> None:
    async with planning(engine_map(text)) as (planner, _):
        reason, message = stalled(await planner.plan(cr("Mine"), Observed(), NOW))
        assert reason == "EngineInvalid"
        assert "fairlead-system/mine" in message
        assert said in message


async def test_an_engine_that_is_corrected_is_used_at_once() -> None:
    async with planning(engine_map(HEADER + "{% if %}")) as (planner, cache):
        assert stalled(await planner.plan(cr("Mine"), Observed(), NOW))[0] == "EngineInvalid"
        cache.put(engine_map(MINE, version=2), "ConfigMap")
        assert stalled(await planner.plan(cr("Mine"), Observed(), NOW))[0] == "NotStalled"


async def test_an_unknown_engine_is_answered_with_the_names_of_all() -> None:
    async with planning(engine_map(MINE)) as (planner, _):
        reason, message = stalled(await planner.plan(cr("Yours"), Observed(), NOW))
        assert reason == "EngineNotFound"
        assert all(name in message for name in ("Mine", "Ollama", "vLLM"))


async def test_config_maps_of_other_namespaces_do_not_count() -> None:
    foreign = engine_map(MINE)
    foreign["metadata"]["namespace"] = "tenant"
    async with planning(foreign) as (planner, _):
        assert stalled(await planner.plan(cr("Mine"), Observed(), NOW))[0] == "EngineNotFound"


async def test_a_killed_sandbox_is_replaced() -> None:
    async with planning(engine_map(MINE)) as (planner, _):
        await planner.plan(cr("Mine"), Observed(), NOW)
        process = planner._sandbox._process
        assert process is not None
        process.kill()
        await process.wait()
        assert stalled(await planner.plan(cr("Mine"), Observed(), NOW))[0] == "NotStalled"


async def test_a_cancelled_caller_leaves_no_answer_behind_for_the_next() -> None:
    async with planning(
        engine_map(ENDLESS), engine_map(MINE.replace("name: Mine", "name: Good", 1), "good", "Good"), time_limit_s=30
    ) as (planner, _):
        await planner.plan(cr("Good"), Observed(), NOW)
        endless = asyncio.create_task(planner.plan(cr("Mine"), Observed(), NOW))
        await asyncio.sleep(0.2)
        endless.cancel()
        await asyncio.gather(endless, return_exceptions=True)
        assert stalled(await planner.plan(cr("Good"), Observed(), NOW))[0] == "NotStalled"


async def test_the_sandbox_has_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/secret/config")
    monkeypatch.setenv("SOME_TOKEN", "s3cret")
    async with planning(engine_map(MINE)) as (planner, _):
        await planner.plan(cr("Mine"), Observed(), NOW)
        process = planner._sandbox._process
        assert process is not None
        environment = Path(f"/proc/{process.pid}/environ")
        if environment.exists():
            assert b"s3cret" not in environment.read_bytes()
            assert b"KUBECONFIG" not in environment.read_bytes()


async def test_errors_of_the_other_side_are_raised_here() -> None:
    sandbox = Sandbox()
    try:
        with pytest.raises(AttributeError, match="children"):
            await sandbox.decide(cr(), None, {}, OperatorFacts(), NOW)  # type: ignore[arg-type]
    finally:
        await sandbox.close()
