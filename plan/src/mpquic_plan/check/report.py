"""The results of a check as a table for people and as a document for monitoring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mpquic_plan.check.finding import Finding, Result
from mpquic_plan.terminal import printable

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

UNREACHABLE: Final = "reachable"
"""Name of the check whose only problem is that the host couldn't be reached."""
COMPLETE: Final = "complete"
"""Name of the check whose only problem is that looking at the host ended with an error."""
_HEADINGS: Final = ("HOST", "RESULT", "FINDINGS")


def unreachable(reason: str) -> Finding:
    """Return the one finding of a host that can't be reached."""
    return Finding(UNREACHABLE, Result.PROBLEM, f"it can't be reached: {reason}", "check again when it's back")


def incomplete(reason: str) -> Finding:
    """Return the finding of a host at which looking itself failed."""
    return Finding(
        COMPLETE, Result.PROBLEM, f"it couldn't be looked at: {reason}", "run site.yml --check for this host"
    )


def result(findings: Sequence[Finding]) -> str:
    """Return a host's result in one word."""
    problems = [finding for finding in findings if finding.result is Result.PROBLEM]
    if any(finding.check == UNREACHABLE for finding in problems):
        return "unreachable"
    return "problem" if problems else "ok"


def table(hosts: Mapping[str, Sequence[Finding]]) -> list[str]:
    """Return the lines that people read: a line for each host, then each finding with what to do."""
    cells = [_HEADINGS]
    for name, findings in sorted(hosts.items()):
        counts = {each: sum(finding.result is each for finding in findings) for each in Result}
        shown = [
            f"{counts[each]} {word}" if counts[each] > 1 else f"1 {word.removesuffix('s')}"
            for each, word in ((Result.PROBLEM, "problems"), (Result.HELD, "held"), (Result.SKIPPED, "not looked at"))
            if counts[each]
        ]
        cells.append((name, result(findings), ", ".join(shown) or "none"))
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    for kind, heading in ((Result.PROBLEM, "Problems:"), (Result.HELD, "Held:"), (Result.SKIPPED, "Not looked at:")):
        told = [
            printable(f"  {name}: {finding.text}" + (f" [{finding.remedy}]" if finding.remedy else ""))
            for name, findings in sorted(hosts.items())
            for finding in findings
            if finding.result is kind
        ]
        lines += ["", heading, *told] if told else []
    return lines


def document(hosts: Mapping[str, Sequence[Finding]], now: dt.datetime) -> dict[str, Any]:
    """Return what monitoring reads (`schemas/check.schema.json`); `now` is aware."""
    results = {result(findings) for findings in hosts.values()}
    overall = next((word for word in ("unreachable", "problem") if word in results), "ok")
    return {
        "time": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "result": overall,
        "hosts": {name: result(findings) for name, findings in sorted(hosts.items())},
        "findings": [
            {
                "host": name,
                "check": finding.check,
                "result": finding.result.value,
                "text": finding.text,
                "remedy": finding.remedy,
            }
            for name, findings in sorted(hosts.items())
            for finding in findings
        ],
    }
