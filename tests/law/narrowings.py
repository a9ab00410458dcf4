"""One small route, and every way to take something away from it (DESIGN.md, law 5: "target, trust, role, key or encryption withdrawn;
detector or floor added"): what must be gone with the first step of a publication."""

# ruff: noqa: ARG005 - what is done to a spec and its world may leave one of both alone

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

__all__ = ["BESIDE", "NARROWINGS", "make_base"]

Json = dict[str, Any]
Change = Callable[[Json, Json], object]


def provider(name: str, host: str, **fields: Any) -> Json:
    """A backend somewhere else."""
    secret = {"name": f"key-{name}", "key": "apiKey"}
    return {
        "name": name,
        "provider": {"type": "OpenAICompatible", "baseURL": f"https://{host}/v1", "secretRef": secret, **fields},
    }


def deployment(*, confidential: bool, encrypted: bool = False) -> Json:
    """One that serves."""
    return {
        "ours": True,
        "ready": 1,
        "confidential": confidential,
        "encrypted": encrypted,
        "tls": encrypted,
        "servedModel": "llama",
        "port": 8000,
    }


def make_base() -> tuple[Json, Json]:
    """A spec and a world in which everything may be used that could be."""
    backends = [
        {"name": "plain", "deployment": {"name": "plain"}},
        {"name": "safe", "deployment": {"name": "safe"}},
        provider("friend", "llm.friend.example", trusted=True),
        provider("far", "llm.far.example"),
    ]
    targets = [{"backend": backend["name"], "priority": number} for number, backend in enumerate(backends)]
    roles = [
        {"name": "developer", "consumers": ["ann", "bob"], "llmAccess": ["Local", "Cloud"], "dataAccess": ["Public", "Internal"],
         "mayDeclare": ["Public"]},
        {"name": "analyst", "consumers": ["bob"], "llmAccess": ["Local"],
         "dataAccess": ["Public", "Internal", "Confidential", "Restricted"]},
        {"name": "guest", "llmAccess": ["Local", "Cloud"], "dataAccess": ["Internal"]},
    ]  # fmt: skip
    route: Json = {
        "backends": backends,
        "models": [{"name": "chat", "targets": targets}, {"name": "other", "targets": targets[:1]}],
        "authentication": {"apiKeys": {"secretRef": {"name": "clients"}}, "anonymous": {"role": "guest"}},
        "roles": roles,
        "dataPolicy": {
            "denyClasses": ["Public", "Internal", "Confidential", "Restricted"],
            "opaqueContent": "Internal",
            "detectors": [
                {"name": "low", "class": "Internal", "keywords": ["low"]},
                {"name": "high", "class": "Confidential", "keywords": ["high"]},
                {"name": "seen", "class": "Internal", "patterns": ["seen", "[a-z]+-seen"]},
            ],
        },
    }
    world: Json = {
        "deployments": {"plain": deployment(confidential=False), "safe": deployment(confidential=True, encrypted=True)},
        "secrets": {
            f"key-{name}": {"use": "provider", "hosts": [f"llm.{name}.example"], "keys": ["apiKey"]}
            for name in ("friend", "far")
        },
        "trustedHosts": ["llm.friend.example"],
    }
    return route, world


def _role(route: Json, number: int, **fields: Any) -> None:
    route["roles"][number].update(fields)


def _backend(route: Json, number: int, **fields: Any) -> None:
    route["backends"][number] = {"name": route["backends"][number]["name"], **fields}


def _repoint_provider(route: Json, world: Json) -> None:
    """The same name, somewhere else; the Secret agrees."""
    route["backends"][3] = provider("far", "llm.further.example")
    world["secrets"]["key-far"]["hosts"] = ["llm.further.example"]


def add_something(route: Json, world: Json) -> None:
    """What makes a publication take several steps: a deployment that was not there."""
    world["deployments"]["more"] = deployment(confidential=True)
    route["backends"].append({"name": "more", "deployment": {"name": "more"}})
    for model in route["models"]:
        model["targets"] = [*model["targets"], {"backend": "more", "priority": 9}]


