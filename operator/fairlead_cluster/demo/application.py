"""An application for the demo: a pod that hands on what it is asked to the sidecar at its loopback address."""

from __future__ import annotations

from typing import Any

__all__ = ["PORT", "make_application"]

Json = dict[str, Any]
PORT = 8000
_PROGRAM = """
import http.client, http.server
class Application(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        sidecar = http.client.HTTPConnection("127.0.0.1", 4285, timeout=30)
        kept = ("authorization", "content-type", "x-data-classification")
        sidecar.request("POST", self.path, body, {k: v for k, v in self.headers.items() if k.lower() in kept})
        answer = sidecar.getresponse()
        text = answer.read()
        self.send_response(answer.status)
        for name in ("content-type", "x-fairlead-backend", "x-fairlead-class"):
            if answer.getheader(name):
                self.send_header(name, answer.getheader(name))
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Application).serve_forever()
"""


def make_application(name: str, namespace: str, route: str) -> Json:
    """Labelled for a route."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"fairlead.dev/gateway": route}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "app",
                    "image": "fairlead.test/python:1",
                    "command": ["/usr/local/bin/python3", "-c", _PROGRAM],
                    "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
                }
            ],
        },
    }
