"""A route as its users have it: a deployment and a cloud provider behind one gateway, callers with keys, and what each side saw."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any

import httpx
from tests.canaries import plant
from tests.cluster.operator_world import World, until

from fairlead_cluster.providers import FakeProvider

Json = dict[str, Any]
ROUTE = "assistants"
MODEL = "local-model"
#: Canaries: the run's witness looks for them in all objects but Secrets, in logs and in metrics.
TEAM_A, TEAM_B, PROVIDER_KEY = plant("sk-"), plant("sk-"), plant("sk-")
READY_S = 60.0
#: A second or two on an idle machine; what waited for a gateway that does not answer would take 30.
AT_ONCE_S = 20.0
CARD = "4111 1111 1111 1111"


def make_deployment(namespace: str, name: str = "llama", **spec: Any) -> Json:
    """A simulated model on CPU that is there within seconds."""
    return {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"source": "hf://Qwen/Qwen3-0.6B", "name": MODEL},
            "engine": {"type": "vLLM"},
            "rollout": {"drainTimeout": "1s"},
            **spec,
        },
    }


def make_route(namespace: str, provider: FakeProvider, **spec: Any) -> Json:
    """Local first by weight, the provider for what is Public."""
    base: Json = {
        "gateway": {"drainTimeout": "1s"},
        "backends": [
            {"name": "local", "deployment": {"name": "llama"}},
            {
                "name": "cloud",
                "provider": {
                    "type": "OpenAICompatible",
                    "baseURL": provider.url,
                    "secretRef": {"name": "provider", "key": "apiKey"},
                    "tls": {"caSecretRef": {"name": "provider-ca", "key": "ca.crt"}},
                },
            },
        ],
        "models": [
            {
                "name": "chat",
                "targets": [{"backend": "local"}, {"backend": "cloud", "model": "big-model", "priority": 1}],
                "timeouts": {"responseHeaders": "2s", "idle": "2s", "request": "20s"},
            },
            {"name": "public", "targets": [{"backend": "cloud", "model": "big-model"}]},
        ],
        "authentication": {"apiKeys": {"secretRef": {"name": "clients"}}},
        "roles": [
            {
                "name": "developer",
                "consumers": ["team-a"],
                "llmAccess": ["Local", "Cloud"],
                "dataAccess": ["Public", "Internal"],
                "mayDeclare": ["Public"],
            },
            {
                "name": "analyst",
                "consumers": ["team-b"],
                "llmAccess": ["Local"],
                "dataAccess": ["Public", "Internal", "Confidential"],
            },
        ],
        "dataPolicy": {
            "detectors": [
                {"name": "cards", "class": "Confidential", "builtin": "PaymentCard"},
                {"name": "words", "class": "Restricted", "keywords": ["project bluebird"]},
            ],
            "denyClasses": ["Public", "Internal", "Confidential"],
        },
    }
    return {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "LLMRoute",
        "metadata": {"name": ROUTE, "namespace": namespace},
        "spec": {**base, **spec},
    }


def make_secret(namespace: str, name: str, data: dict[str, str], *, use: str = "", hosts: str = "") -> Json:
    """A Secret, with consent if `use` says so."""
    metadata: Json = {"name": name, "namespace": namespace}
    if use:
        metadata["labels"] = {"fairlead.dev/use": use}
    if hosts:
        metadata["annotations"] = {"fairlead.dev/hosts": hosts}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}


@dataclass(frozen=True)
class Answer:
    """What a caller got."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Json:
        """The body as JSON."""
        found: Json = json.loads(self.body)
        return found


@dataclass
class RouteWorld(World):
    """A namespace with a provider; `apply_all` makes the route and everything that it names."""

    provider: FakeProvider
    ca: str

    def apply_all(self, route: Json | None = None) -> None:
        """As a platform engineer would."""
        self.apply(
            make_secret(self.namespace, "clients", {"team-a": TEAM_A, "team-b": TEAM_B}, use="clients"),
            self.provider_secret(),
            make_secret(self.namespace, "provider-ca", {"ca.crt": self.ca}),
            make_deployment(self.namespace),
            route or make_route(self.namespace, self.provider),
        )

    def provider_secret(self) -> Json:
        """The provider's key, with consent."""
        data = {"apiKey": f"{PROVIDER_KEY}\n"}
        return make_secret(self.namespace, "provider", data, use="provider", hosts=self.provider.hosts[0])

    def route(self) -> Json:
        """The route as it is."""
        found = self.get(f"llmroute/{ROUTE}")
        assert found is not None
        return found

    def route_condition(self, kind: str) -> Json:
        """One condition of the route, or an empty dict."""
        conditions = (self.route().get("status") or {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind), {})

    def wait_ready(self, timeout_s: float = READY_S) -> Json:
        """Until the route is Ready at its generation."""

        def ready() -> Json | None:
            route = self.route()
            status = route.get("status") or {}
            conditions = {c["type"]: c for c in status.get("conditions", [])}
            if status.get("observedGeneration") != route["metadata"]["generation"]:
                return None
            settled = conditions["Ready"]["status"] == "True" and conditions["Reconciling"]["status"] == "False"
            return route if settled else None

        found: Json = until(ready, f"the route is ready: {json.dumps(self.route().get('status'))[:3000]}", timeout_s)
        return found

    def wait_backends(self, timeout_s: float = READY_S) -> None:
        """Until requests are sent to each backend. A route is ready before that, as long as each model has one."""

        def all_ready() -> bool:
            rows = (self.wait_ready(timeout_s).get("status") or {}).get("backends", [])
            return bool(rows) and all(row["state"] == "Ready" for row in rows)

        until(all_ready, "all backends are ready", timeout_s)

    @property
    def address(self) -> tuple[str, int]:
        """Where applications reach the gateway."""
        return self.cluster.service_address(self.namespace, f"{ROUTE}-gateway", 80)

    def ask(
        self,
        content: str = "hello",
        *,
        key: str | None = TEAM_A,
        model: str = "chat",
        path: str = "/v1/chat/completions",
        method: str = "POST",
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> Answer:
        """One request, not streamed unless `stream=True`."""
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 8, **more})
        sent = {"content-type": "application/json", **(headers or {})}
        if key is not None:
            sent["authorization"] = f"Bearer {key}"
        connection = http.client.HTTPConnection(*self.address, timeout=90)
        try:
            connection.request(method, path, body if method == "POST" else None, sent)
            response = connection.getresponse()
            try:
                text = response.read().decode(errors="replace")
            except http.client.IncompleteRead as error:
                text = error.partial.decode(errors="replace")
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, text)
        finally:
            connection.close()

    def gateways(self) -> list[Json]:
        """The pods of the gateway."""
        found = json.loads(self.kubectl("get", "pods", "-l", "app.kubernetes.io/component=gateway", "-o", "json"))
        return list(found["items"])

    def engines(self) -> list[str]:
        """Names of the engine pods."""
        return self.kubectl("get", "pods", "-l", "app.kubernetes.io/component=engine", "-o", "name").split()

    def metrics(self) -> str:
        """Prometheus' text of all gateways."""
        return "".join(
            httpx.get(f"http://{pod['status']['podIP']}:9901/metrics", timeout=5).text for pod in self.gateways()
        )
