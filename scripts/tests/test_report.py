"""Which lines of a log tell what failed."""

from __future__ import annotations

from testrun.report import telling

MOLECULE = """
INFO     default > converge: Executing
  │ PLAY [Provision the VPS] *****
  │
  │ TASK [base : Packages] *********
  │ ok: [vps1]
  │
  │ TASK [daemon : Start] *********
  │ fatal: [vps1]: FAILED! =>
  │     changed: false
  │     msg: the unit fails
  │
  │ PLAY RECAP *****
  │ vps1                  : ok=1    failed=1
""".splitlines()


def test_a_failed_task_is_shown_with_its_name_and_message() -> None:
    assert telling(MOLECULE) == [
        "TASK [daemon : Start]",
        "fatal: [vps1]: FAILED! =>",
        "    changed: false",
        "    msg: the unit fails",
    ]


def test_tests_of_pytest_are_shown_without_their_traces() -> None:
    log = ["  │ E   assert 1 == 2", "  │ FAILED tests/test_a.py::test_b - assert 1 == 2", "  │ ERROR tests/test_c.py"]
    assert telling(log) == ["FAILED tests/test_a.py::test_b - assert 1 == 2", "ERROR tests/test_c.py"]


def test_findings_of_ruff_are_shown_with_their_places() -> None:
    log = [
        "F401 `sys` imported but unused",
        " --> plan/a.py:4:8",
        "  |",
        "4 | import sys",
        "  |        ^^^",
        "",
        "Found 1 error.",
    ]
    assert telling(log) == ["F401 `sys` imported but unused", " --> plan/a.py:4:8"]


def test_of_other_logs_the_last_lines_are_shown() -> None:
    assert telling([*(f"line {number}" for number in range(100)), ""]) == [
        f"line {number}" for number in range(80, 100)
    ]
