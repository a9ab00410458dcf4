"""Services and DNS on the real API server: clients on this host reach ready pods by cluster IP and by name.

The pods are servers of this test with a pod object each, bound to a node that does not exist, so that nobody else
writes their status.
"""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
from dnslib import RCODE, DNSRecord

from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.processes import wait_until

#: For what takes a moment on an idle machine.
PATIENCE_S = 30.0

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
_addresses = count(10)


@contextmanager
def served_pod(cluster: LocalCluster, namespace: str, name: str) -> Iterator[str]:
    """A pod of app=web that answers its name at its port `http`; ready; yields its address."""
    address = f"127.245.0.{next(_addresses)}"  # beside the network from which nodes hand out addresses

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(name)))
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    ports = [{"name": "http", "containerPort": server.server_port}]
    container = {"name": "main", "image": "example.invalid/web:1", "ports": ports}
    cluster.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": "web"}},
            "spec": {"nodeName": "nowhere", "containers": [container]},
        }
    )
    set_ready(cluster, namespace, name, address, ready=True)
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()


def set_ready(cluster: LocalCluster, namespace: str, name: str, address: str, *, ready: bool) -> None:
    """Write the pod's status, as its kubelet would."""
    status = {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": str(ready)}],
    }
    patch = json.dumps({"status": status})
    cluster.kubectl("patch", "pod", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)


def put_service(cluster: LocalCluster, namespace: str, name: str = "web", **spec: Any) -> None:
    """A Service of app=web at port 80."""
    ports = [{"port": 80, "targetPort": "http"}]
    cluster.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"selector": {"app": "web"}, "ports": ports, **spec},
        }
    )


def ask(cluster: LocalCluster, namespace: str, name: str = "web") -> str:
    """What the Service answers; `refused` if nobody listens."""
    try:
        with urllib.request.urlopen(cluster.service_url(namespace, name, 80), timeout=5) as response:
            return str(response.read().decode())
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionRefusedError):
            return "refused"
        raise


def resolve(cluster: LocalCluster, name: str) -> set[str] | None:
    """Addresses by the cluster's DNS, None for NXDOMAIN."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(DNSRecord.question(name).pack(), cluster.dns_address)
        reply = DNSRecord.parse(client.recv(4096))
    return None if reply.header.rcode == RCODE.NXDOMAIN else {str(record.rdata) for record in reply.rr}


def test_traffic_follows_readiness(cluster: LocalCluster, cluster_namespace: str) -> None:
    namespace = cluster_namespace
    put_service(cluster, namespace)
    assert wait_until(lambda: ask(cluster, namespace) == "refused", PATIENCE_S)
    with (
        served_pod(cluster, namespace, "one") as first,
        served_pod(cluster, namespace, "two"),
    ):
        assert wait_until(lambda: {ask(cluster, namespace) for _ in range(4)} == {"one", "two"}, PATIENCE_S)
        set_ready(cluster, namespace, "one", first, ready=False)
        assert wait_until(lambda: {ask(cluster, namespace) for _ in range(4)} == {"two"}, PATIENCE_S)
        cluster.kubectl("delete", "pod", "two", "-n", namespace, "--force", "--grace-period=0", "--wait=false")
        assert wait_until(lambda: ask(cluster, namespace) == "refused", PATIENCE_S)


def test_deleted_service_is_closed(cluster: LocalCluster, cluster_namespace: str) -> None:
    put_service(cluster, cluster_namespace)
    with served_pod(cluster, cluster_namespace, "one"):
        assert wait_until(lambda: ask(cluster, cluster_namespace) == "one", PATIENCE_S)
        address = cluster.service_address(cluster_namespace, "web", 80)
        cluster.kubectl("delete", "service", "web", "-n", cluster_namespace)

        def is_closed() -> bool:
            with socket.socket() as client:
                return client.connect_ex(address) != 0

        assert wait_until(is_closed, PATIENCE_S)


def test_names_resolve(cluster: LocalCluster, cluster_namespace: str) -> None:
    namespace = cluster_namespace
    put_service(cluster, namespace)
    put_service(cluster, namespace, "web-pods", clusterIP="None")
    name, headless = f"web.{namespace}.svc.cluster.local", f"web-pods.{namespace}.svc.cluster.local"
    cluster_ip, _ = cluster.service_address(namespace, "web", 80)
    assert wait_until(lambda: resolve(cluster, name) == {cluster_ip}, PATIENCE_S)
    assert resolve(cluster, headless) is None
    with served_pod(cluster, namespace, "one") as first, served_pod(cluster, namespace, "two") as second:
        assert wait_until(lambda: resolve(cluster, headless) == {first, second}, PATIENCE_S)
        set_ready(cluster, namespace, "one", first, ready=False)
        assert wait_until(lambda: resolve(cluster, headless) == {second}, PATIENCE_S)
    assert resolve(cluster, f"absent.{namespace}.svc.cluster.local") is None


def test_api_server_is_reachable_as_pods_reach_it(cluster: LocalCluster) -> None:
    """At the cluster IP of the Service `kubernetes`, with a certificate that names it."""
    host, port = cluster.service_address("default", "kubernetes", 443)
    context = ssl.create_default_context(cafile=str(cluster.control_plane.ca_cert))
    with urllib.request.urlopen(f"https://{host}:{port}/version", timeout=5, context=context) as response:
        assert json.load(response)["major"] == "1"
