"""Which pods go first when there are to be fewer: those with the fewest requests, so that the fewest streams are waited for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fairlead.api.names import ANNOTATION_DELETION_COST
from fairlead.facts.scaling import Sample
from fairlead.planning.plan import Nudge

__all__ = ["weigh_pods"]


def weigh_pods(pods: Sequence[Mapping[str, Any]], samples: Sequence[Sample]) -> Iterator[Nudge]:
    """What is to be written on the pods before their number goes down: how much each has to do, by the newest look. Pods of which that
    is not known keep what they have; those that are not ready go before all others anyway."""
    busy = samples[-1].busy if samples else {}
    for pod in pods:
        metadata = pod["metadata"]
        uid = str(metadata.get("uid", ""))
        if uid not in busy or "deletionTimestamp" in metadata:
            continue
        cost = str(round(busy[uid]))
        if (metadata.get("annotations") or {}).get(ANNOTATION_DELETION_COST, "0") != cost:
            yield Nudge(str(metadata["name"]), uid, ANNOTATION_DELETION_COST, cost)
