"""The objects that the operator would apply for the custom resources in some manifests, and what is wrong with the others."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from fairlead.api.conditions import ConditionType, Reason
from fairlead.api.names import (
    GROUP,
    LABEL_ENGINE,
    LLMDEPLOYMENT,
    LLMROUTE,
    headless_service_name,
    issued_certificate_name,
)
from fairlead.api.resource import Finding, LLMDeployment, LLMRoute
from fairlead.api.validation import parse_llmdeployment, parse_llmroute
from fairlead.engines.loader import EngineCatalog
from fairlead.facts.observed import Observed, OperatorFacts
from fairlead.planning.deployment import plan_deployment
from fairlead.planning.plan import Plan
from fairlead.providers.loader import ProviderCatalog
from fairlead.rendering.certificates import render_issued
from fairlead.rendering.documents import Document
from fairlead.rendering.raw import SchemasMissingError, find_raw_findings
from fairlead.rendering.routes import RenderedRoute, render_route
from fairlead.rendering.surroundings import InputDeployment, Surroundings, find_named_secrets, find_secret_findings

__all__ = ["Rendering", "is_ours", "is_route", "render"]

Json = dict[str, Any]
_ENGINE_KEY: Final = "engine.yaml.j2"


@dataclass
class Rendering:
    """`objects` in the order of the input, each custom resource's in the order in which they are applied. `findings` and
    `notes` are lines for people: findings are about invalid custom resources, notes about what was passed over or assumed. `routes`
    are the LLMRoutes whose spec is valid, accepted or not."""

    objects: list[Json] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    routes: list[RenderedRoute] = field(default_factory=list)


@dataclass
class _Part:
    """What one custom resource of the input comes to."""

    objects: Sequence[Json] = ()
    findings: list[Finding] = field(default_factory=list)


def is_ours(document: Document) -> bool:
    """True for a custom resource of ours of whatever version: a wrong version is a finding, not somebody else's kind."""
    is_in_group = str(document.body.get("apiVersion", "")).partition("/")[0] == GROUP
    return is_in_group and document.kind in (LLMDEPLOYMENT, LLMROUTE)


def is_route(document: Document) -> bool:
    """True for an LLMRoute."""
    return is_ours(document) and document.kind == LLMROUTE


def render(
    documents: Sequence[Document], namespace: str, facts: OperatorFacts, kubernetes_version: str | None, now: datetime
) -> Rendering:
    """Render all. `namespace` is that of objects that name none; `kubernetes_version` that of the published schemas, None: raw fields
    are not looked at."""
    result = Rendering()
    engines = _read_engines(documents, result)
    documents = [replace(document, body=_with_namespace(document.body, namespace)) for document in documents]
    surroundings = Surroundings(
        secrets={_identity(d): d.body for d in documents if d.kind == "Secret" and _has_name(d)}
    )
    parts: dict[int, _Part] = {}
    for number, document in enumerate(documents):
        if is_ours(document) and not is_route(document):
            part = parts[number] = _render_one(document.body, engines, facts, kubernetes_version, now, result)
            if _has_name(document):
                port = _find_port(part, document.name)
                surroundings.deployments.setdefault(_identity(document), InputDeployment(document.body, port))
    _render_carriers(documents, parts, surroundings, engines, facts, now, result)
    named: set[tuple[str, str]] = set()
    for number, document in enumerate(documents):
        if is_route(document):
            parts[number] = _render_route(document, surroundings, facts, now, result, named)
    _collect(documents, parts, named, result)
    return result


def _render_carriers(
    documents: Sequence[Document],
    parts: Mapping[int, _Part],
    surroundings: Surroundings,
    engines: EngineCatalog,
    facts: OperatorFacts,
    now: datetime,
    result: Rendering,
) -> None:
    """LLMDeployments that carry a gateway once more, now that it is known which others its route has."""
    routes = {_identity(document): document.body for document in documents if is_route(document)}
    for number, part in parts.items():
        body = documents[number].body
        parsed = parse_llmdeployment(body) if not part.findings else None
        if not isinstance(parsed, LLMDeployment) or parsed.spec.gateway is None:
            continue
        name = parsed.spec.gateway.route_ref.name
        route = routes.get((parsed.metadata.namespace, name))
        if route is None:
            result.notes.append(
                f"{documents[number]}: LLMRoute {name} is not in the input: assumed to say gateway.mode: Sidecar, and to have no other"
                " deployment"
            )
        gateway = surroundings.find_gateway(body, route, facts.local_images)
        plan = plan_deployment(parsed, Observed(gateway=gateway), engines, facts, now)
        part.objects = _make_objects(parsed, plan)


def _make_objects(resource: LLMDeployment, plan: Plan) -> list[Json]:
    """What the plan applies, and before it the certificate that the operator issues."""
    objects = [_plain(child.body) for child in plan.children]
    is_issued = resource.spec.encryption is not None and resource.spec.encryption.certificate is None
    return [render_issued(resource.metadata), *objects] if objects and is_issued else objects


