"""Fake steps, run one after the other as `make test` runs the real ones."""

from __future__ import annotations

import dataclasses
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from testrun import processes, report
from testrun.processes import Interruption
from testrun.runner import Runner, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPTS = Path(__file__).resolve().parents[1]
TESTS = """
import os
import pytest

def test_passes():
    pass

@pytest.mark.skipif(True, reason="needs root and a moon")
def test_skipped():
    pass

def test_fails():
    assert os.environ.get("FAIL") is None, "a number is wrong"

def test_crashes():
    if os.environ.get("CRASH"):
        os.abort()
"""
# Prints its own process id and those of a child in its group and one in a session of its own, then hangs; none of the
# three heeds SIGINT.
FAMILY = """
import os, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
children = [subprocess.Popen(["sleep", "300"], start_new_session=own) for own in (False, True)]
print("pids", os.getpid(), *(child.pid for child in children), flush=True)
signal.pause()
"""
RUNNER = """
import os, signal, sys
from pathlib import Path
from testrun import processes, report
from testrun.runner import Runner, Step
folder = Path(sys.argv[1])
hangs = [sys.executable, "-c", sys.argv[2]]
beside = [sys.executable, "-c", "import signal; signal.pause()"]
steps = [
    *(Step("beside", "all", beside, folder, dict(os.environ), background=True) for _ in sys.argv[3:]),
    Step("hangs", "all", hangs, folder, dict(os.environ)),
    Step("later", "all", ["true"], folder, dict(os.environ)),
]
with processes.Interruption() as interruption:
    runner = Runner(folder, interruption, ending=((signal.SIGINT, 0.2), (signal.SIGTERM, 10.0)))
    status = runner.run(steps)
    report.show(runner.rows, folder)
sys.exit(status)
"""


def python(name: str, folder: Path, code: str) -> Step:
    return Step(name, "all", [sys.executable, "-c", code], folder, dict(os.environ))


def suite(name: str, folder: Path, **changes: str) -> Step:
    """A step of pytest with a passing, a skipped and two more tests."""
    file, results = folder / f"test_{name}.py", folder / f"{name}.xml"
    file.write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={results}", str(file)]
    return Step(name, "all", command, folder, {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **changes}, results)


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with Interruption() as interruption:
        yield Runner(tmp_path / "logs", interruption)


