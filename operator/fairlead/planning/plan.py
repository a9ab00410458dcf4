"""What a decision is made of: data that the runtime carries out and tests compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from fairlead.facts.digest import digest_of
from fairlead.facts.observed import ObjectKey
from fairlead.facts.scaling import Recommendation, ScrapeWish


@dataclass(frozen=True, eq=False)
class Child:
    """One object that must exist. `draw` makes its body, the same each time.

    `replace_on_immutable`: when the API server refuses a change of an immutable field, delete and make anew (only for
    objects whose replacement loses nothing); otherwise the refusal becomes `Stalled/ImmutableField`.
    """

    key: ObjectKey
    draw: Callable[[], Mapping[str, Any]] = field(repr=False)
    replace_on_immutable: bool = False

    @classmethod
    def of(cls, key: ObjectKey, body: Mapping[str, Any], *, replace_on_immutable: bool = False) -> Child:
        """A child whose body is there already."""
        return cls(key, lambda: body, replace_on_immutable)

    @cached_property
    def body(self) -> Mapping[str, Any]:
        """The whole server-side apply body without the applied-hash annotation. Nobody changes it."""
        return self.draw()

    @cached_property
    def digest(self) -> str:
        """128 bits over the body, the same in every process and for every order of keys: worked out once, asked in every pass."""
        return digest_of(self.body)

    def let_go(self) -> None:
        """Keep the digest, which is all that most passes ask for, and draw the body again for whoever reads it."""
        _ = self.digest
        self.__dict__.pop("body", None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Child):
            return NotImplemented
        return (self.key, self.digest, self.replace_on_immutable) == (
            other.key,
            other.digest,
            other.replace_on_immutable,
        )

    def __hash__(self) -> int:
        return hash((self.key, self.digest))

    def __reduce__(self) -> tuple[Any, ...]:
        return _read_child, (self.key, dict(self.body), self.replace_on_immutable)


def _read_child(key: ObjectKey, body: Mapping[str, Any], replace_on_immutable: bool) -> Child:
    return Child.of(key, body, replace_on_immutable=replace_on_immutable)


@dataclass(frozen=True, slots=True)
class Delete:
    """One object of ours that must go: deleted with the uid as precondition."""

    key: ObjectKey
    uid: str
    resource_version: str


@dataclass(frozen=True, slots=True)
class PlannedEvent:
    """An Event on a transition. `type` is Normal or Warning; `reason` a value of `Reason`; `action` UpperCamelCase verb."""

    type: str
    reason: str
    message: str
    action: str = "Reconcile"


@dataclass(frozen=True, slots=True)
class Nudge:
    """An annotation of a pod: its kubelet is told to look at its volumes again (otherwise a changed ConfigMap takes it a minute), or its
    ReplicaSet's controller how much it has to do. Carried out after the children, and only on the pod of that uid."""

    pod: str
    uid: str
    annotation: str
    value: str


@dataclass(frozen=True, slots=True)
class Removal:
    """A pod that must serve nobody any more: it is deleted if it is still the one of that uid, and has `grace_s` seconds to end. With
    `label` it goes on, and loses this label: it has more to do than what it must not, and the Service finds it by that."""

    pod: str
    uid: str
    grace_s: int
    label: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole result of one pass. `status` is the complete desired status; `requeue_after_s` None means: wait for events.

    `acts_on_status`: status holds a decision that the next pass carries out, so it is written without waiting, and that pass follows.
    `recommendations`: what the signals of an LLMDeployment asked for lately, this time too: the next decision looks back on it.
    `verdict`: what the condition would say of this look alone, and since when it would. `wish`: how its pods are to be looked at from now
    on, None: not at all."""

    children: tuple[Child, ...]
    deletes: tuple[Delete, ...]
    status: Mapping[str, Any]
    events: tuple[PlannedEvent, ...] = ()
    nudges: tuple[Nudge, ...] = ()
    removals: tuple[Removal, ...] = ()
    requeue_after_s: float | None = None
    acts_on_status: bool = False
    recommendations: tuple[Recommendation, ...] = ()
    verdict: tuple[str, datetime] | None = None
    wish: ScrapeWish | None = None
