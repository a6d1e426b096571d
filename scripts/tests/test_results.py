"""What a step's result is, by its exit status and its JUnit file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from testrun.results import Result, conclude

if TYPE_CHECKING:
    from pathlib import Path

CASES = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" errors="1" failures="1" skipped="4" tests="8">
<testcase classname="a" name="passes"/>
<testcase classname="a" name="passes_too"><system-out>words</system-out></testcase>
<testcase classname="a" name="fails"><failure message="assert 0">trace</failure></testcase>
<testcase classname="a" name="errs"><error message="failed on setup">trace</error></testcase>
<testcase classname="a" name="root"><skipped type="pytest.skip" message="needs root">place</skipped></testcase>
<testcase classname="a" name="root_too"><skipped type="pytest.skip" message="needs root">place</skipped></testcase>
<testcase classname="a" name="other"><skipped type="pytest.skip" message="nothing measured yet"/></testcase>
<testcase classname="a" name="expected"><skipped type="pytest.xfail" message="not yet"/></testcase>
</testsuite></testsuites>
"""
ONE_PASSES = '<testsuites><testsuite><testcase classname="a" name="b"/></testsuite></testsuites>'
NONE = "<testsuites><testsuite/></testsuites>"


@pytest.fixture
def junit(tmp_path: Path) -> Path:
    return tmp_path / "results.xml"


def test_tests_are_counted_with_the_reasons_of_skips(junit: Path) -> None:
    junit.write_text(CASES)
    assert conclude(1, junit) == Result(
        passed=2, failed=2, reasons={"needs root": 2, "nothing measured yet": 1, "fails as expected: not yet": 1}
    )


@pytest.mark.parametrize(
    ("status", "expected"),
    [(0, Result(passed=1)), (2, Result(failed=1, problem="exit status 2"))],
)
def test_a_step_without_tests_passes_or_fails_as_one(status: int, expected: Result) -> None:
    assert conclude(status, None) == expected


def test_a_step_that_a_signal_has_ended_says_so() -> None:
    assert conclude(-11, None).problem == "ended by SIGSEGV"


@pytest.mark.parametrize("status", [0, 1, -11])
def test_no_results_are_a_failure_whatever_the_exit_status(junit: Path, status: int) -> None:
    result = conclude(status, junit)
    assert (result.passed, result.failed) == (0, 1)
    assert "no test results were written" in result.problem


def test_incomplete_results_are_a_failure(junit: Path) -> None:
    junit.write_text(CASES[: len(CASES) // 2])
    assert (conclude(0, junit).passed, conclude(0, junit).failed) == (0, 1)


def test_an_exit_status_that_no_test_explains_is_a_failure(junit: Path) -> None:
    junit.write_text(ONE_PASSES)
    result = conclude(3, junit)
    assert (result.passed, result.failed) == (1, 1)
    assert result.problem == "exit status 3, although no test failed"


@pytest.mark.parametrize("status", [0, 5])
def test_no_test_at_all_is_a_failure(junit: Path, status: int) -> None:
    junit.write_text(NONE)
    assert conclude(status, junit).failed == 1
