"""Routes, worlds and requests by chance, from one seed: deterministic, valid, and dealt so that every combination comes soon.

States of backends and defaults of policies are dealt like cards, not thrown like dice; callers of a route have one, two and three
roles, which together allow Local, Cloud or both; each of them asks with every declared and every detected class.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any, Final, Generic, NamedTuple, TypeVar

from tests.law.addresses import BAD_HOSTS, hosts_of
from tests.law.truth import CLASSES, ENDPOINTS, Request

__all__ = ["CALLERS", "IMPLIED", "NOBODY", "STATES", "Case", "State", "Who", "deal", "make_requests"]

Json = Mapping[str, Any]
T = TypeVar("T")


class State(NamedTuple):
    """Of one backend: `trust` (providers: claimed, listed, both, neither) or what a deployment is; and what is wrong with it."""

    kind: str
    trust: str
    confidential: bool
    encrypted: bool
    failure: str


class Who(NamedTuple):
    """A caller: how many roles (0: none of the route's; -1: the route has no roles), and what they allow together."""

    roles: int
    access: str


STATES: Final = (
    *(
        State("local", "", confidential, encrypted, failure)
        for confidential, encrypted, failure in product(
            (True, False), (True, False), ("", "not ready", "Service not ours")
        )
    ),
    State("local", "", False, False, "no such deployment"),
    *(
        State("cloud", trust, False, False, failure)
        for trust, failure in product(
            ("neither", "listed", "claimed", "both"),
            ("", "no secret", "no label", "no consent", "other host", "no key"),
        )
    ),
    *(State("cloud", trust, False, False, "forbidden address") for trust in ("neither", "claimed")),
)
#: What serves, or would if it were not for its address: most routes are made of these.
_GOOD: Final = tuple(state for state in STATES if state.failure in ("", "not ready", "forbidden address"))
CALLERS: Final = tuple(Who(count, access) for count, access in product((1, 2, 3), ("Local", "Cloud", "Local Cloud")))
NOBODY: Final = Who(0, "")
IMPLIED: Final = Who(-1, "Local Cloud")


@dataclass(frozen=True, slots=True)
class Case:
    """A route in a world, who may ask (None: without a key), and the state of each backend."""

    route: Json
    world: Json
    callers: Mapping[str | None, Who]
    states: Mapping[str, State]


class _Deck(Generic[T]):
    """Deals each card once before any comes again."""

    def __init__(self, dice: random.Random, cards: Sequence[T]) -> None:
        self._dice, self._cards = dice, tuple(cards)
        self._left: list[T] = []

    def draw(self) -> T:
        if not self._left:
            self._left = list(self._cards)
            self._dice.shuffle(self._left)
        return self._left.pop()


def deal(dice: random.Random, count: int) -> Iterator[Case]:
    """So many cases."""
    kinds = _Deck(dice, [(default, has_roles) for default in CLASSES for has_roles in (True, True, False)])
    decks = {(default, has_roles): _Deck(dice, STATES) for default in CLASSES for has_roles in (True, False)}
    for _ in range(count):
        kind = kinds.draw()
        yield _make_case(dice, *kind, decks[kind])


def _make_case(dice: random.Random, default: str, has_roles: bool, states: _Deck[State]) -> Case:
    world: dict[str, Any] = {
        "deployments": {},
        "secrets": {},
        "trustedHosts": ["*", "example.org", "*.unused.example"],
    }
    cards = [*(states.draw() for _ in range(dice.randint(4, 7))), *dice.choices(_GOOD, k=dice.randint(2, 4))]
    dice.shuffle(cards)
    drawn = {f"b{number}": state for number, state in enumerate(cards)}
    backends = [_make_backend(dice, name, state, world) for name, state in drawn.items()]
    names = list(drawn)
    models = [_make_model(dice, "chat", names, drawn)]
    models += [
        _make_model(dice, f"m{n}", dice.sample(names, dice.randint(1, 3)), drawn) for n in range(dice.randint(0, 3))
    ]
    route: dict[str, Any] = {
        "backends": backends,
        "models": models,
        "dataPolicy": _make_policy(dice, default, has_roles),
    }
    if default == "Internal" and dice.random() < 0.3:
        del route["dataPolicy"]["default"]
    if has_roles:
        route["roles"], callers = _make_roles(dice)
        anonymous = dice.choice([None, *[role["name"] for role in route["roles"]]])
        route["authentication"] = {"apiKeys": {"secretRef": {"name": "clients"}}}
        if anonymous is not None:
            route["authentication"]["anonymous"] = {"role": anonymous}
            access = next(role["llmAccess"] for role in route["roles"] if role["name"] == anonymous)
            callers[None] = Who(1, " ".join(sorted(access, reverse=True)))
        return Case(route, world, callers, drawn)
    way = dice.choice(["keys", "anonymous", "both"])
    route["authentication"] = {
        **({"apiKeys": {"secretRef": {"name": "clients"}}} if way != "anonymous" else {}),
        **({"anonymous": {}} if way != "keys" else {}),
    }
    implied: dict[str | None, Who] = {
        **({"someone": IMPLIED} if way != "anonymous" else {}),
        **({None: IMPLIED} if way != "keys" else {}),
    }
    return Case(route, world, implied, drawn)


def _make_backend(dice: random.Random, name: str, state: State, world: dict[str, Any]) -> Json:
    if state.kind == "local":
        if state.failure != "no such deployment":
            world["deployments"][f"llm-{name}"] = {
                "ours": state.failure != "Service not ours",
                "ready": 0 if state.failure == "not ready" else 1,
                "confidential": state.confidential,
                "encrypted": state.encrypted,
                # One that serves TLS and may write requests into its log is not encrypted all the way.
                "tls": state.encrypted or random.Random(f"tls {name} {state}").random() < 0.3,
                "servedModel": dice.choice(["llama", "qwen", f"own-{name}"]),
                "port": dice.choice([8000, 11434]),
                "wakes": random.Random(f"wakes {name} {state}").random() < 0.5,
            }
        slow = {"slowStart": "30s"} if random.Random(f"{name} {state}").random() < 0.3 else {}
        return {"name": name, "deployment": {"name": f"llm-{name}", **slow}}
    provider = _make_provider(dice, name, state)
    host, key = hosts_of(provider).host, provider["secretRef"]["key"]
    if state.trust in ("listed", "both"):
        is_ours = host.endswith(".example.com")  # below which nobody else is
        world["trustedHosts"].append(f"*.{host.partition('.')[2]}" if is_ours and dice.random() < 0.4 else host)
    elif host.endswith(".example.com"):
        world["trustedHosts"].append(host.partition(".")[2])  # the suffix itself stands for nothing below it
    if state.failure != "no secret":
        world["secrets"][f"key-{name}"] = {
            "use": "clients" if state.failure == "no label" else "provider",
            "hosts": {"no consent": [], "other host": [f"not-{host}", host.partition(".")[2]]}.get(
                state.failure, sorted({host, provider.get("tls", {}).get("serverName", host)})
            ),
            "keys": [f"not-{key}"] if state.failure == "no key" else dice.choice([None, [key], [key, "other"]]),
        }
    return {"name": name, "provider": provider}


def _make_provider(dice: random.Random, name: str, state: State) -> dict[str, Any]:
    """Hosts differ from backend to backend, so that a list that names one does not name another."""
    provider: dict[str, Any] = {"secretRef": {"name": f"key-{name}", "key": dice.choice(["apiKey", "token"])}}
    if state.trust in ("claimed", "both"):
        provider["trusted"] = True
    elif dice.random() < 0.5:
        provider["trusted"] = False
    if state.failure == "forbidden address":
        return {**provider, "type": "OpenAICompatible", "baseURL": f"https://{dice.choice(BAD_HOSTS)}/v1"}
    kind = dice.choice(["OpenAICompatible", "OpenAICompatible", "OpenAI", "Anthropic", "AzureOpenAI", "Groq", "Cohere"])
    if kind == "AzureOpenAI":
        return {**provider, "type": kind, "parameters": {"resource": f"res-{name}"}}
    if kind != "OpenAICompatible":
        # Of their own address there is only one: others go through somebody's proxy, so that hosts stay apart.
        own = {"region": "eu"} if kind == "OpenAI" and dice.random() < 0.5 else {}
        return {**provider, "type": kind, **(own if name == "b0" else _own_url(dice, name))}
    if dice.random() < 0.6:
        provider["tls"] = dice.choice(
            [{"caSecretRef": {"name": f"ca-{name}", "key": "ca.crt"}}, {"serverName": f"tls.{name}.example.com"}]
        )
    if state.trust in ("listed", "both") and dice.random() < 0.2:
        return {**provider, "type": kind, "baseURL": f"https://10.9.8.{int(name[1:]) + 1}:8443/v1"}
    return {**provider, "type": kind, **_own_url(dice, name)}


def _own_url(dice: random.Random, name: str) -> dict[str, str]:
    return {
        "baseURL": f"https://api.{name}.example.com{dice.choice(['', ':8443'])}{dice.choice(['', '/v1', '/proxy/llm/v1/'])}"
    }


def _make_model(dice: random.Random, name: str, backends: Sequence[str], states: Mapping[str, State]) -> Json:
    targets: list[dict[str, Any]] = []
    for backend in backends:
        target: dict[str, Any] = {"backend": backend}
        if dice.random() < 0.5:
            target["model"] = dice.choice(["gpt-5.6", "big", f"org/{backend}"])
        if dice.random() < 0.7:
            target["weight"] = dice.choice([0, 1, 10, 90])
        if dice.random() < 0.5:
            target["priority"] = dice.choice([0, 1, 1, 2])
        targets.append(target)
    if len(targets) < 15 and dice.random() < 0.3:
        targets.append({"backend": dice.choice(backends), "model": "another"})
    dice.shuffle(targets)
    if not any(target.get("weight", 1) for target in targets):
        targets[0]["weight"] = 1
    # For the law it is as if none of it were there; only a model with a deployment may say it.
    has_pods = any(states[target["backend"]].kind == "local" for target in targets)
    own = random.Random(f"{name} {targets}")  # so that the other draws are what they were without it
    kinds = [
        {"header": "x-session-id"},
        {"header": "x-user"},
        {"promptPrefix": {}},
        {"promptPrefix": {"characters": 7}},
    ]
    affinity = {"affinity": own.choice(kinds)} if has_pods and own.random() < 0.4 else {}
    holds = [{}, {"overflowAfter": "0s"}, {"patience": "30s", "overflowAfter": "5s", "maxRequests": 3}]
    hold = {"hold": own.choice(holds)} if has_pods and own.random() < 0.5 else {}
    return {"name": name, "targets": targets, **affinity, **hold}


def _make_policy(dice: random.Random, default: str, has_roles: bool) -> dict[str, Any]:
    """There is a detector for each class that can be found, and some more; some of them look for patterns."""
    detectors: list[dict[str, Any]] = [
        {"name": f"d-{data_class.lower()}", "class": data_class, "keywords": [f"word {data_class}"]}
        for data_class in CLASSES
    ]
    detectors += [
        {"name": f"x{n}", "class": dice.choice(CLASSES), "builtin": "Email"} for n in range(dice.randint(0, 2))
    ]
    dice.shuffle(detectors)
    own = random.Random(f"patterns {detectors}")  # so that the other draws are what they were without it
    for detector in detectors:
        if own.random() < 0.3:
            detector.pop("builtin", None)
            detector.pop("keywords", None)
            detector["patterns"] = [rf"\bpat-{detector['name']}-\d+\b", "(?i)nobody[ _]says[ _]it"][: own.randint(1, 2)]
    policy: dict[str, Any] = {
        "default": default,
        "detectors": detectors,
        "denyClasses": dice.choice([list(CLASSES), []]),
    }
    if dice.random() < 0.7:
        policy["opaqueContent"] = dice.choice(CLASSES)
    # Of routes without roles and with Public as default there are just enough to see each state as Public; a floor would hide some.
    if dice.random() < 0.2 and (has_roles or default != "Public"):
        policy["floor"] = dice.choice(CLASSES)
    return policy


def _make_roles(dice: random.Random) -> tuple[list[dict[str, Any]], dict[str | None, Who]]:
    """Roles of each kind of access, and for each number of roles and access together a consumer who has them."""
    accesses = [["Local"]] * 3 + [["Cloud"]] * 3 + [["Local", "Cloud"], ["Cloud", "Local"]]
    roles: list[dict[str, Any]] = [
        {
            "name": f"r{number}",
            "llmAccess": access,
            "dataAccess": dice.sample(CLASSES, dice.choice([1, 2, 3, 4, 4])),
            "mayDeclare": dice.sample(CLASSES, dice.choice([0, 1, 1, 2, 4])),
            "consumers": [],
        }
        for number, access in enumerate(accesses)
    ]
    if dice.random() < 0.25:
        for role in roles:
            if dice.random() < 0.5:
                role["floor"] = dice.choice(CLASSES)
    # How much callers may ask for must not change where anything goes; it is more than any test asks for.
    own = random.Random(repr(roles))
    for role in roles:
        if own.random() < 0.3:
            role["limits"] = {own.choice(["requestsPerMinute", "tokensPerMinute"]): own.choice([500_000, 1_000_000])}
    callers: dict[str | None, Who] = {"stranger": NOBODY}
    for who in CALLERS:
        fitting = [some for some in combinations(roles, who.roles) if _access(some) == set(who.access.split())]
        consumer = f"c{who.roles}-{who.access.replace(' ', '-').lower()}"
        callers[consumer] = who
        for role in dice.choice(fitting):
            role["consumers"].append(consumer)
    dice.shuffle(roles)
    return roles, callers


def _access(roles: Sequence[Json]) -> set[str]:
    return {kind for role in roles for kind in role["llmAccess"]}


def make_requests(dice: random.Random, case: Case, extra: int) -> Iterator[Request]:
    """Every caller with every declared and every detected class; then some at random, among them what nobody should ask for."""
    models = [model["name"] for model in case.route["models"]]
    detectors = case.route["dataPolicy"]["detectors"]
    for consumer, declared, wanted in product(case.callers, (None, *CLASSES), CLASSES):
        found = _find(dice, detectors, wanted)
        yield Request(consumer, models[0], declared, found, path=_endpoint(dice), stream=dice.random() < 0.5)
    for _ in range(extra):
        yield Request(
            dice.choice([*case.callers, *([] if "anonymous" in case.route["authentication"] else [None])]),
            dice.choice([*models, "unknown", "CHAT", ""]) if dice.random() < 0.3 else dice.choice(models),
            dice.choice([None, *CLASSES]),
            _find(dice, detectors, dice.choice(CLASSES)),
            opaque=dice.random() < 0.5,
            method=dice.choice(["GET", "PUT", "DELETE", "PATCH"]) if dice.random() < 0.05 else "POST",
            path=dice.choice(["/v1/files", "/v1/batches", "/v1/chat"]) if dice.random() < 0.05 else _endpoint(dice),
            stream=dice.random() < 0.5,
        )


def _endpoint(dice: random.Random) -> str:
    return ENDPOINTS[0] if dice.random() < 0.7 else dice.choice(ENDPOINTS)


def _find(dice: random.Random, detectors: Sequence[Json], highest: str) -> tuple[str, ...]:
    """Detectors of which the highest has this class; for the lowest class sometimes none at all."""
    up_to = CLASSES.index(highest)
    lower = [d["name"] for d in detectors if CLASSES.index(d["class"]) <= up_to and dice.random() < 0.4]
    exact = [d["name"] for d in detectors if d["class"] == highest]
    if up_to == 0 and dice.random() < 0.5:
        return ()
    return tuple(sorted({*lower, dice.choice(exact)}))
