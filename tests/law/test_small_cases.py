"""Single cases that chance meets too seldom, on the small route of `narrowings`."""

from __future__ import annotations

from typing import Any

from tests.law.envoy_reader import Reached, Refused
from tests.law.judge import Judge
from tests.law.narrowings import make_base
from tests.law.rendering import render
from tests.law.truth import Request

Json = dict[str, Any]


def ask(route: Json, world: Json, request: Request) -> tuple[Judge, Reached]:
    """What the gateway does with a request."""
    judge = Judge(route, world, render(route, world))
    reached = judge.gateway.ask(
        request.consumer, request.model, request.declared, request.found, request.opaque, request.method, request.path, request.stream
    )  # fmt: skip
    return judge, reached


def test_the_mark_is_the_class_under_a_role_that_permits_it() -> None:
    """Bob's request is Public under one of his roles, which may not use this model's deployment, and Internal under the other one, which
    may: so it goes there as Internal. The mark is what the egress side checks and what Bob is told."""
    route, world = make_base()
    route["models"] = [
        {"name": "chat", "targets": [{"backend": "plain"}]},
        {"name": "other", "targets": [{"backend": "far"}]},
    ]
    route["roles"] = [
        {
            "name": "outside",
            "consumers": ["bob"],
            "llmAccess": ["Cloud"],
            "dataAccess": ["Public"],
            "mayDeclare": ["Public"],
        },
        {"name": "inside", "consumers": ["bob"], "llmAccess": ["Local"], "dataAccess": ["Internal"]},
    ]
    del route["authentication"]["anonymous"]
    request = Request("bob", "chat", "Public")
    judge, reached = ask(route, world, request)
    ruling = judge.law.rule(request)
    assert (ruling.classes, ruling.permitting) == (("Public", "Internal"), ("Internal",))
    assert reached.mark in ruling.permitting


def test_the_floor_of_a_route_holds_without_roles_too() -> None:
    """ "Class of a request = max(base, floors of route and role, detectors)", and "a route without `roles` acts as one role"."""
    route, world = make_base()
    del route["roles"]
    route["authentication"]["anonymous"] = {}
    route["dataPolicy"] |= {"default": "Public"}
    judge, reached = ask(route, world, Request(None, "chat"))
    assert (reached.mark, len(reached.attempts)) == ("Public", 4)
    route["dataPolicy"]["floor"] = "Internal"
    judge, reached = ask(route, world, Request(None, "chat"))
    assert (reached.mark, len(reached.attempts)) == ("Internal", 3)
    assert not judge.check(Request(None, "chat"), judge.law.rule(Request(None, "chat")))
    route["dataPolicy"]["floor"] = "Confidential"
    assert ask(route, world, Request(None, "chat", "Public"))[1].status == 403


def test_a_target_that_does_not_speak_the_endpoint_does_not_end_the_request() -> None:
    """ "each permitted target": the first one speaks no rerank, so the second one must be asked, not the caller be told 403."""
    route, world = make_base()
    route["backends"][3]["provider"]["type"] = "OpenAI"
    route["models"] = [{"name": "chat", "targets": [{"backend": "far"}, {"backend": "plain", "priority": 1}]}]
    _, reached = ask(route, world, Request("ann", "chat", "Public", path="/v1/rerank"))
    last = [any(not isinstance(hop, Refused) for hop, _ in group) for group in reached.attempts].index(True)
    refusals = [hop for group in reached.attempts[:last] for hop, _ in group if isinstance(hop, Refused)]
    assert all(refusal.status in reached.retried or (refusal.skips and reached.skips) for refusal in refusals), refusals


def test_the_owner_of_a_key_agrees_to_the_name_of_the_certificate_too() -> None:
    """Whoever has that certificate gets the key, whatever the host is called."""
    route, world = make_base()
    route["backends"][3]["provider"]["tls"] = {"serverName": "llm.else.example"}
    route["models"] = [{"name": "chat", "targets": [{"backend": "far"}]}]
    _, reached = ask(route, world, Request("ann", "chat", "Public"))
    assert not reached.attempts
    world["secrets"]["key-far"]["hosts"].append("llm.else.example")
    assert ask(route, world, Request("ann", "chat", "Public"))[1].attempts
