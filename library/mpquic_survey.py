#!/usr/bin/python
"""Documentation of the action plugin of this name, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mpquic_survey
short_description: Survey a host
description:
  - Runs M(host_survey) on the host, which reads only, and compares the host's clock with the controller's.
options:
  slice: {description: The host's slice of the plan., type: dict, required: true}
"""

RETURN = r"""
survey:
  description: What M(host_survey) has found, with C(by_ssh), whether ssh was the way there.
  type: dict
  returned: success
slice:
  description: The slice with the names of devices that it knows by their MAC addresses.
  type: dict
  returned: success
clock_ahead: {description: Seconds that the host's clock is ahead of the controller's., type: float, returned: success}
take_over: {description: "Files and programs that M(network_takeover) takes over.", type: dict, returned: success}
"""
