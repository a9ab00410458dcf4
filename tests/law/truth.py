"""The law of the data classes, told a second time: the oracle. It imports nothing of fairlead and reads nothing that fairlead wrote.

Each function here is a sentence of DESIGN.md, "Law of the data classes" and "Failover" (section 5), and quotes it, so that a
reviewer can lay both side by side. `route` is the spec of an LLMRoute as a plain mapping, as a user writes it; `world` says
what is around it:

    deployments   name -> {confidential, encrypted, tls (its pods serve it), ours (its Service is), servedModel, port, wakes (it goes
                  to zero and comes back for a request)}; a name that is missing does not exist
    secrets       name -> {use, hosts, keys (None: not known)}
    trustedHosts  the operator's list
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from tests.law.addresses import hosts_of, is_forbidden_address, wanted_keys

__all__ = ["CLASSES", "CLASS_RULE", "ENDPOINTS", "Law", "Request", "Ruling", "Target", "attempts", "highest", "rank"]

Json = Mapping[str, Any]

#: "Class of a request = max(…)": from the lowest to the highest.
CLASSES: Final = ("Public", "Internal", "Confidential", "Restricted")

#: "Only these (method, path) pass": "POST chat/completions, completions, embeddings, responses, rerank (and messages …)".
ENDPOINTS: Final = tuple(
    f"/v1/{name}" for name in ("chat/completions", "completions", "embeddings", "responses", "rerank", "messages")
)

#: "`Public`: any backend. `Internal`: local, or providers whose `trusted: true` is on the operator's `trustedHosts`. `Confidential`:
#: local only. `Restricted`: local only and encrypted." "*Local* for `Confidential` and above is a deployment with …" (confidential).
CLASS_RULE: Final[Mapping[str, tuple[bool, bool, bool, bool]]] = {
    #                                    Public Internal Confidential Restricted
    "provider":                         (True,  False,   False,       False),
    "trusted provider":                 (True,  True,    False,       False),
    "local":                            (True,  True,    False,       False),
    "local, encrypted":                 (True,  True,    False,       False),
    "local, confidential":              (True,  True,    True,        False),
    "local, confidential, encrypted":   (True,  True,    True,        True),
}  # fmt: skip

#: "a route without `roles` acts as one role {Local, Cloud} × {Public, Internal}".
IMPLIED_ROLE: Final[Json] = {"name": "", "llmAccess": ["Local", "Cloud"], "dataAccess": ["Public", "Internal"]}


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody sends. `consumer` None: no key is shown; `found`: the detectors that find something in the body."""

    consumer: str | None
    model: str
    declared: str | None = None
    found: tuple[str, ...] = ()
    opaque: bool = False
    method: str = "POST"
    path: str = "/v1/chat/completions"
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """One of a model's targets: where it goes, and what the backend calls the model."""

    backend: str
    model: str
    weight: int
    priority: int
    sleeps: bool = False


@dataclass(frozen=True, slots=True)
class Ruling:
    """The answer. `statuses`: one of them is the answer (empty: it is served); `tried`: the permitted targets that are there;
    `classes`: what the request is, under each of the caller's roles."""

    statuses: frozenset[int]
    permitted: tuple[Target, ...]
    tried: tuple[Target, ...]
    classes: tuple[str, ...]
    permitting: tuple[str, ...]


def rank(data_class: str) -> int:
    """How high a class is."""
    return CLASSES.index(data_class)


def highest(classes: Sequence[str]) -> str:
    """The highest of them."""
    return max(classes, key=rank)


