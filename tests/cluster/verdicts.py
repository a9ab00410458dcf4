"""What the real API server says about a custom resource: a server-side dry run, over one connection that stays open."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from fairlead_cluster.api import Kubeconfig

_UNKNOWN_FIELD = re.compile(r'unknown field "([^"]*)"')
# The API server names a value of a map `a.b` where a type is wrong and `a[b]` where a rule is broken.
_MAP_VALUE = re.compile(
    r"(spec\.(?:resources\.requests|resources\.limits|pod\.labels|pod\.annotations|pod\.nodeSelector|service\.annotations"
    r"|gateway\.service\.annotations|backends\[\d+\]\.provider\.parameters))\.(.*)",
    re.DOTALL,
)
_PLURALS = {"LLMRoute": "llmroutes"}


@dataclass(frozen=True)
class Verdict:
    """`paths` are empty for an accepted object. `unknown`: nothing but unknown fields was looked at; `blocked`: the rules were
    not, because the structure is wrong. `spec` is the object's spec with defaults, as the server would store it."""

    accepted: bool
    paths: frozenset[str] = frozenset()
    unknown: bool = False
    blocked: bool = False
    spec: Any = None
    text: str = ""


class Judge:
    """Asks the API server of a kubeconfig, in one namespace. A context manager."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._config = Kubeconfig.load(kubeconfig)
        self._namespace = namespace
        self._connection = http.client.HTTPSConnection(
            urlsplit(self._config.server_url).netloc, context=self._config.tls, timeout=30
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def ask(self, resource: Mapping[str, Any]) -> Verdict:
        """The verdict on one object; what is no LLMRoute is taken for an LLMDeployment. AssertionError for an answer that is neither
        yes nor no."""
        headers = {**self._config.headers, "Content-Type": "application/json"}
        plural = _PLURALS.get(str(resource.get("kind")), "llmdeployments")
        path = f"/apis/fairlead.dev/v1alpha1/namespaces/{self._namespace}/{plural}?dryRun=All&fieldValidation=Strict"
        self._connection.request("POST", path, json.dumps(_as_kubectl_sends(resource)), headers)
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        if response.status == 201:
            return Verdict(accepted=True, spec=answer["spec"])
        text = str(answer.get("message"))
        if response.status == 400:
            paths = frozenset(_UNKNOWN_FIELD.findall(text))
            assert paths, text
            return Verdict(accepted=False, paths=paths, unknown=True, text=text)
        assert response.status == 422, text
        causes = answer["details"]["causes"]
        fields = frozenset(_canonical(cause["field"]) for cause in causes if cause.get("field", "<nil>") != "<nil>")
        blocked = any("some validation rules were not checked" in cause["message"] for cause in causes)
        return Verdict(accepted=False, paths=fields, blocked=blocked, text=text)


def _as_kubectl_sends(value: Any) -> Any:
    """kubectl turns YAML into JSON on its way, and writes 2.0 as 2."""
    if isinstance(value, Mapping):
        return {key: _as_kubectl_sends(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_kubectl_sends(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _canonical(path: str) -> str:
    path = path.removeprefix(".")  # the scale subresource's own look at spec.replicas
    value = _MAP_VALUE.fullmatch(path)
    return f"{value[1]}[{value[2]}]" if value else path
