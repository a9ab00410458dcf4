"""Keys and certificates of one local cluster: made afresh for each, thrown away with it.

A CA of our own (rather than the certificate that kube-apiserver signs for itself) lets the controller-manager publish
`kube-root-ca.crt` into every namespace as on a real cluster, which projected service account volumes need.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from fairlead_cluster.certificates import Authority, key_pem, write_owned

_DNS_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


@dataclass(frozen=True, slots=True)
class Pki:
    """Paths of the PEM files."""

    ca_cert: Path
    ca_key: Path
    server_cert: Path
    server_key: Path
    service_account_key: Path


def create_pki(directory: Path, service_ip: str) -> Pki:
    """Write CA, server certificate and service account key into `directory` (files readable by their owner only).

    `service_ip` is the cluster IP of the Service `kubernetes`; the server certificate is valid for it, for 127.0.0.1
    and for the API server's names inside a cluster.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    pki = Pki(
        ca_cert=directory / "ca.crt",
        ca_key=directory / "ca.key",
        server_cert=directory / "server.crt",
        server_key=directory / "server.key",
        service_account_key=directory / "service-account.key",
    )
    authority = Authority("fairlead-local-cluster")
    server = authority.issue("kube-apiserver", _DNS_NAMES, ("127.0.0.1", service_ip))
    write_owned(pki.ca_cert, authority.cert)
    write_owned(pki.ca_key, authority.key)
    write_owned(pki.server_cert, server.cert)
    write_owned(pki.server_key, server.key)
    write_owned(pki.service_account_key, key_pem(ec.generate_private_key(ec.SECP256R1())))
    return pki
