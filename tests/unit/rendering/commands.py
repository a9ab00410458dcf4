"""Commands run as their users run them, and manifests that several tests need."""

from __future__ import annotations

import base64
import copy
from pathlib import Path
from typing import Any, Final

import yaml

Json = dict[str, Any]
API_KEY: Final = "sk-VERYSECRET-of-a-caller"

#: The route of docs/llmroute.md, "Classes and roles".
ROUTE: Final[Json] = {
    "apiVersion": "fairlead.dev/v1alpha1",
    "kind": "LLMRoute",
    "metadata": {"name": "assistants"},
    "spec": {
        "backends": [
            {"name": "local", "deployment": {"name": "llama-8b"}},
            {"name": "openai", "provider": {"type": "OpenAI", "secretRef": {"name": "openai", "key": "apiKey"}}},
        ],
        "models": [
            {
                "name": "chat",
                "targets": [
                    {"backend": "local", "weight": 90},
                    {"backend": "openai", "model": "gpt-5.6", "weight": 10},
                ],
            }
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
            "default": "Internal",
            "detectors": [
                {"name": "cards", "class": "Confidential", "builtin": "PaymentCard"},
                {"name": "project", "class": "Confidential", "keywords": ["bluebird"]},
            ],
        },
    },
}
DEPLOYMENT: Final[Json] = {
    "apiVersion": "fairlead.dev/v1alpha1",
    "kind": "LLMDeployment",
    "metadata": {"name": "llama-8b"},
    "spec": {"model": {"source": "ollama://qwen2.5:0.5b", "name": "qwen"}, "engine": {"type": "Ollama"}},
}
PROVIDER_SECRET: Final[Json] = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {
        "name": "openai",
        "labels": {"fairlead.dev/use": "provider"},
        "annotations": {"fairlead.dev/hosts": "api.openai.com"},
    },
    "stringData": {"apiKey": "sk-VERYSECRET-of-a-provider"},
}
CLIENTS_SECRET: Final[Json] = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "clients", "labels": {"fairlead.dev/use": "clients"}},
    "data": {"team-a": base64.b64encode(API_KEY.encode()).decode()},
    "stringData": {"team-b": "sk-VERYSECRET-of-another"},
}
ALL: Final = (ROUTE, DEPLOYMENT, PROVIDER_SECRET, CLIENTS_SECRET)


def change(resource: Json, path: str, value: Any) -> Json:
    """A copy with the value at a path such as `spec.backends.0.name`; None takes it away."""
    changed = copy.deepcopy(resource)
    node: Any = changed
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        node = node[part]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return changed


def write(path: Path, *objects: Json) -> str:
    """As one file. Returns its path."""
    path.write_text(yaml.safe_dump_all(objects))
    return str(path)
