"""An Envoy gateway as its users write it: addresses and paths of a real cluster, files in ConfigMaps and Secrets."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any

from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.processes import wait_until

Json = dict[str, Any]

IMAGE = "envoyproxy/envoy:distroless-v1.40.0"
PORT = 8080
XDS, KEYS = "/etc/envoy/xds", "/etc/envoy/keys"
RESTRICTED: Json = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
AS_USER: Json = {**RESTRICTED, "runAsUser": 1000}
_TYPES = "type.googleapis.com/envoy"
_HTTP = f"{_TYPES}.extensions.filters.http"
# Answers its pod's name and what it was sent; `/slow` in ten pieces over two seconds.
BACKEND = """
import http.server, json, os, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = json.dumps({"pod": os.environ["HOSTNAME"], "key": self.headers.get("x-key")}).encode()
        self.send_response(200)
        if self.path != "/slow":
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_header("Connection", "close")
        self.end_headers()
        for _ in range(10):
            self.wfile.write(b"piece ")
            self.wfile.flush()
            time.sleep(0.2)
        self.close_connection = True
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""


def bootstrap() -> Json:
    """Admin at a unix socket, listeners and clusters from files."""
    return {
        "node": {"id": "gateway", "cluster": "gateway"},
        "admin": {"address": {"pipe": {"path": "/run/envoy/admin.sock"}}},
        "dynamic_resources": {"lds_config": _source("lds.json"), "cds_config": _source("cds.json")},
    }


def _source(file: str) -> Json:
    files = {"path": f"{XDS}/{file}", "watched_directory": {"path": XDS}}
    return {"resource_api_version": "V3", "path_config_source": files}


def _resources(kind: str, *resources: Json) -> str:
    return json.dumps({"resources": [{"@type": f"{_TYPES}.config.{kind}", **one} for one in resources]})


def listeners(*, address: str = "0.0.0.0", port: int = PORT, routes: Json | None = None) -> str:
    """One listener with `/healthz`; the routes from a file unless given."""
    injector = {
        "@type": f"{_HTTP}.credential_injector.v3.CredentialInjector",
        "overwrite": True,
        "credential": {
            "name": "generic",
            "typed_config": {
                "@type": f"{_TYPES}.extensions.http.injected_credentials.generic.v3.Generic",
                "credential": {
                    "name": "key",
                    "sds_config": {"path_config_source": {"path": f"{XDS}/sds.json"}},
                },
                "header": "x-key",
            },
        },
    }
    health = {
        "@type": f"{_HTTP}.health_check.v3.HealthCheck",
        "pass_through_mode": False,
        "headers": [{"name": ":path", "string_match": {"exact": "/healthz"}}],
    }
    router = {"@type": f"{_HTTP}.router.v3.Router"}
    log = {"@type": f"{_TYPES}.extensions.access_loggers.file.v3.FileAccessLog", "path": "/dev/stdout"}
    manager = {
        "@type": f"{_TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "public",
        "access_log": [{"name": "log", "typed_config": log}],
        "http_filters": [
            {"name": "health", "typed_config": health},
            *([] if routes else [{"name": "key", "typed_config": injector}]),
            {"name": "router", "typed_config": router},
        ],
        **(
            {"route_config": routes}
            if routes
            else {"rds": {"route_config_name": "public", "config_source": _source("rds.json")}}
        ),
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    where = {"socket_address": {"address": address, "port_value": port}}
    return _resources("listener.v3.Listener", {"name": "public", "address": where, "filter_chains": [chain]})


def clusters(host: str, port: int = 8000) -> str:
    """One cluster of all addresses of a name."""
    endpoint = {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
    dns = {
        "@type": f"{_TYPES}.extensions.clusters.dns.v3.DnsCluster",
        "dns_refresh_rate": "0.5s",
        "dns_failure_refresh_rate": {"base_interval": "0.5s", "max_interval": "1s"},
        "dns_lookup_family": "V4_ONLY",
        "all_addresses_in_single_endpoint": False,
    }
    return _resources(
        "cluster.v3.Cluster",
        {
            "name": "backend",
            "cluster_type": {"name": "envoy.cluster.dns", "typed_config": dns},
            "connect_timeout": "1s",
            "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": [endpoint]}]},
        },
    )


def route_config(version: str, cluster: str = "backend") -> Json:
    """Everything to one cluster; answers say the version."""
    header = {"header": {"key": "x-version", "value": version}}
    route = {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "30s"}}
    host = {"name": "all", "domains": ["*"], "routes": [route], "response_headers_to_add": [header]}
    return {"name": "public", "virtual_hosts": [host]}


def routes(version: str) -> str:
    """The file of `route_config`."""
    return _resources("route.v3.RouteConfiguration", route_config(version))


