"""What the children of a set of models must be, judged without the operator: `fairlead render` in a process of its own says what each
should hold, the documented naming scheme says which there are, and a comparison written here says whether they are so."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml
from tests.soak.admin import CHILDREN
from tests.soak.fleet import Fate, Model, child_names

from fairlead_cluster.operators import python_environment

Json = dict[str, Any]
ChildKey = tuple[str, str, str]  # namespace, plural, name
_PLURALS = {kind.kind: kind.plural for kind in CHILDREN}


class Oracle:
    """Renders each spec once."""

    def __init__(self) -> None:
        self._known: dict[str, dict[ChildKey, Json]] = {}

    def expect(self, models: Iterable[Model]) -> dict[ChildKey, Json]:
        """Every child that must be there, except those whose name a stranger has, with what its body must hold.

        A model that cannot be planned keeps what it has, whatever that was when its spec became wrong: nothing is said of it.
        """
        models = [model for model in models if model.is_good]
        unknown = [model for model in models if _cache_key(model) not in self._known]
        if unknown:
            self._render(unknown)
        expected = {}
        for model in models:
            children = self._known[_cache_key(model)]
            names = {(plural, name) for _, plural, name in children}
            assert model.last_good is not None
            assert names == set(child_names(model.last_good, model.name)), f"naming scheme and render disagree: {names}"
            expected.update({key: body for key, body in children.items() if key[1:] not in model.taken})
        return expected

    def _render(self, models: list[Model]) -> None:
        documents = [
            {
                "apiVersion": "fairlead.dev/v1alpha1",
                "kind": "LLMDeployment",
                "metadata": {"name": model.name, "namespace": model.namespace},
                "spec": model.last_good,
            }
            for model in models
        ]
        done = subprocess.run(
            [sys.executable, "-m", "fairlead", "render", "-f", "-"],
            input=yaml.dump_all(documents, Dumper=yaml.CSafeDumper),
            capture_output=True,
            text=True,
            check=False,
            env=python_environment(),
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        for model in models:
            self._known[_cache_key(model)] = {}
        by_name = {(model.namespace, model.name): _cache_key(model) for model in models}
        for body in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader):
            metadata = body["metadata"]
            owner = (metadata["namespace"], metadata["labels"]["fairlead.dev/llmdeployment"])
            key = (metadata["namespace"], _PLURALS[body["kind"]], metadata["name"])
            self._known[by_name[owner]][key] = body


def _cache_key(model: Model) -> str:
    return f"{model.namespace}/{model.name} {json.dumps(model.last_good, sort_keys=True)}"


def find_gaps(wish: Any, live: Any, path: str = "") -> Iterator[str]:
    """Where `live` does not hold what `wish` says. What it holds beside that is somebody else's; what is left out is its zero."""
    if isinstance(wish, Mapping):
        if not isinstance(live, Mapping):
            yield f"{path}: {live!r} is no map"
            return
        for key, value in wish.items():
            if key not in live and value not in (None, False, 0, "", [], {}):
                yield f"{path}.{key} is missing"
            elif key in live:
                yield from find_gaps(value, live[key], f"{path}.{key}")
    elif isinstance(wish, list):
        if not isinstance(live, list) or len(wish) != len(live):
            yield f"{path}: {live!r} has not the entries of {wish!r}"
            return
        for number, (wanted, found) in enumerate(zip(_ordered(wish), _ordered(live), strict=True)):
            yield from find_gaps(wanted, found, f"{path}[{number}]")
    elif str(wish) != str(live):
        yield f"{path} is {live!r}, not {wish!r}"


def _ordered(items: list[Any]) -> list[Any]:
    named = all(isinstance(item, Mapping) and "name" in item for item in items)
    return sorted(items, key=lambda item: str(item["name"])) if named else items


def judge_child(wish: Json, live: Json, owner_uid: str) -> list[str]:
    """What is wrong with a child: labels, spec, and whose it is."""
    gaps = list(find_gaps(wish["spec"], live.get("spec"), "spec"))
    gaps += find_gaps(wish["metadata"]["labels"], live["metadata"].get("labels") or {}, "labels")
    owners = [one["uid"] for one in live["metadata"].get("ownerReferences") or () if one.get("controller")]
    if owners != [owner_uid]:
        gaps.append(f"owned by {owners}, not by {owner_uid}")
    return gaps


def judge_status(model: Model, live: Json) -> str:
    """Why the status of a custom resource is not what it must be; empty when it is. By kstatus' rules, written anew."""
    status = live.get("status") or {}
    if status.get("observedGeneration") != live["metadata"]["generation"]:
        return f"generation {live['metadata']['generation']} is not observed ({status.get('observedGeneration')})"
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    stale = [kind for kind, one in conditions.items() if one["observedGeneration"] != status["observedGeneration"]]
    if stale:
        return f"conditions of another generation: {stale}"
    states = {kind: one["status"] for kind, one in conditions.items()}
    found = (states.get("Ready"), states.get("Reconciling"), states.get("Stalled"))
    reason = conditions.get("Ready", {}).get("reason")
    wanted, reasons = _expect_status(model)
    if found != wanted or (reasons and reason not in reasons):
        return f"Ready, Reconciling, Stalled are {found} with {reason}, not {wanted} with {' or '.join(reasons) or 'any reason'}"
    return ""


def _expect_status(model: Model) -> tuple[tuple[str, str, str], tuple[str, ...]]:
    stalled = ("False", "False", "True")
    if not model.is_good:
        return stalled, ("EngineNotFound",)
    in_the_way = model.taken & set(child_names(model.spec, model.name))
    if model.spec.get("suspend"):
        return stalled if in_the_way else ("False", "False", "False"), ("Suspended",)
    if in_the_way:
        return stalled, ("NameConflict",)
    if model.fate is Fate.READY:
        return ("True", "False", "False"), ()
    if model.fate is Fate.PENDING:
        return ("False", "True", "False"), ()
    return stalled, ("CrashLoop",) if model.fate is Fate.CRASHES else ("ImagePullFailed",)
