"""What the operator does not do twice: read its own echoes, draw the same blueprint, compare an object with the answer that made it."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from tests.unit.planning.world import NOW, VLLM, make_resource
from tests.unit.runtime.world import DEPLOYMENTS, KEY, SERVICES, controlling

from fairlead.engines.loader import EngineCatalog
from fairlead.facts.digest import digest_of
from fairlead.facts.observed import ObjectKey, Observed, OperatorFacts
from fairlead.kube.cache import Cache
from fairlead.kube.client import _known_version
from fairlead.kube.patience import _WholeLines
from fairlead.planning.deployment import draw_blueprint, plan_deployment
from fairlead.planning.deployment.revision import ChosenTemplate
from fairlead.planning.deployment.serving import Serving
from fairlead.planning.plan import Child
from fairlead.runtime import applier as applier_module
from fairlead.runtime.decide import Blueprints

FACTS = OperatorFacts()
HEAD = (
    '{"type":"%s","object":{"kind":"Service","apiVersion":"v1","metadata":{"name":"m","namespace":"ml","uid":"u",'
    '"resourceVersion":"7","labels":{}}}}'
)


def service(version: int = 7, uid: str = "u") -> dict[str, Any]:
    return {
        "kind": "Service",
        "metadata": {"name": "m", "namespace": "ml", "uid": uid, "resourceVersion": str(version)},
    }


def cache_with(version: int, uid: str = "u") -> Cache:
    cache = Cache()
    cache.put(service(version, uid))
    return cache


@pytest.mark.parametrize(
    ("line", "cached", "known"),
    [
        (HEAD % "MODIFIED", 7, True),
        (HEAD % "ADDED", 8, True),
        (HEAD % "MODIFIED", 6, False),
        (HEAD % "DELETED", 7, False),  # always news
        (HEAD.replace('"uid":"u"', '"uid":"v"') % "ADDED", 6, False),  # another object under that name
        (HEAD.replace('"uid":"u"', '"uid":"v"') % "ADDED", 8, True),  # its predecessor
        (HEAD.replace('"namespace":"ml",', "") % "MODIFIED", 7, False),  # not as it begins: it is parsed
        (HEAD.replace('"name":"m"', '"name":"\\u006d"') % "MODIFIED", 7, False),
        (HEAD.replace('"namespace"', '"generateName":"m-","namespace"') % "MODIFIED", 7, True),
    ],
)
def test_an_event_is_known_by_how_it_begins(line: str, cached: int, known: bool) -> None:
    cache = cache_with(cached)
    version = _known_version(
        line.encode(), lambda namespace, name, uid, v: cache.is_known(ObjectKey("Service", namespace, name), uid, v)
    )
    assert version == ("7" if known else "")
    if known:  # what is skipped would have changed nothing
        assert not cache.put(json.loads(line)["object"]).is_meaningful


def test_the_dead_are_known() -> None:
    cache, key = cache_with(7), ObjectKey("Service", "ml", "m")
    cache.remove(key, "u", 9)
    assert cache.is_known(key, "u", 9)
    assert not cache.is_known(key, "u", 10)
    assert not cache.is_known(key, "another", 8)


async def test_kopf_hears_only_what_is_new_and_all_of_it() -> None:
    class Stream:
        async def iter_chunked(self, size_bytes: int) -> AsyncIterator[bytes]:
            yield b'{"n":1}\n{"n":2}\n{"n'
            yield b'":3}\n'
            yield b'{"n":4}\nnot json\n'
            yield b'{"n":2}\n'

    lines = _WholeLines(Stream())  # type: ignore[arg-type]
    lines.is_known = lambda event: event["n"] in (2, 3)
    heard = [data async for data in lines.iter_chunked(1)]
    assert heard == [b'{"n":1}\n', b'{"n":4}\nnot json\n'], "a chunk in which nothing is new is no chunk"
    assert isinstance(lines._stream, Stream)
    assert aiohttp  # the type of what is wrapped


def test_a_blueprint_is_drawn_again_for_another_generation_engine_or_installation() -> None:
    blueprints, engines = Blueprints(kept=2), EngineCatalog.builtin()
    resource = make_resource(VLLM)
    first = blueprints.draw(resource, engines, FACTS)
    assert blueprints.draw(replace(resource, status={"x": 1}), engines, FACTS) is first
    assert first.deployment.body == draw_blueprint(resource, engines, FACTS).deployment.body
    edited = make_resource({**VLLM, "replicas": 5}, generation=2)
    assert blueprints.draw(edited, engines, FACTS).deployment.body["spec"]["replicas"] == 5
    source, text = engines.texts["vLLM"]
    other = engines.with_overrides({"vLLM": (source, text.replace("fsGroup: 2000", "fsGroup: 2001"))})
    assert "2001" in str(blueprints.draw(edited, other, FACTS).deployment.body)
    moved = replace(FACTS, namespace="elsewhere")
    assert "elsewhere" in str(blueprints.draw(edited, engines, moved).network[0].body)


def test_few_blueprints_are_kept() -> None:
    blueprints, engines = Blueprints(kept=2), EngineCatalog.builtin()
    resources = [make_resource(VLLM, name=name) for name in ("a", "b", "c")]
    resources = [replace(one, metadata=replace(one.metadata, uid=one.metadata.name)) for one in resources]
    drawn = [blueprints.draw(one, engines, FACTS) for one in resources]
    assert blueprints.draw(resources[2], engines, FACTS) is drawn[2]
    assert blueprints.draw(resources[0], engines, FACTS) is not drawn[0]


def test_bodies_are_let_go_and_come_back_the_same() -> None:
    blueprints, engines = Blueprints(kept=3, kept_open=1), EngineCatalog.builtin()
    resources = [make_resource(VLLM, name=name) for name in ("a", "b")]
    first, second = (replace(one, metadata=replace(one.metadata, uid=one.metadata.name)) for one in resources)
    drawn = blueprints.draw(first, engines, FACTS)
    before = draw_blueprint(first, engines, FACTS)
    assert "body" in vars(drawn.deployment)
    blueprints.draw(second, engines, FACTS)
    children = (drawn.claim, *drawn.network, drawn.headless, drawn.deployment, *drawn.budget)
    others = (before.claim, *before.network, before.headless, before.deployment, *before.budget)
    held = [vars(one) for one in (*children, drawn.serving, drawn.fresh) if one is not None]
    assert not [each for each in held if {"body", "rendered", "template", "encoded"} & set(each)]
    assert children == others
    assert [one.body for one in children if one] == [one.body for one in others if one]
    assert drawn.fresh.template == before.fresh.template


def test_a_pass_with_nothing_to_apply_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    engines, resource = EngineCatalog.builtin(), make_resource(VLLM)
    blueprint = draw_blueprint(resource, engines, FACTS)
    blueprint.let_go()
    children = plan_deployment(resource, Observed(), engines, FACTS, NOW).children
    observed = Observed({child.key: dict(copy.deepcopy(child.body)) for child in children})
    expected = plan_deployment(resource, observed, engines, FACTS, NOW)
    assert expected.children == children

    def refuse(*_: Any) -> Any:
        raise AssertionError("drawn")

    monkeypatch.setattr(Child, "body", property(refuse))
    monkeypatch.setattr(ChosenTemplate, "template", property(refuse))
    monkeypatch.setattr(Serving, "rendered", property(refuse))
    plan = plan_deployment(resource, observed, engines, FACTS, NOW, lambda *_: blueprint)
    assert plan == expected
    with pytest.raises(AssertionError, match="drawn"):
        _ = plan.children[0].body


def test_a_child_outlives_a_pipe() -> None:
    child = draw_blueprint(make_resource(VLLM), EngineCatalog.builtin(), FACTS).deployment
    copied = pickle.loads(pickle.dumps(child))
    assert copied == child
    assert copied.body == child.body


async def test_a_child_is_compared_when_it_changes_and_not_with_the_answer_that_made_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[str] = []
    compare = applier_module.first_difference

    def counted(desired: Any, live: Any) -> str | None:
        compared.append(desired["kind"])
        return compare(desired, live)

    monkeypatch.setattr(applier_module, "first_difference", counted)
    async with controlling() as world:
        world.put_cr(x=1)
        await world.settle()
        assert compared == []
        live = copy.deepcopy(world.api.objects[f"{DEPLOYMENTS}/m"])
        live["metadata"]["resourceVersion"] = str(world.api.version + 1)
        assert world.cache.put({**live, "status": {"moved": True}}, "Deployment").is_meaningful
        await world.run_pass()
        assert compared == [], "its status is no wish of anybody"
        world.api.version += 1
        edited = {**world.api.objects[f"{SERVICES}/m"], "spec": {"x": 2}}
        world.api.put(SERVICES, "m", **edited)
        world.sync()
        world.writes()
        await world.run_pass()
        assert compared == ["Service"]
        assert [write for write in world.writes() if "services" in write], "drift is healed as ever"


async def test_whoever_writes_right_after_us_is_looked_at_though_the_event_was_taken_for_an_echo() -> None:
    async with controlling() as world:
        world.put_cr(x=1)
        apply = world.client.apply

        async def overtaken(resource: Any, namespace: str, name: str, body: Any, **more: Any) -> Any:
            applied = await apply(resource, namespace, name, body, **more)
            if resource.kind == "Service":
                edited = {**world.api.objects[f"{SERVICES}/m"], "spec": {"x": 99}}
                world.cache.put(world.api.put(SERVICES, "m", **edited), "Service")
            return applied

        world.client.apply = overtaken  # type: ignore[method-assign]
        assert await world.run_pass() == "requeue_after"
        assert world.queue.delayed[KEY] <= 0.05
        world.client.apply = apply  # type: ignore[method-assign]
        await world.run_pass()
        assert world.api.objects[f"{SERVICES}/m"]["spec"] == {"x": 1}


def test_the_digest_knows_no_order_and_every_change() -> None:
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    assert digest_of({"a": 1, "b": [2]}) != digest_of({"a": 1, "b": [2, 3]})
