"""The route table: what a gateway must know to route, free of Envoy's words. explain, status and /v1/models read it, too.

Everything that a request decides at run time is here as a look-up: caller -> profile, profile and classes -> verdict, model and
verdict -> chain. Who may do what was decided by `policy/` when the table was made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Final

from fairlead.api.quantity import parse_duration_s
from fairlead.api.route import (
    AffinitySpec,
    DataClass,
    DataPolicySpec,
    GatewaySpec,
    HoldSpec,
    LimitsSpec,
    LLMAccess,
    LLMRouteSpec,
    RouteModelSpec,
    RouteTimeoutsSpec,
    TargetSpec,
)
from fairlead.gateway.hold import Hold
from fairlead.policy.law import CLASSES, IMPLIED_ROLE, Backend, Caller, Role, Verdict, judge, permits_class

__all__ = [
    "DECLARED_NOTHING",
    "GATEWAY",
    "Affinity",
    "Attempt",
    "Chain",
    "Credential",
    "Gap",
    "Limits",
    "Profile",
    "RouteTable",
    "Timeouts",
    "Upstream",
    "Weighted",
    "caller_of",
    "find_gaps",
    "make_table",
]

#: What stands for a request without the class header in the keys of verdicts.
DECLARED_NOTHING: Final = "-"
#: Backend of the attempt with which a sidecar passes a request on to the gateway. No entry of spec.backends can be called so.
GATEWAY: Final = "~gateway"


@dataclass(frozen=True, slots=True)
class Credential:
    """Which header opens a provider, and the key of its Secret that holds the value."""

    header: str
    prefix: str
    secret: str
    key: str


@dataclass(frozen=True, slots=True)
class Upstream:
    """How a backend is reached. `paths`: gateway path -> the backend's own, only endpoints that it serves; `classes`: what the class
    rule lets go there, whoever asks; `is_tls`: its certificate must name `server_name` and be signed by `authorities` (a Secret
    and its key; None: by whom the gateway's image trusts); `failing_statuses`: those that mean "not here" beside the usual ones;
    `slow_start_s`: how long a new pod takes until it gets its whole share (0: gets it at once); `can_wake`: a deployment that
    goes to zero replicas, and comes back for a request; `keeping_paths`: gateway paths of the endpoints that keep what they are not
    told to forget."""

    name: str
    access: LLMAccess
    host: str
    port: int
    paths: Mapping[str, str]
    classes: tuple[DataClass, ...]
    authority: str = ""  # what the Host header says, if not the host
    is_tls: bool = False
    server_name: str = ""
    authorities: tuple[str, str] | None = None
    credentials: tuple[Credential, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    has_stream_usage: bool = True
    failing_statuses: tuple[int, ...] = ()
    slow_start_s: float = field(default=0, repr=False)
    can_wake: bool = field(default=False, repr=False)
    keeping_paths: tuple[str, ...] = field(default=(), repr=False)

    @property
    def place(self) -> str:
        """Eight hexadecimal digits over all of it but how it is brought in: a backend that is reached otherwise is another one,
        whatever its name is."""
        return blake2b(repr(self).encode(), digest_size=4).hexdigest()

    @property
    def places(self) -> frozenset[str]:
        """What `place` is, and what it would be if the law let more or less go there: all reach the same."""
        return frozenset(replace(self, classes=CLASSES[:count]).place for count in range(len(CLASSES) + 1))


@dataclass(frozen=True, slots=True, order=True)
class Attempt:
    """One place to try: a backend, what it calls the model, and where that is (`Upstream.place`). `hold`: it may wait there."""

    backend: str
    model: str
    place: str
    access: LLMAccess
    hold: Hold | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Weighted:
    """One of several places for the same attempt, and its share."""

    attempt: Attempt
    weight: int


_Group = tuple[Weighted, ...]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `attempt_s`: of one try without stream; None: as long as all of them may take."""

    response_headers_s: float
    idle_s: float
    request_s: float
    attempt_s: float | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Affinity:
    """Requests with the same value of this header, or whose prompts have these first characters in common, go to the same pod of a
    deployment. One of the two is None."""

    header: str | None
    prefix_characters: int | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """What is tried for a request, in this order. `groups[i]` serves attempt i + 1; empty: permitted, but nobody is there. One draw
    per request decides in all groups, so that in groups with the same weights it falls on the members in the same place.

    `id` says everything that it depends on, so that it means the same in every generation; chains that differ by their class only
    have one `route`.
    """

    model: str
    data_class: DataClass
    groups: tuple[tuple[Weighted, ...], ...]
    timeouts: Timeouts

    @property
    def route(self) -> str:
        """Sixteen hexadecimal digits over all of it but the class."""
        attempt_s = self.timeouts.attempt_s
        holds = [weighted.attempt.hold for group in self.groups for weighted in group]
        shape = (self.model, self.groups, self.timeouts, *(() if attempt_s is None else (attempt_s,)))
        shape += (holds,) if any(holds) else ()
        return blake2b(repr(shape).encode(), digest_size=8).hexdigest()

    @property
    def id(self) -> str:
        """The route, a dot, and the class."""
        return f"{self.route}.{self.data_class.value}"

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Each place once, in the order in which it is tried first, however one waits there."""
        return tuple(dict.fromkeys(replace(one.attempt, hold=None) for group in self.groups for one in group))

    @property
    def held(self) -> tuple[Attempt, ...]:
        """The attempts that may wait, or stand beside such."""
        found = (weighted.attempt for group in self.groups for weighted in group)
        return tuple(dict.fromkeys(attempt for attempt in found if attempt.hold is not None))

    @property
    def waits_s(self) -> tuple[float, ...]:
        """For each group the longest that a request waits in it for a pod to wake, seconds."""
        holds = ([weighted.attempt.hold for weighted in group] for group in self.groups)
        return tuple(max((hold.longest_s for hold in group if hold is not None), default=0.0) for group in holds)


@dataclass(frozen=True, slots=True)
class Limits:
    """What each consumer may ask for per minute, at all gateways together. None: as much as it likes."""

    requests: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """Callers for whom everything is alike. `verdicts`: (declared class or None, detected class) -> verdict."""

    id: str
    roles: tuple[str, ...]
    verdicts: Mapping[tuple[DataClass | None, DataClass], Verdict]
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class RouteTable:
    """One route. `chains`: (model, verdict) -> chain, only where something is permitted."""

    name: str
    namespace: str
    models: tuple[str, ...]
    policy: DataPolicySpec
    profiles: tuple[Profile, ...]
    consumers: Mapping[str, str]  # consumer -> profile id
    known: str  # profile of a consumer that no role names
    anonymous: str | None
    has_keys: bool
    chains: Mapping[tuple[str, Verdict], Chain]
    targets: Mapping[str, frozenset[str]]  # model -> backends that the spec names for it, whether or not they are there
    upstreams: tuple[Upstream, ...]
    affinities: Mapping[str, Affinity] = field(default_factory=dict)  # by model
    gateways: int = 1  # among which limits are divided
    gateway: Upstream | None = None  # of a sidecar: to whom it passes on what it may not send itself

    def share(self, limit: int) -> int:
        """What one gateway gives of it, rounded up."""
        return -(-limit // self.gateways)

    def profile_of(self, consumer: str | None) -> Profile | None:
        """The profile of a consumer; of a caller without a key for None. None: such a caller is not let in."""
        wanted = self.anonymous if consumer is None else self.consumers.get(consumer, self.known)
        return next((profile for profile in self.profiles if profile.id == wanted), None)

    def verdicts(self) -> tuple[Verdict, ...]:
        """All different ones, in a stable order."""
        found = {verdict for profile in self.profiles for verdict in profile.verdicts.values()}
        return tuple(sorted(found, key=_order))

    def find_chain(
        self, consumer: str | None, model: str, declared: DataClass | None, detected: DataClass
    ) -> Chain | None:
        """What would be tried for a request. None: nothing is permitted, or there is no such caller or model."""
        profile = self.profile_of(consumer)
        if profile is None:
            return None
        return self.chains.get((model, profile.verdicts[declared, detected]))


@dataclass(frozen=True, slots=True)
class Gap:
    """A role may send a class for which a model has no permitted target. `role` is "" for the implied one."""

    role: str
    data_class: DataClass
    model: str


@dataclass(frozen=True, slots=True)
class _Callers:
    roles: tuple[Role, ...]
    consumers: Mapping[str, tuple[Role, ...]] = field(default_factory=dict)
    known: tuple[Role, ...] = ()
    anonymous: tuple[Role, ...] | None = None
    floor: DataClass = DataClass.PUBLIC


def make_table(
    name: str,
    namespace: str,
    spec: LLMRouteSpec,
    backends: Sequence[Backend],
    upstreams: Mapping[str, Upstream],
    served_models: Mapping[str, str],
    gateways: int | None = None,
) -> RouteTable:
    """`backends` are all of the spec, as the law sees them; `upstreams` those that can be reached now; `served_models`: what a
    backend calls the model if a target does not say; `gateways`: among how many limits are divided (None: the spec's replicas)."""
    policy = spec.data_policy or DataPolicySpec()
    callers = _read_callers(spec)
    profiles: dict[tuple[Role, ...], Profile] = {}

    def profile_id(roles: tuple[Role, ...]) -> str:
        if roles not in profiles:
            made = _make_profile(f"p{len(profiles)}", Caller(roles, callers.floor), backends, policy.default)
            profiles[roles] = replace(made, limits=_read_limits(spec, made.roles))
        return profiles[roles].id

    known = profile_id(callers.known)
    anonymous = profile_id(callers.anonymous) if callers.anonymous is not None else None
    consumers = {consumer: profile_id(roles) for consumer, roles in sorted(callers.consumers.items())}
    verdicts = {verdict for profile in profiles.values() for verdict in profile.verdicts.values()}
    chains = {
        (model.name, verdict): _make_chain(model, verdict, upstreams, served_models)
        for model in spec.models
        for verdict in verdicts
        if any(target.backend in verdict.permitted for target in model.targets)
    }
    return RouteTable(
        name=name,
        namespace=namespace,
        models=tuple(model.name for model in spec.models),
        policy=policy,
        profiles=tuple(profiles.values()),
        consumers=consumers,
        known=known,
        anonymous=anonymous,
        has_keys=spec.authentication.api_keys is not None or spec.authentication.jwt is not None,
        chains=chains,
        targets={model.name: frozenset(target.backend for target in model.targets) for model in spec.models},
        upstreams=tuple(upstreams[backend.name] for backend in backends if backend.name in upstreams),
        affinities={model.name: _make_affinity(model.affinity) for model in spec.models if model.affinity is not None},
        gateways=gateways if gateways is not None else (spec.gateway or GatewaySpec()).replicas,
    )


def find_gaps(spec: LLMRouteSpec, backends: Iterable[Backend]) -> tuple[Gap, ...]:
    """What the route grants and cannot serve, whether or not the backends are there at the moment."""
    denied = set((spec.data_policy or DataPolicySpec()).deny_classes)
    by_name = {backend.name: backend for backend in backends}
    return tuple(
        Gap(role.name, data_class, model.name)
        for role in _read_callers(spec).roles
        for data_class in CLASSES
        if data_class in role.data_access and data_class not in denied
        for model in spec.models
        if not any(
            by_name[target.backend].access in role.llm_access and permits_class(by_name[target.backend], data_class)
            for target in model.targets
        )
    )


def caller_of(spec: LLMRouteSpec, consumer: str | None) -> Caller | None:
    """The roles with which the profile of a consumer was made; of a caller without a key for None. None: such a one is not let in."""
    callers = _read_callers(spec)
    roles = callers.anonymous if consumer is None else callers.consumers.get(consumer, callers.known)
    return None if roles is None else Caller(roles, callers.floor)


def _order(verdict: Verdict) -> tuple[int, list[tuple[int, list[str]]]]:
    grants = [(CLASSES.index(data_class), sorted(backends)) for data_class, backends in verdict.grants]
    return CLASSES.index(verdict.data_class), grants


def _read_callers(spec: LLMRouteSpec) -> _Callers:
    anonymous = spec.authentication.anonymous
    floor = (spec.data_policy or DataPolicySpec()).floor or CLASSES[0]
    if not spec.roles:
        implied = (IMPLIED_ROLE,)
        return _Callers(implied, known=implied, anonymous=implied if anonymous is not None else None, floor=floor)
    roles = tuple(
        Role(
            name=role.name,
            llm_access=frozenset(role.llm_access),
            data_access=frozenset(role.data_access),
            may_declare=frozenset(role.may_declare),
            floor=role.floor or CLASSES[0],
        )
        for role in spec.roles
    )
    consumers: dict[str, tuple[Role, ...]] = {}
    for role, said in zip(roles, spec.roles, strict=True):
        for consumer in said.consumers:
            consumers[consumer] = (*consumers.get(consumer, ()), role)
    unnamed = None
    if anonymous is not None:
        unnamed = tuple(role for role in roles if role.name == anonymous.role)
    return _Callers(roles=roles, consumers=consumers, known=(), anonymous=unnamed, floor=floor)


def _read_limits(spec: LLMRouteSpec, roles: Sequence[str]) -> Limits:
    """Of callers with these roles: a role's number, else that of the route; of several roles the highest."""
    usual = spec.limits or LimitsSpec()
    own = [role.limits or LimitsSpec() for role in spec.roles if role.name in roles] or [usual]

    def highest(said: Iterable[int | None], otherwise: int | None) -> int | None:
        numbers = [number if number is not None else otherwise for number in said]
        return None if None in numbers else max(number for number in numbers if number is not None)

    return Limits(
        requests=highest((one.requests_per_minute for one in own), usual.requests_per_minute),
        tokens=highest((one.tokens_per_minute for one in own), usual.tokens_per_minute),
    )


def _make_profile(profile_id: str, caller: Caller, backends: Sequence[Backend], default: DataClass) -> Profile:
    return Profile(
        id=profile_id,
        roles=tuple(role.name for role in caller.roles),
        verdicts={
            (declared, detected): judge(caller, backends, default, declared, detected)
            for declared in (None, *CLASSES)
            for detected in CLASSES
        },
    )


def _make_affinity(affinity: AffinitySpec) -> Affinity:
    prefix = affinity.prompt_prefix
    return Affinity(affinity.header, prefix.characters if prefix is not None else None)


def _make_chain(
    model: RouteModelSpec, verdict: Verdict, upstreams: Mapping[str, Upstream], served_models: Mapping[str, str]
) -> Chain:
    permitted = [
        target for target in model.targets if target.backend in verdict.permitted and target.backend in upstreams
    ]
    stages = [
        _make_groups([one for one in permitted if one.priority == priority], model, upstreams, served_models)
        for priority in sorted({target.priority for target in permitted})
    ]
    timeouts = _read_timeouts(model.timeouts or RouteTimeoutsSpec())
    waking = frozenset(target.backend for target in permitted if upstreams[target.backend].can_wake)
    if model.hold is not None and waking:
        stages = _hold(stages, model.name, model.hold, timeouts, waking)
    return Chain(
        model=model.name,
        data_class=verdict.class_for({target.backend for target in model.targets}),
        groups=tuple(group for stage in stages for group in stage),
        timeouts=timeouts,
    )


def _hold(
    stages: Sequence[list[_Group]], model: str, spec: HoldSpec, timeouts: Timeouts, waking: frozenset[str]
) -> list[list[_Group]]:
    """How long each attempt waits; `stages`: the groups of each priority. Whoever has another one after it waits for `overflowAfter`, and
    the last one as long as patience. Of several of one priority that sleep a request waits for the first in its order, which is the one
    into whose share it falls, and only looks for the others; when nobody is awake at all, it waits for that one until patience ends
    before it waits for another."""
    patience_s = parse_duration_s(spec.patience)
    overflow_s = (
        min(parse_duration_s(spec.overflow_after), patience_s) if spec.overflow_after is not None else patience_s
    )

    def hold(weighted: Weighted, wait_s: float) -> Weighted:
        wait = wait_s if weighted.attempt.backend in waking else None
        made = Hold(model, wait, spec.max_requests, timeouts.response_headers_s, timeouts.attempt_s)
        return replace(weighted, attempt=replace(weighted.attempt, hold=made))

    def plan(order: Sequence[Weighted], *, is_last: bool) -> list[tuple[Weighted, float]]:
        sleepers = [one for one in order if one.attempt.backend in waking]
        if len(sleepers) < 2 or overflow_s == patience_s:
            return [(one, patience_s if is_last and one is order[-1] else overflow_s) for one in order]
        planned = [(one, overflow_s if one is sleepers[0] else 0.0) for one in order]
        # Where nobody else is left: once more from the beginning, waiting for each.
        return [*planned, *((one, patience_s) for one in order)] if is_last else planned

    held = []
    for stage in stages:
        orders = [plan(order, is_last=stage is stages[-1]) for order in zip(*stage, strict=True)]
        held.append([tuple(hold(*one) for one in group) for group in zip(*orders, strict=True)])
    return held


def _make_groups(
    targets: Sequence[TargetSpec],
    model: RouteModelSpec,
    upstreams: Mapping[str, Upstream],
    served_models: Mapping[str, str],
) -> list[_Group]:
    """The weighted choice first, then each of the others, so that all of them are tried and none is asked twice, but by `_hold`, where
    several may sleep: one that is silent would cost its whole time again. One number is drawn per request and counts for all of its
    attempts. So the groups of a priority have the same weights in the same order: whose share the draw falls into is asked first, and in
    each later group others stand there."""

    def attempt(target: TargetSpec) -> Attempt:
        upstream_model = target.model or served_models.get(target.backend, model.name)
        upstream = upstreams[target.backend]
        return Attempt(target.backend, upstream_model, upstream.place, upstream.access)

    heaviest = sorted(targets, key=lambda target: -target.weight)
    shares = [target for target in targets if target.weight]
    if len(targets) == 1 or not shares:
        return [(Weighted(attempt(target), 1),) for target in heaviest]
    orders = [(first.weight, [first, *(target for target in heaviest if target is not first)]) for first in shares]
    return [
        tuple(Weighted(attempt(order[number]), weight) for weight, order in orders) for number in range(len(targets))
    ]


def _read_timeouts(spec: RouteTimeoutsSpec) -> Timeouts:
    return Timeouts(
        response_headers_s=parse_duration_s(spec.response_headers),
        idle_s=parse_duration_s(spec.idle),
        request_s=parse_duration_s(spec.request),
        attempt_s=parse_duration_s(spec.attempt) if spec.attempt is not None else None,
    )
