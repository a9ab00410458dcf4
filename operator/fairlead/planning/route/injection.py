"""The sidecar of an application pod: what is added to a pod that is labelled for a route.

All that the pod needs to start is in itself: without its route Envoy has the files that stand in the pod's annotations, and answers 503.
The route's ConfigMaps and the clients' Secret are optional sources of the same volume; of files with one name the last source's counts.
`fairlead inject` and the admission policy that `make generate` writes are made from `make_injection` alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from fairlead.api.names import GROUP, gateway_part_name
from fairlead.gateway.envoy.sidecar import SIDECAR_SETTINGS, make_fallback_files, make_sidecar_bootstrap
from fairlead.planning.route.files import CLIENTS
from fairlead.planning.route.sidecars import SIDECAR_PARTS, sidecar_part_name

__all__ = ["SIDECAR_CONTAINER", "Injection", "make_injection"]

Json = dict[str, Any]
SIDECAR_CONTAINER: Final = "fairlead-gateway"
_FILES, _RUN = "fairlead-gateway", "fairlead-gateway-run"
#: Of Envoy's image.
_USER: Final = 65532
#: For streams that are open when listeners change, seconds.
_DRAIN_S: Final = 3600
#: Where a token of the API server would be. What is mounted there keeps it away.
_NO_TOKEN: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Injection:
    """What a pod gets: annotations, a native sidecar (an entry of initContainers) and volumes."""

    annotations: dict[str, str]
    container: Json
    volumes: list[Json]


def make_injection(route: str, image: str, authorities: str = "") -> Injection:
    """`authorities`: the Secret whose ca.crt says who may sign for the gateway, "" for those that the image trusts."""
    files = make_fallback_files(route, has_authorities=bool(authorities))
    annotations = {_annotation_of(name): text for name, text in files.items()}
    return Injection(annotations, _make_container(image), _make_volumes(route, files, authorities))


def _annotation_of(file: str) -> str:
    return f"{GROUP}/sidecar-{file.removesuffix('.json')}"


def _make_container(image: str) -> Json:
    settings = SIDECAR_SETTINGS
    return {
        "name": SIDECAR_CONTAINER,
        "image": image,
        "restartPolicy": "Always",
        "args": [
            "--config-yaml",
            make_sidecar_bootstrap(),
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--reject-unknown-dynamic-fields",
            "--drain-strategy",
            "immediate",
            "--drain-time-s",
            str(_DRAIN_S),
            "--log-level",
            "warning",
        ],
        "ports": [{"name": "fairlead-status", "containerPort": settings.status_port, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        # No probes: nothing that is wrong here may keep the application from being ready.
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": _FILES, "mountPath": settings.routing_directory, "readOnly": True},
            {"name": _RUN, "mountPath": settings.admin_socket.rpartition("/")[0]},
            {"name": _RUN, "mountPath": _NO_TOKEN, "readOnly": True},
        ],
    }


def _make_volumes(route: str, files: Iterable[str], authorities: str) -> list[Json]:
    """Readable for any user: whose files of volumes are is up to the application's own pod."""
    own = [
        {"path": name, "fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{_annotation_of(name)}']"}}
        for name in files
    ]
    sources: list[Json] = [
        {"downwardAPI": {"items": own}},
        *({"configMap": {"name": sidecar_part_name(route, part), "optional": True}} for part in SIDECAR_PARTS),
        {"secret": {"name": gateway_part_name(route, CLIENTS), "optional": True}},
    ]
    if authorities:
        items = [{"key": "ca.crt", "path": "ca.crt"}]
        sources.append({"secret": {"name": authorities, "optional": True, "items": items}})
    return [
        {"name": _FILES, "projected": {"sources": sources, "defaultMode": 0o444}},
        {"name": _RUN, "emptyDir": {"sizeLimit": "16Mi"}},
    ]
