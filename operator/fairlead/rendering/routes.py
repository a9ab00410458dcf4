"""One LLMRoute of the input: what the operator would apply for it, or why it would not accept it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from fairlead.api.conditions import ConditionType, Reason
from fairlead.api.names import gateway_part_name
from fairlead.api.patterns import find_pattern_faults
from fairlead.api.resource import Finding, LLMRoute
from fairlead.api.route import LLMRouteSpec
from fairlead.facts.observed import Observed, OperatorFacts
from fairlead.facts.route import RouteFacts
from fairlead.gateway.table import RouteTable
from fairlead.planning.route import plan_route, resolve_route
from fairlead.planning.route.backends import Resolved
from fairlead.planning.route.certificate import read_certificate
from fairlead.planning.route.clients import read_clients
from fairlead.planning.route.files import CLIENTS
from fairlead.planning.route.status import find_problems
from fairlead.providers.loader import ProviderCatalog
from fairlead.rendering.surroundings import Surroundings

__all__ = ["PLACEHOLDER", "RenderedRoute", "render_route"]

Json = dict[str, Any]
#: What stands for the clients' keys: output of `fairlead render` lands in logs and in Git.
PLACEHOLDER: Final = "not shown: the operator writes it from the Secret with the clients' keys"


@dataclass(frozen=True, slots=True)
class RenderedRoute:
    """A route whose spec is valid, in its surroundings. `findings`: why it is not accepted; `notes`: what was assumed, and what does not
    resolve; `omissions`: what the objects do not show; `letting_in`: consumers of whom a key is let in, None where that is
    not known."""

    route: LLMRoute
    facts: RouteFacts
    resolved: tuple[Resolved, ...]
    table: RouteTable
    objects: tuple[Json, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    omissions: tuple[str, ...]
    letting_in: frozenset[str] | None


def render_route(
    route: LLMRoute, surroundings: Surroundings, operator: OperatorFacts, providers: ProviderCatalog, now: datetime
) -> RenderedRoute:
    """The same decision as the operator's in a cluster that has what the input has, and nothing of this route yet."""
    facts, notes = surroundings.make_facts(route, operator, providers)
    resolved, table = resolve_route(route, facts, operator, providers)
    plan = plan_route(route, Observed(), facts, operator, providers, now)
    findings = tuple(_find_refusals(plan.status, resolved, route.spec))
    clients = read_clients(route, facts)
    certificate = read_certificate(route, facts, None)
    notes += [problem for problem in (*find_problems(resolved), clients.problem, certificate.problem) if problem]
    objects: list[Json] = []
    omissions: list[str] = []
    for child in plan.children if not findings else ():
        body: Json = json.loads(json.dumps(child.body))
        if (clients.keys is not None or clients.tokens is not None) and _holds_keys(body, route):
            body = _without_keys(body)
            omissions.append(f"Secret/{body['metadata']['name']}: is printed without the clients' keys")
        objects.append(body)
    return RenderedRoute(
        route=route,
        facts=facts,
        resolved=resolved,
        table=table,
        objects=tuple(objects),
        findings=findings,
        notes=tuple(notes),
        omissions=tuple(omissions),
        letting_in=frozenset(clients.keys or ())
        if surroundings.has_clients(route) and clients.tokens is None
        else None,
    )


def _holds_keys(body: Mapping[str, Any], route: LLMRoute) -> bool:
    wanted = ("Secret", gateway_part_name(route.metadata.name, CLIENTS))
    return (body["kind"], body["metadata"]["name"]) == wanted


def _without_keys(body: Json) -> Json:
    """In stringData, so that people can read that it is none."""
    placeholders = dict.fromkeys(body["data"], PLACEHOLDER)
    return {key: value for key, value in body.items() if key != "data"} | {"stringData": placeholders}


def _find_refusals(status: Mapping[str, Any], resolved: Sequence[Resolved], spec: LLMRouteSpec) -> Iterable[Finding]:
    """Why the planner does not accept it, in the form of findings."""
    accepted = next(c for c in status["conditions"] if c["type"] == ConditionType.ACCEPTED)
    if accepted["status"] == "True":
        return
    if accepted["reason"] == Reason.PROVIDER_REFUSED:
        for backend in resolved:
            if backend.refusal:
                path, _, rest = backend.refusal.partition(": ")
                what, _, remedy = rest.partition("; ")
                yield Finding(path, what, remedy)
        return
    if accepted["reason"] == Reason.PATTERN_REFUSED:
        yield from find_pattern_faults(spec)
        return
    what, _, remedy = str(accepted["message"]).partition(" Next: ")
    yield Finding("spec.models", what.removeprefix("spec.models: ").removesuffix("."), remedy.removesuffix("."))