def add_something_wrong(route: Json, world: Json) -> None:
    """What refuses the route: a claim of trust that the operator's list does not have."""
    route["backends"].append(provider("wrong", "wrong.example.com", trusted=True))


#: What is done at the same time.
BESIDE: Final[dict[str, Change]] = {
    "alone": lambda r, w: None,
    "beside something added": add_something,
    "beside something refused": add_something_wrong,
}
#: What is done to spec and world.
NARROWINGS: Final[dict[str, Change]] = {
    "a target": lambda r, w: r["models"][0]["targets"].pop(),
    "a target of the highest class": lambda r, w: r["models"][0]["targets"].pop(1),
    "a model": lambda r, w: r["models"].pop(),
    "a claim of trust": lambda r, w: r["backends"][2]["provider"].pop("trusted"),
    "a Secret": lambda r, w: w["secrets"].pop("key-far"),
    "the label of a Secret": lambda r, w: w["secrets"]["key-far"].update(use=""),
    "the consent of a Secret": lambda r, w: w["secrets"]["key-far"].update(hosts=[]),
    "the key of a Secret": lambda r, w: w["secrets"]["key-far"].update(keys=["other"]),
    "the Service of a deployment": lambda r, w: w["deployments"]["plain"].update(ours=False),
    "a deployment": lambda r, w: w["deployments"].pop("plain"),
    "that a deployment is confidential": lambda r, w: w["deployments"]["safe"].update(confidential=False),
    "that a deployment is encrypted": lambda r, w: w["deployments"]["safe"].update(encrypted=False),
    "a role's access to the cloud": lambda r, w: _role(r, 0, llmAccess=["Local"]),
    "a role's access to a class": lambda r, w: _role(r, 1, dataAccess=["Public", "Internal"]),
    "a class that may be declared": lambda r, w: _role(r, 0, mayDeclare=[]),
    "a consumer's role": lambda r, w: _role(r, 0, consumers=["ann"]),
    "all of a consumer's roles": lambda r, w: _role(r, 0, consumers=["bob"]),
    "anonymous callers": lambda r, w: r["authentication"].pop("anonymous"),
    "the role of anonymous callers": lambda r, w: r["authentication"].update(anonymous={"role": "analyst"}),
    "a lower default": lambda r, w: r["dataPolicy"].update(default="Confidential"),
    "a floor of the route": lambda r, w: r["dataPolicy"].update(floor="Confidential"),
    "a higher default behind a floor": lambda r, w: r["dataPolicy"].update(default="Public", floor="Confidential"),
    "a floor of a role": lambda r, w: _role(r, 0, floor="Internal"),
    "a floor above all that a role has": lambda r, w: _role(r, 2, floor="Restricted"),
    "a detector that was not there": lambda r, w: r["dataPolicy"]["detectors"].append(
        {"name": "new", "class": "Restricted", "keywords": ["new"]}
    ),
    "a pattern that was not there": lambda r, w: r["dataPolicy"]["detectors"].append(
        {"name": "new", "class": "Restricted", "patterns": ["new"]}
    ),
    "a pattern's lower class": lambda r, w: r["dataPolicy"]["detectors"][2].update({"class": "Confidential"}),
    "a keyword's lower class, as a pattern": lambda r, w: r["dataPolicy"]["detectors"].__setitem__(
        0, {"name": "low", "class": "Restricted", "patterns": ["low"]}
    ),
    "a detector's lower class": lambda r, w: r["dataPolicy"]["detectors"][0].update({"class": "Confidential"}),
    "a lower class of opaque content": lambda r, w: r["dataPolicy"].update(opaqueContent="Restricted"),
    "a deployment that becomes a provider": lambda r, w: _backend(r, 0, provider=r["backends"][3]["provider"]),
    "a provider that becomes a deployment": lambda r, w: _backend(r, 3, deployment={"name": "plain"}),
    "a provider that becomes another one": _repoint_provider,
    "a deployment that becomes another one": lambda r, w: _backend(r, 0, deployment={"name": "safe"}),
}
