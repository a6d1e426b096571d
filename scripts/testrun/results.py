"""How a step has ended: counts from a JUnit file, or from the exit status of a step that counts nothing."""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Result:
    """Counts of one step.

    `reasons` says how many tests were skipped for which reason, `problem` what went wrong besides failed tests.
    """

    passed: int = 0
    failed: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""

    @property
    def skipped(self) -> int:
        """How many tests were skipped, or 1 when the whole step was."""
        return sum(self.reasons.values())


class ResultsError(Exception):
    """A JUnit file that is missing or can't be read."""


def skipped(reason: str) -> Result:
    """Result of a step that wasn't run."""
    return Result(reasons={reason: 1})


def broken(problem: str) -> Result:
    """Result of a step that failed without results of its own."""
    return Result(failed=1, problem=problem)


def describe_status(status: int) -> str:
    """An exit status as subprocess gives it, in words."""
    if status >= 0:
        return f"exit status {status}"
    names = {number.value: number.name for number in signal.Signals}
    return f"ended by {names.get(-status, f'signal {-status}')}"


def conclude(status: int, junit: Path | None) -> Result:
    """Result of a step that has ended with an exit status.

    A step with `junit` has failed when it didn't write that file, even with exit status 0.
    """
    if junit is None:
        return Result(passed=1) if status == 0 else broken(describe_status(status))
    try:
        counted = read_junit(junit)
    except ResultsError as error:
        return broken(f"{describe_status(status)}, {error}")
    if status != 0 and counted.failed == 0:
        problem = f"{describe_status(status)}, although no test failed"
        return Result(counted.passed, 1, counted.reasons, problem)
    if counted.passed + counted.failed + counted.skipped == 0:
        return broken("no test was run")
    return counted


def read_junit(path: Path) -> Result:
    """Counts of the test cases in a JUnit file as pytest writes it.

    Raises:
        ResultsError: the file is missing or incomplete.
    """
    try:
        suites = ET.parse(path).getroot()
    except FileNotFoundError:
        raise ResultsError("no test results were written") from None
    except ET.ParseError as error:
        raise ResultsError(f"its test results can't be read: {error}") from error
    passed = failed = 0
    reasons: Counter[str] = Counter()
    for case in suites.iter("testcase"):
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif skip is not None:
            reasons[_reason(skip)] += 1
        else:
            passed += 1
    return Result(passed, failed, dict(reasons))


def _reason(skip: ET.Element) -> str:
    reason = " ".join(skip.get("message", "").split()) or "no reason given"
    return f"fails as expected: {reason}" if skip.get("type") == "pytest.xfail" else reason
