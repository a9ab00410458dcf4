"""`fairlead explain` without its command line: where one request to a route would go, and why not elsewhere.

Nothing is decided here. Who may reach what is looked up in the route's table, as the gateway does; a body is classified by the
gateway's own text; and why the law does not permit a backend is asked of the law.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby
from typing import Final

from fairlead.api.route import DataClass
from fairlead.gateway.lookup import ENDPOINTS, make_lookup
from fairlead.gateway.patterns import name_patterns
from fairlead.gateway.table import DECLARED_NOTHING, Attempt, Chain, Profile, RouteTable, caller_of
from fairlead.planning.route.backends import Resolved
from fairlead.planning.route.planner import SETTINGS
from fairlead.policy.law import CLASSES, Caller, Objection, Obstacle, find_objections, permits_class
from fairlead.rendering.classifier import Classifier
from fairlead.rendering.routes import RenderedRoute

__all__ = ["Explanation", "NotTried", "Question", "Reason", "Share", "Tried", "explain"]

DEFAULT_RULE: Final = "default"
FLOOR_RULE: Final = "floor"
HEADER_RULE: Final = "header"
NO_BACKEND: Final = "no_backend"
DENIED: Final = 403


class Reason(StrEnum):
    """Why a backend of the model is not tried."""

    CLASS_RULE = "ClassRule"
    ROLE_KIND = "RoleKind"
    ROLE_CLASS = "RoleClass"
    NO_ROLE = "NoRole"
    NOT_RESOLVED = "NotResolved"
    NO_ENDPOINT = "NoEndpoint"


@dataclass(frozen=True, slots=True)
class Question:
    """A POST. `model`: with a body what that names counts; `consumer` None: no key is shown; `declared`: what the header says; `body`
    None: nobody looks at one."""

    model: str
    consumer: str | None = None
    declared: DataClass | None = None
    path: str = ENDPOINTS[0]
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Tried:
    """A backend that is asked, and what it calls the model. `wait_s`: how long about a request waits there for a pod, should it be at zero
    replicas; None: not at all."""

    backend: str
    model: str
    wait_s: float | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """Of `weight` of the requests: who is asked, one after the other, until one answers."""

    weight: int
    tried: tuple[Tried, ...]


@dataclass(frozen=True, slots=True)
class NotTried:
    """A backend of the model to which this request does not go."""

    backend: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer. `status` None: it is sent on; else what the gateway answers by itself, with `code` and `message` of the error.
    `data_class` and `rule` are None where it does not come so far; `stages` come one after the other, and in each the request goes
    the way of one share; `order` has each backend once, as it is tried first; `remarks` are about those who are tried and
    cannot serve yet."""

    question: Question
    status: int | None
    code: str = ""
    message: str = ""
    data_class: DataClass | None = None
    rule: str | None = None
    stages: tuple[tuple[Share, ...], ...] = ()
    order: tuple[str, ...] = ()
    not_tried: tuple[NotTried, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def is_allowed(self) -> bool:
        """Whether it is sent anywhere."""
        return self.status is None


@dataclass(frozen=True, slots=True)
class _Classified:
    """What the class of a request is and by which rule. `detected`: what was found in the body, as far as the table tells it apart;
    `message`: what a denied caller is told."""

    data_class: DataClass
    rule: str
    detected: DataClass
    model: str
    message: str = ""


def explain(rendered: RenderedRoute, question: Question) -> Explanation:
    """Raises ClassifierMissingError for a body without LuaJIT."""
    table = rendered.table
    # Where nobody is known by a key, nobody looks at one.
    consumer = question.consumer if table.has_keys else None
    profile = table.profile_of(consumer)
    if profile is None:
        return Explanation(question, 401, "invalid_api_key", "This gateway needs an API key.")
    if consumer is not None and rendered.letting_in is not None and consumer not in rendered.letting_in:
        message = f"No key of {consumer} is let in: the Secret with the clients' keys has none."
        return Explanation(question, 401, "invalid_api_key", message)
    found = _classify(table, profile, consumer, question)
    if isinstance(found, Explanation):
        return found
    question = replace(question, model=found.model)
    chain = table.find_chain(consumer, question.model, question.declared, found.detected)
    caller = caller_of(rendered.route.spec, consumer)
    assert caller is not None
    serving = {upstream.name for upstream in table.upstreams if question.path in upstream.paths}
    tried = [attempt.backend for attempt in (chain.attempts if chain is not None else ())]
    order = tuple(dict.fromkeys(backend for backend in tried if backend in serving))
    not_tried = tuple(
        _explain_backend(backend, rendered, caller, question, found.detected)
        for backend in rendered.resolved
        if backend.name in table.targets[question.model] and backend.name not in order
    )
    status, code, message = _decide_status(chain, order, found, question)
    return Explanation(
        question=question,
        status=status,
        code=code,
        message=message,
        data_class=found.data_class,
        rule=found.rule,
        stages=_read_stages(chain, serving),
        order=order,
        not_tried=not_tried,
        remarks=tuple(b.message for b in rendered.resolved if b.name in order and b.message),
    )


def _decide_status(
    chain: Chain | None, order: Sequence[str], found: _Classified, question: Question
) -> tuple[int | None, str, str]:
    """What the gateway answers by itself; None: the request is sent on."""
    if chain is None:
        message = found.message or f"No backend of {question.model} may take this {found.data_class} request."
        return 403, "data_class_denied", message
    if not chain.groups:
        return 503, NO_BACKEND, "No backend of this model that may take this request is there."
    if not order:
        return 404, "unsupported_endpoint", f"No backend of this model has {question.path}."
    return None, "", ""


# The class -----------------------------------------------------------------------------------------------------------------


def _classify(
    table: RouteTable, profile: Profile, consumer: str | None, question: Question
) -> _Classified | Explanation:
    if question.body is not None:
        return _classify_body(table, profile, consumer, question, question.body)
    if question.path not in ENDPOINTS:
        return Explanation(question, 404, "unknown_endpoint", "This gateway has no such endpoint.")
    if question.model not in table.models:
        message = f"The model {question.model} does not exist or you do not have access to it."
        return Explanation(question, 404, "model_not_found", message)
    detected = CLASSES[0]
    verdict = profile.verdicts[question.declared, detected]
    chain = table.chains.get((question.model, verdict))
    data_class = chain.data_class if chain is not None else verdict.data_class
    otherwise = DEFAULT_RULE if data_class is table.policy.default else FLOOR_RULE
    rule = HEADER_RULE if question.declared is data_class else otherwise
    return _Classified(data_class, rule, detected, question.model)


def _classify_body(
    table: RouteTable, profile: Profile, consumer: str | None, question: Question, body: bytes
) -> _Classified | Explanation:
    if len(body) > SETTINGS.max_body_bytes:
        return Explanation(question, 413, "request_too_large", "The body of the request is too large.")
    lookup = make_lookup(table)
    headers = {":method": "POST", ":path": question.path, "content-type": "application/json"}
    if consumer is not None:
        headers["x-fairlead-consumer"] = consumer
    if question.declared is not None:
        headers[table.policy.header.lower()] = question.declared.value
    said = Classifier().classify(lookup, headers, body, name_patterns(table.policy.detectors))
    if not said.data_class:
        return Explanation(question, said.status, said.code, said.message)
    if said.status not in (0, DENIED):  # permitted, but for more tokens than the caller may ask for at once
        return Explanation(
            question, said.status, said.code, said.message, data_class=DataClass(said.data_class), rule=said.rule
        )
    verdicts = lookup["verdicts"][profile.id]
    declared = question.declared.value if question.declared is not None else DECLARED_NOTHING
    same = [found for found in CLASSES if verdicts[f"{declared}|{found.value}"] == said.verdict]
    own = {detector.name: detector.class_.value for detector in table.policy.detectors}
    others = {"opaque": table.policy.opaque_content.value, "unchecked": lookup.get("patterns")}
    found = (own | others).get(said.rule, same[0])
    detected = DataClass(found) if found in same else same[0]
    return _Classified(DataClass(said.data_class), said.rule, detected, said.model, said.message)


# What is tried ---------------------------------------------------------------------------------------------------------------


def _read_stages(chain: Chain | None, serving: Collection[str]) -> tuple[tuple[Share, ...], ...]:
    """The groups of a chain, less those who do not serve the endpoint: they say so, and the next attempt is made.

    One draw counts for all groups (see `Chain`), so those with the same weights belong together, column by column."""
    stages: list[tuple[Share, ...]] = []
    groups = chain.groups if chain is not None else ()
    for weights, same in groupby(groups, key=lambda group: [weighted.weight for weighted in group]):
        columns = [[weighted.attempt for weighted in column] for column in zip(*same, strict=True)]
        ways = [tuple(_read_attempt(one) for one in way if one.backend in serving) for way in columns]
        if any(ways):
            stages.append(tuple(Share(weight, way) for weight, way in zip(weights, ways, strict=True)))
    return tuple(stages)


def _read_attempt(attempt: Attempt) -> Tried:
    return Tried(attempt.backend, attempt.model, (attempt.hold.wait_s or None) if attempt.hold is not None else None)


def _explain_backend(
    backend: Resolved, rendered: RenderedRoute, caller: Caller, question: Question, detected: DataClass
) -> NotTried:
    if not caller.roles:
        return NotTried(backend.name, Reason.NO_ROLE, "the caller has no role on this route")
    default = rendered.table.policy.default
    objections = find_objections(caller, backend.law, default, question.declared, detected)
    if objections:
        told = dict.fromkeys(_tell(objection, backend) for objection in objections)
        return NotTried(backend.name, Reason(objections[0].obstacle.value), "; ".join(told))
    if backend.upstream is None:
        return NotTried(backend.name, Reason.NOT_RESOLVED, backend.refusal or backend.message)
    serves = ", ".join(path for path in ENDPOINTS if path in backend.upstream.paths)
    return NotTried(backend.name, Reason.NO_ENDPOINT, f"{backend.kind} does not serve {question.path}, but {serves}")


def _tell(objection: Objection, backend: Resolved) -> str:
    role = f"role {objection.role}" if objection.role else "the role that a route without roles acts as"
    if objection.obstacle is Obstacle.CLASS_RULE:
        takes = ", ".join(data_class for data_class in CLASSES if permits_class(backend.law, data_class))
        reason = backend.why_not(objection.data_class)
        why = f" ({reason})" if reason else ""
        return f"may take {takes}, and the request is {objection.data_class}{why}"
    if objection.obstacle is Obstacle.ROLE_KIND:
        return f"{role} has no {backend.law.access} in llmAccess"
    return f"{role} has no {objection.data_class} in dataAccess"
