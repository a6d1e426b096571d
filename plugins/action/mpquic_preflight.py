"""Says what stands in the way of the run on a host, before anything is changed on it."""

from __future__ import annotations

import json
from typing import Any

from ansible.plugins.action import ActionBase
from mpquic_plan.preflight import ACCEPTABLE, Host, Severity, judge


class ActionModule(ActionBase):
    """`mpquic_preflight`: the pure judgement over a survey."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "slice": {"type": "dict", "required": True},
                "found": {"type": "dict", "required": True},
                "accept": {"type": "list", "elements": "str", "default": []},
                "foreign_links": {"type": "list", "elements": "str", "default": []},
            }
        )
        name = str((task_vars or {})["inventory_hostname"])
        accept = {code.strip() for code in arguments["accept"]} - {""}
        unknown = sorted(accept - ACCEPTABLE)
        if unknown:
            known = ", ".join(sorted(ACCEPTABLE))
            message = f"mpquic_accept: {', '.join(unknown)} can't be accepted; these can: {known}"
            return {**result, "failed": True, "msg": message}
        plan, found = (json.loads(json.dumps(arguments[key], default=str)) for key in ("slice", "found"))
        others = _machine_ids(task_vars or {}, name)
        foreign = frozenset(map(str, arguments["foreign_links"]))
        findings = judge(Host(name, plan, found["survey"], found["clock_ahead"], others, foreign), accept)
        problems = [finding.message for finding in findings if finding.severity is Severity.PROBLEM]
        notices = [f"{name}: {each.message}" for each in findings if each.severity is Severity.NOTICE]
        if notices:
            result["warnings"] = notices
        if problems:
            count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
            # Ansible shows the text of a failure twice: the table at the end has the problems, and once. What is in
            # `invocation` is handed to it, and is shown by Ansible itself with -vvv alone.
            return {
                **result,
                "failed": True,
                "msg": f"{count} on {name}, told at the end; nothing was changed there",
                "invocation": {"problems": problems},
            }
        shown = [{"code": each.code, "severity": each.severity.value, "message": each.message} for each in findings]
        return {**result, "changed": False, "findings": shown}


def _machine_ids(variables: dict[str, Any], name: str) -> dict[str, str]:
    """Machine ids of the other hosts of the play, as far as they have been surveyed."""
    hostvars = variables.get("hostvars", {})
    surveys = {
        other: hostvars[other].get("mpquic_survey", {}).get("survey", {})
        for other in variables.get("ansible_play_hosts", [])
        if other != name
    }
    return {other: str(survey.get("machine_id", "")) for other, survey in surveys.items()}