def _collect(
    documents: Sequence[Document], parts: Mapping[int, _Part], named: Collection[tuple[str, str]], result: Rendering
) -> None:
    """In the order of the input. `named`: Secrets that routes refer to."""
    seen: set[tuple[str, tuple[str, str]]] = set()
    for number, document in enumerate(documents):
        part = parts.get(number)
        if part is None:
            if document.kind == "Secret" and _identity(document) in named:
                part = _Part(findings=list(find_secret_findings(document.body)))
            elif not _engine_name(document):
                result.notes.append(f"{document}: is passed over, only {LLMDEPLOYMENT} and {LLMROUTE} are rendered")
                continue
            else:
                continue
        findings = part.findings
        if (document.kind, _identity(document)) in seen:
            findings = [Finding("metadata.name", "stands twice in the input", "give it another name"), *findings]
        seen.add((document.kind, _identity(document)))
        if not findings:
            result.objects += part.objects
        result.findings += [" ".join(f"{document}: {finding}".split()) for finding in findings]


def _render_route(
    document: Document,
    surroundings: Surroundings,
    facts: OperatorFacts,
    now: datetime,
    result: Rendering,
    named: set[tuple[str, str]],
) -> _Part:
    parsed = parse_llmroute(document.body)
    if not isinstance(parsed, LLMRoute):
        return _Part(findings=list(parsed))
    named |= find_named_secrets(parsed)
    rendered = render_route(parsed, surroundings, facts, ProviderCatalog.builtin(), now)
    result.routes.append(rendered)
    result.notes += [f"{document}: {note}" for note in (*rendered.notes, *rendered.omissions)]
    return _Part(rendered.objects, list(rendered.findings))


def _find_port(part: _Part, name: str) -> Mapping[str, Any] | None:
    """The pods' own, as the deployment's plan has it; None: there is no plan."""
    for body in part.objects if not part.findings else ():
        if body["kind"] == "Service" and body["metadata"]["name"] == headless_service_name(name):
            port: Mapping[str, Any] = body["spec"]["ports"][0]
            return port
    return None


def _identity(document: Document) -> tuple[str, str]:
    metadata = document.body.get("metadata")
    return str(metadata.get("namespace") if isinstance(metadata, Mapping) else None), document.name


def _has_name(document: Document) -> bool:
    metadata = document.body.get("metadata")
    return isinstance(metadata, Mapping) and metadata.get("name") == document.name


def _render_one(
    body: Json, engines: EngineCatalog, facts: OperatorFacts, version: str | None, now: datetime, result: Rendering
) -> _Part:
    parsed = parse_llmdeployment(body)
    if not isinstance(parsed, LLMDeployment):
        return _Part(findings=list(parsed))
    findings: list[Finding] = []
    try:
        findings += find_raw_findings(parsed.spec, version) if version is not None else ()
    except SchemasMissingError as error:
        if str(error) not in result.notes:
            result.notes.append(str(error))
    plan = plan_deployment(parsed, Observed(), engines, facts, now)
    findings += _find_refusal(plan.status)
    objects = _make_objects(parsed, plan)
    issued = issued_certificate_name(parsed.metadata.name)
    if not findings and any((one["kind"], one["metadata"]["name"]) == ("Secret", issued) for one in objects):
        result.notes.append(
            f"{LLMDEPLOYMENT}/{parsed.metadata.name}: Secret/{issued} is printed without the certificate"
        )
    return _Part(objects, findings)


def _find_refusal(status: Mapping[str, Any]) -> list[Finding]:
    """Why the planner made nothing, if it did not: an engine file may refuse what validation lets pass."""
    stalled = next(c for c in status["conditions"] if c["type"] == ConditionType.STALLED)
    if stalled["status"] != "True":
        return []
    message = str(stalled["message"]).removesuffix(".")
    if stalled["reason"] == Reason.INVALID_SPEC:
        path, _, rest = message.partition(": ")
        what, _, remedy = rest.partition("; ")
        return [Finding(path, what, remedy)]
    what, _, remedy = message.partition(" Next: ")
    return [Finding("spec.engine.type", what, remedy)]


def _read_engines(documents: Sequence[Document], result: Rendering) -> EngineCatalog:
    """The built-in engines, and those of labelled ConfigMaps in the input."""
    overrides: dict[str, tuple[str, str]] = {}
    for document in documents:
        if name := _engine_name(document):
            overrides[name] = (f"{document} {_ENGINE_KEY}", str((document.body.get("data") or {}).get(_ENGINE_KEY, "")))
            result.notes.append(f"{document}: is used as engine {name}")
    return EngineCatalog.builtin().with_overrides(overrides)


def _engine_name(document: Document) -> str:
    if document.kind != "ConfigMap":
        return ""
    metadata = document.body.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, Mapping) else None
    return str(labels.get(LABEL_ENGINE, "")) if isinstance(labels, Mapping) else ""


def _with_namespace(body: Json, namespace: str) -> Json:
    metadata = body.get("metadata")
    if not isinstance(metadata, Mapping) or metadata.get("namespace"):
        return body
    return {**body, "metadata": {**metadata, "namespace": namespace}}


def _plain(body: Mapping[str, Any]) -> Json:
    plain: Json = json.loads(json.dumps(body))
    return plain
