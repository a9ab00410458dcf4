"""The administrator's hands in a soak: one connection pool to the API server, hundreds of small edits without a process each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from fairlead_cluster.api import Kubeconfig

Json = dict[str, Any]
_MERGE = "application/merge-patch+json"
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Kind:
    """Where objects of one kind live."""

    root: str
    plural: str
    api_version: str
    kind: str

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """The URL path of the collection, of an object, or of a part of it."""
        return "/".join(
            part for part in (f"{self.root}/namespaces/{namespace}/{self.plural}", name, subresource) if part
        )


def _kind(api_version: str, kind: str, plural: str) -> Kind:
    return Kind(f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}", plural, api_version, kind)


RESOURCES = _kind("fairlead.dev/v1alpha1", "LLMDeployment", "llmdeployments")
DEPLOYMENTS = _kind("apps/v1", "Deployment", "deployments")
SERVICES = _kind("v1", "Service", "services")
CLAIMS = _kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
BUDGETS = _kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
POLICIES = _kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
PODS = _kind("v1", "Pod", "pods")
SECRETS = _kind("v1", "Secret", "secrets")
CHILDREN = (DEPLOYMENTS, SERVICES, CLAIMS, BUDGETS, POLICIES)


class Refused(Exception):
    """The API server said no; `code` is the HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Admin:
    """Reads and edits as the administrator. Not by way of the operator's relay: its faults are the operator's alone."""

    def __init__(self, kubeconfig: Path) -> None:
        found = Kubeconfig.load(kubeconfig)
        self._client = httpx.Client(
            base_url=found.server_url, verify=found.tls, headers=dict(found.headers), timeout=30
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def list(self, kind: Kind, namespace: str, selector: str = "") -> list[Json]:
        """All objects of a kind in a namespace."""
        params = {"labelSelector": selector} if selector else {}
        items: list[Json] = self._send("GET", kind.path(namespace), params=params)["items"]
        return items

    def find(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """One object, or None."""
        try:
            return self._send("GET", kind.path(namespace, name))
        except Refused as error:
            if error.code == 404:
                return None
            raise

    def create(self, kind: Kind, namespace: str, name: str, content: Mapping[str, Any], **metadata: Any) -> Json:
        """Make an object."""
        body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name, **metadata}, **content}
        return self._send("POST", kind.path(namespace), json=body)

    def patch(self, kind: Kind, namespace: str, name: str, patch: Any, subresource: str = "") -> Json | None:
        """Merge patch; None when the object is gone."""
        try:
            return self._send(
                "PATCH", kind.path(namespace, name, subresource), json=patch, headers={"Content-Type": _MERGE}
            )
        except Refused as error:
            if error.code == 404:
                return None
            raise

    def replace_spec(self, kind: Kind, namespace: str, name: str, spec: Mapping[str, Any]) -> Json:
        """Put another spec in the place of the one that is there, as `kubectl replace` does."""
        for _ in range(_ATTEMPTS):
            live = self._send("GET", kind.path(namespace, name))
            try:
                return self._send("PUT", kind.path(namespace, name), json={**live, "spec": dict(spec)})
            except Refused as error:
                if error.code != 409:
                    raise
        raise Refused(409, f"{kind.kind} {namespace}/{name} changes faster than it can be edited")

    def delete(self, kind: Kind, namespace: str, name: str) -> bool:
        """Delete, dependents in the background; False when there was nothing."""
        try:
            self._send("DELETE", kind.path(namespace, name), params={"propagationPolicy": "Background"})
        except Refused as error:
            if error.code == 404:
                return False
            raise
        return True

    def make_namespace(self, name: str) -> None:
        """A namespace, if it is not there."""
        try:
            self._send(
                "POST", "/api/v1/namespaces", json={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            )
        except Refused as error:
            if error.code != 409:
                raise

    def _send(self, method: str, path: str, **more: Any) -> Json:
        for attempt in range(_ATTEMPTS):
            try:
                answer = self._client.request(method, path, **more)
                break
            except httpx.TransportError:
                if attempt == _ATTEMPTS - 1 or method == "POST":
                    raise
                time.sleep(0.5)
        if answer.status_code >= 400:
            raise Refused(answer.status_code, answer.text[:500])
        found: Json = answer.json()
        return found
