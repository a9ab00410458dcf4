"""Where a deployment's pods are asked for metrics."""

from __future__ import annotations

import pytest
from tests.unit.engines.mini import MINI
from tests.unit.planning.world import OLLAMA, VLLM, Json, make_resource

from fairlead.engines.loader import EngineCatalog
from fairlead.errors import EngineTemplateError
from fairlead.facts.observed import OperatorFacts
from fairlead.facts.prometheus import PrometheusFacts
from fairlead.facts.scaling import Measure, ScrapeWish, Source
from fairlead.planning.deployment.serving import decide_serving
from fairlead.planning.deployment.signals import make_scrape_wish

METRICS = "metrics: {path: /stats, names: {running: mini_running, latency: [mini_seconds, mini_old_seconds]}}\n"


def wish_of(spec: Json, catalog: EngineCatalog | None = None, *, has_prometheus: bool = False) -> ScrapeWish:
    facts = OperatorFacts(prometheus=PrometheusFacts("http://prometheus:9090") if has_prometheus else None)
    return make_scrape_wish(decide_serving(make_resource(spec), catalog or EngineCatalog.builtin(), facts), facts)


def own(text: str = METRICS) -> tuple[Json, EngineCatalog]:
    """An engine of the user's own, in place of vLLM, and a spec for it."""
    catalog = EngineCatalog({"vLLM": ("own", MINI.replace("name: Mini", "name: vLLM") + text)})
    return {**VLLM, "engine": {"type": "vLLM", "version": "1.1"}}, catalog


def test_vllm_tells_all_measures_by_new_and_old_names() -> None:
    wish = wish_of(VLLM)
    assert (wish.source, wish.port, wish.path) == (Source.ENGINE, 8000, "/metrics")
    assert set(wish.names) == set(Measure)
    assert wish.names[Measure.KV_CACHE_USAGE] == ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
    assert wish.names[Measure.LATENCY] == ("vllm:e2e_request_latency_seconds",)


def test_with_and_without_tls_the_wish_is_the_same_since_pods_of_both_kinds_run_in_a_rollout() -> None:
    wish = wish_of({**VLLM, "encryption": {"inTransit": "Required", "certificate": {"secretName": "own"}}})
    assert (wish.port, wish.tls_port) == (8000, 8443)
    assert wish == wish_of(VLLM)


def test_an_engine_without_metrics_is_known_by_its_gateways() -> None:
    wish = wish_of(OLLAMA)
    assert (wish.source, wish.port, wish.path, dict(wish.names)) == (Source.GATEWAY, 9901, "/metrics", {})


def test_where_there_is_a_prometheus_it_is_asked_but_of_engines_without_metrics() -> None:
    direct, wish = wish_of(VLLM), wish_of(VLLM, has_prometheus=True)
    assert (wish.source, wish.interval_s, wish.names) == (Source.PROMETHEUS, 15.0, direct.names)
    assert wish_of(OLLAMA, has_prometheus=True).source is Source.GATEWAY


def test_a_users_engine_says_its_own_names() -> None:
    wish = wish_of(*own())
    assert (wish.path, wish.port) == ("/stats", 9000)
    assert wish.names == {
        Measure.RUNNING_REQUESTS: ("mini_running",),
        Measure.LATENCY: ("mini_seconds", "mini_old_seconds"),
    }


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("running:", "runing:", "metrics.names.runing"),
        ("mini_running", "'mini running'", "metrics.names.running"),
        ("mini_running", "'a\"} or b{x=\"'", "metrics.names.running"),
        ("[mini_seconds, mini_old_seconds]", "[]", "metrics.names.latency"),
        ("/stats", "stats", "metrics.path"),
        ("/stats", "'/stats?x=1'", "metrics.path"),
    ],
)
def test_names_that_nobody_would_find_are_refused(old: str, new: str, words: str) -> None:
    with pytest.raises(EngineTemplateError, match=words):
        wish_of(*own(METRICS.replace(old, new)))
