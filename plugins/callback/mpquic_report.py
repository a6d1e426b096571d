"""The table at the end of a run of site.yml: each host, how it went, what changed, its tunnels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase
from mpquic_plan.terminal import printable

DOCUMENTATION = r"""
name: mpquic_report
type: aggregate
short_description: A table of hosts, results, changes and tunnels at the end of site.yml
description:
  - Printed at the end of every run of site.yml, also of one that a failure has ended.
requirements: [enable in configuration]
"""

PLAYBOOK = "site.yml"
HEADINGS = ("HOST", "RESULT", "CHANGED", "TUNNELS")
UP = ("up", "listening")
SITE_PREFIX = "urn:mpquic:site:"
VERIFY = "verify"
CHECKS_OF_VARIABLES = ("ansible.builtin.validate_argument_spec",)
"""Actions by which each role begins, and which touch no host."""


@dataclass
class Row:
    """What is known of a host."""

    changed: dict[str, int] = field(default_factory=dict)
    """Number of changed tasks by role."""
    begun: bool = False
    """Whether a task has run that may change the host."""
    done: bool = False
    unreachable: str = ""
    failed: str = ""
    problems: list[str] = field(default_factory=list)
    """What the preflight has found, in full."""
    tunnels: list[dict[str, Any]] | None = None

    def conclude(self, *, failed: bool, unreachable: bool) -> None:
        """Forget failures that a later task has mended (`rescue`, `ignore_unreachable`)."""
        if not failed:
            self.failed, self.problems = "", []
        self.unreachable = self.unreachable if unreachable else ""

    def result(self) -> str:
        """One word or two."""
        if self.unreachable:
            return "unreachable"
        if self.failed:
            return "failed" if self.begun else "stopped"
        if not self.done:
            return "not finished" if self.begun else "not begun"
        return "changed" if self.changed else "ok"


def changes(row: Row) -> str:
    """Roles with the number of their tasks that have changed something."""
    return ", ".join(f"{role} {count}" for role, count in row.changed.items()) or "nothing"


def tunnels(row: Row) -> str:
    """States of the tunnels, those that carry first; `-` when they weren't looked at."""
    if row.tunnels is None:
        return "-"
    by_state: dict[str, list[str]] = {}
    for tunnel in row.tunnels:
        by_state.setdefault(str(tunnel.get("state")), []).append(f"{tunnel.get('name')}{on_purpose(tunnel)}")
        if held := sites_held(tunnel):
            by_state.setdefault("held", []).extend(held)
    states = sorted(by_state, key=lambda state: (state not in UP, state))
    return printable("; ".join(f"{state}: {', '.join(sorted(by_state[state]))}" for state in states)) or "none"


def sites_held(tunnel: dict[str, Any]) -> list[str]:
    """The sites of a server instance whose tunnel is out of service on purpose, each with who and why."""
    peers = [peer for peer in tunnel.get("peers") or [] if isinstance(peer, dict) and peer.get("state") == "held"]
    return [
        f"{tunnel.get('name')} of {str(peer.get('identity')).removeprefix(SITE_PREFIX)}{on_purpose(peer)}"
        for peer in peers
    ]


def on_purpose(tunnel: dict[str, Any]) -> str:
    """Who has taken a tunnel out of service, and why, in parentheses; `` for one that is in service."""
    hold = tunnel.get("hold")
    if tunnel.get("state") != "held" or not isinstance(hold, dict):
        return ""
    return f" ({': '.join(str(hold[key]) for key in ('by', 'reason') if hold.get(key))})"


def table(rows: dict[str, Row]) -> list[str]:
    """The lines of the table."""
    cells = [HEADINGS, *((name, row.result(), changes(row), tunnels(row)) for name, row in sorted(rows.items()))]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def failure(result: dict[str, Any]) -> str:
    """The cause in the result of a failed task; of a loop, the causes of its items."""
    items = [item for item in result.get("results", []) if isinstance(item, dict) and item.get("failed")]
    causes = [failure(item) for item in items] or [
        str(result.get("msg") or result.get("stderr") or result.get("exception") or "see above")
    ]
    return "\n".join(dict.fromkeys(causes))