def secrets() -> str:
    """A key that is in a file of a Secret."""
    source = {"filename": f"{KEYS}/key", "watched_directory": {"path": KEYS}}
    kind = f"{_TYPES}.extensions.transport_sockets.tls.v3.Secret"
    return json.dumps({"resources": [{"@type": kind, "name": "key", "generic_secret": {"secret": source}}]})


def config_map(namespace: str, name: str, **data: str) -> Json:
    """A ConfigMap; `_` in names of data stands for a dot."""
    data = {key.replace("_", "."): value for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}


def secret(namespace: str, name: str, **data: str) -> Json:
    """A Secret."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}


def service(namespace: str, name: str, app: str, port: int, target: int, **spec: Any) -> Json:
    """A Service of the pods of one app."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": app}, "ports": [{"port": port, "targetPort": target}], **spec},
    }


def deployment(namespace: str, name: str, replicas: int, **pod_spec: Any) -> Json:
    """A Deployment of app=<name>."""
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"automountServiceAccountToken": False, **pod_spec}},
        },
    }


def backend(namespace: str, replicas: int) -> list[Json]:
    """Pods that answer their names, and both kinds of Service."""
    container = {
        "name": "main",
        "image": "fairlead.test/python:1",
        "command": ["/usr/local/bin/python3", "-c", BACKEND],
        "securityContext": AS_USER,
        "readinessProbe": {"httpGet": {"port": 8000, "path": "/"}, "periodSeconds": 1},
    }
    return [
        deployment(namespace, "backend", replicas, containers=[container], terminationGracePeriodSeconds=1),
        service(namespace, "backend", "backend", 8000, 8000),
        service(namespace, "backend-pods", "backend", 8000, 8000, clusterIP="None"),
    ]


def gateway_pod() -> Json:
    """The spec of gateway pods."""
    return {
        "terminationGracePeriodSeconds": 10,
        "containers": [
            {
                "name": "envoy",
                "image": IMAGE,
                "args": [
                    "-c",
                    "/etc/envoy/bootstrap/envoy.json",
                    "--concurrency",
                    "1",
                    "--file-flush-interval-msec",
                    "100",
                ],
                "ports": [{"name": "http", "containerPort": PORT}],
                "securityContext": RESTRICTED,
                "readinessProbe": {"httpGet": {"port": "http", "path": "/healthz"}, "periodSeconds": 1},
                "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
                "volumeMounts": [
                    {"name": "bootstrap", "mountPath": "/etc/envoy/bootstrap", "readOnly": True},
                    {"name": "xds", "mountPath": XDS, "readOnly": True},
                    {"name": "keys", "mountPath": KEYS, "readOnly": True},
                    {"name": "run", "mountPath": "/run/envoy"},
                ],
            }
        ],
        "volumes": [
            {"name": "bootstrap", "configMap": {"name": "bootstrap"}},
            {"name": "xds", "projected": {"sources": [{"configMap": {"name": one}} for one in ("listen", "routes")]}},
            {"name": "keys", "secret": {"secretName": "keys"}},
            {"name": "run", "emptyDir": {}},
        ],
    }


def gateway(namespace: str, replicas: int, *, host: str, lds: str | None = None) -> list[Json]:
    """Deployment, Service, ConfigMaps and Secret."""
    return [
        config_map(namespace, "bootstrap", envoy_json=json.dumps(bootstrap())),
        config_map(namespace, "listen", lds_json=lds or listeners(), cds_json=clusters(host), sds_json=secrets()),
        config_map(namespace, "routes", rds_json=routes("1")),
        secret(namespace, "keys", key="first"),
        deployment(namespace, "gateway", replicas, **gateway_pod()),
        service(namespace, "gateway", "gateway", PORT, PORT),
    ]


class Answer:
    """What came back; status 0 if nobody listens."""

    def __init__(self, status: int, headers: dict[str, str], body: str) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def pod(self) -> str:
        """Of the backend."""
        return str(json.loads(self.body)["pod"])


def get(address: tuple[str, int], path: str = "/") -> Answer:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(*address, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read().decode())
    except ConnectionError:
        return Answer(0, {}, "")
    finally:
        connection.close()


def note_change(cluster: LocalCluster, namespace: str, app: str = "gateway") -> None:
    """Touch the pods, so that their kubelets look at their volumes at once."""
    cluster.kubectl("annotate", "pod", "-n", namespace, f"-l=app={app}", "--overwrite", f"test/at={time.time()}")


def pods_of(cluster: LocalCluster, namespace: str, app: str) -> list[Json]:
    """Those that are not being deleted."""
    found: list[Json] = cluster.kubectl.json("get", "pods", "-n", namespace, f"-l=app={app}")["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def until(holds: Any, timeout_s: float = 45.0) -> None:
    """Wait; fails with the function's name."""
    assert wait_until(holds, timeout_s, interval_s=0.1), f"not within {timeout_s:g} s"
