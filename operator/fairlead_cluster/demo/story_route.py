"""The story of a route: one endpoint over two local models and a cloud provider, and what never leaves the cluster.

The provider is a local HTTPS server that keeps every byte that it is sent, so that the story can show what it saw.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx2
import yaml

from fairlead_cluster.demo.application import PORT, make_application
from fairlead_cluster.demo.attached import AttachedCluster
from fairlead_cluster.demo.console import Console
from fairlead_cluster.demo.story_serve import StoryFailedError, condition, show
from fairlead_cluster.demo.traffic import Traffic
from fairlead_cluster.hosts import HostsFile
from fairlead_cluster.providers import FakeProvider, FakeProviders

Json = dict[str, Any]
NAMESPACE = "default"
ROUTE = "assistants"
HOST = "api.cloud.test"
TEAM_A, TEAM_B, PROVIDER_KEY = "sk-demo-team-a", "sk-demo-team-b", "sk-demo-provider"
READY_TIMEOUT_S = 60.0
CHANGE_TIMEOUT_S = 30.0
CARD = "4111 1111 1111 1111"
PUBLIC = {"x-data-classification": "Public"}
REQUESTS_PER_S = 20.0
OPEN_STREAMS = 5
SAMPLE = 60
POLICY = Path("manifests/sidecars/policy.yaml")
#: Longer than kubelets take to project what has changed.
PROJECTED_S = 120.0

_MODEL = """
apiVersion: fairlead.dev/v1alpha1
kind: LLMDeployment
metadata: {{name: {name}}}
spec:
  model: {{source: "hf://Qwen/Qwen3-0.6B", name: {served}}}
  engine: {{type: vLLM}}
  rollout: {{drainTimeout: 5s}}
"""
_ROUTE = """
apiVersion: fairlead.dev/v1alpha1
kind: LLMRoute
metadata: {name: assistants}
spec:
  gateway: {drainTimeout: 5s}
  backends:
  - {name: stable, deployment: {name: qwen}}
  - {name: canary, deployment: {name: qwen-next}}
  - name: cloud
    provider:
      type: OpenAICompatible
      baseURL: BASE_URL
      secretRef: {name: cloud, key: apiKey}
      tls: {caSecretRef: {name: cloud, key: ca.crt}}
  models:
  - name: chat
    targets:
    - {backend: stable, weight: 90}
    - {backend: canary, weight: 10}
    - {backend: cloud, model: big-model, priority: 1}
  authentication:
    apiKeys: {secretRef: {name: clients}}
  roles:
  - {name: developer, consumers: [team-a], llmAccess: [Local, Cloud], dataAccess: [Public, Internal], mayDeclare: [Public]}
  - {name: analyst, consumers: [team-b], llmAccess: [Local], dataAccess: [Public, Internal, Confidential]}
  dataPolicy:
    detectors:
    - {name: cards, class: Confidential, builtin: PaymentCard}
