"""What `fairlead explain` says equals what the files say that `fairlead render` prints, as the law's own reader of Envoy's files reads
them: for routes and requests by chance, the way of each draw, the class and the answers of the gateway itself.

Routes, requests, reader and truth table are those of tests/law, which share no code with fairlead.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from tests.law.addresses import Facts, hosts_of, wanted_keys
from tests.law.cases import Case, deal, make_requests
from tests.law.envoy_reader import Reached
from tests.law.judge import Judge
from tests.law.truth import CLASSES, Request, Ruling

from fairlead.api.route import DataClass
from fairlead.facts.observed import OperatorFacts
from fairlead.rendering.documents import Document
from fairlead.rendering.explain import Explanation, Question, Reason, explain
from fairlead.rendering.render import Rendering, render

Json = dict[str, Any]
SEED: Final = 20261128
ROUTES: Final = 24
NOW: Final = datetime(2026, 11, 25, tzinfo=UTC)
#: Draws of Envoy that are followed per request.
DRAWS: Final = (0, 1, 7, 50, 89, 90, 91, 10_007)


# From a case of the law to manifests -----------------------------------------------------------------------------------------


def make_acceptable(case: Case) -> None:
    """Nothing is said of a route that is not accepted."""
    case.route["dataPolicy"]["denyClasses"] = list(CLASSES)
    for backend in case.route["backends"]:
        provider = backend.get("provider", {})
        if case.states[backend["name"]].failure == "forbidden address":
            provider["baseURL"] = f"https://api.{backend['name']}.example.com/v1"
        if case.states[backend["name"]].trust == "claimed":
            del provider["trusted"]


def make_world(case: Case) -> Json:
    """As files can tell it: Services are there and ours, nothing is encrypted, and what is missing is assumed."""
    world: Json = dict(case.world)
    world["deployments"] = {
        name: {**found, "ours": True, "ready": 1, "encrypted": False, "tls": False}
        for name, found in world["deployments"].items()
    }
    world["secrets"] = dict(world["secrets"])
    restricted = any("Restricted" in role["dataAccess"] for role in case.route.get("roles", ()))
    assumed = {"ours": True, "ready": 1, "encrypted": restricted, "tls": restricted, "confidential": True, "port": 8000}
    for backend in case.route["backends"]:
        if "deployment" in backend:
            name = backend["deployment"]["name"]
            world["deployments"].setdefault(name, {**assumed, "servedModel": name})
            continue
        provider = backend["provider"]
        hosts = {hosts_of(provider).host, provider.get("tls", {}).get("serverName", hosts_of(provider).host)}
        consenting = {"use": "provider", "hosts": sorted(hosts), "keys": None}
        world["secrets"].setdefault(provider["secretRef"]["name"], consenting)
    return world


def make_manifests(case: Case) -> Iterator[Json]:
    envelope = {"apiVersion": "fairlead.dev/v1alpha1"}
    for name, found in case.world["deployments"].items():
        engine: Json = {"type": "vLLM" if found["port"] == 8000 else "Ollama"}
        if not found["confidential"]:
            engine["env"] = [{"name": "SOME_BASE_URL", "value": "https://elsewhere.example"}]
        source = "hf://org/model" if found["port"] == 8000 else "ollama://qwen2.5:0.5b"
        spec = {"model": {"source": source, "name": found["servedModel"]}, "engine": engine}
        yield {**envelope, "kind": "LLMDeployment", "metadata": {"name": name, "namespace": "ml"}, "spec": spec}
    providers = {b["provider"]["secretRef"]["name"]: b["provider"] for b in case.route["backends"] if "provider" in b}
    for name, found in case.world["secrets"].items():
        keys = found["keys"] if found["keys"] is not None else wanted_keys(providers[name])
        yield {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": name,
                "namespace": "ml",
                "labels": {"fairlead.dev/use": found["use"]},
                "annotations": {"fairlead.dev/hosts": ", ".join(found["hosts"])},
            },
            "stringData": dict.fromkeys(keys, "a key"),
        }
    yield {**envelope, "kind": "LLMRoute", "metadata": {"name": "assistants", "namespace": "ml"}, "spec": case.route}


def render_case(case: Case) -> Rendering:
    documents = [Document("in.yaml", number, body) for number, body in enumerate(make_manifests(case), 1)]
    operator = OperatorFacts(trusted_hosts=frozenset(case.world["trustedHosts"]))
    rendering = render(documents, "ml", operator, None, NOW)
    assert rendering.findings == []
    return rendering


def printed_files(rendering: Rendering) -> Mapping[str, str]:
    maps = [o for o in rendering.objects if o["kind"] == "ConfigMap"]
    return {name: text for one in maps for name, text in one["data"].items()}


# Requests --------------------------------------------------------------------------------------------------------------------


def see_all(request: Request, case: Case) -> Request:
    """Several detectors look for the same: who finds it finds it with all of them."""
    emails = {d["name"] for d in case.route["dataPolicy"]["detectors"] if d.get("builtin") == "Email"}
    found = set(request.found) | (emails if emails & set(request.found) else set())
    return Request(**{**{f: getattr(request, f) for f in request.__slots__}, "found": tuple(sorted(found))})


def words_of(detector: Mapping[str, Any]) -> list[str]:
    if "patterns" in detector:
        return [f"pat-{detector['name']}-7"]
    return list(detector.get("keywords", ["somebody@mail.example.org"]))


def make_body(request: Request, case: Case) -> bytes:
    """A body in which exactly these detectors find something."""
    detectors = {d["name"]: d for d in case.route["dataPolicy"]["detectors"]}
    words = [word for name in request.found for word in words_of(detectors[name])]
    content: list[Json] = [{"type": "text", "text": ". ".join(["hello", *words])}]
    if request.opaque:
        content.append({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}})
    messages = [{"role": "user", "content": content}]
    return json.dumps({"model": request.model, "stream": request.stream, "messages": messages}).encode()


def make_question(request: Request, body: bytes | None) -> Question:
    declared = DataClass(request.declared) if request.declared is not None else None
    return Question(request.model, request.consumer, declared, request.path, body)


# What both say ---------------------------------------------------------------------------------------------------------------


def follow_files(reached: Reached, draw: int) -> list[Facts]:
    """In each group the member on whom the draw falls, less those of whom the egress side says that the next one is to be tried."""
    way = []
    for group in reached.attempts:
        rest = draw % sum(weight for _, weight in group)
        for member, weight in group:
            rest -= weight
            if rest < 0:
                way.append(member)
                break
    assert all(isinstance(member, Facts) or member.skips for member in way)
    return [member for member in way if isinstance(member, Facts)]


def follow_explanation(explained: Explanation, judge: Judge, draw: int) -> list[Facts | None]:
    way: list[Facts | None] = []
    for stage in explained.stages:
        rest = draw % sum(share.weight for share in stage)
        for share in stage:
            rest -= share.weight
            if rest < 0:
                path = explained.question.path
                way += [judge.facts(tried.backend, tried.model, path) for tried in share.tried]
                break
    return way


def compare(explained: Explanation, reached: Reached, judge: Judge, request: Request) -> str:
    """The difference, "" if there is none."""
    if reached.status is not None:
        wanted = {reached.status}
        if reached.status == 404 and request.consumer is None and judge.law.roles_of(None) is None:
            wanted = {401}  # who has no key does not come as far as the path
        if request.model == "" and explained.question.body is not None:
            wanted |= {400}
        return "" if explained.status in wanted else f"is {explained.status}, the files say {reached.status}"
    ways = [follow_files(reached, draw) for draw in DRAWS]
    if not any(ways):
        return "" if explained.status == 404 else f"is {explained.status}, and nobody has the endpoint"
    told = [follow_explanation(explained, judge, draw) for draw in DRAWS]
    if told != ways:
        return f"tells {told}, the files say {ways}"
    if explained.status is not None or explained.data_class != reached.mark:
        return f"is {explained.status} and {explained.data_class}, the files say {reached.mark}"
    return ""


def check_reasons(explained: Explanation, ruling: Ruling, judge: Judge) -> str:
    """Each backend of the model is either tried or not, and for the reason that the truth table has."""
    if explained.data_class is None:
        return ""
    request, law = explained.question, judge.law
    told = Counter([*explained.order, *(one.backend for one in explained.not_tried)])
    if told != Counter({target["backend"] for target in law.models[request.model]["targets"]}):
        return f"tells of {told}"
    permitted = {target.backend for target in ruling.permitted}
    for one in explained.not_tried:
        is_permitted = one.reason in (Reason.NOT_RESOLVED, Reason.NO_ENDPOINT)
        if is_permitted is not (one.backend in permitted):
            return f"{one} and the law permits {permitted}"
        if (one.reason is Reason.NOT_RESOLVED) is not (is_permitted and one.backend not in law.there):
            return f"{one} and there are {law.there}"
        if one.reason is Reason.CLASS_RULE and all(law.class_permits(one.backend, c) for c in ruling.classes):
            return f"{one} and the class rule lets {ruling.classes} there"
        if (one.reason is Reason.NO_ROLE) is not (not ruling.classes):
            return f"{one} with the roles {ruling.classes}"
    return ""


def test_explain_says_what_the_files_do() -> None:
    dice, seen, reasons = random.Random(SEED), Counter[str](), Counter[Reason]()
    for number, case in enumerate(deal(dice, ROUTES)):
        make_acceptable(case)
        rendering = render_case(case)
        (rendered,) = rendering.routes
        judge = Judge(case.route, make_world(case), printed_files(rendering))
        for drawn in make_requests(dice, case, 60):
            request = see_all(drawn, case)
            reads_body = bool(request.found) or request.opaque or dice.random() < 0.3
            if request.method != "POST" or (reads_body and dice.random() < 0.6):
                continue
            explained = explain(rendered, make_question(request, make_body(request, case) if reads_body else None))
            reached = judge.gateway.ask(
                request.consumer, request.model, request.declared, request.found, request.opaque, "POST", request.path,
                request.stream,
            )  # fmt: skip
            problem = compare(explained, reached, judge, request)
            problem = problem or check_reasons(explained, judge.law.rule(request), judge)
            assert not problem, f"seed {SEED}, route {number}, {request}: {problem}"
            seen[f"{explained.status or 'sent'}{' with a body' if reads_body else ''}"] += 1
            reasons.update(one.reason for one in explained.not_tried)
    print(f"\n{dict(seen)}, {dict(reasons)}")
    assert set(reasons) == set(Reason)
    assert {"sent", "sent with a body", "403", "403 with a body", "401", "404", "503"} <= set(seen)
