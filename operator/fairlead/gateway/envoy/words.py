"""Envoy's grammar: typed configs, filters, sources. What every file here is spelled with."""

from __future__ import annotations

from typing import Any, Final

import orjson

__all__ = [
    "NAMESPACE",
    "Json",
    "duration",
    "file_source",
    "json_body",
    "make_discovery",
    "make_filter",
    "set_header",
    "swapped_path",
    "typed",
]

Json = dict[str, Any]
#: Dynamic and route metadata of ours.
NAMESPACE: Final = "fairlead"
_TYPES: Final = "type.googleapis.com/"


def typed(type_name: str, /, **fields: Any) -> Json:
    """A message of the type `envoy.….Name`."""
    return {"@type": _TYPES + type_name, **fields}


def make_filter(name: str, type_name: str, /, **fields: Any) -> Json:
    """One entry of a filter chain."""
    return {"name": name, "typed_config": typed(type_name, **fields)}


def swapped_path(directory: str, file: str) -> str:
    """A file of a volume by way of the link that the kubelet swaps. The links beside it come too late: the kubelet makes those of new
    files after the swap that Envoy waits for, and Envoy refuses a cluster whose file is not there yet, until the next swap."""
    return f"{directory}/..data/{file}"


def file_source(directory: str, file: str) -> Json:
    """A resource that is read from a file, and again when the directory's content is swapped as the kubelet does it."""
    return {
        "path_config_source": {"path": swapped_path(directory, file), "watched_directory": {"path": directory}},
        "resource_api_version": "V3",
    }


def make_discovery(type_name: str, version: str, /, *resources: Json) -> Json:
    """The content of such a file."""
    return {"version_info": version, "resources": [typed(type_name, **resource) for resource in resources]}


def duration(seconds: float) -> str:
    """As protobuf's JSON has it."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"


def set_header(name: str, value: str) -> Json:
    """A header that is set, whatever it was."""
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def json_body(value: object) -> Json:
    """A body that is JSON text."""
    return {"inline_string": orjson.dumps(value).decode()}
