"""The two Services: the one that clients call, and the headless one whose DNS records are the pods, for gateways."""

from __future__ import annotations

from typing import Any

from fairlead.api.llmdeployment import ServiceSpec
from fairlead.api.names import headless_service_name, make_engine_selector
from fairlead.planning.deployment.encryption import port_name
from fairlead.planning.deployment.metadata import make_metadata
from fairlead.planning.deployment.serving import Serving

__all__ = ["make_endpoint", "make_headless_service", "make_service", "service_port"]


def make_service(serving: Serving) -> dict[str, Any]:
    """Ready pods behind one address and `spec.service.port`."""
    service = serving.spec.service or ServiceSpec()
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": make_metadata(serving.resource.metadata, serving.name, service.annotations),
        "spec": {
            "type": service.type.value,
            "selector": make_engine_selector(serving.name),
            "ports": [_make_port(serving, service_port(serving))],
        },
    }


def make_headless_service(serving: Serving, port: int) -> dict[str, Any]:
    """One DNS record per ready pod, so that a gateway can balance by itself. Pods that are not ready are not listed.

    `port` is the pods' own: whoever resolves such a name goes to a pod directly.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": make_metadata(serving.resource.metadata, headless_service_name(serving.name)),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "publishNotReadyAddresses": False,
            "selector": make_engine_selector(serving.name),
            "ports": [_make_port(serving, port)],
        },
    }


def make_endpoint(serving: Serving) -> str:
    """Base URL of the OpenAI-compatible API inside the cluster."""
    scheme, usual, port = port_name(serving), _usual_port(serving), service_port(serving)
    host = f"{serving.name}.{serving.namespace}.svc"
    return f"{scheme}://{host}{'' if port == usual else f':{port}'}/v1"


def service_port(serving: Serving) -> int:
    """The port of the Service that clients call."""
    service = serving.spec.service
    return service.port if service is not None else _usual_port(serving)


def _usual_port(serving: Serving) -> int:
    return 80 if serving.spec.encryption is None else 443


def _make_port(serving: Serving, port: int) -> dict[str, Any]:
    name = port_name(serving)
    return {"name": name, "port": port, "targetPort": name, "protocol": "TCP"}
