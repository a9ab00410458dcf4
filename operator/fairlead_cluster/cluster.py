"""The local cluster as one thing: control plane, data plane, the operator's rights, and the operator as a process.

Tests and the demo use `LocalCluster` directly; `make cluster-up` runs it inside a supervisor in the background.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from fairlead_cluster.audit import AuditLog
from fairlead_cluster.build import Binaries, find_or_build, say_on_stderr
from fairlead_cluster.controlplane import ControlPlane
from fairlead_cluster.dataplane import DataPlaneConfig
from fairlead_cluster.errors import LocalClusterError, NotReadyError, UnsupportedPlatformError
from fairlead_cluster.gobuild import Say
from fairlead_cluster.hosts import HostsFile
from fairlead_cluster.kubectl import Kubectl
from fairlead_cluster.node.options import Options
from fairlead_cluster.node.specs import DEFAULT_NODES, NodeSpec
from fairlead_cluster.operators import (
    OPERATOR_NAMESPACE,
    OPERATOR_SERVICE_ACCOUNT,
    READY_TIMEOUT_S,
    Operators,
    python_environment,
)
from fairlead_cluster.operators import OPERATOR_USER as OPERATOR_USER
from fairlead_cluster.ports import free_ports
from fairlead_cluster.processes import ManagedProcess, ProcessIdentity, spawn
from fairlead_cluster.services import first_bindable_port, forwarded_port

Json = dict[str, Any]

_REPOSITORY = Path(__file__).parents[2]
#: Of the operator that comes with the cluster: providers of one's own are called something.test (RFC 6761: nobody else's name).
OPERATOR_ARGS = ("--trusted-hosts=*.test",)
HOSTS_FILE = "dns-hosts"  # below a cluster's folder
_DATA_PLANE_TIMEOUT_S = 30.0
_DATA_PLANE_GRACE_S = 20.0
_ORPHAN_GRACE_S = 1.0
# What `manifests/base` holds beside the operator's rights: here the operator is a process on the host, not a pod.
_NOT_INSTALLED_KINDS = frozenset({"Deployment", "PodDisruptionBudget"})


def require_linux() -> None:
    """Raise UnsupportedPlatformError anywhere else: pods and Services live on 127.0.0.0/8, which only Linux binds."""
    if sys.platform != "linux":
        raise UnsupportedPlatformError(
            "The local cluster needs Linux (its pods and Services live on 127.0.0.0/8). "
            "With Docker, `make kind-up` gives the same on kind."
        )


class LocalCluster:
    """A cluster in `directory`, as a context manager or by `start` and `stop`; everything dies with this process.

    nodes: by default two with accelerators and one without; `()` for none at all: then there is no data plane (no
        Services, no DNS), and pods stay Pending.
    node_options: how the nodes behave (back-offs, volume updates, real or simulated engines); a kubelet's own by
        default, with real engines where there are some.
    operator: start the operator, too, and wait until it is ready.
    install: apply the repository's `crds/` and `manifests/base` (without the operator's Deployment).
    binaries: the control plane's; by default found, or built (which takes minutes).
    """

    def __init__(
        self,
        directory: Path,
        *,
        nodes: Sequence[NodeSpec] = DEFAULT_NODES,
        node_options: Options | None = None,
        operator: bool = False,
        install: bool = True,
        binaries: Binaries | None = None,
        repository: Path = _REPOSITORY,
        say: Say = say_on_stderr,
    ) -> None:
        self.directory = directory.resolve()
        self.operator_kubeconfig = self.directory / "operator.kubeconfig"
        self._nodes = tuple(nodes)
        self._node_options = node_options or Options()
        self._with_operator = operator
        self._install = install
        self._binaries = binaries
        self._repository = repository
        self._say = say
        self._control_plane: ControlPlane | None = None
        self._data_plane: ManagedProcess | None = None
        self._operators: Operators | None = None
        self._dns_port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def control_plane(self) -> ControlPlane:
        """The running control plane (its URL, CA, processes). NotReadyError before `start`."""
        if self._control_plane is None:
            raise NotReadyError("the local cluster was not started")
        return self._control_plane

    @property
    def kubectl(self) -> Kubectl:
        """kubectl as the administrator: `cluster.kubectl("get", "pods")`."""
        return self.control_plane.kubectl

    @property
    def operator_kubectl(self) -> Kubectl:
        """kubectl with the operator's rights."""
        return Kubectl(self.control_plane.binaries.kubectl, self.operator_kubeconfig)

    @property
    def admin_kubeconfig(self) -> Path:
        """The administrator's kubeconfig file."""
        return self.control_plane.admin_kubeconfig

    @property
    def audit_log(self) -> Path:
        """The API server's audit log file."""
        return self.control_plane.audit_log

    @property
    def audit(self) -> AuditLog:
        """The audit log, parsed."""
        return self.control_plane.audit

    @property
    def logs_dir(self) -> Path:
        """Folder of one log file per process."""
        return self.control_plane.logs_dir

    @property
    def nodes_dir(self) -> Path:
        """Folder of what the nodes hold: `logs` of containers, `pods`, `volumes`."""
        return self.directory / "nodes"

    @property
    def dns_address(self) -> tuple[str, int]:
        """Host and port of the cluster's DNS (UDP and TCP)."""
        if self._data_plane is None:
            raise NotReadyError("this cluster has no data plane, so no DNS")
        return ("127.0.0.1", self._dns_port)

    @property
    def hosts_file(self) -> HostsFile:
        """Names outside of the cluster that its DNS answers: `cluster.hosts_file.update({"api.x.test": ("127.0.0.9",)})`.

        Known to whoever asks from then on. It is a file of the cluster's folder: other processes may write it, too.
        """
        return HostsFile(self.directory / HOSTS_FILE)

    @property
    def process_identities(self) -> list[ProcessIdentity]:
        """All processes that run for this cluster now, except those of pods."""
        others = [self._data_plane] if self._data_plane is not None else []
        others += self._operators.processes if self._operators is not None else []
        own = [process.identity for process in others if process.is_running()]
        return [*self.control_plane.process_identities, *own]

    def start(self) -> None:
        """Start everything asked for; about 5 s. Raises LocalClusterError, and leaves nothing running then."""
        require_linux()
        binaries = self._binaries or find_or_build(say=self._say)
        self._control_plane = ControlPlane(self.directory, binaries)
        self._operators = Operators(self.operator_kubeconfig, self._control_plane.logs_dir)
        try:
            self._say(f"starting the control plane (Kubernetes from {binaries.origin})")
            self._control_plane.start(before_controllers=self._install_manifests if self._install else None)
            self._write_operator_kubeconfig()
            if self._nodes:
                self._start_data_plane()
            if self._with_operator:
                self._say("starting the operator")
                self.start_operator(OPERATOR_ARGS)
                self.wait_for_operator()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything, from the operator down to etcd. Safe to call twice. The directory stays."""
        # Without an API server nobody can say goodbye to it: waiting for that would only be slow.
        grace_s = None if self._has_control_plane() else _ORPHAN_GRACE_S
        if self._operators is not None:
            self._operators.stop_all(grace_s)
        if self._data_plane is not None:
            self._data_plane.stop(grace_s)
            self._data_plane = None
        if self._control_plane is not None:
            self._control_plane.stop()

    def _has_control_plane(self) -> bool:
        try:
            self.control_plane.check()
        except LocalClusterError:
            return False
        return True

    def check(self) -> None:
        """Raise ComponentDiedError, with the end of its log, if a process is gone that should run."""
        self.check_infrastructure()
        self._started_operators.check()

    def check_infrastructure(self) -> None:
        """As `check`, for everything but the operator."""
        self.control_plane.check()
        if self._data_plane is not None:
            self._data_plane.check()

    def start_operator(
        self, args: Sequence[str] = (), env: Mapping[str, str] | None = None, *, name: str = "operator"
    ) -> ManagedProcess:
        """Start `fairlead run ARGS` with the operator's own kubeconfig; `env` is added to its environment.

        It gets a port of its own on 127.0.0.1 for `/metrics`, `/healthz` and `/readyz` (see `operator_url`), and `name`
        as its pod's name: give other names for further replicas. Its log is `logs/<name>.log`. Returns at once; see
        `wait_for_operator`. LocalClusterError if one of that name still runs.
        """
        return self._started_operators.start(name, args, env or {})

    def wait_for_operator(self, name: str = "operator", timeout_s: float = READY_TIMEOUT_S) -> None:
        """Until its `/readyz` says yes. Raises ComponentDiedError or NotReadyError with the end of its log."""
        self._started_operators.wait_until_ready(name, timeout_s)

    def operator_url(self, name: str = "operator") -> str:
        """Base URL of an operator's `/metrics`, `/healthz` and `/readyz` (unless `args` or `env` said otherwise)."""
        return self._started_operators.url(name)

    def stop_operator(self, name: str = "operator", *, kill: bool = False) -> None:
        """End one operator: SIGTERM and its time to finish, or SIGKILL as a crash. Nothing happens if it is gone."""
        self._started_operators.stop(name, kill=kill)

    @property
    def _started_operators(self) -> Operators:
        if self._operators is None:
            raise NotReadyError("the local cluster was not started")
        return self._operators

    def service_address(self, namespace: str, name: str, port: int) -> tuple[str, int]:
        """Where this host reaches a Service port: the cluster IP, and the port unless only root may bind it."""
        cluster_ip = self.kubectl("get", "service", name, f"--namespace={namespace}", "-o=jsonpath={.spec.clusterIP}")
        if not re.fullmatch(r"[0-9.]+", cluster_ip):
            raise LocalClusterError(f"Service {namespace}/{name} has no cluster IP ({cluster_ip or 'none'})")
        return (cluster_ip, forwarded_port(port, first_bindable_port()))

    def service_url(self, namespace: str, name: str, port: int) -> str:
        """`http://<address>:<port>` of a Service port, without a trailing slash."""
        host, real_port = self.service_address(namespace, name, port)
        return f"http://{host}:{real_port}"

    @contextlib.contextmanager
    def namespace(self, prefix: str = "test", labels: Mapping[str, str] | None = None) -> Iterator[str]:
        """A fresh namespace, usable at once (its ServiceAccount exists), deleted afterwards without waiting."""
        metadata = {"generateName": f"{prefix}-", "labels": dict(labels or {})}
        body = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        created = self.kubectl("create", "-f", "-", "-o", "jsonpath={.metadata.name}", stdin=body)
        try:
            self.kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={created}", "--timeout=30s")
            yield created
        finally:
            self.kubectl("delete", "namespace", created, "--wait=false", "--ignore-not-found")

    def _install_manifests(self) -> None:
        """The repository's CRDs and the operator's rights, as an administrator would apply them."""
        crds = self._repository / "crds"
        if not any(crds.glob("*.yaml")):
            self._say(f"{crds} has no CRDs (`make generate` writes them): nothing is installed")
            return
        base = self._repository / "manifests" / "base"
        if (base / "kustomization.yaml").is_file():
            rendered = yaml.safe_load_all(self.kubectl("kustomize", str(base)))
            wanted = [one for one in rendered if one and one["kind"] not in _NOT_INSTALLED_KINDS]
            # Namespaces and CRDs first: the others need them.
            first = [one for one in wanted if one["kind"] in ("Namespace", "CustomResourceDefinition")]
            rest = [one for one in wanted if one not in first]
            for objects in (first, rest):
                if objects:
                    self.kubectl.apply(*objects)
        else:
            self.kubectl("apply", "--server-side", "-f", str(crds))
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")

    def _write_operator_kubeconfig(self) -> None:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR_NAMESPACE}}
        metadata = {"name": OPERATOR_SERVICE_ACCOUNT, "namespace": OPERATOR_NAMESPACE}
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
        # Without manifests/ (or with `install=False`) the operator gets a user without any rights, never more.
        self.kubectl.apply(namespace, account, field_manager="fairlead-cluster")
        self.control_plane.write_service_account_kubeconfig(
            OPERATOR_NAMESPACE, OPERATOR_SERVICE_ACCOUNT, self.operator_kubeconfig
        )

    def _start_data_plane(self) -> None:
        self._say("starting the nodes")
        (self._dns_port,) = free_ports(1)
        ready = self.directory / "data-plane.ready"
        config = DataPlaneConfig(
            kubeconfig=self.control_plane.data_plane_kubeconfig,
            data_dir=self.nodes_dir,
            nodes=self._nodes,
            options=self._node_options,
            dns_port=self._dns_port,
            hosts_file=self.hosts_file.path,
            ready_file=ready,
        )
        path = self.directory / "data-plane.json"
        config.write(path)
        self._data_plane = spawn(
            "data-plane",
            [sys.executable, "-m", "fairlead_cluster.dataplane", path],
            self.logs_dir / "data-plane.log",
            env=python_environment(),
            stop_grace_s=_DATA_PLANE_GRACE_S,
        )
        deadline = time.monotonic() + _DATA_PLANE_TIMEOUT_S
        while not ready.exists():
            self._data_plane.check()
            if time.monotonic() >= deadline:
                raise NotReadyError(f"the nodes were not ready in time; see {self._data_plane.log_path}")
            time.sleep(0.05)
