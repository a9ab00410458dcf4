"""The law for sidecars in application pods, proved on their files: what they try by themselves are deployments that the gateway would
try first, too; everything else goes to the gateway and to nobody else; and nothing that a provider needs is there."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, Final

import pytest
from tests.law.addresses import NAMESPACE, Facts, hosts_of
from tests.law.cases import Case, deal, make_requests
from tests.law.envoy_reader import Gateway, Refused, Unreadable
from tests.law.rendering import render, render_for_sidecars
from tests.law.truth import Law, Request, Ruling

from fairlead.gateway import sidecar as transform

SEED: Final = 20261128
#: What a request that goes on to the gateway comes to.
PASSED: Final = Refused(0)
HOST: Final = f"assistants-gateway.{NAMESPACE}.svc"
Json = Mapping[str, Any]


class Sidecar(Gateway):
    """A reader of a sidecar's files, for which the gateway is a place like any other."""

    def _hop(self, name: str, path: str, mark: str | None, idle: str | None, is_pinned: bool) -> Facts | Refused:
        cluster = self.clusters[name]
        if not name.startswith("gateway~"):
            return super()._hop(name, path, mark, idle, is_pinned)
        (locality,) = cluster["load_assignment"]["endpoints"]
        (endpoint,) = (one["endpoint"] for one in locality["lb_endpoints"])
        where = endpoint["address"]["socket_address"]
        port = 443 if "transport_socket" in cluster else 80
        if endpoint["hostname"] != HOST or where != {"address": f"{HOST}.cluster.local.", "port_value": port}:
            raise Unreadable(f"{name} leads to {endpoint}")
        return PASSED


def without_limits(route: Json) -> dict[str, Any]:
    changed = copy.deepcopy(dict(route))
    for role in changed.get("roles", ()):
        role.pop("limits", None)
    changed.pop("limits", None)
    return changed


def with_tls(route: Json) -> dict[str, Any]:
    return {**without_limits(route), "gateway": {"tls": {"secretName": "gateway-tls"}}}


def has_limits(gateway: Gateway) -> bool:
    """Whether somebody is limited there."""
    return any('"descriptors"' in gateway.files[name] for name in ("limit-requests.json", "limit-tokens.json"))


def check(case: Case, route: Json, request: Request, ruling: Ruling, gateway: Gateway, sidecar: Sidecar) -> str:
    """What is wrong with what the sidecar does with a request; "" if nothing is."""
    asked = (
        request.consumer, request.model, request.declared, request.found, request.opaque, request.method, request.path,
        request.stream,
    )  # fmt: skip
    reached, there = sidecar.ask(*asked), gateway.ask(*asked)
    if ruling.statuses:
        return "" if reached.status in ruling.statuses else f"must be {sorted(ruling.statuses)}, is {reached}"
    own = [group for group in reached.attempts if PASSED not in [member for member, _ in group]]
    passed = len(reached.attempts) - len(own)
    if passed > 1 or (passed and reached.attempts[-1] != ((PASSED, 1),)):
        return f"passes on {passed} times: {reached.attempts}"
    if tuple(own) != there.attempts[: len(own)]:
        return f"tries {own}, and the gateway {there.attempts}"
    if reached.attempts and reached.mark not in ruling.classes:
        return f"is {ruling.classes}, is marked {reached.mark}"
    direct = {name for name, backend in Law(route, case.world).backends.items() if is_direct(backend, case.world)}
    others = [target for target in ruling.tried if target.backend not in direct]
    is_restricted = there.mark == "Restricted" and "gateway" not in route
    if has_limits(gateway):
        others = list(ruling.tried)
    if bool(passed) != (bool(others) and not is_restricted):
        return f"{'passes on' if passed else 'does not pass on'} what {[t.backend for t in others]} may take"
    if not passed and not others and tuple(own) != there.attempts:
        return f"tries {own} only"
    wanted = 503 if is_restricted and others and not own else None
    return "" if reached.status == wanted else f"is {reached.status}"


