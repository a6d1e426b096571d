"""The table of all steps, what failed in each, and the line of totals."""

from __future__ import annotations

import re
import sys
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from testrun.results import Result
    from testrun.runner import Row

HEAD = ("step", "passed", "failed", "skipped", "seconds", "reasons of skips")
SHOWN_LINES = 40
TAIL_LINES = 20
DETAIL_LINES = 8
# Molecule draws a frame around what it runs.
_FRAME = re.compile(r"^\s*[│┌└]\s?")
_PYTEST = re.compile(r"(FAILED|ERROR) \S")
_ANSIBLE = re.compile(r"(fatal|failed): \[")
_RUFF = re.compile(r"\s*--> \S+:\d+")
_TASK = re.compile(r"(TASK|RUNNING HANDLER) \[")


def say(text: str) -> None:
    """Print text at once, so that it stays in order with what the steps print."""
    print(text, flush=True)


def show(rows: Sequence[Row], root: Path, note: str = "") -> None:
    """Print the table, what failed, a note and, as the last line, the totals."""
    lines = ["", *table(rows)]
    for row in rows:
        if row.result.failed:
            lines += ["", *failure(row, root)]
    say("\n".join([*lines, "", *([note, ""] if note else []), totals([row.result for row in rows])]))
    sys.stdout.flush()


def table(rows: Sequence[Row]) -> list[str]:
    """Return a line for the head and for each step; further reasons of skips have lines of their own."""
    cells = [list(HEAD)]
    for row in rows:
        result = row.result
        reasons = [f"{count}: {reason}" for reason, count in sorted(result.reasons.items())] or [""]
        counts = [str(result.passed), str(result.failed), str(result.skipped), f"{row.seconds:.1f}"]
        cells.append([row.name, *counts, reasons[0]])
        cells += [[""] * 5 + [reason] for reason in reasons[1:]]
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    return [
        "  ".join(
            [line[0].ljust(widths[0]), *(line[column].rjust(widths[column]) for column in range(1, 5)), line[5]]
        ).rstrip()
        for line in cells
    ]


def totals(results: Sequence[Result]) -> str:
    """Return the counts of all steps together: `N passed, N failed, N skipped`."""
    passed, failed, skipped = (sum(getattr(result, name) for result in results) for name in HEAD[1:4])
    return f"{passed} passed, {failed} failed, {skipped} skipped"


def failure(row: Row, root: Path) -> list[str]:
    """Return where the log of a failed step is, and its lines that tell what failed."""
    if row.log is None or not row.log.exists():
        return [f"{row.name} failed: {row.result.problem}"]
    path = row.log.relative_to(root) if row.log.is_relative_to(root) else row.log
    problem = f": {row.result.problem}" if row.result.problem else ""
    told = telling(row.log.read_text(errors="replace").splitlines())
    return [f"{row.name} failed{problem}; log: {path}", *(f"    {line}" for line in told)]


def telling(log: Sequence[str]) -> list[str]:
    """Return the lines of a log that tell what failed.

    These are pytest's FAILED and ERROR lines, Ansible's failed tasks with the beginning of their messages, and ruff's
    findings with their places; in a log that has none of them, the last lines.
    """
    lines = [_FRAME.sub("", line).rstrip() for line in log]
    found: list[str] = []
    task = ""
    for number, line in enumerate(lines):
        if _TASK.match(line):
            task = line.rstrip("* ")
        elif _PYTEST.match(line):
            found.append(line)
        elif _ANSIBLE.match(line):
            detail = takewhile(lambda text: text.startswith(" "), lines[number + 1 : number + 1 + DETAIL_LINES])
            found += [*([task] if task else []), line, *detail]
            task = ""
        elif _RUFF.match(line):
            found += [lines[number - 1], line] if number else [line]
    if found:
        return found[-SHOWN_LINES:]
    return [line for line in lines if line][-TAIL_LINES:]
