"""From a custom resource as the API server has it to a plan: parse, then decide. The seam where tests put their own decisions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from fairlead.facts.observed import Observed
from fairlead.planning.plan import Plan


class Planner(Protocol):
    """Decides what a custom resource needs."""

    async def plan(self, raw: Mapping[str, Any], observed: Observed, now: datetime) -> Plan:
        """The plan for one custom resource. What is wrong with it is in the plan's status. Raises ApiError when something that the
        decision needs cannot be read now: it is tried again, and nothing changes until then. Any other exception is a bug."""

    async def close(self) -> None:
        """Give back what the planner holds."""