"""


def tell(cluster: AttachedCluster, console: Console, _: Sequence[str]) -> None:
    """Tell the whole story. Raises StoryFailedError when anything is not as promised."""
    with tempfile.TemporaryDirectory(prefix="fairlead-providers-") as folder, FakeProviders(Path(folder)) as fakes:
        provider = fakes.add("cloud", [HOST])
        HostsFile(cluster.kubeconfig.parent / "dns-hosts").update(fakes.host_records)
        story = _Story(cluster, console, provider)
        story.apply(fakes.ca_cert.read_text())
        story.ask_everybody()
        story.fail_over()
        asyncio.run(story.shift_canary())
        story.give_sidecar()
        story.exchange_key()
        story.describe()


class _Story:
    def __init__(self, cluster: AttachedCluster, console: Console, provider: FakeProvider) -> None:
        self._cluster, self._console, self._provider = cluster, console, provider

    def apply(self, ca: str) -> None:
        """Two deployments, a provider with its consenting Secret, the clients' keys, and the route."""
        self._console.step(
            "Apply two local models, a cloud provider's Secret, the clients' keys, and one LLMRoute over all of it"
        )
        secrets = [
            _secret("clients", {"team-a": TEAM_A, "team-b": TEAM_B}, {"fairlead.dev/use": "clients"}),
            _secret(
                "cloud",
                {"apiKey": PROVIDER_KEY, "ca.crt": ca},
                {"fairlead.dev/use": "provider"},
                {"fairlead.dev/hosts": HOST},
            ),
        ]
        self._cluster.kubectl.apply(
            *({**one, "metadata": {**one["metadata"], "namespace": NAMESPACE}} for one in secrets)
        )
        route = _ROUTE.replace("BASE_URL", self._provider.url)
        self._console.say(route.strip())
        models = [
            _MODEL.format(name=name, served=served) for name, served in (("qwen", "qwen3"), ("qwen-next", "qwen3-next"))
        ]
        objects = [yaml.safe_load(text) for text in (*models, route)]
        self._cluster.kubectl.apply(
            *({**one, "metadata": {**one["metadata"], "namespace": NAMESPACE}} for one in objects)
        )
        self._console.step("Wait until the gateways say that they have loaded it")
        self._console.command("kubectl", "wait", "--for=condition=Ready", f"llmrt/{ROUTE}")
        self._until(self._all_backends_ready, "the route and all backends are ready", READY_TIMEOUT_S)
        show(self._cluster, self._console, "get", "llmrt", "-n", NAMESPACE)

    def ask_everybody(self) -> None:
        """What the law says, request by request, and what the provider saw of it."""
        self._console.step(
            "Ask: unclassified requests stay here, a card number is Confidential, the cloud needs a declared class"
        )
        self._tell("team-a, nothing declared", self._ask(TEAM_A, "hello"), 200, {"stable", "canary"})
        self._tell("team-b, a card number", self._ask(TEAM_B, f"pay with {CARD}"), 200, {"stable", "canary"})
        denied = self._ask(TEAM_A, f"pay with {CARD}")
        self._tell("team-a, a card number", denied, 403)
        self._console.say(f"    {denied.json()['error']['message']}")
        self._tell("somebody without a key", self._ask("sk-wrong", "hello"), 401)
        self._tell("a model that is not offered", self._ask(TEAM_A, "hello", model="gpt-5.6"), 404)
        if self._provider.recorded:
            raise StoryFailedError("the provider was sent something that is not Public")
        self._console.say("the provider has received 0 requests")

    def fail_over(self) -> None:
        """Both local models go: Public requests go on, the others say so."""
        self._console.step(
            "Both local models go to 0 replicas: what is declared Public fails over to the cloud, nothing else does"
        )
        self._scale(0)
        self._until(
            lambda: self._ask(TEAM_A, "hello", headers=PUBLIC).status_code == 200, "the cloud answers", CHANGE_TIMEOUT_S
        )
        self._until(
            lambda: self._ask(TEAM_A, "hello").status_code == 503, "the local models are gone", CHANGE_TIMEOUT_S
        )
        self._provider.clear()
        self._tell("team-a, declared Public", self._ask(TEAM_A, "hello", headers=PUBLIC), 200, {"cloud"})
        self._tell("team-a, nothing declared", self._ask(TEAM_A, "hello"), 503)
        (seen,) = self._provider.wait_for(1)
        self._console.say(f"the provider saw: {seen.request.method} {seen.request.target}")
        for name, value in seen.request.headers:
            self._console.say(f"    {name}: {value}")
        text = repr(seen.request)
        if TEAM_A in text or "team-a" in text or PROVIDER_KEY not in text:
            raise StoryFailedError("the provider saw the caller's key, or not its own")
        self._scale(1)
        self._until(self._all_models_ready, "the local models are back", READY_TIMEOUT_S)
        self._until(self._all_backends_ready, "the gateways know their pods", READY_TIMEOUT_S)

    async def shift_canary(self) -> None:
        """90/10 to 50/50 while clients ask; no request may fail."""
        self._console.step(
            f"Shift the canary from 10 to 50 of 100 under {REQUESTS_PER_S:.0f} requests a second and open streams"
        )
        before = await asyncio.to_thread(self._count, SAMPLE)
        traffic = Traffic(
            self._url + "/v1",
            "chat",
            rate_per_s=REQUESTS_PER_S,
            streams=OPEN_STREAMS,
            stream_tokens=200,
            api_key=TEAM_B,
        )
        running = asyncio.create_task(traffic.run())
        try:
            while traffic.open_streams < OPEN_STREAMS:
                await asyncio.sleep(0.05)
            patch = [{"op": "replace", "path": f"/spec/models/0/targets/{n}/weight", "value": 50} for n in (0, 1)]
            arguments = ("patch", "llmrt", ROUTE, "-n", NAMESPACE, "--type=json", "-p", json.dumps(patch))
            await asyncio.to_thread(show, self._cluster, self._console, *arguments)
            await asyncio.to_thread(self._until, self._is_ready, "the change is programmed", CHANGE_TIMEOUT_S)
            await asyncio.sleep(2.0)
        finally:
            traffic.stop()
        report = await running
        after = await asyncio.to_thread(self._count, SAMPLE)
        self._console.say(f"of {SAMPLE} requests before: {_counts(before)}; after: {_counts(after)}")
        self._console.say(
            f"{report.requests} requests, {report.requests_failed} failed; {report.streams} streams, {report.streams_failed} cut"
        )
        for error, count in report.errors.most_common(3):
            self._console.say(f"  {count} × {error}")
        if report.failed or after["canary"] <= before["canary"]:
            raise StoryFailedError("the canary did not move, or requests failed")

    def give_sidecar(self) -> None:
        """An application whose pod is labelled for the route: there before it is served, and then without a hop."""
        self._console.step("An application gets a gateway of its own: the policy gives its labelled pod a sidecar")
        pod = make_application("app", NAMESPACE, ROUTE)
        show(self._cluster, self._console, "apply", "-f", str(POLICY))
        self._until(lambda: "fairlead-gateway" in self._dry_run(pod), "the policy is in force", CHANGE_TIMEOUT_S)
        self._cluster.kubectl.apply(pod)
        self._until(
            lambda: self._ask_application(TEAM_A).status_code == 503, "the application is there", READY_TIMEOUT_S
        )
        self._tell("the application, before its route serves sidecars", self._ask_application(TEAM_A), 503)
        patch = [
            {"op": "add", "path": "/spec/gateway/applicationSidecars", "value": True},
            {"op": "add", "path": "/spec/dataPolicy/denyClasses", "value": ["Public", "Internal", "Confidential"]},
            {
                "op": "add",
                "path": "/spec/models/-",
                "value": {"name": "large", "targets": [{"backend": "cloud", "model": "big-model"}]},
            },
        ]
        arguments = ("patch", "llmrt", ROUTE, "-n", NAMESPACE, "--type=json", "-p", json.dumps(patch))
        show(self._cluster, self._console, *arguments)
        self._until(lambda: self._ask_application(TEAM_A).status_code == 200, "its sidecar has the route", PROJECTED_S)
        self._until(self._is_ready, "the change is programmed", CHANGE_TIMEOUT_S)
        self._tell("the application, by a local model", self._ask_application(TEAM_A), 200, {"stable", "canary"})
        self._provider.clear()
        cloud = self._ask_application(TEAM_A, model="large", headers=PUBLIC)
        self._tell("the application, a cloud model, by way of the gateway", cloud, 200, {"cloud"})
        self._tell("the application, a cloud model, not declared", self._ask_application(TEAM_A, model="large"), 403)
        (seen,) = self._provider.wait_for(1)
        if TEAM_A in repr(seen.request):
            raise StoryFailedError("the provider saw the caller's key")

    def exchange_key(self) -> None:
        """A client's key is exchanged for another one, without a restart."""
        self._console.step("Exchange a client's key: the new one is let in, the old one is not, no pod is replaced")
        patch = json.dumps({"stringData": {"team-a": "sk-demo-team-a-2"}})
        show(self._cluster, self._console, "patch", "secret", "clients", "-n", NAMESPACE, "-p", patch)
        begun = time.monotonic()
        self._until(lambda: self._ask("sk-demo-team-a-2", "hello").status_code == 200, "the new key", CHANGE_TIMEOUT_S)
        self._until(lambda: self._ask(TEAM_A, "hello").status_code == 401, "the old key", CHANGE_TIMEOUT_S)
        self._console.say(f"it holds after {time.monotonic() - begun:.1f} s")

    def describe(self) -> None:
        """What a person sees."""
        self._console.step("What the route says of itself")
        path = '{range .status.backends[*]}{.name}{"\\t"}{.state}{"\\n"}{end}{.status.models}{"\\n"}'
        show(self._cluster, self._console, "get", "llmrt", ROUTE, "-n", NAMESPACE, "-o", f"jsonpath={path}")

    # Means ------------------------------------------------------------------------------------------------------------------

    @cached_property
    def _url(self) -> str:
        return self._cluster.service_url(NAMESPACE, f"{ROUTE}-gateway", 80)

    def _ask(
        self, key: str, content: str, *, model: str = "chat", headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        return _post(self._url, key, content, model, headers)

    def _ask_application(
        self, key: str, *, model: str = "chat", headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """The same by the application. Until it is there, as if it were a gateway that does not answer."""
        pod = json.loads(self._cluster.kubectl("get", "pod", "app", "-n", NAMESPACE, "-o", "json"))
        try:
            return _post(f"http://{pod['status'].get('podIP')}:{PORT}", key, "hello", model, headers)
        except httpx2.TransportError:
            return httpx2.Response(502)

    def _dry_run(self, pod: Json) -> str:
        return self._cluster.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(pod))

    def _tell(self, who: str, answer: httpx2.Response, status: int, backends: set[str] | None = None) -> None:
        backend = answer.headers.get("x-fairlead-backend", "nobody")
        said = answer.headers.get("x-fairlead-class", "")
        self._console.say(f"{who}: {answer.status_code}" + (f" from {backend}, as {said}" if said else ""))
        if answer.status_code != status or (backends is not None and backend not in backends):
            raise StoryFailedError(f"expected {status} from {backends}: {answer.text[:500]}")

    def _count(self, times: int) -> Counter[str]:
        return Counter(self._ask(TEAM_B, "hello").headers.get("x-fairlead-backend", "nobody") for _ in range(times))

    def _scale(self, replicas: int) -> None:
        for name in ("qwen", "qwen-next"):
            show(self._cluster, self._console, "scale", "llmdep", name, "-n", NAMESPACE, f"--replicas={replicas}")

    def _route(self) -> Json:
        found: Json = json.loads(self._cluster.kubectl("get", "llmrt", ROUTE, "-n", NAMESPACE, "-o", "json"))
        return found

    def _is_ready(self) -> bool:
        route = self._route()
        return condition(route, "Ready") == "True" and condition(route, "Reconciling") == "False"

    def _all_models_ready(self) -> bool:
        items = json.loads(self._cluster.kubectl("get", "llmdep", "-n", NAMESPACE, "-o", "json"))["items"]
        return all(condition(one, "Ready") == "True" and one["status"].get("readyReplicas") == 1 for one in items)

    def _all_backends_ready(self) -> bool:
        rows = (self._route().get("status") or {}).get("backends", [])
        return self._is_ready() and all(row["state"] == "Ready" for row in rows)

    def _until(self, is_so: Any, what: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_so():
            if time.monotonic() > deadline:
                described = self._cluster.kubectl("describe", "llmrt", ROUTE, "-n", NAMESPACE)
                raise StoryFailedError(f"not in {timeout_s:.0f} s: {what}\n{described}")
            time.sleep(0.3)


def _post(url: str, key: str, content: str, model: str, headers: Mapping[str, str] | None = None) -> httpx2.Response:
    body = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 8}
    sent = {"authorization": f"Bearer {key}", **(headers or {})}
    with httpx2.Client(trust_env=False, timeout=30) as client:
        return client.post(f"{url}/v1/chat/completions", json=body, headers=sent)


def _counts(counted: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counted.items()))


def _secret(
    name: str, data: Mapping[str, str], labels: Mapping[str, str], annotations: Mapping[str, str] | None = None
) -> Json:
    metadata: Json = {"name": name, "labels": dict(labels)}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": dict(data)}
