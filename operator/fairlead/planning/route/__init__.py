"""Planning of LLMRoutes: `plan_route` for valid ones, `plan_invalid_route` for the others."""

from fairlead.planning.route.planner import plan_invalid_route, plan_route

__all__ = ["plan_invalid_route", "plan_route"]
