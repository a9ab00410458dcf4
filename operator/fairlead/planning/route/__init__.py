"""Planning of LLMRoutes: `plan_route` for valid ones, `plan_invalid_route` for the others; `resolve_route` for who only asks."""

from fairlead.planning.route.planner import plan_invalid_route, plan_route, resolve_route

__all__ = ["plan_invalid_route", "plan_route", "resolve_route"]