def problems(result: dict[str, Any]) -> list[str]:
    """Problems that are told here alone: the part `invocation` of a result comes here, and isn't shown without -vvv."""
    invocation = result.get("invocation")
    listed = invocation.get("problems") if isinstance(invocation, dict) else None
    return [str(problem) for problem in listed] if isinstance(listed, list) else []


def reasons(rows: dict[str, Row]) -> list[str]:
    """A line for each host that didn't come through, with the cause."""
    lines = []
    for name, row in sorted(rows.items()):
        text = row.unreachable or row.failed
        if row.problems:
            lines += [f"{name}: {problem}" for problem in row.problems]
        elif text:
            first, *more = [line for line in text.strip().splitlines() if line.strip()] or ["no reason given"]
            # A message with a heading ends in a colon; what counts is below it.
            shown = (
                "; ".join(line.strip().removeprefix("- ") for line in more) if first.endswith(":") and more else first
            )
            lines.append(f"{name}: {shown}")
    return lines


def verification_is_wanted() -> bool:
    """Whether the options --tags, --skip-tags and --check let the role verify look at a host."""
    if context.CLIARGS.get("check"):
        return False
    tags, skipped = (set(context.CLIARGS.get(key) or ()) for key in ("tags", "skip_tags"))
    return (not tags or bool(tags & {"all", "tagged", VERIFY})) and not skipped & {"all", "tagged", VERIFY}


class CallbackModule(CallbackBase):
    """Collects results while the plays run."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "mpquic_report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, display: Any = None, options: Any = None) -> None:
        super().__init__(display=display, options=options)
        self._rows: dict[str, Row] = {}
        self._active = False

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._active = Path(playbook._file_name).name == PLAYBOOK

    def v2_playbook_on_play_start(self, play: Any) -> None:
        hosts = play.get_variable_manager()._inventory.get_hosts(play.hosts)
        for host in hosts:
            self._rows.setdefault(host.get_name(), Row())

    def _row(self, result: Any) -> Row:
        return self._rows.setdefault(result._host.get_name(), Row())

    def v2_runner_on_ok(self, result: Any) -> None:
        row, role = self._row(result), self._role(result)
        if role not in ("preflight", "") and self._is_for_the_host(result):
            row.begun = True
        if result._result.get("changed") and self._is_for_the_host(result):
            row.changed[role or "site.yml"] = row.changed.get(role or "site.yml", 0) + 1
        self._look_at(row, result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if ignore_errors:
            return
        row = self._row(result)
        row.problems = problems(result._result)
        row.failed = failure(result._result)
        self._look_at(row, result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._row(result).unreachable = str(result._result.get("msg") or "no reason given")

    @staticmethod
    def _role(result: Any) -> str:
        role = result._task._role
        return role.get_name() if role else ""

    @staticmethod
    def _is_for_the_host(result: Any) -> bool:
        """Whether a task does something on its host, and not on the controller, once for all of them."""
        task = result._task
        return not task.delegate_to and not task.run_once and task.resolved_action not in CHECKS_OF_VARIABLES

    @staticmethod
    def _look_at(row: Row, result: Any) -> None:
        if "tunnels" in result._result and result._task.action == "site_health":
            row.tunnels = list(result._result["tunnels"])
            row.done = not result._result.get("failed")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if not self._active or not self._rows:
            return
        for name, row in self._rows.items():
            row.conclude(failed=bool(stats.failures.get(name)), unreachable=bool(stats.dark.get(name)))
            # Without the verification, at the end of which a host is done, the end of the run is.
            row.done |= row.begun and not verification_is_wanted()
        self._display.banner("SITES AND VPSES")
        causes = reasons(self._rows)
        for line in [*table(self._rows), *([""] if causes else []), *causes]:
            self._display.display(line)
