"""Why the law does not permit a backend: told exactly where it does not, and for the first thing that is against it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.api.route import DataClass, LLMAccess
from fairlead.policy.law import CLASSES, Backend, Caller, Objection, Obstacle, Role, find_objections, judge

PUBLIC, INTERNAL, CONFIDENTIAL, RESTRICTED = CLASSES
BACKENDS = [
    Backend(f"b{number}", access, *flags)
    for number, (access, *flags) in enumerate(itertools.product(LLMAccess, *[(False, True)] * 3))
]
ROLES = st.builds(
    Role,
    name=st.sampled_from(["a", "b", ""]),
    llm_access=st.frozensets(st.sampled_from(LLMAccess)),
    data_access=st.frozensets(st.sampled_from(DataClass)),
    may_declare=st.frozensets(st.sampled_from(DataClass)),
    floor=st.sampled_from(DataClass),
)


@given(
    roles=st.lists(ROLES, max_size=3),
    backend=st.sampled_from(BACKENDS),
    default=st.sampled_from(DataClass),
    declared=st.none() | st.sampled_from(DataClass),
    detected=st.sampled_from(DataClass),
)
def test_there_are_objections_exactly_where_nothing_is_permitted(
    roles: list[Role], backend: Backend, default: DataClass, declared: DataClass | None, detected: DataClass
) -> None:
    caller = Caller(tuple(roles))
    objections = find_objections(caller, backend, default, declared, detected)
    permitted = backend.name in judge(caller, BACKENDS, default, declared, detected).permitted
    assert len(objections) == (0 if permitted else len(roles))
    for role, objection in zip(roles, objections, strict=False):
        assert objection.role == role.name


LOCAL, CLOUD = Backend("local", LLMAccess.LOCAL), Backend("cloud", LLMAccess.CLOUD)
BOTH, ALL = frozenset(LLMAccess), frozenset(CLASSES)


@pytest.mark.parametrize(
    ("role", "backend", "obstacle"),
    [
        (Role("r", BOTH, ALL), CLOUD, Obstacle.CLASS_RULE),
        (Role("r", frozenset(), frozenset()), CLOUD, Obstacle.CLASS_RULE),
        (Role("r", frozenset({LLMAccess.CLOUD}), ALL), LOCAL, Obstacle.ROLE_KIND),
        (Role("r", frozenset({LLMAccess.CLOUD}), frozenset()), LOCAL, Obstacle.ROLE_KIND),
        (Role("r", BOTH, frozenset({PUBLIC})), LOCAL, Obstacle.ROLE_CLASS),
    ],
)
def test_what_is_against_it(role: Role, backend: Backend, obstacle: Obstacle) -> None:
    found = find_objections(Caller((role,)), backend, INTERNAL, None, PUBLIC)
    assert found == (Objection("r", INTERNAL, obstacle),)


def test_nobody_without_a_role_objects() -> None:
    assert find_objections(Caller(()), LOCAL, INTERNAL, None, PUBLIC) == ()
