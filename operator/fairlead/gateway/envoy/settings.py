"""Where the gateway's container has its files, and on which ports it listens."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GatewaySettings"]

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Paths in the container, ports of the pod, sizes in bytes. `address` is what listeners bind; `is_tls`: clients are
    served with the certificate in `certificate_directory`, and not without; `is_sidecar`: it serves one application pod, limits
    nobody, and may show a gateway the credentials of its callers."""

    address: str = "0.0.0.0"  # noqa: S104 - a pod serves on all of its addresses
    port: int = 8080
    status_port: int = 9901
    bootstrap_directory: str = "/etc/envoy/bootstrap"
    routing_directory: str = "/etc/envoy/routing"
    clients_directory: str = "/etc/envoy/clients"
    providers_directory: str = "/etc/envoy/providers"
    authorities_directory: str = "/etc/envoy/authorities"
    default_authorities: str = "/etc/ssl/certs/ca-certificates.crt"
    certificate_directory: str = "/etc/envoy/certificate"
    is_tls: bool = False
    is_sidecar: bool = False
    admin_socket: str = "/run/envoy/admin.sock"
    max_body_bytes: int = 32 * MIB

    @property
    def listeners_file(self) -> str:
        """Another one with TLS, so that a gateway that runs keeps its listener until a new pod has taken over."""
        return "lds-tls.json" if self.is_tls else "lds.json"

    def key_directory(self, secret: str) -> str:
        """Where a Secret with a provider's keys is mounted: by its own name, so that a key is never taken for another's."""
        return f"{self.providers_directory}/{secret}"

    def authorities_directory_of(self, secret: str) -> str:
        """Where a Secret with the certificates of those who may sign for a provider is mounted."""
        return f"{self.authorities_directory}/{secret}"
