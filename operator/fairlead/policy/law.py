"""Which backends a request may reach: a function of its caller's roles, of what it declares and of what was found in it.

The class rule is monotone on purpose: what may take a class may take every lower one, so that every doubt can be settled by taking
the higher class (law 5). Roles need not be: one may have Confidential and not Public.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fairlead.api.route import DataClass, LLMAccess

__all__ = [
    "CLASSES",
    "IMPLIED_ROLE",
    "Backend",
    "Caller",
    "Objection",
    "Obstacle",
    "Role",
    "Verdict",
    "classify",
    "find_objections",
    "highest",
    "judge",
    "permits_class",
]

#: From the widest to the narrowest.
CLASSES: Final = tuple(DataClass)


@dataclass(frozen=True, slots=True)
class Backend:
    """What the law asks about a backend.

    `is_trusted`: the route says so and the operator's trustedHosts has the host. `is_confidential`: a local deployment that keeps
    what it is sent (its image, its environment, its egress). `is_encrypted`: on the way to it and at rest.
    """

    name: str
    access: LLMAccess
    is_trusted: bool = False
    is_confidential: bool = False
    is_encrypted: bool = False


@dataclass(frozen=True, slots=True)
class Role:
    """What those who have it may do. `floor`: the class that their requests have at least."""

    name: str
    llm_access: frozenset[LLMAccess]
    data_access: frozenset[DataClass]
    may_declare: frozenset[DataClass] = frozenset()
    floor: DataClass = DataClass.PUBLIC


#: What a route without roles acts as.
IMPLIED_ROLE: Final = Role(
    name="",
    llm_access=frozenset(LLMAccess),
    data_access=frozenset({DataClass.PUBLIC, DataClass.INTERNAL}),
)


@dataclass(frozen=True, slots=True)
class Caller:
    """The roles of a consumer, or of whoever shows no key. Without a role nothing is allowed. `floor`: the route's, which counts whatever
    the roles are."""

    roles: tuple[Role, ...]
    floor: DataClass = DataClass.PUBLIC


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer for one request. `grants`: for each role that permits something, the class that the request has under it and the names
    of the backends; `data_class`: what the request counts as where no backend is in question."""

    data_class: DataClass
    grants: tuple[tuple[DataClass, frozenset[str]], ...]

    @property
    def permitted(self) -> frozenset[str]:
        """Names of all backends that some role permits."""
        return frozenset().union(*(backends for _, backends in self.grants))

    def class_for(self, backends: Collection[str]) -> DataClass:
        """What the request counts as on its way to some of these: the lowest class under which a role permits one of them. All that are
        permitted may take it, since each role's own class is no lower."""
        classes = [data_class for data_class, permitted in self.grants if not permitted.isdisjoint(backends)]
        return min(classes, key=CLASSES.index, default=self.data_class)


class Obstacle(StrEnum):
    """What speaks against a backend."""

    CLASS_RULE = "ClassRule"
    ROLE_KIND = "RoleKind"
    ROLE_CLASS = "RoleClass"


@dataclass(frozen=True, slots=True)
class Objection:
    """Why one of a caller's roles does not permit a backend. `data_class`: what the request is under that role."""

    role: str
    data_class: DataClass
    obstacle: Obstacle


def highest(*classes: DataClass) -> DataClass:
    """The narrowest of them. Raises ValueError for none."""
    return max(classes, key=CLASSES.index)


def classify(role: Role, default: DataClass, declared: DataClass | None, detected: DataClass) -> DataClass:
    """The class of a request under one role, as far as that goes: max of base, the role's floor and what was detected.

    `declared` counts when the role may declare it, or when it is higher than the default anyway; None: no header. A caller for
    whom no detector ran passes Restricted as `detected`.
    """
    base = default
    if declared is not None and (declared in role.may_declare or CLASSES.index(declared) > CLASSES.index(default)):
        base = declared
    return highest(base, role.floor, detected)


def permits_class(backend: Backend, data_class: DataClass) -> bool:
    """The class rule alone, whoever asks."""
    is_local = backend.access is LLMAccess.LOCAL
    if data_class is DataClass.PUBLIC:
        return True
    if data_class is DataClass.INTERNAL:
        return is_local or backend.is_trusted
    if data_class is DataClass.CONFIDENTIAL:
        return is_local and backend.is_confidential
    return is_local and backend.is_confidential and backend.is_encrypted


def judge(
    caller: Caller,
    backends: Iterable[Backend],
    default: DataClass,
    declared: DataClass | None,
    detected: DataClass,
) -> Verdict:
    """What one request may reach: for each backend ONE role must permit its kind and the request's class together."""
    candidates: Sequence[Backend] = tuple(backends)
    grants: set[tuple[DataClass, frozenset[str]]] = set()
    seen: list[DataClass] = []
    for role in caller.roles:
        data_class = highest(caller.floor, classify(role, default, declared, detected))
        seen.append(data_class)
        found = frozenset(b.name for b in candidates if _role_permits(role, b, data_class))
        if found:
            grants.add((data_class, found))
    without_role = highest(default if declared is None else highest(default, declared), caller.floor, detected)
    lowest = min([grant[0] for grant in grants] or seen or [without_role], key=CLASSES.index)
    ordered = sorted(grants, key=lambda grant: (CLASSES.index(grant[0]), sorted(grant[1])))
    return Verdict(data_class=lowest, grants=tuple(ordered))


def _role_permits(role: Role, backend: Backend, data_class: DataClass) -> bool:
    return backend.access in role.llm_access and data_class in role.data_access and permits_class(backend, data_class)


def find_objections(
    caller: Caller, backend: Backend, default: DataClass, declared: DataClass | None, detected: DataClass
) -> tuple[Objection, ...]:
    """Why `judge` does not permit a backend, for each role the first thing that is against it, to tell people. Empty when some role
    permits it, or when the caller has none."""
    classes = [(role, highest(caller.floor, classify(role, default, declared, detected))) for role in caller.roles]
    if any(_role_permits(role, backend, data_class) for role, data_class in classes):
        return ()
    return tuple(
        Objection(
            role.name,
            data_class,
            Obstacle.CLASS_RULE
            if not permits_class(backend, data_class)
            else Obstacle.ROLE_KIND
            if backend.access not in role.llm_access
            else Obstacle.ROLE_CLASS,
        )
        for role, data_class in classes
    )
