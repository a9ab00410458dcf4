"""What the files of the limits say: whose bucket holds how much. That Envoy counts by it is shown in tests/gateway."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.gateway.scripts import Classifier, Script, make_lookup
from tests.unit.planning.route.routes import make_facts, make_route, make_spec, plan

from fairlead.gateway.lua import load_classifier

Json = dict[str, Any]
EACH = "each that no role names"


def make_limited(route: Json | None = None, developer: Json | None = None, analyst: Json | None = None) -> Json:
    """team-a is developer, team-b analyst, both is both; callers without a key are analysts."""
    spec = make_spec()
    spec["gateway"] = {"replicas": 1}
    for role, limits in zip(spec["roles"], (developer, analyst), strict=True):
        role["consumers"].append("both")
        if limits is not None:
            role["limits"] = limits
    return {**spec, "limits": route} if route is not None else spec


def files_of(spec: Json) -> Json:
    """File -> the filter's configuration."""
    (body,) = [one.body for one in plan(make_route(spec), make_facts()).children if one.key.name.endswith("-limits")]
    return {name: json.loads(text)["resources"][0]["typed_config"] for name, text in body["data"].items()}


def buckets(spec: Json, name: str) -> dict[str, int]:
    """Consumer (EACH: all others; "": those without a key) -> tokens of its bucket."""
    found = {}
    for one in files_of(spec)[name].get("descriptors", ()):
        entry, *more = one["entries"]
        assert more == ([] if name == "limit-requests.json" else [{"key": "limited", "value": "true"}])
        bucket = one["token_bucket"]
        assert (bucket["tokens_per_fill"], bucket["fill_interval"]) == (bucket["max_tokens"], "60s")
        who = "" if entry == {"key": "caller", "value": "anonymous"} else entry.get("value", EACH)
        assert who not in found
        found[who] = bucket["max_tokens"]
    return found


TEN, TWENTY = {"requestsPerMinute": 10}, {"requestsPerMinute": 20}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (make_limited(), {}),
        (make_limited(TEN), {EACH: 10, "": 10}),
        (make_limited(None, TEN), {"team-a": 10}),
        (make_limited(None, TEN, TWENTY), {"team-a": 10, "team-b": 20, "both": 20, "": 20}),
        (make_limited(TEN, TWENTY), {EACH: 10, "": 10, "team-a": 20, "both": 20}),
        (make_limited(TWENTY, TEN), {EACH: 20, "": 20, "team-a": 10}),
        (make_limited(TWENTY, TEN, TEN), {EACH: 20, "": 10, "team-a": 10, "team-b": 10, "both": 10}),
        (make_limited(TWENTY, {"tokensPerMinute": 5}), {EACH: 20, "": 20}),
    ],
)
def test_whose_requests_are_limited(spec: Json, expected: dict[str, int]) -> None:
    """A role's number, else that of the route; of several roles the highest, and none is higher than any."""
    assert buckets(spec, "limit-requests.json") == expected


def test_tokens_are_limited_apart_from_requests() -> None:
    spec = make_limited({"requestsPerMinute": 7}, {"tokensPerMinute": 5000})
    assert buckets(spec, "limit-requests.json") == {EACH: 7, "": 7}
    assert buckets(spec, "limit-tokens.json") == {"team-a": 5000}
    assert files_of(spec)["limit-tokens.json"]["rate_limits"][0]["hits_addend"] == {
        "format": "%DYNAMIC_METADATA(fairlead:tokens)%"
    }


@pytest.mark.parametrize(("replicas", "share"), [(1, 10), (2, 5), (3, 4), (10, 1), (100, 1)])
def test_each_gateway_has_its_share_rounded_up(replicas: int, share: int) -> None:
    spec = make_limited({"requestsPerMinute": 10, "tokensPerMinute": 10})
    spec["gateway"]["replicas"] = replicas
    assert set(buckets(spec, "limit-requests.json").values()) == {share}
    assert set(buckets(spec, "limit-tokens.json").values()) == {share}


def test_without_limits_the_filters_are_off() -> None:
    kind = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
    assert files_of(make_limited()) == {
        "limit-requests.json": {"@type": kind, "stat_prefix": "requests"},
        "limit-tokens.json": {"@type": kind, "stat_prefix": "tokens"},
    }


def test_a_limit_changes_no_listener() -> None:
    """An LDS change would cut streams."""
    bootstraps = [
        next(one.body["data"] for one in plan(make_route(spec)).children if one.key.name.endswith("-bootstrap"))
        for spec in (make_limited(), make_limited(TEN, TWENTY))
    ]
    assert bootstraps[0] == bootstraps[1]


def test_another_route_leaves_the_files_as_they_are() -> None:
    """Then Envoy leaves the buckets as they are."""
    before, after = make_limited(TEN, TWENTY), make_limited(TEN, TWENTY)
    after["models"].append({"name": "small", "targets": [{"backend": "local", "model": "llama-8b"}]})
    assert files_of(before) == files_of(after)


