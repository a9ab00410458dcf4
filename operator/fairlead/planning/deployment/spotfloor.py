"""How many replicas there are at least because of the nodes under the pods: those that may be taken back, and those that go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fairlead.api.autoscaling import AutoscalingSpec
from fairlead.facts.nodes import Surroundings

__all__ = ["NO_SPOT_FLOOR", "SpotFloor", "find_spot_floor"]


@dataclass(frozen=True, slots=True)
class SpotFloor:
    """`replicas`: at least so many, 0 where nothing is asked for; `leaving`: ready pods beside them whose nodes are about to go, and which
    do not count; `words` of both, after "the minimum is 3"; `told` of it in the condition, a sentence."""

    replicas: int = 0
    leaving: int = 0
    words: str = ""
    told: str = ""


NO_SPOT_FLOOR: Final = SpotFloor()


def find_spot_floor(autoscaling: AutoscalingSpec, nodes: Surroundings | None, ready_on: Sequence[str]) -> SpotFloor:
    """`ready_on`: the node of each ready pod. Where nodes cannot be seen, any pod may be on one that is taken back."""
    if autoscaling.spot is None:
        return NO_SPOT_FLOOR
    least = autoscaling.spot.min_replicas
    if nodes is None:
        why = ", as pods may run on spot nodes"
        return SpotFloor(
            least, 0, why, f" At least {least}, by spot: nodes cannot be seen, so that any may be a spot node."
        )
    leaving = sum(1 for name in ready_on if name in nodes.leaving)
    is_on_spot = any(name in nodes.spot for name in ready_on)
    why = ", as pods run on spot nodes" if is_on_spot else ""
    told = f" At least {least} while pods run on spot nodes." if is_on_spot else ""
    if leaving:
        one = f"{leaving} {'pod whose node goes' if leaving == 1 else 'pods whose nodes go'}"
        why += f"{' and' if why else ','} beside {one}"
    return SpotFloor(least if is_on_spot else 0, leaving, why, told)
