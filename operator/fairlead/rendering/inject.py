"""Sidecars in manifests, for clusters whose API server has no MutatingAdmissionPolicy: the same that the policy gives to pods."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fairlead.api.names import ANNOTATION_AUTHORITIES, LABEL_GATEWAY, LABEL_MANAGED_BY, MANAGED_BY, NAME_MAX_LENGTH
from fairlead.planning.route.injection import Injection, make_injection
from fairlead.rendering.documents import Document, read_documents
from fairlead.rendering.write import to_yaml

__all__ = ["Injected", "inject"]

Json = dict[str, Any]
#: (API, kind) -> where the pod is in such an object.
_PODS: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("v1", "Pod"): (),
    **{("apps/v1", kind): ("spec", "template") for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")},
    ("batch/v1", "Job"): ("spec", "template"),
    ("batch/v1", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
}
_ROUTE: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SEPARATOR: Final = re.compile(r"^(?=---(?:\s|$))", re.MULTILINE)


@dataclass
class Injected:
    """`text`: all manifests, those without a label as they were, byte for byte. `findings`: objects whose label names no route;
    `objects`: those that have a sidecar now."""

    text: str = ""
    findings: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)


def inject(text: str, source: str, image: str) -> Injected:
    """Whoever has a sidecar already gets that of this release. Raises InputError for what is not YAML or holds no object."""
    read_documents(text, source)
    result = Injected()
    for part in _SEPARATOR.split(text):
        documents = read_documents(part, source) if _holds_object(part) else []
        changed = [_inject_one(document, image, result) for document in documents]
        if any(new is not None for new in changed):
            bodies = [
                new if new is not None else document.body for new, document in zip(changed, documents, strict=True)
            ]
            result.text += _ended(to_yaml(bodies))
        else:
            result.text += _ended(part)
    return result


def _holds_object(part: str) -> bool:
    lines = (line.strip() for line in part.removeprefix("---").splitlines())
    return any(line and not line.startswith("#") and line != "..." for line in lines)


def _ended(part: str) -> str:
    return part if not part or part.endswith("\n") else f"{part}\n"


def _inject_one(document: Document, image: str, result: Injected) -> Json | None:
    """The object with its sidecar; None if it gets none."""
    path = _PODS.get((str(document.body.get("apiVersion")), document.kind))
    if path is None:
        return None
    pod: Any = document.body
    for key in path:
        pod = pod.get(key) if isinstance(pod, Mapping) else None
    if not isinstance(pod, Mapping) or not isinstance(pod.get("spec"), Mapping):
        return None
    metadata = pod.get("metadata") if isinstance(pod.get("metadata"), Mapping) else {}
    labels, annotations = ((metadata or {}).get(name) or {} for name in ("labels", "annotations"))
    route = labels.get(LABEL_GATEWAY)
    if route is None or labels.get(LABEL_MANAGED_BY) == MANAGED_BY:
        return None
    if not _ROUTE.fullmatch(str(route)) or len(str(route)) > NAME_MAX_LENGTH:
        result.findings.append(
            f"{document}: {'.'.join((*path, 'metadata', 'labels'))}[{LABEL_GATEWAY}]: is no name of an LLMRoute;"
            f" a DNS label of at most {NAME_MAX_LENGTH} characters that begins with a letter would work"
        )
        return None
    result.objects.append(str(document))
    injection = make_injection(str(route), image, str(annotations.get(ANNOTATION_AUTHORITIES) or ""))
    return _put(document.body, path, _with_sidecar(pod, injection))


def _with_sidecar(pod: Mapping[str, Any], injection: Injection) -> Json:
    metadata, spec = dict(pod.get("metadata") or {}), dict(pod["spec"])
    annotations = {**(metadata.get("annotations") or {}), **injection.annotations}
    init = list(spec.get("initContainers") or [])
    name = injection.container["name"]
    if any(container.get("name") == name for container in init):
        init = [injection.container if container.get("name") == name else container for container in init]
    else:
        init.insert(0, injection.container)
    names = {volume["name"] for volume in injection.volumes}
    volumes = [volume for volume in spec.get("volumes") or [] if volume.get("name") not in names]
    return {
        **pod,
        "metadata": {**metadata, "annotations": annotations},
        "spec": {**spec, "initContainers": init, "volumes": [*volumes, *injection.volumes]},
    }


def _put(body: Json, path: tuple[str, ...], pod: Json) -> Json:
    if not path:
        return pod
    return {**body, path[0]: _put(body[path[0]], path[1:], pod)}
