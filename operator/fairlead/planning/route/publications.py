"""What was published when, as an annotation of the object that holds it: which gateways still do what has been withdrawn.

A gateway tells the version that it has loaded, and nothing of what came after it. That it lags matters only when something was
withdrawn since: then it may do what is no longer permitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Self

from fairlead.api.names import GROUP, gateway_part_name
from fairlead.api.resource import Metadata
from fairlead.facts.observed import ObjectKey, Observed
from fairlead.gateway.envoy.clients import takes_back
from fairlead.gateway.envoy.files import PUBLIC_FILE, version_of
from fairlead.gateway.envoy.loaded import AUTHENTICATION
from fairlead.planning.ownership import find_ours

__all__ = ["ANNOTATION_PUBLICATIONS", "Publication", "Published", "read_publications", "write_publications"]

#: On the ConfigMap with the public routes, and on the Secret with the clients.
ANNOTATION_PUBLICATIONS: Final = f"{GROUP}/publications"
#: A gateway that is further behind has missed what the oldest of them withdrew.
_REMEMBERED: Final = 16
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_WITHDRAWS: Final = "!"


@dataclass(frozen=True, slots=True)
class Publication:
    """One version of a file. `withdrawn_at`: since when it is out, if the one before permitted something that this one does not."""

    version: str
    withdrawn_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """Of one route: the versions of its public routes, and of who is let in."""

    routes: tuple[Publication, ...] = ()
    clients: tuple[Publication, ...] = ()

    @classmethod
    def of(cls, observed: Observed, owner: Metadata) -> Self:
        """As the live objects say it."""
        parts = (("ConfigMap", "routes"), ("Secret", "clients"))
        keys = (ObjectKey(kind, owner.namespace, gateway_part_name(owner.name, part)) for kind, part in parts)
        return cls(*(read_publications(find_ours(observed, key, owner)) for key in keys))

    def with_routes(self, live: str | None, text: str, now: datetime, narrow: Callable[[str], str]) -> Self:
        """After this text, which may be the live one. `narrow` takes out of the live one what is no longer permitted; without a live one
        that can be read, whatever gateways have loaded is not known to be permitted."""
        if live == text:
            return self
        withdraws = narrow(live) != live if live is not None else bool(self.routes)
        return replace(self, routes=_go_on(self.routes, version_of(text), now, withdraws=withdraws))

    def with_clients(self, live: str | None, text: str, version: str, now: datetime) -> Self:
        """After this version, whose text it is. `live`: the text before."""
        if self.clients and self.clients[-1].version == version:
            return self
        withdraws = takes_back(live, text) if live is not None else bool(self.clients)
        return replace(self, clients=_go_on(self.clients, version, now, withdraws=withdraws))

    def missed_since(self, loaded: Mapping[str, str]) -> datetime | None:
        """Since when a gateway that has loaded these versions (file -> version) does what was withdrawn. None: nothing was, as far as is
        known."""
        found = (
            _missed_since(self.routes, loaded.get(PUBLIC_FILE)),
            _missed_since(self.clients, loaded.get(AUTHENTICATION)),
        )
        return min((at for at in found if at is not None), default=None)


def read_publications(live: Mapping[str, Any] | None) -> tuple[Publication, ...]:
    """Oldest first, of a live object. What was changed by hand is left out; releases before had none."""
    said = ((live or {}).get("metadata") or {}).get("annotations") or {}
    found = (_parse(word) for word in str(said.get(ANNOTATION_PUBLICATIONS, "")).split())
    return tuple(one for one in found if one is not None)


def write_publications(publications: Sequence[Publication]) -> dict[str, str]:
    """The annotation; none if nothing is remembered. Without a withdrawal there is no time in it: what is rendered twice is the same."""
    text = " ".join(map(_write, publications))
    return {ANNOTATION_PUBLICATIONS: text} if text else {}


def _go_on(
    publications: Sequence[Publication], version: str, now: datetime, *, withdraws: bool
) -> tuple[Publication, ...]:
    return (*publications, Publication(version, now if withdraws else None))[-_REMEMBERED:]


def _missed_since(publications: Sequence[Publication], loaded: str | None) -> datetime | None:
    last = max((number for number, one in enumerate(publications) if one.version == loaded), default=-1)
    return next((one.withdrawn_at for one in publications[last + 1 :] if one.withdrawn_at is not None), None)


def _write(one: Publication) -> str:
    at = one.withdrawn_at
    return one.version if at is None else f"{one.version}{_WITHDRAWS}{at.astimezone(UTC).strftime(_TIME)}"


def _parse(word: str) -> Publication | None:
    version, mark, at = word.partition(_WITHDRAWS)
    if not mark:
        return Publication(version)
    try:
        return Publication(version, datetime.strptime(at, _TIME).replace(tzinfo=UTC))
    except ValueError:
        return None
