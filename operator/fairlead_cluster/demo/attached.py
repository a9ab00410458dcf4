"""A cluster that runs in the background, as a story uses it: kubectl, and the addresses of Services."""

from __future__ import annotations

from pathlib import Path

from fairlead_cluster.kubectl import Kubectl
from fairlead_cluster.services import first_bindable_port, forwarded_port
from fairlead_cluster.supervisor import State


class AttachedCluster:
    """The cluster that `start_in_background` left in `directory`."""

    def __init__(self, directory: Path, state: State) -> None:
        self.kubeconfig = directory / "kubeconfig"
        self.kubectl_binary = Path(state.kubectl)
        self.kubectl = Kubectl(self.kubectl_binary, self.kubeconfig)

    def service_url(self, namespace: str, name: str, port: int) -> str:
        """Where clients on this host reach a port of a Service, without a trailing slash."""
        address = self.kubectl("get", "service", name, f"--namespace={namespace}", "-o=jsonpath={.spec.clusterIP}")
        return f"http://{address}:{forwarded_port(port, first_bindable_port())}"
