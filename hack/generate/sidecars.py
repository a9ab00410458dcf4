"""The admission policy that gives labelled pods their sidecar: CEL written from what `fairlead inject` adds to manifests.

JSON patches, since an apply configuration may not hold lists that are replaced as a whole, such as `args`.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from fairlead.api.names import ANNOTATION_AUTHORITIES, LABEL_GATEWAY, LABEL_MANAGED_BY, MANAGED_BY
from fairlead.config import OperatorConfig
from fairlead.planning.route.injection import SIDECAR_CONTAINER, Injection, make_injection
from hack.generate import GENERATED_NOTICE
from hack.generate.rbac import LABELS, NAME, PlainDumper, dump_all

Json = dict[str, Any]
NOTICE = f"# {GENERATED_NOTICE} Source: operator/fairlead/planning/route/injection.py\n"
POLICY = f"{NAME}-sidecars"
#: The chart puts its own value there.
IMAGE = "FAIRLEAD_GATEWAY_IMAGE"
#: Stand in what is made for what only the API server knows -> the variable that has it there.
_PLACES = {"__route__": "variables.route", "__authorities__": "variables.authorities"}
#: Fields whose keys are any text.
_MAPS = ("requests", "limits")


def generate() -> dict[str, str]:
    """For kustomize as something to opt into, and for the chart as text that its template finishes."""
    image = str(OperatorConfig.model_fields["gateway_image"].default)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["policy.yaml"],
    }
    note = "# Sidecars for application pods; Kubernetes 1.36 or newer: kubectl apply -k manifests/sidecars\n"
    return {
        "manifests/sidecars/policy.yaml": NOTICE + dump_policy(make_objects(image)),
        "manifests/sidecars/kustomization.yaml": NOTICE + note + dump_all([kustomization]),
        "charts/fairlead/files/sidecar-policy.yaml": NOTICE + dump_policy(make_objects(IMAGE)),
    }


def make_objects(image: str) -> list[Json]:
    """The policy and its binding."""
    labels = {**LABELS, "app.kubernetes.io/component": "sidecars"}
    version = "admissionregistration.k8s.io/v1"
    policy = {
        "apiVersion": version,
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": POLICY, "labels": labels},
        "spec": {
            # Only labelled pods get here. One that cannot have its sidecar is refused: it would run without a gateway.
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "matchConstraints": {
                "matchPolicy": "Equivalent",
                "namespaceSelector": {},
                "objectSelector": {"matchExpressions": [{"key": LABEL_GATEWAY, "operator": "Exists"}]},
                "resourceRules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE"],
                        "resources": ["pods"],
                        "scope": "*",
                    }
                ],
            },
            "matchConditions": [
                {
                    "name": "not-of-fairlead",
                    "expression": f"object.metadata.labels[?{quote(LABEL_MANAGED_BY)}].orValue('') != {quote(MANAGED_BY)}",
                },
                {
                    "name": "not-injected",
                    "expression": "!has(object.spec.initContainers) ||\n"
                    f"!object.spec.initContainers.exists(c, c.name == {quote(SIDECAR_CONTAINER)})",
                },
            ],
            "variables": [
                {"name": "route", "expression": f"object.metadata.labels[{quote(LABEL_GATEWAY)}]"},
                {
                    "name": "authorities",
                    "expression": f"object.metadata.?annotations[?{quote(ANNOTATION_AUTHORITIES)}].orValue('')",
                },
            ],
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": make_expression(image)}}],
        },
    }
    binding = {
        "apiVersion": version,
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": POLICY, "labels": labels},
        "spec": {"policyName": POLICY},
    }
    return [policy, binding]


def make_expression(image: str) -> str:
    """A list of patches, with what is missing made first."""
    plain, trusting = (make_injection("__route__", image, authorities) for authorities in ("", "__authorities__"))
    assert plain.container == trusting.container
    missing = [
        make_missing("object.metadata.annotations", "/metadata/annotations", "{}"),
        make_missing("object.spec.initContainers", "/spec/initContainers", "[]"),
        make_missing("object.spec.volumes", "/spec/volumes", "[]"),
    ]
    first = make_patch("'/spec/initContainers/0'", to_cel(plain.container, "Object.spec.initContainers"))
    return " +\n".join(
        [
            *missing,
            f"[\n{indent(first)}\n]",
            f"(variables.authorities == '' ? [\n{make_patches(plain)}\n] : [\n{make_patches(trusting)}\n])",
        ]
    )


def make_missing(field: str, path: str, empty: str) -> str:
    """A patch that makes an empty field where there is none."""
    return f"(has({field}) ? [] : [{make_patch(quote(path), empty)}])"


def make_patches(injection: Injection) -> str:
    """Annotations and volumes."""
    annotations = [
        make_patch(f"'/metadata/annotations/' + jsonpatch.escapeKey({quote(key)})", to_cel(text, ""))
        for key, text in injection.annotations.items()
    ]
    volumes = [make_patch("'/spec/volumes/-'", to_cel(volume, "Object.spec.volumes")) for volume in injection.volumes]
    return indent(",\n".join([*annotations, *volumes]))


def make_patch(path: str, value: str) -> str:
    """One addition; both are expressions."""
    return f"JSONPatch{{op: 'add', path: {path}, value: {value}}}"


def to_cel(value: Any, kind: str) -> str:
    """A value as an expression. `kind`: the type of an object there, which CEL calls by the path of its field."""
    if isinstance(value, bool | int):
        return json.dumps(value)
    if isinstance(value, str):
        return text_to_cel(value)
    if isinstance(value, list):
        return "[" + ", ".join(to_cel(item, kind) for item in value) + "]"
    if kind.rpartition(".")[2] in _MAPS:
        return "{" + ", ".join(f"{quote(key)}: {to_cel(item, '')}" for key, item in value.items()) + "}"
    fields = ",\n".join(f"{key}: {to_cel(item, f'{kind}.{key}')}" for key, item in value.items())
    return f"{kind}{{\n{indent(fields)}\n}}"


def text_to_cel(text: str) -> str:
    """A text, in which variables stand for their places."""
    for place, variable in _PLACES.items():
        if place in text:
            first, *others = (text_to_cel(part) if part else "" for part in text.split(place))
            parts = [first, *(piece for other in others for piece in (variable, other))]
            return " + ".join(part for part in parts if part)
    return quote(text)


def quote(text: str) -> str:
    """As CEL reads it: single quotes, so that JSON in it stays readable."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    if not escaped.isprintable():
        raise ValueError(f"cannot be written in one line: {text[:80]!r}")
    return f"'{escaped}'"


def indent(text: str) -> str:
    """One step further in."""
    return "\n".join(f"  {line}" for line in text.splitlines())


class _BlockDumper(PlainDumper):
    """Expressions of several lines as blocks."""


def _represent(dumper: _BlockDumper, text: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_BlockDumper.add_representer(str, _represent)


def dump_policy(objects: list[Json]) -> str:
    """YAML documents for people who want to know what is done to their pods."""
    return yaml.dump_all(objects, Dumper=_BlockDumper, sort_keys=False, width=1_000_000)