def is_direct(backend: Json, world: Json) -> bool:
    """A deployment that serves in the open, and is not woken by requests: for it they must go where the operator sees them."""
    found = world["deployments"].get(backend.get("deployment", {}).get("name"), {})
    return "deployment" in backend and not found.get("tls", False) and not found.get("wakes", False)


def find_provider(route: Json, files: Mapping[str, str]) -> str:
    """What of a provider is in a sidecar's files; "" if nothing is. Its listeners are the same for all routes."""
    text = json.dumps({name: text for name, text in files.items() if name != "lds.json"})
    for word in ("injected_credentials", "credential_injector", ".cloud", "/etc/envoy/providers"):
        if word in text:
            return word
    for backend in route["backends"]:
        if "provider" in backend and f'\\"{hosts_of(backend["provider"]).host}' in text:
            return str(backend)
    return "" if set(files) == {"rds-public.json", "rds-egress.json", "cds.json", "lds.json"} else str(sorted(files))


def judge(change: Callable[[Json], dict[str, Any]], routes: int, answers: Counter[str]) -> Iterator[str]:
    """What is wrong, over so many routes."""
    dice = random.Random(SEED)
    for number, case in enumerate(deal(dice, routes)):
        route = change(case.route)
        law, made, files = (
            Law(case.route, case.world),
            render(route, case.world),
            render_for_sidecars(route, case.world),
        )
        # The reader wants files of limits, which sidecars do not have.
        limits = {name: made[name] for name in ("limit-requests.json", "limit-tokens.json")}
        gateway, sidecar = Gateway(made), Sidecar({**limits, **files})
        found = [find_provider(route, files)]
        for request in make_requests(dice, case, 10):
            ruling = law.rule(request)
            problem = check(case, route, request, ruling, gateway, sidecar)
            found.append(f"{request}: {problem}" if problem else "")
            answers["answered" if ruling.statuses else "served"] += 1
        yield from (f"seed {SEED}, route {number}: {problem}" for problem in found if problem)


@pytest.mark.parametrize("change", [dict, without_limits, with_tls])
def test_sidecars_do_nothing_that_the_gateway_would_not(change: Callable[[Json], dict[str, Any]]) -> None:
    answers: Counter[str] = Counter()
    problems = list(islice(judge(change, 120, answers), 5))
    assert not problems, "\n".join(problems)
    print(f"\nsidecars: {answers}")
    assert min(answers.values()) > 1000


MUTATIONS: Final[Mapping[str, tuple[str, Any]]] = {
    "providers are tried directly": ("_is_direct", lambda _: True),
    "deployments with TLS are tried directly": ("_is_direct", lambda one: one.access == "Local" and not one.can_wake),
    "deployments at zero are tried directly": ("_is_direct", lambda one: one.access == "Local" and not one.is_tls),
    "nobody is tried directly": ("_is_direct", lambda _: False),
    "nothing is passed on": (
        "_make_chain",
        lambda chain, direct, _: replace(
            chain, groups=tuple(g for g in chain.groups if all(one.attempt.backend in direct for one in g))
        ),
    ),
    "everybody is asked here": ("_make_chain", lambda chain, *_: chain),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_what_is_wrong_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    what, other = MUTATIONS[name]
    monkeypatch.setattr(transform, what, other)
    found: list[str] = []
    try:
        found += islice(judge(without_limits, 40, Counter()), 1)
    except (Unreadable, KeyError) as error:
        found.append(f"{error}")
    assert found, f"{name} is not noticed"


def test_restricted_requests_in_the_open_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    make = transform._make_chain

    def other(chain: Any, *rest: Any) -> Any:
        return replace(make(replace(chain, data_class="Confidential"), *rest), data_class=chain.data_class)

    monkeypatch.setattr(transform, "_make_chain", other)
    assert list(islice(judge(without_limits, 40, Counter()), 1))
