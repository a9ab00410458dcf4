"""The table of validation rules: what types and bounds alone cannot say. See `table.py` for what a row is."""

from __future__ import annotations

from typing import Final

from fairlead.api.rules import autoscaling, engine, flags, hardware, model, names, route, serving
from fairlead.api.rules.table import Root, Rule

__all__ = ["ROUTE_RULES", "RULES", "Root", "Rule"]

#: Of LLMRoute.
ROUTE_RULES: Final[tuple[Rule, ...]] = route.RULES

#: Of LLMDeployment.
RULES: Final[tuple[Rule, ...]] = (
    *names.RULES,
    *model.RULES,
    *engine.RULES,
    *flags.RULES,
    *hardware.RULES,
    *serving.RULES,
    *autoscaling.RULES,
)
