"""Looks at a host and says what stands in the way of the run, before anything is changed on it."""

from __future__ import annotations

import json
import time
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

try:
    from mpquic_plan.preflight import ACCEPTABLE, Host, Severity, judge
    from mpquic_plan.preflight.managers import to_take_over
except ImportError as error:
    IMPORT_ERROR: ImportError | None = error
else:
    IMPORT_ERROR = None

DOCUMENTATION = r"""
name: mpquic_preflight
short_description: Survey a host, and judge whether the run may go on
description:
  - Runs M(host_survey) on the host, which reads only, and judges on the controller what it has found against the host's
    slice of the plan. All problems of the host are in one message; notices are warnings.
options:
  slice: {description: The host's slice of the plan., type: dict, required: true}
  accept: {description: Codes of problems that are accepted., type: list, elements: str, default: []}
"""

RETURN = r"""
survey: {description: What M(host_survey) has found., type: dict, returned: always}
findings: {description: "What was judged, a dict with code, severity and message each.", type: list, returned: always}
take_over: {description: "Files and programs that M(network_takeover) takes over.", type: dict, returned: always}
"""


class ActionModule(ActionBase):
    """`mpquic_preflight`: the survey, and the pure judgement over it."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        if IMPORT_ERROR is not None:
            raise AnsibleError(
                f"the Python package mpquic_plan can't be imported ({IMPORT_ERROR}); run ansible-playbook from the "
                "project's virtual environment (make bootstrap makes it)"
            )
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "slice": {"type": "dict", "required": True},
                "accept": {"type": "list", "elements": "str", "default": []},
            }
        )
        variables = task_vars or {}
        name = str(variables["inventory_hostname"])
        unknown = sorted(set(arguments["accept"]) - ACCEPTABLE)
        if unknown:
            known = ", ".join(sorted(ACCEPTABLE))
            message = f"mpquic_accept: {', '.join(unknown)} can't be accepted; these can: {known}"
            return {**result, "failed": True, "msg": message}
        plan = json.loads(json.dumps(arguments["slice"], default=str))
        asked = time.time()
        found = self._execute_module(
            module_name="host_survey",
            module_args={"certificate": plan["pki"]["name"]},
            task_vars=variables,
        )
        replied = time.time()
        if found.get("failed") or "survey" not in found:
            return {**result, **found, "failed": True}
        survey = json.loads(json.dumps(found["survey"], default=str))
        # The reply took less time than the question: the module is copied first. So it is compared with the reply, and
        # only what can't be the network's delay counts.
        ahead = max(survey["time"] - replied, 0.0) or min(survey["time"] - asked, 0.0)
        host = Host(name, plan, survey, ahead)
        findings = judge(host, arguments["accept"])
        taken = to_take_over(host)
        problems = [finding for finding in findings if finding.severity is Severity.PROBLEM]
        result |= {
            "changed": False,
            "survey": survey,
            "findings": [
                {"code": each.code, "severity": each.severity.value, "message": each.message} for each in findings
            ],
            "take_over": {"files": list(taken.files), "managers": list(taken.managers)},
        }
        notices = [f"{name}: {each.message}" for each in findings if each.severity is Severity.NOTICE]
        if notices:
            result["warnings"] = notices
        if problems:
            count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
            result["failed"] = True
            result["msg"] = "\n".join(
                [f"{count} on {name}; nothing was changed there:", *(f"- {each.message}" for each in problems)]
            )
        return result
