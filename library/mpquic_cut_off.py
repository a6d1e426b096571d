#!/usr/bin/python
"""Documentation of the action plugin of this name, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mpquic_cut_off
short_description: Refuse to cut off sites that aren't in the run
description:
  - Compares what each VPS of the run serves now (the survey of the preflight) with what the plan says, for every site
    of the inventory that isn't in the run, wasn't reached or was stopped by the preflight.
options:
  plan: {description: The plan of all hosts., type: dict, required: true}
  hosts: {description: Hosts that are still in the run., type: list, elements: str, required: true}
  renumber:
    description: Listeners on which inner addresses of several sites may move; C(all) stands for every one.
    type: list
    elements: str
    default: []
  accept: {description: Hosts that may be cut off; C(all) stands for every one., type: list, elements: str, default: []}
"""
