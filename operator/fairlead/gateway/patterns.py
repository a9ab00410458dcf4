"""Users' patterns as a gateway looks for them: each under a name that says what it finds, free of Envoy's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b

from fairlead.api.patterns import enclose, find_fault
from fairlead.api.route import DataClass, DetectorSpec
from fairlead.policy.law import CLASSES

__all__ = ["highest_class", "name_patterns"]


def name_patterns(detectors: Iterable[DetectorSpec]) -> dict[str, str]:
    """Name -> what matches a whole text in which the pattern is found. `<digit>.<class>.<detector>.<digest>`: in the order of the names
    the highest class comes first, and a name means the same pattern in every generation. Without those that cannot be used:
    they refuse the route, and what is withdrawn from the one that runs must not wait for them."""
    return {
        f"{len(CLASSES) - CLASSES.index(found.class_)}.{found.class_.value}.{found.name}.{_digest(pattern)}": enclose(
            pattern
        )
        for found in detectors
        for pattern in found.patterns
        if find_fault(pattern) is None
    }


def highest_class(names: Iterable[str] | Mapping[str, str]) -> DataClass | None:
    """Of the patterns with these names; None without any."""
    classes = {name.split(".")[1] for name in names}
    return next((data_class for data_class in reversed(CLASSES) if data_class.value in classes), None)


def _digest(pattern: str) -> str:
    return blake2b(pattern.encode(), digest_size=6).hexdigest()
