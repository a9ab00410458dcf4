"""TLS up to the engine pods (`spec.encryption`): an Envoy beside the engine, which listens on the loopback address alone.

All of it is in the pod template: what the sidecar is told stands in its arguments and in an annotation, so that an
upgrade of the operator cannot change it under a running pod (law 8).
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from fairlead.api.names import ANNOTATION_RECORDS, GROUP, issued_certificate_name
from fairlead.errors import RenderError
from fairlead.gateway.envoy.certificate import CERTIFICATE_FILE, make_certificate_source
from fairlead.gateway.envoy.terminator import make_terminator
from fairlead.planning.deployment.serving import Serving
from fairlead.policy.locality import find_record

__all__ = [
    "TLS_CONTAINER",
    "TLS_PORT",
    "certificate_secret",
    "make_tls_annotations",
    "make_tls_container",
    "make_tls_volumes",
    "port_name",
    "port_number",
]

Json = dict[str, Any]
TLS_CONTAINER: Final = "tls"
TLS_PORT: Final = 8443
_ANNOTATION: Final = f"{GROUP}/tls-certificate"
_CERTIFICATE, _SOURCE = "fairlead-tls", "fairlead-tls-source"
_CERTIFICATE_DIRECTORY: Final = "/etc/fairlead/tls"
_SOURCE_DIRECTORY: Final = "/etc/fairlead/tls-source"


def port_name(serving: Serving) -> str:
    """What Services, probes and policies call the port that the pods serve on."""
    return "http" if serving.spec.encryption is None else "https"


def port_number(serving: Serving) -> int:
    """The pods' own port: the engine's, or that of the TLS in front of it."""
    return serving.rendered.port if serving.spec.encryption is None else TLS_PORT


def certificate_secret(serving: Serving) -> str:
    """The Secret with the pods' certificate, "" without encryption."""
    encryption = serving.spec.encryption
    if encryption is None:
        return ""
    own = encryption.certificate
    return own.secret_name if own is not None else issued_certificate_name(serving.name)


def make_tls_container(serving: Serving) -> list[Json]:
    """The native sidecar; none without encryption. It starts before the engine and ends after it. Raises RenderError for an engine
    that cannot be told where to listen."""
    if serving.spec.encryption is None:
        return []
    definition, port = serving.engine.definition, serving.rendered.port
    if not definition.loopback:
        raise RenderError(
            "spec.encryption",
            f"the engine file of {definition.name} does not say loopback: true, so the engine may answer beside the TLS",
            "leave spec.encryption out, or let the engine file use host and say loopback: true",
        )
    if port == TLS_PORT:
        raise RenderError("spec.encryption", f"the engine itself listens on {TLS_PORT}", "let it use another port")
    config = make_terminator("0.0.0.0", TLS_PORT, port, _SOURCE_DIRECTORY)  # noqa: S104 - a pod serves on all of its addresses
    return [
        {
            "name": TLS_CONTAINER,
            "image": serving.proxy_image,
            "restartPolicy": "Always",
            "args": [
                "--config-yaml",
                config,
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "--log-level",
                "warning",
            ],
            "ports": [{"name": "https", "containerPort": TLS_PORT, "protocol": "TCP"}],
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
            # It listens once it has the certificate.
            "readinessProbe": {
                "tcpSocket": {"port": TLS_PORT},
                "periodSeconds": 5,
                "timeoutSeconds": 2,
                "failureThreshold": 3,
            },
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [
                {"name": _CERTIFICATE, "mountPath": _CERTIFICATE_DIRECTORY, "readOnly": True},
                {"name": _SOURCE, "mountPath": _SOURCE_DIRECTORY, "readOnly": True},
            ],
        }
    ]


def make_tls_annotations(serving: Serving) -> dict[str, str]:
    """What the sidecar reads about its certificate, on the pod; and what a route must know of the pod as long as it is there, whatever the
    spec says by then."""
    if serving.spec.encryption is None:
        return {}
    record = find_record(serving.spec)
    said = {ANNOTATION_RECORDS: record} if record else {}
    return {_ANNOTATION: orjson.dumps(make_certificate_source(_CERTIFICATE_DIRECTORY)).decode(), **said}


def make_tls_volumes(serving: Serving) -> list[Json]:
    """The certificate, and that annotation as a file."""
    if serving.spec.encryption is None:
        return []
    items = [{"key": key, "path": key} for key in ("tls.crt", "tls.key")]
    secret = {"secretName": certificate_secret(serving), "defaultMode": 0o440, "items": items}
    said = {"path": CERTIFICATE_FILE, "fieldRef": {"fieldPath": f"metadata.annotations['{_ANNOTATION}']"}}
    return [{"name": _CERTIFICATE, "secret": secret}, {"name": _SOURCE, "downwardAPI": {"items": [said]}}]
