"""How long a model takes to load, guessed from its name: a hundredth of a real start, so that rehearsals are short."""

from __future__ import annotations

from fairlead_sim.modelname import billions_of

_PER_BILLION_S = 0.025
_MAX_S = 10.0


def load_duration_s(model: str, *, base_s: float, fixed_s: float | None) -> float:
    """Seconds: `fixed_s` if given, else `base_s` plus a share for each billion parameters that the name tells."""
    if fixed_s is not None:
        return fixed_s
    return min(_MAX_S, base_s + _PER_BILLION_S * (billions_of(model) or 1.0))
