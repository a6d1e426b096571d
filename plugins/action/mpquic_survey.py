"""Looks at a host before anything is changed on it."""

from __future__ import annotations

import json
import time
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

try:
    from mpquic_plan.matching import resolve
    from mpquic_plan.preflight import Host
    from mpquic_plan.preflight.devices import cards
    from mpquic_plan.preflight.managers import to_take_over
    from mpquic_plan.problem import PlanError
except ImportError as error:
    IMPORT_ERROR: ImportError | None = error
else:
    IMPORT_ERROR = None

SSH = ("ssh", "paramiko", "paramiko_ssh")
"""Connections by which SSH_CONNECTION must be there, and tells of the host itself."""


class ActionModule(ActionBase):
    """`mpquic_survey`: the module, with the controller's clock beside the host's."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        if IMPORT_ERROR is not None:
            raise AnsibleError(
                f"the Python package mpquic_plan can't be imported ({IMPORT_ERROR}); run ansible-playbook from the "
                "project's virtual environment (make bootstrap makes it)"
            )
        _, arguments = self.validate_argument_spec(argument_spec={"slice": {"type": "dict", "required": True}})
        variables = task_vars or {}
        plan = json.loads(json.dumps(arguments["slice"], default=str))
        asked = time.time()
        found = self._execute_module(
            module_name="host_survey", module_args={"certificate": plan["pki"]["name"]}, task_vars=variables
        )
        replied = time.time()
        if found.get("failed") or "survey" not in found:
            return {**result, **found, "failed": True}
        survey = json.loads(json.dumps(found["survey"], default=str))
        survey["by_ssh"] = self._connection.transport in SSH
        if not survey["by_ssh"] and self._connection.transport != "local":
            # The environment is that of the controller, to which somebody may have come by ssh.
            survey["connection"] = None
        # The host looked at its clock between the two: only what neither end of the time explains is a difference.
        ahead = max(survey["time"] - replied, 0.0) or min(survey["time"] - asked, 0.0)
        try:
            plan = resolve(plan, cards(survey["links"]))
        except PlanError as error:
            return {**result, "failed": True, "msg": str(error)}
        taken = to_take_over(Host(str(variables["inventory_hostname"]), plan, survey))
        return {
            **result,
            "changed": False,
            "survey": survey,
            "slice": plan,
            "clock_ahead": ahead,
            "take_over": {"files": list(taken.files), "managers": list(taken.managers)},
            # It is long, and nobody reads it: not with -v either.
            "_ansible_verbose_override": True,
        }
