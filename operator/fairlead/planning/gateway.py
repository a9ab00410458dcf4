"""The container of a gateway, wherever it runs: in pods of its own (`planning/route`) or beside an engine (`planning/deployment`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fairlead.gateway.envoy import GatewaySettings
from fairlead.gateway.envoy.files import CLUSTERS_FILE, EGRESS_FILE, LIMIT_FILES, PUBLIC_FILE, ROUTING_INTERFACE

__all__ = [
    "BOOTSTRAP",
    "CLIENTS",
    "GATEWAY_CONTAINER",
    "ROUTING_PARTS",
    "SIDECAR_PORT_NAME",
    "SIDECAR_SETTINGS",
    "make_gateway_container",
]

Json = dict[str, Any]
GATEWAY_CONTAINER: Final = "gateway"
#: Parts of a route's gateway, as `names.gateway_part_name` takes them: what it starts with, who is let in, and what changes under it.
BOOTSTRAP: Final = "bootstrap"
CLIENTS: Final = "clients"
#: Part -> the file that it holds; keys' sources go with the clusters that use them, the limits of tokens with those of requests.
ROUTING_PARTS: Final = {
    "routes": PUBLIC_FILE,
    "egress": EGRESS_FILE,
    "clusters": CLUSTERS_FILE,
    "limits": LIMIT_FILES[0],
}
#: Beside an engine: no engine's usual port, and not that of the TLS before one.
SIDECAR_SETTINGS: Final = GatewaySettings(port=18080)
#: Says which routing it can carry out: a Service of this release never leads to a gateway that could not carry out what it publishes.
SIDECAR_PORT_NAME: Final = f"gateway-{ROUTING_INTERFACE}"
_WORKERS: Final = 2


def make_gateway_container(
    image: str,
    settings: GatewaySettings,
    port_name: str,
    mounts: Sequence[Json],
    *,
    drain_s: int,
    readiness: Json | None,
) -> Json:
    """Envoy. `port_name`: what the port for clients is called; `drain_s`: how long it goes on when its pod ends, seconds."""
    container: Json = {
        "name": GATEWAY_CONTAINER,
        "image": image,
        "args": [
            "--config-path",
            f"{settings.bootstrap_directory}/bootstrap.json",
            "--concurrency",
            str(_WORKERS),
            "--disable-hot-restart",
            "--reject-unknown-dynamic-fields",
            "--log-level",
            "warning",
        ],
        "ports": [
            {"name": port_name, "containerPort": settings.port, "protocol": "TCP"},
            {"name": "status", "containerPort": settings.status_port, "protocol": "TCP"},
        ],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        **({"readinessProbe": readiness} if readiness is not None else {}),
        "livenessProbe": {
            "httpGet": {"path": "/generation", "port": "status"},
            "initialDelaySeconds": 10,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": list(mounts),
    }
    if drain_s:
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": drain_s}}}
    return container
