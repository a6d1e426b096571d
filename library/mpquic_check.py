#!/usr/bin/python
"""Documentation of the action plugin of this name, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mpquic_check
short_description: Judge what a check has found on a host
description:
  - Judges by pure functions (package C(mpquic_plan.check)), without asking any host. Fails when there is a problem; all
    findings are told by the table at the end of the run.
options:
  found:
    description:
      - Name of the variable in which each host of the play has what was found on it. A host without it was lost on the
        way, and counts as not looked at.
    type: str
    required: true
  ca: {description: Path of the CA's certificate on the controller., type: str, required: true}
"""

RETURN = r"""
msg: {description: How many problems there are., returned: when there is one, type: str}
"""