def test_three_thousand_consumers_of_roles_fit_and_what_does_not_is_said() -> None:
    spec = make_limited(None, {"requestsPerMinute": 100, "tokensPerMinute": 100_000})
    role = spec["roles"][0]

    def fill(roles: int) -> Any:
        more = [
            {**role, "name": f"r{n}", "consumers": [f"team-{n:02}-{i:03}" for i in range(256)]} for n in range(roles)
        ]
        planned = plan(make_route({**spec, "roles": [*spec["roles"], *more]}), make_facts())
        return next(one for one in planned.status["conditions"] if one["type"] == "Accepted")

    assert fill(12)["status"] == "True"
    refused = fill(60)
    assert refused["reason"] == "TooLarge"
    assert "the limits of consumers would have" in refused["message"]


# What a request is charged with -----------------------------------------------------------------------------------------------------

LIMITED = Classifier(make_lookup(tokens={"p0": "1000"}))


def charge(body: Any, classifier: Classifier = LIMITED, consumer: str = "team-a", **headers: str) -> Any:
    return classifier.run(body, x_fairlead_consumer=consumer, **headers)


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({}, 0),
        ({"max_tokens": None}, 0),
        ({"max_tokens": 10}, 10),
        ({"max_completion_tokens": 11}, 11),
        ({"max_output_tokens": 12}, 12),
        ({"max_tokens": 10, "max_completion_tokens": 500}, 500),
        ({"max_tokens": -1}, 0),
        ({"max_tokens": 0}, 0),
        ({"max_tokens": 10.5}, 11),
        ({"max_tokens": 10, "n": 3}, 30),
        ({"max_tokens": 10, "n": 3, "best_of": 5}, 50),
        ({"max_tokens": 10, "n": 0}, 10),
        ({"n": 3}, 0),
        ({"metadata": {"max_tokens": 10}}, 0),
    ],
)
def test_a_request_is_charged_with_its_bytes_and_what_it_lets_the_model_answer(fields: Json, answer: int) -> None:
    body = json.dumps({"model": "chat", "messages": [], **fields}).encode()
    outcome = charge(body)
    assert outcome.status == 0, outcome
    expected = -(-len(body) // 4) + answer
    assert outcome.dynamic["fairlead:tokens"] == str(expected)
    assert outcome.dynamic["fairlead:limited"] == "true"
    assert outcome.dynamic["fairlead:wait"] == str(-(-60 * expected // 1000))


def test_who_has_no_limit_is_charged_with_nothing() -> None:
    outcome = charge({"model": "chat", "max_tokens": "many"}, consumer="")
    assert outcome.status == 0
    assert not {"fairlead:tokens", "fairlead:limited"} & set(outcome.dynamic)


@pytest.mark.parametrize(
    "fields", [{"max_tokens": 1e999}, {"max_tokens": 1000}, {"max_tokens": 10**30}, {"max_tokens": 2, "n": 1e308}]
)
def test_more_than_a_bucket_holds_is_refused_with_the_numbers(fields: Json) -> None:
    text = json.dumps({"model": "chat", **fields}).replace("Infinity", "1e999")
    outcome = charge(text.encode())
    assert (outcome.status, outcome.code) == (400, "request_too_large_for_limit")
    message = outcome.answer["error"]["message"]
    assert message.startswith("Request too large for your limit of tokens per minute: limit 1000, requested ")
    assert "inf" not in message
    assert "nan" not in message
    assert "fairlead:chain" not in outcome.dynamic


@pytest.mark.parametrize("prompt", [["a"] * 8, [[1, 2]] * 8])
def test_each_prompt_of_a_list_is_answered(prompt: Any) -> None:
    outcome = charge({"model": "chat", "prompt": prompt, "max_tokens": 100})
    assert int(outcome.dynamic["fairlead:tokens"]) > 800
    outcome = charge({"model": "chat", "prompt": prompt, "max_tokens": 200})
    assert (outcome.status, outcome.code) == (400, "request_too_large_for_limit")


@pytest.mark.parametrize("prompt", ["a", [1, 2, 3], [], ["a"]])
def test_one_prompt_is_answered_once(prompt: Any) -> None:
    assert int(charge({"model": "chat", "prompt": prompt, "max_tokens": 100}).dynamic["fairlead:tokens"]) < 130


@pytest.mark.parametrize("value", ["100", True, [], {}])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of"])
def test_what_is_no_number_is_refused_where_it_counts(name: str, value: Any) -> None:
    """Some backends would read "100000" as a number, and nobody would have counted it."""
    outcome = charge({"model": "chat", name: value})
    assert (outcome.status, outcome.code, outcome.answer["error"]["param"]) == (400, f"invalid_{name}", name)


def test_who_is_denied_is_told_so_and_not_charged() -> None:
    detectors = [{"name": "word", "class": "Restricted", "keywords": ["secretword"]}]
    classifier = Classifier(make_lookup(tokens={"p0": "10"}, detectors=detectors), Script(load_classifier()))
    outcome = charge({"model": "local", "messages": ["secretword"], "max_tokens": 1000}, classifier)
    assert (outcome.status, outcome.code) == (403, "data_class_denied")
    assert "fairlead:tokens" not in outcome.dynamic
