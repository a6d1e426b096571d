"""Everything that follows from a site's variables, without Ansible in it: `build` the plan, or `validate` alone."""

from mpquic_plan.build import build, build_all, validate
from mpquic_plan.problem import PlanError, Problem

__all__ = ["PlanError", "Problem", "build", "build_all", "validate"]
