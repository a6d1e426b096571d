"""The end of a run of playbooks/check.yml: a table of findings, and the file for monitoring."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase
from mpquic_plan.check import Finding, Result, report

DOCUMENTATION = r"""
name: mpquic_check_report
type: aggregate
short_description: A table of findings at the end of playbooks/check.yml
description:
  - Printed at the end of every run of playbooks/check.yml, also of one that a failure has ended. The variable
    C(mpquic_check_json), given with C(-e), names a file that gets the same as JSON.
requirements: [enable in configuration]
"""

PLAYBOOK = "check.yml"
JUDGE = "mpquic_check"
PATH = "mpquic_check_json"


def _one_line(reason: str) -> str:
    """A reason without what Ansible puts before each."""
    return " ".join(reason.removeprefix("Task failed: ").split())


class CallbackModule(CallbackBase):
    """Collects findings while the plays run."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "mpquic_check_report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, display: Any = None, options: Any = None) -> None:
        super().__init__(display=display, options=options)
        self._hosts: dict[str, list[Finding]] = {}
        self._path = ""
        self._folder = Path()
        self._active = False

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._active = Path(playbook._file_name).name == PLAYBOOK

    def v2_playbook_on_play_start(self, play: Any) -> None:
        manager = play.get_variable_manager()
        self._path = str(manager.extra_vars.get(PATH, ""))
        for host in manager._inventory.get_hosts(play.hosts):
            self._hosts.setdefault(host.get_name(), [])

    def v2_runner_on_ok(self, result: Any) -> None:
        self._take(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if not ignore_errors and not self._take(result):
            said = result._result
            reason = str(said.get("msg") or said.get("stderr") or said.get("exception") or "see above")
            self._hosts[result._host.get_name()] = [report.incomplete(_one_line(reason))]

    def v2_runner_on_unreachable(self, result: Any) -> None:
        reason = str(result._result.get("msg") or "no reason given")
        self._hosts[result._host.get_name()] = [report.unreachable(_one_line(reason))]

    def _take(self, result: Any) -> bool:
        """Take the findings of a result that has some; whether it had."""
        invocation = result._result.get("invocation")
        if result._task.action != JUDGE or not isinstance(invocation, dict) or "findings" not in invocation:
            return False
        self._hosts[result._host.get_name()] = [
            Finding(each["check"], Result(each["result"]), each["text"], each["remedy"])
            for each in invocation["findings"]
        ]
        return True

    def v2_playbook_on_stats(self, stats: Any) -> None:  # noqa: ARG002
        if not self._active or not self._hosts:
            return
        hosts = {
            name: findings or [report.incomplete("the run ended before its turn")]
            for name, findings in self._hosts.items()
        }
        self._display.banner("CHECK")
        for line in report.table(hosts):
            self._display.display(line)
        if self._path:
            self._write(report.document(hosts, dt.datetime.now(dt.UTC)))

    def _write(self, document: dict[str, Any]) -> None:
        """Replace the file in one step: who reads it meanwhile has the old one or the new one."""
        path = Path(self._path).expanduser()
        unfinished = path.with_name(f".{path.name}.new")
        try:
            unfinished.write_text(json.dumps(document, indent=2) + "\n")
            unfinished.replace(path)
        except OSError as error:
            self._display.error(f"{PATH}: {path} can't be written: {error.strerror}")
