"""A certificate that Envoy shows: from a mounted Secret, by a file of its own, so that a renewed one is no new listener and cuts nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fairlead.gateway.envoy.words import Json, file_source, make_discovery, swapped_path, typed

__all__ = ["CERTIFICATE_FILE", "make_certificate_source", "make_transport"]

#: The file that says where the certificate is.
CERTIFICATE_FILE: Final = "certificate.json"
_NAME: Final = "certificate"
_TLS: Final = "envoy.extensions.transport_sockets.tls.v3"


def make_transport(source_directory: str, protocols: Sequence[str]) -> Json:
    """For a filter chain: TLS from 1.2 on, with the certificate of which CERTIFICATE_FILE in this directory tells. Who says nothing is
    not waited for longer than ten seconds."""
    context = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "alpn_protocols": list(protocols),
        "tls_certificate_sds_secret_configs": [
            {"name": _NAME, "sds_config": file_source(source_directory, CERTIFICATE_FILE)}
        ],
    }
    socket = {"name": "tls", "typed_config": typed(f"{_TLS}.DownstreamTlsContext", common_tls_context=context)}
    return {"transport_socket": socket, "transport_socket_connect_timeout": "10s"}


def make_certificate_source(directory: str) -> Json:
    """The content of that file: tls.crt and tls.key of the Secret mounted there, read again when the kubelet swaps it."""
    certificate = {
        "certificate_chain": {"filename": swapped_path(directory, "tls.crt")},
        "private_key": {"filename": swapped_path(directory, "tls.key")},
        "watched_directory": {"path": directory},
    }
    return make_discovery(f"{_TLS}.Secret", "1", {"name": _NAME, "tls_certificate": certificate})
