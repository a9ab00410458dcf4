"""Whether an object is what the API server of a release would take: of Kubernetes' own kinds, and of KEDA's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator

_CRDS = (Path(__file__).parent / "data" / "keda" / "scaledobjects.yaml",)


def validate(body: Mapping[str, Any], version: str) -> None:
    """Raises what the judge raises. A field that the schema does not have is a mistake, too."""
    schemas = _read_crds()
    if body["kind"] in schemas:
        Draft202012Validator(schemas[body["kind"]]).validate(dict(body))
    else:
        kubernetes_validate.validate(dict(body), version, strict=True)


@cache
def _read_crds() -> dict[str, Any]:
    crds = [yaml.safe_load(path.read_text()) for path in _CRDS]
    return {
        crd["spec"]["names"]["kind"]: _close(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]) for crd in crds
    }


def _close(schema: Any) -> Any:
    """As strict field validation is, but for metadata, which the CRD leaves to the API server."""
    if isinstance(schema, list):
        return [_close(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _close(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        closed["additionalProperties"] = False
    return closed
