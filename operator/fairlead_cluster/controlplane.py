"""A real Kubernetes control plane as four processes on loopback: etcd, kube-apiserver, controller-manager, scheduler.

It exists because no fake API server has defaulting, CEL, server-side apply, field ownership, garbage collection, quota
and Pod Security; the operator must be judged by what its users run.
"""

from __future__ import annotations

import secrets
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from fairlead_cluster.audit import AuditLog
from fairlead_cluster.build import Binaries
from fairlead_cluster.errors import ComponentDiedError, NotReadyError
from fairlead_cluster.kubeconfig import make_kubeconfig, write_kubeconfig, write_private
from fairlead_cluster.kubectl import Kubectl
from fairlead_cluster.pki import Pki, create_pki
from fairlead_cluster.ports import ServiceBlock, claim_service_block, free_ports
from fairlead_cluster.processes import ManagedProcess, ProcessIdentity, spawn

START_TIMEOUT_S = 60.0

# EndpointSlices refuse loopback addresses, so nobody may try to write them; the data plane computes endpoints itself.
_CONTROLLERS = "*,-endpoints-controller,-endpointslice-controller,-endpointslice-mirroring-controller"
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
_AUDIT_LOG_MAX_MIB = 4096  # one file: a rotated log would hide requests from whoever counts them
_START_ATTEMPTS = 3
_STOP_GRACE_S = 5.0  # nothing of value is written at the end: the data is thrown away

# Everybody has a user of their own, so that the audit log tells them apart. RBAC's built-in roles know the two in the
# middle by these names.
ADMIN = "admin"
DATA_PLANE = "local-cluster:data-plane"
_CONTROLLER_MANAGER = "system:kube-controller-manager"
_SCHEDULER = "system:kube-scheduler"
_GROUPS_OF_USERS = {ADMIN: "system:masters", _CONTROLLER_MANAGER: "", _SCHEDULER: "", DATA_PLANE: "system:masters"}


@dataclass(frozen=True, slots=True)
class _Ports:
    etcd_client: int
    etcd_peer: int
    api_server: int
    controller_manager: int
    scheduler: int


