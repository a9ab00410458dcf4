"""Raw Kubernetes fields of a spec against the schemas that Kubernetes publishes.

The CRD cannot describe them (it would be half a megabyte), so a typo in them passes the API server and fails only when the
child is applied. Here it is told before, in the custom resource's own terms. Values are never repeated: one may be a secret.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any, Final

from fairlead.api.llmdeployment import LLMDeploymentSpec
from fairlead.api.resource import Finding
from fairlead.api.rules.table import choose

__all__ = ["SchemasMissingError", "choose_version", "find_raw_findings"]

Json = dict[str, Any]
#: Which published schema each raw field has. `[*]`: each item of the list.
_SCHEMAS: Final = {
    "spec.engine.env[*]": "envvar-v1",
    "spec.engine.envFrom[*]": "envfromsource-v1",
    "spec.networkPolicy.from[*]": "networkpolicypeer-networking-v1",
    "spec.pod.tolerations[*]": "toleration-v1",
    "spec.pod.affinity": "affinity-v1",
    "spec.pod.topologySpreadConstraints[*]": "topologyspreadconstraint-v1",
    "spec.pod.imagePullSecrets[*]": "localobjectreference-v1",
    "spec.pod.securityContext": "podsecuritycontext-v1",
    "spec.pod.containerSecurityContext": "securitycontext-v1",
    "spec.pod.extraVolumes[*]": "volume-v1",
    "spec.pod.extraVolumeMounts[*]": "volumemount-v1",
}
_WORDS: Final = {
    "object": "a map",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "boolean": "true or false",
}


class SchemasMissingError(Exception):
    """The extra `render` is not installed, or it does not know the version that was asked for."""


def choose_version(asked: str | None) -> str:
    """The full version of the schemas for `asked` (1.36 or 1.36.3), the newest for None; empty when none are installed.

    Raises SchemasMissingError for a version that is not known.
    """
    try:
        known: list[str] = _library().all_versions()
    except SchemasMissingError:
        return ""
    if asked is None:
        return known[-1]
    minor = ".".join(asked.removeprefix("v").split(".")[:2])
    found = [version for version in known if version.startswith(f"{minor}.")]
    if not found:
        minors = ", ".join(".".join(version.split(".")[:2]) for version in known)
        raise SchemasMissingError(f"there are no schemas of Kubernetes {asked}; there are those of {minors}")
    return found[-1]


def find_raw_findings(spec: LLMDeploymentSpec, kubernetes_version: str) -> list[Finding]:
    """What is wrong with the raw fields of a valid spec. Raises SchemasMissingError."""
    content = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    findings: list[Finding] = []
    for at, schema in _SCHEMAS.items():
        for path, value in _find({"spec": content}, at):
            findings += _explain_all(path, _validator(schema, kubernetes_version).iter_errors(value))
    return findings


@cache
def _library() -> Any:
    try:
        from kubernetes_validate import utils
    except ImportError as error:
        raise SchemasMissingError("raw Kubernetes fields were not checked: pip install 'fairlead[render]'") from error
    return utils


@cache
def _validator(schema: str, kubernetes_version: str) -> Any:
    from referencing import Registry, Resource

    library = _library()
    folder = f"kubernetes-json-schema/v{kubernetes_version}-local-strict"
    contents = library.schema_contents(f"{folder}/{schema}.json", kubernetes_version)
    definitions = library.schema_contents(f"{folder}/_definitions.json", kubernetes_version)
    registry: Any = Resource.from_contents(definitions) @ (Resource.from_contents(contents) @ Registry())
    # jsonschema has no types of its own.
    return import_module("jsonschema").Draft202012Validator(contents, registry=registry)


def _find(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The values at `path`, with the indexes that stand for `[*]`."""
    found = [("", node)]
    for segment in path.split("."):
        name = segment.removesuffix("[*]")
        found = [(f"{at}.{name}".removeprefix("."), value[name]) for at, value in found if name in value]
        if segment.endswith("[*]"):
            found = [(f"{at}[{index}]", item) for at, items in found for index, item in enumerate(items)]
    yield from found


def _explain_all(path: str, errors: Any) -> Iterator[Finding]:
    for error in sorted(errors, key=lambda e: [str(part) for part in e.absolute_path]):
        where = path + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
        yield from _explain(where, error)


def _explain(path: str, error: Any) -> Iterator[Finding]:
    known = list(error.schema.get("properties", {}))
    if error.validator == "additionalProperties":
        for name in error.instance:
            if name not in known:
                yield Finding(f"{path}.{name}", "is not a field that Kubernetes has here", choose(name, known))
    elif error.validator == "required":
        for name in error.validator_value:
            if name not in error.instance:
                yield Finding(f"{path}.{name}", "is required by Kubernetes", "add it")
    elif error.validator == "type":
        types = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
        wanted = " or ".join(_WORDS.get(kind, kind) for kind in types if kind != "null")
        yield Finding(path, f"is not {wanted}", f"write {wanted}")
    elif error.validator == "enum":
        values = [str(value) for value in error.validator_value if value is not None]
        yield Finding(path, "is not one of the values that Kubernetes has here", f"one of {', '.join(values)}")
    else:
        yield Finding(
            path, f"is not what Kubernetes takes here ({error.validator})", "see kubectl explain of the field"
        )
