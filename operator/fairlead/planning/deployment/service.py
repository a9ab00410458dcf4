"""The two Services: the one that clients call, and the headless one whose DNS records are the pods, for gateways."""

from __future__ import annotations

from typing import Any

from fairlead.api.llmdeployment import ServiceSpec
from fairlead.api.names import headless_service_name, make_engine_selector
from fairlead.planning.deployment.metadata import make_metadata
from fairlead.planning.deployment.serving import Serving

__all__ = ["make_endpoint", "make_headless_service", "make_service"]


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
            "ports": [{"name": "http", "port": service.port, "targetPort": "http", "protocol": "TCP"}],
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
            "ports": [{"name": "http", "port": port, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def make_endpoint(serving: Serving) -> str:
    """Base URL of the OpenAI-compatible API inside the cluster."""
    port = (serving.spec.service or ServiceSpec()).port
    host = f"{serving.name}.{serving.namespace}.svc"
    return f"http://{host}{'' if port == 80 else f':{port}'}/v1"