class ControlPlane:
    """Starts the control plane in `directory`, as a context manager or by `start` and `stop`.

    After `start` the API server is ready, the controllers run and the ServiceAccount `default/default` exists (without
    it every pod would be refused). There are no nodes. All processes die with the process that called `start`.
    """

    def __init__(self, directory: Path, binaries: Binaries) -> None:
        self.directory = directory.resolve()
        self.binaries = binaries
        self.admin_kubeconfig = self.directory / "kubeconfig"
        self.audit_log = self.directory / "audit.log"
        self.logs_dir = self.directory / "logs"
        self._private_dir = self.directory / "control-plane"
        self.data_plane_kubeconfig = self._kubeconfig_of(DATA_PLANE)
        self.kubectl = Kubectl(binaries.kubectl, self.admin_kubeconfig)
        self.audit = AuditLog(self.audit_log)
        #: From when to when a server that was started again was not ready: until it has read the roles it refuses everybody.
        self.unready: list[tuple[datetime, datetime | None]] = []
        self._processes: list[ManagedProcess] = []
        self._tokens: dict[str, str] = {}
        self._pki: Pki | None = None
        self._ports: _Ports | None = None
        self._service_block: ServiceBlock | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def server_url(self) -> str:
        """Base URL of the API server, `https://127.0.0.1:<port>`."""
        return f"https://127.0.0.1:{self._started_ports.api_server}"

    @property
    def ca_cert(self) -> Path:
        """PEM file of the CA that signed the API server's certificate."""
        return self._started_pki.ca_cert

    @property
    def service_cidr(self) -> str:
        """Where cluster IPs come from: a part of 127.96.0.0/16 that is this cluster's alone."""
        if self._service_block is None:
            raise NotReadyError("the control plane was not started")
        return self._service_block.cidr

    @property
    def process_identities(self) -> list[ProcessIdentity]:
        """Who runs now: for a state file, and to prove that `stop` leaves nobody."""
        return [process.identity for process in self._processes]

    def start(
        self, timeout_s: float = START_TIMEOUT_S, *, before_controllers: Callable[[], None] | None = None
    ) -> None:
        """Start all four; about 5 s. Raises ComponentDiedError or NotReadyError, and leaves nothing running then.

        `before_controllers` is called as soon as the API server answers: the place for CRDs, because the garbage collector
        looks for kinds that it does not know every 30 s only. It is called again when another attempt is needed.
        """
        for attempt in range(1, _START_ATTEMPTS + 1):
            self._prepare()
            self._ports = _Ports(*free_ports(5))
            try:
                self._start_processes(time.monotonic() + timeout_s, before_controllers)
            except ComponentDiedError as error:
                self.stop()
                # Another program can take a port between our look and the server's bind.
                if "address already in use" not in str(error) or attempt == _START_ATTEMPTS:
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                return

    def stop(self) -> None:
        """End all processes, those first that would complain about the loss of the others. Safe to call twice."""
        for process in reversed(self._processes):
            process.stop()
        self._processes.clear()
        if self._service_block is not None:
            self._service_block.release()
            self._service_block = None

    def check(self) -> None:
        """Raise ComponentDiedError, with the end of its log, if one of the processes is gone."""
        for process in self._processes:
            process.check()

    def process(self, name: str) -> ManagedProcess:
        """One of the running components by name (`etcd`, `kube-apiserver`, …), for tests that hurt it."""
        return next(process for process in self._processes if process.name == name)

    def start_again(self, name: str) -> None:
        """Start a component that was stopped or killed, with the same arguments and data. Returns at once."""
        ended = self.process(name)
        if name == "kube-apiserver":
            self.unready.append((datetime.now(UTC), None))
        self._processes[self._processes.index(ended)] = ended.start_again()

    def wait_until_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Until the API server says that it is ready. Raises ComponentDiedError or NotReadyError."""
        self._wait_for(f"{self.server_url}/readyz", time.monotonic() + timeout_s)
        self.unready = [(began, ready or datetime.now(UTC)) for began, ready in self.unready]

    def service_account_token(self, namespace: str, name: str, lifetime_s: int = 365 * 24 * 3600) -> str:
        """A real token of an existing ServiceAccount, by the TokenRequest API."""
        return self.kubectl("create", "token", name, f"--namespace={namespace}", f"--duration={lifetime_s}s").strip()

    def write_service_account_kubeconfig(self, namespace: str, name: str, path: Path) -> Path:
        """A kubeconfig whose user is that ServiceAccount, so that only its RBAC applies."""
        token = self.service_account_token(namespace, name)
        ca_pem = self.ca_cert.read_bytes()
        write_kubeconfig(path, make_kubeconfig(self.server_url, ca_pem, f"{namespace}-{name}", token, namespace))
        return path

    @property
    def _started_ports(self) -> _Ports:
        if self._ports is None:
            raise NotReadyError("the control plane was not started")
        return self._ports

    @property
    def _started_pki(self) -> Pki:
        if self._pki is None:
            raise NotReadyError("the control plane was not started")
        return self._pki

    def _prepare(self) -> None:
        for directory in (self.directory, self._private_dir, self.logs_dir):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Loopback cluster IPs: every host can bind them without any set-up.
        self._service_block = self._service_block or claim_service_block()
        self._pki = create_pki(self._private_dir / "pki", self._service_block.first_ip)
        self._tokens = {user: secrets.token_urlsafe(32) for user in _GROUPS_OF_USERS}
        lines = [f'{self._tokens[user]},{user},{user},"{groups}"' for user, groups in _GROUPS_OF_USERS.items()]
        write_private(self._private_dir / "tokens.csv", "\n".join(lines) + "\n")
        write_private(self._private_dir / "audit-policy.yaml", yaml.safe_dump(_AUDIT_POLICY))

    def _start_processes(self, deadline: float, before_controllers: Callable[[], None] | None) -> None:
        for user in _GROUPS_OF_USERS:
            self._write_user_kubeconfig(user)
        ports = self._started_ports
        self._spawn("etcd", self.binaries.etcd, self._etcd_arguments())
        self._wait_for(f"http://127.0.0.1:{ports.etcd_client}/health", deadline)
        self._spawn("kube-apiserver", self.binaries.kube_apiserver, self._api_server_arguments())
        self._wait_for(f"{self.server_url}/readyz", deadline)
        if before_controllers is not None:
            before_controllers()
        self._spawn(
            "kube-controller-manager", self.binaries.kube_controller_manager, self._controller_manager_arguments()
        )
        self._spawn("kube-scheduler", self.binaries.kube_scheduler, self._scheduler_arguments())
        for port in (ports.controller_manager, ports.scheduler):
            self._wait_for(f"https://127.0.0.1:{port}/healthz", deadline)
        self._wait_for(f"{self.server_url}/api/v1/namespaces/default/serviceaccounts/default", deadline)

    def _write_user_kubeconfig(self, user: str) -> None:
        kubeconfig = make_kubeconfig(self.server_url, self.ca_cert.read_bytes(), user, self._tokens[user])
        write_kubeconfig(self._kubeconfig_of(user), kubeconfig)

    def _kubeconfig_of(self, user: str) -> Path:
        return self.admin_kubeconfig if user == ADMIN else self._private_dir / f"{user.replace(':', '-')}.kubeconfig"

    def _spawn(self, name: str, binary: Path, arguments: Sequence[str]) -> None:
        self._processes.append(
            spawn(name, [binary, *arguments], self.logs_dir / f"{name}.log", stop_grace_s=_STOP_GRACE_S)
        )

    def _etcd_arguments(self) -> list[str]:
        ports = self._started_ports
        client, peer = f"http://127.0.0.1:{ports.etcd_client}", f"http://127.0.0.1:{ports.etcd_peer}"
        return [
            f"--data-dir={self._private_dir / f'etcd-{ports.etcd_client}'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",  # the data never outlives the cluster
            "--log-level=warn",
        ]

    def _api_server_arguments(self) -> list[str]:
        pki, ports = self._started_pki, self._started_ports
        return [
            f"--etcd-servers=http://127.0.0.1:{ports.etcd_client}",
            "--bind-address=127.0.0.1",
            f"--secure-port={ports.api_server}",
            # A loopback address cannot be an endpoint; the data plane forwards the Service `kubernetes` itself.
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--tls-cert-file={pki.server_cert}",
            f"--tls-private-key-file={pki.server_key}",
            f"--service-cluster-ip-range={self.service_cidr}",
            f"--token-auth-file={self._private_dir / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki.service_account_key}",
            f"--service-account-signing-key-file={pki.service_account_key}",
            "--allow-privileged",
            f"--audit-policy-file={self._private_dir / 'audit-policy.yaml'}",
            f"--audit-log-path={self.audit_log}",
            f"--audit-log-maxsize={_AUDIT_LOG_MAX_MIB}",
        ]

    def _controller_manager_arguments(self) -> list[str]:
        pki = self._started_pki
        return [
            *self._controller_arguments(_CONTROLLER_MANAGER, self._started_ports.controller_manager),
            f"--controllers={_CONTROLLERS}",
            f"--root-ca-file={pki.ca_cert}",
            f"--cluster-signing-cert-file={pki.ca_cert}",
            f"--cluster-signing-key-file={pki.ca_key}",
            f"--service-account-private-key-file={pki.service_account_key}",
            "--use-service-account-credentials",
        ]

    def _scheduler_arguments(self) -> list[str]:
        return self._controller_arguments(_SCHEDULER, self._started_ports.scheduler)

    def _controller_arguments(self, user: str, port: int) -> list[str]:
        pki = self._started_pki
        return [
            f"--kubeconfig={self._kubeconfig_of(user)}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--tls-cert-file={pki.server_cert}",
            f"--tls-private-key-file={pki.server_key}",
            # The default of 20 requests a second per controller would be the bottleneck of tests with 1,000 objects.
            "--kube-api-qps=300",
            "--kube-api-burst=600",
        ]

    def _wait_for(self, url: str, deadline: float) -> None:
        context = ssl.create_default_context(cafile=str(self._started_pki.ca_cert))
        headers = {"Authorization": f"Bearer {self._tokens[ADMIN]}"} if url.startswith(self.server_url) else {}
        request = urllib.request.Request(url, headers=headers)  # noqa: S310
        while not _answers(lambda: urllib.request.urlopen(request, timeout=2, context=context)):  # noqa: S310
            self.check()
            if time.monotonic() >= deadline:
                raise NotReadyError(f"{url} did not answer in time; logs are in {self.logs_dir}")
            time.sleep(0.05)


def _answers(open_url: Callable[[], object]) -> bool:
    try:
        response = open_url()
    except (OSError, urllib.error.URLError):
        return False
    response.close()  # type: ignore[attr-defined]
    return True
