"""The steps of this project, and the arguments of the two commands."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from testrun import cli, kept, steps

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["bad_input", "default", "hosts", "operations", "render", "soak", "vlan"]
UP = {"up": True, "nodes": [{"name": "client", "state": "running"}], "stopped": []}


def test_every_step_has_a_name_of_its_own() -> None:
    names = [step.name for step in steps.all_steps()]
    assert len(set(names)) == len(names)
    assert {step.group for step in steps.all_steps()} == {"lint", "unit", "scenarios"}


def test_what_takes_too_long_is_no_step_of_a_test_run() -> None:
    assert not {"scenario-soak", "scenario-vlan"} & {step.name for step in steps.all_steps()}


def test_steps_are_chosen_by_name_and_by_group() -> None:
    chosen = steps.choose(steps.all_steps(), ["unit", "mypy"])
    assert [step.name for step in chosen] == [
        "mypy",
        "unit-root",
        "unit-waits",
        "unit-venv",
        *(f"unit-{version}" for version in steps.PYTHONS),
    ]


def test_what_needs_no_machine_of_its_own_runs_beside_the_scenarios() -> None:
    beside = [step.name for step in steps.all_steps() if step.background]
    assert beside == ["unit-venv", *(f"unit-{version}" for version in steps.PYTHONS)]


@pytest.mark.parametrize("marks", [{"root": root, "waits": waits} for root in (False, True) for waits in (False, True)])
def test_each_test_is_run_by_one_step_whatever_its_marks(marks: dict[str, bool]) -> None:
    chosen = {step.name: step.command[step.command.index("-m") + 1] for step in steps.unit() if "-m" in step.command}
    assert len([name for name, expression in chosen.items() if eval(expression, {}, marks)]) == 1


def test_a_wrong_name_of_a_step_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.run_tests(["lit"])
    assert "no step or group is called lit; there are ansible-lint, lint, " in capsys.readouterr().err


def test_scenarios_are_those_with_a_molecule_file(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"molecule/{name}").mkdir(parents=True)
        (tmp_path / f"molecule/{name}/molecule.yml").touch()
    (tmp_path / "molecule/shared").mkdir()
    assert [scenario.name for scenario in steps.scenarios(tmp_path)] == ["a", "b"]
    assert [scenario.name for scenario in steps.scenarios()] == NAMES


def test_a_scenario_with_tests_writes_their_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--color=no")
    expected = {
        "bad_input": None,
        "default": steps.LOGS / "scenario-default.xml",
        "hosts": steps.LOGS / "scenario-hosts.xml",
        "operations": steps.LOGS / "scenario-operations.xml",
        "render": None,
        "soak": steps.LOGS / "scenario-soak.xml",
        "vlan": steps.LOGS / "scenario-vlan.xml",
    }
    for scenario in steps.scenarios():
        step = steps.scenario(scenario)
        assert step.junit == expected[scenario.name]
        if step.junit is not None:
            assert shlex.split(step.environment["PYTEST_ADDOPTS"]) == ["--color=no", f"--junitxml={step.junit}"]


def test_shell_scripts_are_recognised_by_their_first_line(tmp_path: Path) -> None:
    (tmp_path / "scripts/folder").mkdir(parents=True)
    (tmp_path / ".ci").mkdir()
    (tmp_path / "scripts/a").write_text("#!/usr/bin/env bash\n")
    (tmp_path / "scripts/b").write_text("#!/usr/bin/env python3\n")
    (tmp_path / ".ci/c").write_text("#!/bin/sh -e\n")
    assert steps.shell_scripts(tmp_path) == [".ci/c", "scripts/a"]


def interpreter(path: Path, answer: str) -> Path:
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{answer}\n")
    path.chmod(0o755)
    return path


def test_an_interpreter_that_refuses_to_run_is_passed_over(tmp_path: Path) -> None:
    interpreter(tmp_path / "shims/python3.99", "exit 127")
    found = interpreter(tmp_path / "pyenv/versions/3.99.1/bin/python", "echo 3.99")
    variables = {"PATH": str(tmp_path / "shims"), "PYENV_ROOT": str(tmp_path / "pyenv")}
    assert steps.find_python("3.99", variables) == found
    assert steps.find_python("3.98", variables) is None


def test_a_python_that_is_missing_is_a_skipped_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "PYTHONS", ("3.98",))
    assert [step.unavailable for step in steps.unit()] == ["", "", "", "Python 3.98 is not installed here"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--only", "nope"],
            "there is no scenario 'nope'; there are bad_input, default, hosts, operations, render, soak, vlan",
        ),
        (["--only", "render", "-k", "x"], "-k chooses among pytest's tests, and render has none"),
        (["--only", "bad_input", "-k", "x"], "-k chooses among pytest's tests, and bad_input has none"),
        (["-k", "x"], "-k and --converge go with --only NAME"),
        (["--converge"], "-k and --converge go with --only NAME"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run_scenarios(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_scenario_and_an_expression_are_read() -> None:
    options = cli.parse_scenarios(["--only", "default", "-k", "reboot and not hard"], steps.scenarios())
    assert (options.only, options.expression, options.converge) == ("default", "reboot and not hard", False)


def commands(monkeypatch: pytest.MonkeyPatch, missing: str, *arguments: str) -> list[list[str]]:
    """What `scripts/scenarios` would run, in a lab that lacks something or nothing."""
    ran: list[list[str]] = []

    def run(chosen: list[steps.Step], note: str = "") -> int:
        ran.extend(list(step.command) for step in chosen)
        assert ("make lab-down" in note) == ("default" in arguments)
        return 0

    monkeypatch.setattr(cli, "_run", run)
    monkeypatch.setattr(kept, "missing", lambda _environment: missing)
    assert cli.run_scenarios(arguments) == 0
    return ran


def test_a_provisioned_lab_is_only_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    (tests,) = commands(monkeypatch, "", "--only", "default", "-k", "reboot")
    assert tests[0] == "pytest"
    assert tests[-3:] == ["tests", "-k", "reboot"]


@pytest.mark.parametrize(
    ("missing", "arguments"), [("the lab isn't up", ()), ("", ("--converge",)), ("the lab isn't up", ("--converge",))]
)
def test_a_lab_that_lacks_something_is_provisioned_first(
    monkeypatch: pytest.MonkeyPatch, missing: str, arguments: tuple[str, ...]
) -> None:
    ran = commands(monkeypatch, missing, "--only", "default", *arguments)
    assert [words[:2] for words in ran[:2]] == [["molecule", "reset"], ["molecule", "converge"]]
    assert ran[2][0] == "pytest"


def test_a_missing_mpqlab_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(steps, "environment", lambda: {"PATH": "/nonexistent"})
    assert cli.run_scenarios(["--only", "default"]) == 1
    assert "run `make bootstrap`" in capsys.readouterr().err


def test_a_scenario_of_playbooks_is_run_without_destroying(monkeypatch: pytest.MonkeyPatch) -> None:
    (words,) = commands(monkeypatch, "", "--only", "render")
    assert words == ["molecule", "test", "--scenario-name", "render", "--destroy=never"]


def test_without_a_name_all_scenarios_are_run_but_what_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [words[-1] for words in commands(monkeypatch, "")] == [name for name in NAMES if name not in steps.SOAK]


@pytest.mark.parametrize(
    ("status", "tunnels", "expected"),
    [
        ({"up": False, "nodes": [], "stopped": []}, [], "the lab isn't up"),
        (None, [], "the lab isn't up"),
        (UP | {"nodes": [{"name": "client", "state": "off"}]}, [], "parts of the lab don't run: client"),
        (UP | {"stopped": ["wan5.emulator"]}, [], "parts of the lab don't run: wan5.emulator"),
        (UP, [], "no tunnel is up in the lab"),
        (UP, [{"state": "inactive"}, {"state": "down"}], "no tunnel is up in the lab"),
        (UP, [{"state": "inactive"}, {"state": "up"}], ""),
    ],
)
def test_what_the_lab_lacks_is_asked_of_the_lab(
    tmp_path: Path, status: dict[str, Any] | None, tunnels: list[dict[str, Any]], expected: str
) -> None:
    (tmp_path / "status").write_text("" if status is None else json.dumps(status))
    (tmp_path / "table").write_text(json.dumps({"wans": [], "tunnels": tunnels}))
    interpreter(tmp_path / "bin/mpqlab", f'exec cat {shlex.quote(str(tmp_path))}/"$1"')
    assert kept.missing({"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}) == expected
