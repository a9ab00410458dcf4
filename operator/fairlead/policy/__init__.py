"""The law of data classes, roles and trust. Pure, and the only room that decides who may send what where.

`gateway/` compiles its verdicts, `explain` and status read them; a request finds its own by looking up, never by deciding.
"""

from fairlead.policy.law import (
    CLASSES,
    Backend,
    Caller,
    Objection,
    Obstacle,
    Role,
    Verdict,
    classify,
    find_objections,
    highest,
    judge,
    permits_class,
)

__all__ = ["CLASSES", "Backend", "Caller", "Objection", "Obstacle", "Role", "Verdict", "classify", "find_objections", "highest",
           "judge", "permits_class"]  # fmt: skip