@pytest.fixture
def shown(runner: Runner, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """What `report.show` prints, by lines."""

    def lines() -> list[str]:
        capfd.readouterr()
        report.show(runner.rows, tmp_path)
        return capfd.readouterr().out.splitlines()

    return lines


def test_all_steps_pass(runner: Runner, tmp_path: Path, shown: Callable[[], list[str]]) -> None:
    assert runner.run([python("one", tmp_path, "print('output')"), suite("two", tmp_path)]) == 0
    assert (tmp_path / "logs/one.log").read_text() == "output\n"
    lines = shown()
    assert lines[1].split()[:5] == ["step", "passed", "failed", "skipped", "seconds"]
    assert lines[3].split()[:4] == ["two", "3", "0", "1"]
    assert lines[3].endswith("  1: needs root and a moon")
    assert lines[-1] == "4 passed, 0 failed, 1 skipped"


def test_later_steps_run_after_failures(runner: Runner, tmp_path: Path, shown: Callable[[], list[str]]) -> None:
    absent = Step("absent", "all", ["no-such-command"], tmp_path, dict(os.environ))
    missing = Step(
        "missing", "all", ["true"], tmp_path, dict(os.environ), unavailable="Python 4.0 is not installed here"
    )
    steps = [
        python("fails", tmp_path, "raise SystemExit('line 3 is too long')"),
        absent,
        suite("some", tmp_path, FAIL="1"),
        suite("crash", tmp_path, CRASH="1"),
        missing,
        python("last", tmp_path, "print('ran')"),
    ]
    assert runner.run(steps) == 1
    counts = [(row.name, row.result.passed, row.result.failed, row.result.skipped) for row in runner.rows]
    assert counts == [
        ("fails", 0, 1, 0),
        ("absent", 0, 1, 0),
        ("some", 2, 1, 1),
        ("crash", 0, 1, 0),
        ("missing", 0, 0, 1),
        ("last", 1, 0, 0),
    ]
    lines = shown()
    assert "fails failed: exit status 1; log: logs/fails.log" in lines
    assert "    line 3 is too long" in lines
    assert any(line.startswith("    FAILED test_some.py::test_fails - AssertionError: a number is") for line in lines)
    assert "crash failed: ended by SIGABRT, no test results were written; log: logs/crash.log" in lines
    assert any(line.endswith("1: Python 4.0 is not installed here") for line in lines)
    assert lines[-1] == "3 passed, 4 failed, 2 skipped"


def test_results_of_an_earlier_run_do_not_count(runner: Runner, tmp_path: Path) -> None:
    runner.run([suite("same", tmp_path)])
    runner.run([suite("same", tmp_path, CRASH="1")])
    assert [row.result.failed for row in runner.rows] == [0, 1]


def test_a_step_is_left_out_when_one_that_it_needs_did_not_pass(runner: Runner, tmp_path: Path) -> None:
    first = python("first", tmp_path, "raise SystemExit(1)")
    second = Step("second", "all", ["true"], tmp_path, dict(os.environ), needs="first")
    third = Step("third", "all", ["true"], tmp_path, dict(os.environ), needs="second")
    assert runner.run([first, second, third]) == 1
    assert [dict(row.result.reasons) for row in runner.rows[1:]] == [
        {"first did not pass": 1},
        {"second did not pass": 1},
    ]


def test_a_step_in_the_background_holds_up_none_that_follows(
    runner: Runner, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It ends by what the step after it does, and has a lower priority."""
    os.mkfifo(tmp_path / "fifo")
    code = "import os; print(open('fifo').read(), os.getpriority(os.PRIO_PROCESS, 0))"
    waits = dataclasses.replace(python("waits", tmp_path, code), background=True)
    fails = dataclasses.replace(python("fails", tmp_path, "raise SystemExit(1)"), background=True)
    assert runner.run([waits, fails, python("writes", tmp_path, "open('fifo', 'w').write('written')")]) == 1
    # These tests may run in the background themselves.
    expected = min(19, os.getpriority(os.PRIO_PROCESS, 0) + processes.NICENESS)
    assert (tmp_path / "logs/waits.log").read_text() == f"written {expected}\n"
    assert [(row.name, row.result.failed) for row in runner.rows] == [("waits", 0), ("fails", 1), ("writes", 0)]
    output = capfd.readouterr().out
    assert "== waits passed after " in output
    assert "== fails failed after " in output
    assert "written" not in output.splitlines()


def test_what_has_nothing_to_run_beside_is_shown_as_it_runs(
    runner: Runner, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    last = dataclasses.replace(python("last", tmp_path, "print('here')"), background=True)
    assert runner.run([python("first", tmp_path, ""), last]) == 0
    assert "here" in capfd.readouterr().out.splitlines()


def test_a_process_that_a_step_leaves_behind_is_not_waited_for(runner: Runner, tmp_path: Path) -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '300'], start_new_session=True).pid)"
    assert runner.run([python("leaves", tmp_path, code)]) == 0
    pid = int((tmp_path / "logs/leaves.log").read_text())
    os.kill(pid, signal.SIGKILL)


def test_the_log_has_neither_colours_nor_carriage_returns(runner: Runner, tmp_path: Path) -> None:
    runner.run([python("coloured", tmp_path, r"print('\x1b[31mred\x1b[0m\r\nrest', end='')")])
    assert (tmp_path / "logs/coloured.log").read_text() == "red\nrest"


def test_on_a_terminal_a_step_has_one_as_well(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    code = "import os; print('terminal', os.isatty(1), os.isatty(2), os.isatty(0)); raise SystemExit(3)"
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(tmp_path), code],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        stdout=theirs,
    )
    os.close(theirs)
    try:
        assert process.wait(timeout=30) == 1
        assert b"terminal True True False\r\n" in os.read(ours, 1 << 16)
    finally:
        os.close(ours)
    assert (tmp_path / "hangs.log").read_text() == "terminal True True False\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_the_step_and_its_children(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(tmp_path), FAMILY],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = next(line for line in process.stdout if line.startswith("pids "))
    descriptors = [os.pidfd_open(int(word)) for word in line.split()[1:]]
    process.send_signal(number)
    output = process.communicate(timeout=30)[0]
    try:
        # A pidfd can be read once its process has ended.
        assert set(select.select(descriptors, [], [], 0)[0]) == set(descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    assert process.returncode == 128 + number
    assert "hangs failed: interrupted; log: hangs.log" in output
    assert output.splitlines()[-1] == "0 passed, 1 failed, 1 skipped"


def test_an_interruption_ends_what_runs_in_the_background(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(tmp_path), FAMILY, "background"],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert any(line.startswith("pids ") for line in process.stdout)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 128 + signal.SIGINT
    assert "beside failed: interrupted; log: beside.log" in output
    assert output.splitlines()[-1] == "0 passed, 2 failed, 1 skipped"


def test_the_family_of_a_process_is_itself_and_its_descendants() -> None:
    child = subprocess.Popen(["sh", "-c", "sleep 300 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    try:
        assert processes.family({child.pid}) == {child.pid, grandchild}
    finally:
        os.kill(grandchild, signal.SIGKILL)
        child.communicate(timeout=10)
