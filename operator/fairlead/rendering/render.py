"""The objects that the operator would apply for the custom resources in some manifests, and what is wrong with the others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from fairlead.api.conditions import ConditionType, Reason
from fairlead.api.names import GROUP, LABEL_ENGINE, LLMDEPLOYMENT
from fairlead.api.resource import Finding, LLMDeployment
from fairlead.api.validation import parse_llmdeployment
from fairlead.engines.loader import EngineCatalog
from fairlead.facts.observed import Observed, OperatorFacts
from fairlead.planning.deployment import plan_deployment
from fairlead.rendering.documents import Document
from fairlead.rendering.raw import SchemasMissingError, find_raw_findings

__all__ = ["Rendering", "is_ours", "render"]

Json = dict[str, Any]
_ENGINE_KEY: Final = "engine.yaml.j2"


@dataclass
class Rendering:
    """`objects` in the order of the input, each custom resource's in the order in which they are applied. `findings` and
    `notes` are lines for people: findings are about invalid custom resources, notes about what was passed over."""

    objects: list[Json] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def is_ours(document: Document) -> bool:
    """True for an LLMDeployment of whatever version: a wrong version is a finding, not somebody else's kind."""
    return str(document.body.get("apiVersion", "")).partition("/")[0] == GROUP and document.kind == LLMDEPLOYMENT


def render(
    documents: Sequence[Document], namespace: str, facts: OperatorFacts, kubernetes_version: str, now: datetime
) -> Rendering:
    """Render all. `namespace` is that of objects that name none; `kubernetes_version` that of the published schemas."""
    result = Rendering()
    engines = _read_engines(documents, result)
    seen: set[tuple[str, str]] = set()
    for document in documents:
        if not is_ours(document):
            if not _engine_name(document):
                result.notes.append(f"{document}: is passed over, only {LLMDEPLOYMENT} is rendered")
            continue
        body = _with_namespace(document.body, namespace)
        identity = (str((body.get("metadata") or {}).get("namespace")), document.name)
        findings = (
            [Finding("metadata.name", "stands twice in the input", "give it another name")] if identity in seen else []
        )
        seen.add(identity)
        objects, further = _render_one(body, engines, facts, kubernetes_version, now, result)
        findings += further
        if not findings:
            result.objects += objects
        result.findings += [" ".join(f"{document}: {finding}".split()) for finding in findings]
    return result


def _render_one(
    body: Json, engines: EngineCatalog, facts: OperatorFacts, kubernetes_version: str, now: datetime, result: Rendering
) -> tuple[list[Json], list[Finding]]:
    parsed = parse_llmdeployment(body)
    if not isinstance(parsed, LLMDeployment):
        return [], list(parsed)
    try:
        findings = find_raw_findings(parsed.spec, kubernetes_version)
    except SchemasMissingError as error:
        findings = []
        if str(error) not in result.notes:
            result.notes.append(str(error))
    plan = plan_deployment(parsed, Observed(), engines, facts, now)
    findings += _find_refusal(plan.status)
    return [_plain(child.body) for child in plan.children], findings


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