class Law:
    """One route in one world, and what may be done there."""

    def __init__(self, route: Json, world: Json) -> None:
        self.route = route
        self.world = world
        self.policy: Json = route.get("dataPolicy") or {}
        self.default: str = self.policy.get("default", "Internal")
        self.backends = {backend["name"]: backend for backend in route["backends"]}
        self.models = {model["name"]: model for model in route["models"]}
        self.roles: Sequence[Json] = route.get("roles") or ()

    # Who asks -----------------------------------------------------------------------------------------------------------

    def roles_of(self, consumer: str | None) -> list[Json] | None:
        """ "Without a role nothing is allowed but what `anonymous: {role}` names; a route without `roles` acts as one role".
        None: nobody without a key is let in."""
        anonymous = self.route["authentication"].get("anonymous")
        if consumer is None:
            if anonymous is None:
                return None
            return (
                [role for role in self.roles if role["name"] == anonymous.get("role")] if self.roles else [IMPLIED_ROLE]
            )
        return [role for role in self.roles if consumer in role.get("consumers", ())] if self.roles else [IMPLIED_ROLE]

    # Which class ----------------------------------------------------------------------------------------------------------

    def class_under(self, role: Json, request: Request) -> str:
        """ "Class of a request = max(base, floors of route and role, detectors)"."""
        floors = (self.policy.get("floor", "Public"), role.get("floor", "Public"))
        return highest((self.base(role, request.declared), *floors, self.detected(request)))

    def base(self, role: Json, declared: str | None) -> str:
        """ "Base is the class that the caller declares in the header, if its role lists it in `mayDeclare` (a higher one always
        counts), else `dataPolicy.default`." """
        if declared is None:
            return self.default
        if declared in role.get("mayDeclare", ()):
            return declared
        if rank(declared) > rank(self.default):
            return declared
        return self.default

    def detected(self, request: Request) -> str:
        """What detectors say; content that they cannot read counts as `opaqueContent` says (by default Confidential)."""
        classes = [
            detector["class"] for detector in self.policy.get("detectors", ()) if detector["name"] in request.found
        ]
        if request.opaque:
            classes.append(self.policy.get("opaqueContent", "Confidential"))
        return highest(("Public", *classes))

    # Which backend --------------------------------------------------------------------------------------------------------

    @cached_property
    def kinds(self) -> Mapping[str, str]:
        """Backend -> its row of the class rule."""
        return {name: self._kind(backend) for name, backend in self.backends.items()}

    def _kind(self, backend: Json) -> str:
        if "provider" in backend:
            claimed = bool(backend["provider"].get("trusted", False))
            return "trusted provider" if claimed and self.is_listed(backend) else "provider"
        # Nothing is sent to one that is not there. Until it is, it counts as one that may be sent anything, so that its absence is
        # an outage (503) and no refusal.
        absent = {"confidential": True, "encrypted": True}
        found = self.world["deployments"].get(backend["deployment"]["name"], absent)
        words = ["local", *(word for word in ("confidential", "encrypted") if found.get(word, False))]
        return ", ".join(words)

    def is_listed(self, backend: Json) -> bool:
        """Whether the operator's trustedHosts has the provider's host: by name, or as `*.suffix`, which is not the suffix itself."""
        host = hosts_of(backend["provider"]).host
        return any(
            host == entry or (entry.startswith("*.") and host.endswith(entry[1:]) and host != entry[2:])
            for entry in self.world["trustedHosts"]
        )

    def class_permits(self, backend: str, data_class: str) -> bool:
        """The class rule."""
        return CLASS_RULE[self.kinds[backend]][rank(data_class)]

    def role_permits(self, role: Json, backend: str, data_class: str) -> bool:
        """ "Allowed(backend) = class rule AND, for ONE of the caller's roles, llmAccess contains its kind AND dataAccess contains the
        class. Roles are not mixed." So each role is asked by itself, with the class that the request has under it."""
        kind = "Cloud" if "provider" in self.backends[backend] else "Local"
        return (
            kind in role["llmAccess"] and data_class in role["dataAccess"] and self.class_permits(backend, data_class)
        )

    @cached_property
    def there(self) -> frozenset[str]:
        """Backends to which something can be sent at all."""
        return frozenset(name for name, backend in self.backends.items() if not self.why_not_there(backend))

    def why_not_there(self, backend: Json) -> str:
        """ "" if it is there."""
        if "deployment" in backend:
            found = self.world["deployments"].get(backend["deployment"]["name"])
            if found is None:
                return "no such deployment"
            return "" if found["ours"] else "its Service is not ours by uid"  # "whose Service is ours by uid"
        provider = backend["provider"]
        secret = self.world["secrets"].get(provider["secretRef"]["name"])
        if is_forbidden_address(provider) and not self.is_listed(backend):
            return "loopback, link-local, private literals and the API server are refused unless on trustedHosts"
        if provider.get("trusted", False) and not self.is_listed(backend):
            return "trust is claimed for a host that is not on the list"
        if secret is None or secret["use"] != "provider":
            return "a Secret is used for a provider only if it is labelled `fairlead.dev/use: provider`"
        if hosts_of(provider).host not in secret["hosts"]:
            return "and annotated `fairlead.dev/hosts` with the host"
        if provider.get("tls", {}).get("serverName", hosts_of(provider).host) not in secret["hosts"]:
            return "and with the name that its certificate is to have, if that is another one"
        return "" if secret["keys"] is None or wanted_keys(provider) <= set(secret["keys"]) else "its key is missing"

    # What happens ---------------------------------------------------------------------------------------------------------

    def targets(self, model: str) -> list[Target]:
        """A model's targets; one that does not say how the backend calls the model means the deployment's name for it."""
        return [
            Target(
                t["backend"],
                t.get("model") or self._served(t["backend"], model),
                t.get("weight", 1),
                t.get("priority", 0),
                self._sleeps(t["backend"]),
            )
            for t in self.models[model]["targets"]
        ]

    def _sleeps(self, backend: str) -> bool:
        if "provider" in self.backends[backend]:
            return False
        found = self.world["deployments"].get(self.backends[backend]["deployment"]["name"])
        return bool(found and found.get("wakes", False))

    def comes_back(self, model: str, tried: Sequence[Target]) -> bool:
        """Whether who finds nobody awake is to wait for them, having only looked for some: with `overflowAfter` (shorter than patience in
        all cases), and several that sleep behind which nobody else stands."""
        last = max((target.priority for target in tried), default=0)
        sleepers = [target for target in tried if target.priority == last and target.sleeps]
        return "overflowAfter" in self.models[model].get("hold", {}) and len(sleepers) > 1

    def _served(self, backend: str, model: str) -> str:
        if "provider" in self.backends[backend]:
            return model
        found = self.world["deployments"].get(self.backends[backend]["deployment"]["name"])
        return str(found["servedModel"]) if found is not None else model

    def rule(self, request: Request, at_least: str = "Public") -> Ruling:
        """All of it for one request that asks for an answer of a model. `at_least`: what it counts as whatever this route says."""
        if request.method != "POST" or request.path not in ENDPOINTS:
            # "Only these (method, path) pass": "all else 404"; what is no POST may be told 403 or 405 as well.
            return _denied(404) if request.method == "POST" else _denied(403, 404, 405)
        roles = self.roles_of(request.consumer)
        if roles is None:
            return _denied(401)
        if request.model not in self.models:
            return _denied(404)
        classes = tuple(highest((self.class_under(role, request), at_least)) for role in roles)
        targets = self.targets(request.model)
        permits = [
            [self.role_permits(role, target.backend, data_class) for target in targets]
            for role, data_class in zip(roles, classes, strict=True)
        ]
        permitted = tuple(target for n, target in enumerate(targets) if any(row[n] for row in permits))
        permitting = tuple(data_class for data_class, row in zip(classes, permits, strict=True) if any(row))
        if not permitted:
            return Ruling(frozenset({403}), (), (), classes, ())
        tried = tuple(target for target in permitted if target.backend in self.there)
        return Ruling(frozenset() if tried else frozenset({503}), permitted, tried, classes, permitting)

    def lists(self, consumer: str | None, requests: Sequence[Request]) -> set[str]:
        """What GET /v1/models may tell a caller: models of which some request of theirs may reach a backend."""
        return {
            model
            for model in self.models
            for request in requests
            if self.rule(Request(consumer, model, request.declared, request.found)).permitted
        }

    # Whether the route is accepted ----------------------------------------------------------------------------------------

    def is_refused(self, backend: Json) -> bool:
        """Whether the route is not accepted for what this entry says."""
        provider = backend.get("provider")
        if provider is None or self.is_listed(backend):
            return False
        return bool(provider.get("trusted", False)) or is_forbidden_address(provider)

    def is_accepted(self) -> bool:
        """ "`Accepted=False` exactly when a role has a class for which a model has no permitted target (unless `denyClasses` lists it),
        `Restricted` is granted without an encrypted local target, trust is claimed for a host that is not on the list" — and "loopback
        … are refused"."""
        if any(self.is_refused(backend) for backend in self.route["backends"]):
            return False
        return not any(
            data_class not in self.policy.get("denyClasses", ())
            and not any(self.role_permits(role, target.backend, data_class) for target in self.targets(model))
            for role in self.roles or [IMPLIED_ROLE]
            for data_class in role["dataAccess"]
            for model in self.models
        )


def _denied(*statuses: int) -> Ruling:
    return Ruling(frozenset(statuses), (), (), (), ())


def attempts(tried: Sequence[Target], *, comes_back: bool) -> list[tuple[list[tuple[Target, int]], list[Target]]]:
    """ "Failover renders the weighted group first, then each permitted target of that priority …, then the next priority." Per
    priority: who may be asked first, with which share, and who is asked in the course of it, each exactly once, whatever was drawn
    ("every permitted healthy target is tried at least once"; twice would cost a silent one's whole time twice). Weight 0 is "only when
    others fail"; where all have it nobody is drawn, and they come in any order: no shares. `comes_back`: those of the last priority are
    asked in a second round, since the first one only looked whether they sleep."""
    steps: list[tuple[list[tuple[Target, int]], list[Target]]] = []
    for priority in sorted({target.priority for target in tried}):
        members = [target for target in tried if target.priority == priority]
        weighted = [(target, target.weight) for target in members if target.weight > 0]
        steps.append((weighted if len(members) > 1 else [], members))
    return [*steps, *(steps[-1:] if comes_back else [])]
