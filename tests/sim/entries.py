"""What the simulated cluster keeps: objects, its log of changes, and the record of who wrote what, which the oracles read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from tests.sim.fieldsets import Owned
from tests.sim.kinds import Address, Key

Json = dict[str, Any]


def clone(value: Any) -> Any:
    """A deep copy of JSON."""
    return orjson.loads(orjson.dumps(value))


@dataclass(slots=True)
class Record:
    """One stored object, without managedFields, and who owns what of it."""

    live: Json
    owned: Owned = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One change. `type` is ADDED, MODIFIED or DELETED; `before` and `after` are the object around it."""

    version: int
    type: str
    key: Key
    before: Json | None
    after: Json | None


@dataclass(frozen=True, slots=True)
class Write:
    """One request that wanted to change something: by whom, what, and what came of it. `code` is HTTP's."""

    at_s: float
    actor: str
    verb: str
    key: Key
    subresource: str
    code: int
    before: Json | None = None
    after: Json | None = None

    @property
    def changed(self) -> bool:
        """Whether it had an effect."""
        return self.code < 300 and self.before != self.after

    @property
    def effect(self) -> str:
        """create, delete, update or nothing."""
        if not self.changed:
            return "nothing"
        if self.before is None:
            return "create"
        gone = self.after is None or (
            "deletionTimestamp" in self.after["metadata"] and "deletionTimestamp" not in self.before["metadata"]
        )
        return "delete" if gone else "update"

    def __str__(self) -> str:
        sub = f"/{self.subresource}" if self.subresource else ""
        return f"{self.at_s:.3f} {self.actor} {self.verb} {self.key}{sub}: {self.code} {self.effect}"


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks."""

    actor: str
    method: str
    address: Address
    params: Mapping[str, str]
    body: Any = None
    content_type: str = ""
