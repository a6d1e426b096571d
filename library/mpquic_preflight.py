#!/usr/bin/python
"""Documentation of the action plugin of this name, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mpquic_preflight
short_description: Judge whether the run may go on on a host
description:
  - Judges what M(mpquic_survey) has found against the host's slice of the plan, without asking the host anything. All
    problems of the host are told at once, by the table at the end of the run; notices are warnings.
options:
  slice: {description: The host's slice of the plan., type: dict, required: true}
  found: {description: The result of M(mpquic_survey)., type: dict, required: true}
  accept: {description: Codes of problems that are accepted., type: list, elements: str, default: []}
  foreign_links: {description: VLAN devices that somebody else makes., type: list, elements: str, default: []}
"""

RETURN = r"""
findings: {description: "What was judged, a dict with code, severity and message each.", type: list, returned: success}
"""
