"""Who lives in the soak and what its random life is made of. Pure: every choice comes from one seeded generator and from what was
chosen before, never from what the cluster answered, so that a seed is a story that can be told again."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Json = dict[str, Any]
NAMESPACES = ("soak-a", "soak-b")


class Fate(StrEnum):
    """What becomes of all pods of a model."""

    READY = "ready"
    PENDING = "pending"
    CRASHES = "crashes"
    NO_IMAGE = "no image"


@dataclass
class Model:
    """One custom resource as its user wants it. `last_good` is the newest spec that can be planned: what runs when the current one
    cannot. `taken` are children's names (plural, name) that a stranger's object has."""

    namespace: str
    name: str
    spec: Json
    last_good: Json | None = None
    fate: Fate = Fate.READY
    taken: set[tuple[str, str]] = field(default_factory=set)

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return (self.namespace, self.name)

    @property
    def is_good(self) -> bool:
        """Whether its spec can be planned."""
        return self.spec == self.last_good

    def wish(self, spec: Json) -> None:
        """Another spec."""
        self.spec = spec
        if spec["engine"]["type"] != UNKNOWN_ENGINE:
            self.last_good = copy.deepcopy(spec)


UNKNOWN_ENGINE = "NoSuchEngine"
TOKEN_SECRET = "hub"


def make_spec(chance: random.Random) -> Json:
    """A plausible model. Its pods name a scheduler that does not exist: nobody but the soak touches them."""
    gpu = chance.random() < 0.5
    spec: Json = {
        "model": {"source": "hf://meta-llama/Llama-3.1-8B-Instruct"},
        "engine": {"type": "vLLM"},
        "replicas": chance.choice([1, 1, 2]),
        "pod": {"schedulerName": "frozen"},
    }
    if gpu:
        spec["accelerator"] = {"count": 1}
    if chance.random() < 0.2:
        spec["model"]["secretRef"] = {"name": TOKEN_SECRET, "key": "token"}
    if chance.random() < 0.3:
        spec["storage"] = {"type": "PersistentVolumeClaim", "size": "1Gi", "accessModes": ["ReadWriteMany"]}
    if chance.random() < 0.2:
        spec["networkPolicy"] = {"mode": "Disabled"}
    return spec


def edit_spec(chance: random.Random, spec: Json) -> tuple[str, Json]:
    """Another wish for the same model, and what was changed in a few words. Never the same as before."""
    edits = {
        "replicas": lambda new: new.update(replicas=chance.choice([n for n in (1, 2, 3) if n != new.get("replicas")])),
        "image": lambda new: new["engine"].update(image=f"registry.example.com/vllm:v0.33.{chance.randrange(10**6)}"),
        "environment": lambda new: new["engine"].update(env=_environment(chance)),
        "context": lambda new: new.update(context={"maxLength": 1024 + chance.randrange(30_000)}),
        "port": lambda new: new.update(service={"port": 81 + chance.randrange(900)}),
        "annotations": lambda new: new.update(service={"annotations": {"soak": str(chance.randrange(10**6))}}),
        "pod labels": lambda new: new["pod"].update(labels={"soak": str(chance.randrange(10**6))}),
        "storage": lambda new: _toggle(
            new, "storage", {"type": "PersistentVolumeClaim", "size": "1Gi", "accessModes": ["ReadWriteMany"]}
        ),
        "policy": lambda new: _toggle(new, "networkPolicy", {"mode": "Disabled"}),
        "suspend": lambda new: _toggle(new, "suspend", True),
        "engine": lambda new: new["engine"].update(
            type="vLLM" if new["engine"]["type"] == UNKNOWN_ENGINE else UNKNOWN_ENGINE
        ),
    }
    weights = [3, 3, 3, 3, 3, 3, 2, 3, 3, 2, 2 if spec["engine"]["type"] != UNKNOWN_ENGINE else 12]
    (what,) = chance.choices(list(edits), weights)
    new = copy.deepcopy(spec)
    edits[what](new)
    return what, new


def _environment(chance: random.Random) -> list[Json]:
    plain = {"name": "VLLM_LOGGING_LEVEL", "value": chance.choice(["INFO", "DEBUG"])}
    number = {"name": "SOAK", "value": str(chance.randrange(10**6))}
    secret = {"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": TOKEN_SECRET, "key": "token"}}}
    return [plain, number, *([secret] if chance.random() < 0.5 else [])]


def _toggle(spec: Json, key: str, value: Any) -> None:
    if key in spec:
        del spec[key]
    else:
        spec[key] = value


#: Edits of children by a hand that is not ours: plural -> what, patch. `{name}` is the model's.
DRIFTS: dict[str, list[tuple[str, Json]]] = {
    "services": [
        ("selector", {"spec": {"selector": {"app": "mine"}}}),
        ("ports", {"spec": {"ports": [{"name": "http", "port": 4711, "protocol": "TCP", "targetPort": "http"}]}}),
        ("a label of ours", {"metadata": {"labels": {"app.kubernetes.io/component": None}}}),
        ("the label that we watch by", {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}),
    ],
    "deployments": [
        ("replicas", {"spec": {"replicas": 5}}),
        ("the strategy", {"spec": {"minReadySeconds": 0, "revisionHistoryLimit": 7}}),
        ("a label of the template", {"spec": {"template": {"metadata": {"labels": {"fairlead.dev/llmdeployment": "x"}}}}}),
        ("the label that we watch by", {"metadata": {"labels": {"app.kubernetes.io/managed-by": "somebody"}}}),
        ("our record of the template", {"metadata": {"annotations": {"fairlead.dev/template-input": "x"}}}),
    ],
    "persistentvolumeclaims": [("a label of ours", {"metadata": {"labels": {"app.kubernetes.io/name": "x"}}})],
    "poddisruptionbudgets": [("what may be away", {"spec": {"maxUnavailable": 2}})],
    "networkpolicies": [("who may come in", {"spec": {"ingress": []}})],
}  # fmt: skip
#: Edits that are nobody's business: they must cause no write at all.
HARMLESS: list[tuple[str, Json]] = [
    ("an annotation", {"metadata": {"annotations": {"example.com/note": "{number}"}}}),
    ("a label", {"metadata": {"labels": {"example.com/team": "t{number}"}}}),
]


def child_names(spec: Json, name: str) -> list[tuple[str, str]]:
    """(plural, name) of the children that a spec asks for, worked out by the documented naming scheme alone."""
    found = [("deployments", name), ("services", name), ("services", f"{name}-pods")]
    if spec.get("storage", {}).get("type") == "PersistentVolumeClaim":
        found.append(("persistentvolumeclaims", f"{name}-cache"))
    if spec.get("networkPolicy", {}).get("mode") != "Disabled":
        found.append(("networkpolicies", name))
    if spec.get("replicas", 1) > 1 and not spec.get("suspend"):
        found.append(("poddisruptionbudgets", name))
    return found


def owner_name(plural: str, name: str) -> str:
    """The model that a child of this kind and name belongs to, by the same scheme."""
    suffix = {"services": "-pods", "persistentvolumeclaims": "-cache"}.get(plural, "")
    return name.removesuffix(suffix) if suffix else name
