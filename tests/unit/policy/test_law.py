"""The law by itself, clause by clause. tests/law judges what becomes of it in the gateway."""

from __future__ import annotations

import itertools

import pytest

from fairlead.api.route import DataClass, LLMAccess
from fairlead.policy.law import (
    CLASSES,
    IMPLIED_ROLE,
    Backend,
    Caller,
    Role,
    classify,
    find_objections,
    judge,
    permits_class,
)

PUBLIC, INTERNAL, CONFIDENTIAL, RESTRICTED = CLASSES
LOCAL = Backend("local", LLMAccess.LOCAL)
KEEPING = Backend("keeping", LLMAccess.LOCAL, is_confidential=True)
ENCRYPTED = Backend("encrypted", LLMAccess.LOCAL, is_confidential=True, is_encrypted=True)
CLOUD = Backend("cloud", LLMAccess.CLOUD)
TRUSTED = Backend("trusted", LLMAccess.CLOUD, is_trusted=True)
#: Flags that only make sense for the other kind must not open anything.
ODD = Backend("odd", LLMAccess.CLOUD, is_trusted=True, is_confidential=True, is_encrypted=True)


def role(name: str, access: str, data: str, declare: str = "", floor: DataClass = PUBLIC) -> Role:
    """`access` and `data` by initials: LC, PICR."""
    kinds = {"L": LLMAccess.LOCAL, "C": LLMAccess.CLOUD}
    classes = dict(zip("PICR", CLASSES, strict=True))
    return Role(
        name,
        frozenset(kinds[letter] for letter in access),
        frozenset(classes[letter] for letter in data),
        frozenset(classes[letter] for letter in declare),
        floor,
    )


@pytest.mark.parametrize(
    ("backend", "permitted"),
    [(LOCAL, "PI"), (KEEPING, "PIC"), (ENCRYPTED, "PICR"), (CLOUD, "P"), (TRUSTED, "PI"), (ODD, "PI")],
)
def test_class_rule(backend: Backend, permitted: str) -> None:
    assert "".join(c.value[0] for c in CLASSES if permits_class(backend, c)) == permitted


def test_encryption_alone_does_not_make_restricted() -> None:
    assert not permits_class(Backend("x", LLMAccess.LOCAL, is_encrypted=True), RESTRICTED)


@pytest.mark.parametrize(
    ("declared", "detected", "may", "floor", "expected"),
    [
        (None, PUBLIC, "", PUBLIC, INTERNAL),  # nobody said anything: the default
        (PUBLIC, PUBLIC, "", PUBLIC, INTERNAL),  # a lower class needs permission to be declared
        (PUBLIC, PUBLIC, "P", PUBLIC, PUBLIC),
        (CONFIDENTIAL, PUBLIC, "", PUBLIC, CONFIDENTIAL),  # a higher one always counts
        (PUBLIC, CONFIDENTIAL, "P", PUBLIC, CONFIDENTIAL),  # what was found counts whatever was declared
        (PUBLIC, PUBLIC, "P", CONFIDENTIAL, CONFIDENTIAL),  # and so does a floor
        (RESTRICTED, CONFIDENTIAL, "", INTERNAL, RESTRICTED),
    ],
)
def test_class_of_a_request(
    declared: DataClass | None, detected: DataClass, may: str, floor: DataClass, expected: DataClass
) -> None:
    assert classify(role("r", "L", "P", may, floor), INTERNAL, declared, detected) is expected


def test_roles_are_not_mixed() -> None:
    """One role has the cloud, the other the Confidential class: together they must not send Confidential to the cloud."""
    caller = Caller((role("developer", "LC", "PI"), role("analyst", "L", "PIC")))
    verdict = judge(caller, [KEEPING, TRUSTED], INTERNAL, CONFIDENTIAL, PUBLIC)
    assert verdict.permitted == {"keeping"}


def test_what_one_role_may_declare_another_may_not() -> None:
    caller = Caller((role("cloudy", "C", "P"), role("quiet", "L", "PI", declare="P")))
    verdict = judge(caller, [LOCAL, CLOUD], INTERNAL, PUBLIC, PUBLIC)
    assert verdict.permitted == {"local"}


def test_without_a_role_nothing_is_permitted() -> None:
    for declared, detected in itertools.product((None, *CLASSES), CLASSES):
        assert not judge(Caller(()), [ENCRYPTED, TRUSTED], PUBLIC, declared, detected).permitted


def test_the_implied_role() -> None:
    verdict = judge(Caller((IMPLIED_ROLE,)), [LOCAL, CLOUD, TRUSTED], INTERNAL, None, PUBLIC)
    assert verdict.permitted == {"local", "trusted"}
    assert not judge(Caller((IMPLIED_ROLE,)), [ENCRYPTED], INTERNAL, None, CONFIDENTIAL).permitted


def test_a_higher_class_never_permits_more() -> None:
    """Monotone in what is detected: so every doubt can be settled upwards."""
    everything = [LOCAL, KEEPING, ENCRYPTED, CLOUD, TRUSTED]
    roles = [role("a", "LC", "PICR"), role("b", "L", "PIC", "P"), role("c", "C", "P", "P", INTERNAL)]
    for size in range(1, 4):
        for some in itertools.combinations(roles, size):
            for default, declared in itertools.product(CLASSES, (None, *CLASSES)):
                permitted = [
                    judge(Caller(some), everything, default, declared, detected).permitted for detected in CLASSES
                ]
                for wide, narrow in itertools.pairwise(permitted):
                    assert narrow <= wide


def test_the_floor_of_a_route_raises_whatever_the_roles_are() -> None:
    some = (role("quiet", "L", "PIC", declare="P"), role("cloudy", "C", "P", declare="P"))
    everything = [KEEPING, CLOUD]
    assert judge(Caller(some), everything, PUBLIC, PUBLIC, PUBLIC).permitted == {KEEPING.name, CLOUD.name}
    raised = judge(Caller(some, CONFIDENTIAL), everything, PUBLIC, PUBLIC, PUBLIC)
    assert (raised.data_class, raised.permitted) == (CONFIDENTIAL, {KEEPING.name})
    assert judge(Caller((), CONFIDENTIAL), everything, PUBLIC, None, PUBLIC).data_class is CONFIDENTIAL
    assert judge(Caller(some, INTERNAL), everything, PUBLIC, None, CONFIDENTIAL).data_class is CONFIDENTIAL
    (told, _) = find_objections(Caller(some, CONFIDENTIAL), CLOUD, PUBLIC, PUBLIC, PUBLIC)
    assert told.data_class is CONFIDENTIAL


def test_every_permitted_backend_may_take_the_class_that_is_told() -> None:
    """The egress checks that class again: a permitted backend must pass there."""
    everything = {b.name: b for b in (LOCAL, KEEPING, ENCRYPTED, CLOUD, TRUSTED)}
    roles = [role("a", "LC", "PI", "P"), role("b", "L", "ICR"), role("c", "C", "PI", "", INTERNAL)]
    for some in itertools.permutations(roles, 2):
        for default, declared, detected in itertools.product(CLASSES, (None, *CLASSES), CLASSES):
            verdict = judge(Caller(some), everything.values(), default, declared, detected)
            assert all(permits_class(everything[name], verdict.data_class) for name in verdict.permitted)
