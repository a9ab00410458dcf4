"""Planning of LLMDeployments: `plan_deployment` for valid ones, `plan_invalid` for the others; `draw_blueprint` is what the former
makes of a spec alone."""

from fairlead.planning.deployment.blueprint import Blueprint, Draw, draw_blueprint
from fairlead.planning.deployment.planner import plan_deployment, plan_invalid

__all__ = ["Blueprint", "Draw", "draw_blueprint", "plan_deployment", "plan_invalid"]
