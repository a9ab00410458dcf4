"""`fairlead explain` tells the limits of a caller, and refuses what the gateway refuses for them."""

from __future__ import annotations

from typing import Any

from tests.unit.rendering.commands import ALL, ROUTE, change
from tests.unit.rendering.test_explain import chat
from tests.unit.rendering.test_explain import explain as explain  # the fixture

Json = dict[str, Any]
LIMITED = change(
    change(ROUTE, "spec.roles.0.limits", {"requestsPerMinute": 60, "tokensPerMinute": 3001}),
    "spec.limits",
    {"requestsPerMinute": 5},
)


def test_limits_are_told(explain: Any) -> None:
    def told(ask: str, route: Json = LIMITED) -> list[str]:
        lines = explain(route, *ALL[1:], ask=ask).out.splitlines()
        return [line for line in lines if line.startswith("Limits")]

    both = "60 requests and 3001 tokens (30 requests and 1501 tokens at each of 2 gateways)"
    assert told("--model chat --consumer team-a") == [f"Limits of this consumer by itself, per minute: {both}."]
    one = "5 requests (3 requests at each of 2 gateways)"
    assert told("--model chat --consumer team-b") == [f"Limits of this consumer by itself, per minute: {one}."]
    assert told("--model chat --consumer team-a", ROUTE) == []
    alone = change(LIMITED, "spec.gateway", {"replicas": 1})
    assert told("--model chat --consumer team-b", alone) == [
        "Limits of this consumer by itself, per minute: 5 requests."
    ]
    anonymous = change(alone, "spec.authentication.anonymous", {"role": "analyst"})
    assert told("--model chat", anonymous) == ["Limits of all callers without a key together, per minute: 5 requests."]
    answer = explain(LIMITED, *ALL[1:], ask="--model chat --consumer team-b -o json")
    assert answer.json["limits"] == {"requestsPerMinute": 5, "tokensPerMinute": None, "gateways": 2}


def test_a_body_of_more_tokens_than_a_gateway_gives_is_refused(explain: Any) -> None:
    answer = explain(LIMITED, *ALL[1:], ask="--consumer team-a -o json", body=chat("hello", max_tokens=1500))
    assert (answer.status, answer.json["status"], answer.json["code"]) == (1, 400, "request_too_large_for_limit")
    assert (answer.json["class"], answer.json["order"]) == ("Internal", [])
    assert "limit 1501, requested 15" in answer.json["message"]
    assert explain(LIMITED, *ALL[1:], ask="--consumer team-a", body=chat("hello", max_tokens=1400)).status == 0
