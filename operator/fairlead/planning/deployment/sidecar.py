"""The gateway of a route beside the engine (`spec.gateway`): a native sidecar that starts before the engine and ends after it.

The pod template says nothing of the route but its name (law 8): what the gateway starts with stands in annotations, and what is
edited in the route comes by ConfigMaps and a Secret that may be missing. Until they are there it answers 503. It has no readiness
probe: whether the pod serves is the engine's matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from fairlead.api.names import ANNOTATION_INTERFACE, FILE_ANNOTATION_PREFIX, gateway_part_name, make_carrier_labels
from fairlead.errors import RenderError
from fairlead.gateway.envoy.clients import AUTHENTICATION_FILE
from fairlead.gateway.envoy.files import ROUTING_INTERFACE, render_bootstrap
from fairlead.gateway.envoy.unrouted import render_unrouted_authentication, render_unrouted_routing
from fairlead.planning.deployment.encryption import certificate_secret
from fairlead.planning.deployment.serving import Serving
from fairlead.planning.gateway import (
    CLIENTS,
    ROUTING_PARTS,
    SIDECAR_PORT_NAME,
    SIDECAR_SETTINGS,
    make_gateway_container,
)

__all__ = [
    "make_sidecar_annotations",
    "make_sidecar_container",
    "make_sidecar_labels",
    "make_sidecar_volumes",
]

Json = dict[str, Any]
_BOOTSTRAP, _ROUTING, _CLIENTS, _RUN, _AUTHORITIES = (
    f"fairlead-gateway{suffix}" for suffix in ("-bootstrap", "-routing", "-clients", "-run", "-authorities")
)
#: Of a Secret with a certificate, as cert-manager makes it.
_AUTHORITIES_KEY: Final = "ca.crt"


def make_sidecar_labels(serving: Serving) -> dict[str, str]:
    """By which the route's Service finds the pods."""
    return make_carrier_labels(serving.spec.gateway.route_ref.name) if serving.spec.gateway is not None else {}


def make_sidecar_annotations(serving: Serving) -> dict[str, str]:
    """The files that the gateway starts with, and those that it has until the route's are there."""
    if serving.spec.gateway is None:
        return {}
    said = {_annotation(name): text for files in _render_files() for name, text in files.items()}
    return {ANNOTATION_INTERFACE: str(ROUTING_INTERFACE), **said}


def make_sidecar_container(serving: Serving) -> list[Json]:
    """None without spec.gateway. It goes on for the drain timeout: the streams that pass through it end at other pods, too. Raises
    RenderError for an engine that listens on its ports."""
    if serving.spec.gateway is None:
        return []
    for port in (SIDECAR_SETTINGS.port, SIDECAR_SETTINGS.status_port):
        if serving.rendered.port == port:
            raise RenderError(
                "spec.gateway",
                f"the engine listens on {port}, which is the gateway's",
                "let the engine file use another port, or leave spec.gateway out",
            )
    container = make_gateway_container(
        serving.proxy_image,
        SIDECAR_SETTINGS,
        SIDECAR_PORT_NAME,
        _make_mounts(serving),
        drain_s=serving.context.drain.timeout_s,
        readiness=None,
    )
    return [{"name": container.pop("name"), "restartPolicy": "Always", **container}]


def make_sidecar_volumes(serving: Serving) -> list[Json]:
    """Sources that come later win: what is there of the route's replaces the files of the same names."""
    if serving.spec.gateway is None:
        return []
    name = serving.spec.gateway.route_ref.name
    bootstrap, unrouted, unknown = _render_files()
    routing = [{"configMap": {"name": gateway_part_name(name, part), "optional": True}} for part in ROUTING_PARTS]
    clients = {"secret": {"name": gateway_part_name(name, CLIENTS), "optional": True}}
    volumes: list[Json] = [
        {"name": _BOOTSTRAP, "downwardAPI": _make_files(*bootstrap)},
        {
            "name": _ROUTING,
            "projected": {"sources": [{"downwardAPI": _make_files(*unrouted)}, *routing]},
        },
        {
            "name": _CLIENTS,
            "projected": {"sources": [{"downwardAPI": _make_files(*unknown)}, clients], "defaultMode": 0o440},
        },
        {"name": _RUN, "emptyDir": {"sizeLimit": "16Mi"}},
    ]
    # With whose authorities it verifies pods of this deployment, and of others that have the same Secret.
    secret = certificate_secret(serving)
    if secret:
        items = [{"key": _AUTHORITIES_KEY, "path": _AUTHORITIES_KEY}]
        source = {"secretName": secret, "optional": True, "defaultMode": 0o440, "items": items}
        volumes.append({"name": _AUTHORITIES, "secret": source})
    return volumes


def _make_mounts(serving: Serving) -> list[Json]:
    settings, secret = SIDECAR_SETTINGS, certificate_secret(serving)
    mounts: list[Json] = [
        {"name": _BOOTSTRAP, "mountPath": settings.bootstrap_directory, "readOnly": True},
        {"name": _ROUTING, "mountPath": settings.routing_directory, "readOnly": True},
        {"name": _CLIENTS, "mountPath": settings.clients_directory, "readOnly": True},
        {"name": _RUN, "mountPath": settings.admin_socket.rpartition("/")[0]},
    ]
    if secret:
        directory = settings.authorities_directory_of(secret)
        mounts.append({"name": _AUTHORITIES, "mountPath": directory, "readOnly": True})
    return mounts


def _make_files(*names: str) -> Json:
    return {
        "items": [
            {"path": name, "fieldRef": {"fieldPath": f"metadata.annotations['{_annotation(name)}']"}} for name in names
        ]
    }


@cache
def _render_files() -> tuple[Mapping[str, str], Mapping[str, str], Mapping[str, str]]:
    """Of each volume. They are the same for all deployments, and kept once."""
    clients = {AUTHENTICATION_FILE: render_unrouted_authentication()}
    return render_bootstrap(SIDECAR_SETTINGS), render_unrouted_routing(), clients


def _annotation(file: str) -> str:
    return f"{FILE_ANNOTATION_PREFIX}{file}"
