"""Runs the module of this name; for `playbooks/check.yml` it notes what would change in place of changing it."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

SWITCH = "mpquic_only_compare"
"""Variable of a play that compares."""
NOTE = "mpquic_differing_files"
"""Fact that has, by path, what a run would do to each file that differs."""


class ActionModule(ActionBase):
    """`owned_files`: the module, and a note of what it finds where a play only compares."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        if not variables.get(SWITCH):
            wrap_async = bool(self._task.async_val and not self._connection.has_native_async)
            found = self._execute_module(module_name="owned_files", task_vars=variables, wrap_async=wrap_async)
            return {**result, **found}
        if not self._task.check_mode:
            raise AnsibleActionFail(f"{SWITCH} is set, and the task isn't in check mode: it would write")
        # Nothing is written, so nothing has to be validated, by a program of a release that may be another one.
        given = self._task.args.get("sets", [])
        sets = [{key: value for key, value in owned.items() if key != "validate"} for owned in given]
        arguments = {**self._task.args, "sets": sets}
        found = self._execute_module(module_name="owned_files", module_args=arguments, task_vars=variables)
        if found.get("failed"):
            return {**result, **found}
        notes = dict(variables.get("ansible_facts", {}).get(NOTE, {}))
        for owned in found["sets"].values():
            notes.update(_differing(owned))
        return {**result, "changed": False, "ansible_facts": {NOTE: notes}}


def _differing(owned: dict[str, Any]) -> dict[str, str]:
    """What the module would do for a set, by path."""
    directory = owned["directory"]
    notes = {
        f"{directory}/{name}": "is missing" if name in owned["missing"] else "was edited, or has another owner or mode"
        for name in owned["written"]
    }
    notes |= {f"{directory}/{name}": "is of ours, and isn't planned" for name in owned["removed"]}
    return notes | dict.fromkeys(owned["directories"], "is missing, or has another owner or mode")
