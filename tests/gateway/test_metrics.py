"""What docs/gateway.md says of the gateway's metrics and access log, at a real Envoy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.gateway.asking import make_body
from tests.gateway.test_limits import metric
from tests.gateway.world import World, backend_entries, make_world

from fairlead_cluster.providers import Fault, Kind

Json = dict[str, Any]
Labels = dict[str, str]
ROOT = Path(__file__).resolve().parents[2]
CANARY = "canary-of-a-caller"
KEYS = {"team-a": ("sk-key-of-team-a-01",), "team-b": ("sk-key-of-team-b-01",)}
SPEC: Json = {
    "gateway": {"replicas": 1},
    "backends": backend_entries("alpha", "openai"),
    "models": [
        {"name": "chat", "targets": [{"backend": "alpha"}, {"backend": "openai", "model": "big", "priority": 1}]},
        {"name": "cloud", "targets": [{"backend": "openai", "model": "big"}]},
    ],
    "authentication": {"apiKeys": {"secretRef": {"name": "clients"}}},
    "roles": [
        {
            "name": "all",
            "consumers": ["team-a", "team-b"],
            "llmAccess": ["Local", "Cloud"],
            "dataAccess": ["Public", "Internal", "Confidential"],
            "mayDeclare": ["Public"],
        }
    ],
    "dataPolicy": {
        "default": "Internal",
        "detectors": [{"name": "mails", "class": "Confidential", "builtin": "Email"}],
        "denyClasses": ["Internal", "Confidential"],
    },
}
PUBLIC = {"x-data-classification": "Public"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """After one request of each kind."""
    with make_world(SPEC, tmp_path_factory.mktemp("metrics"), KEYS) as made:
        _ask_everything(made)
        yield made


def _ask_everything(world: World) -> None:
    with httpx.Client(timeout=30, headers={"user-agent": CANARY}) as client:

        def ask(model: str, who: str = "team-a", headers: Labels | None = None, **more: Any) -> httpx.Response:
            key = {"authorization": f"Bearer {KEYS[who][0] if who in KEYS else who}"}
            url = f"{world.gateway.url}/v1/chat/completions?{CANARY}"
            return client.post(url, json=make_body(model, **more), headers={**key, **(headers or {})})

        assert ask("chat").status_code == 200
        assert ask("chat", "team-b", stream=True).status_code == 200
        world["alpha"].fail(Fault(Kind.STATUS, code=503))
        assert ask("chat", headers=PUBLIC).headers["x-fairlead-backend"] == "openai"
        world["alpha"].fail()
        assert ask("cloud", text="write to ann@example.com").status_code == 403
        assert ask(CANARY).status_code == 404
        assert ask("chat", f"sk-{CANARY}").status_code == 401
    world.gateway.until(lambda: sum(metric(world, "requests").values()) == 6, "everything is counted")
    # Envoy adds up histograms every five seconds.
    world.gateway.until(lambda: "envoy_fairlead_time_to_first_token_ms_bucket" in metrics_text(world), "and timed")


def counted(world: World, name: str) -> list[tuple[Labels, int]]:
    return [(dict(labels), value) for labels, value in metric(world, name).items()]


def one(world: World, name: str, **wanted: str) -> int:
    """Of all with these labels."""
    return sum(value for labels, value in counted(world, name) if wanted.items() <= labels.items())


def test_requests_by_model_consumer_class_backend_and_code(world: World) -> None:
    served = {"model": "chat", "code": "200"}
    assert one(world, "requests", **served, consumer="team-a", data_class="Internal", backend="alpha") == 1
    assert one(world, "requests", **served, consumer="team-b", data_class="Internal", backend="alpha") == 1
    assert one(world, "requests", **served, consumer="team-a", data_class="Public", backend="openai") == 1
    assert one(world, "requests", model="cloud", data_class="Confidential", code="403") == 1
    assert one(world, "requests", code="404", consumer="team-a") == 1
    assert one(world, "requests", code="401") == 1


def test_what_was_answered_by_the_gateway_has_no_backend(world: World) -> None:
    answered = [labels for labels, _ in counted(world, "requests") if labels["code"] in ("401", "403", "404")]
    assert len(answered) == 3
    assert {labels["backend"] for labels in answered} == {""}, "as the queries of the documentation take it"


def test_failovers_are_attempts_beyond_requests(world: World) -> None:
    attempts = sum(value for _, value in counted(world, "attempts"))
    sent = sum(value for labels, value in counted(world, "requests") if labels["backend"])
    assert (attempts, sent) == (4, 3)


def test_tokens_are_those_that_the_backend_counted(world: World) -> None:
    for name in ("prompt_tokens", "completion_tokens"):
        assert one(world, name, model="chat", backend="alpha", consumer="team-a") > 0
        assert one(world, name, model="chat", backend="alpha", consumer="team-b") > 0, "of a stream, too"


def test_times_are_histograms(world: World) -> None:
    text = metrics_text(world)
    for name in ("request_duration_ms", "time_to_first_token_ms"):
        assert f"# TYPE envoy_fairlead_{name} histogram" in text
        assert re.search(rf'^envoy_fairlead_{name}_bucket{{.*model="chat".*le="\+Inf"}} \d+$', text, re.MULTILINE)


def test_nothing_that_callers_send_becomes_a_label_or_a_line(world: World) -> None:
    assert CANARY not in metrics_text(world)
    written = world.gateway.log + world.gateway.access_log
    assert CANARY not in written
    assert "ann@example.com" not in written


def test_a_line_of_the_log_says_who_what_and_why(world: World) -> None:
    world.gateway.until(lambda: world.gateway.access_log.count("\n") == 6, "a line for each")
    lines = [json.loads(line) for line in world.gateway.access_log.splitlines()]
    (denied,) = [line for line in lines if line["code"] == 403]
    assert (denied["consumer"], denied["model"], denied["class"], denied["rule"]) == (
        "team-a",
        "cloud",
        "Confidential",
        "mails",
    )
    (failed_over,) = [line for line in lines if line["attempts"] == 2]
    assert failed_over["backend"] == "openai"


def test_the_documentation_names_what_there_is(world: World) -> None:
    documented = set(re.findall(r"`(envoy_fairlead_\w+)`", (ROOT / "docs/gateway.md").read_text()))
    served = set(re.findall(r"^# TYPE (envoy_fairlead_\w+) ", metrics_text(world), re.MULTILINE))
    assert served <= documented
    assert documented - served == {"envoy_fairlead_limited"}, "which needs a limit, see test_limits.py"


def metrics_text(world: World) -> str:
    return httpx.get(f"http://127.0.0.1:{world.gateway.settings.status_port}/metrics").text
