import stat
from pathlib import Path
from typing import Any

import pytest
from module_process import run_module
from units_current import Applied


@pytest.fixture
def unit(tmp_path: Path) -> dict[str, Any]:
    for name in ("release", "config", "revoked"):
        (tmp_path / name).write_text("1")
    return {
        "name": "mpquic@mpq1.service",
        "restart_files": [str(tmp_path / "release")],
        "config": str(tmp_path / "config"),
        "reload_files": [str(tmp_path / "revoked")],
    }


def test_what_is_not_known_is_restarted(tmp_path: Path, unit: dict[str, Any]) -> None:
    assert Applied(tmp_path / "state", unit).need() == "restart"


@pytest.mark.parametrize(("changed", "need"), [("release", "restart"), ("config", "config"), ("revoked", "reload")])
def test_each_file_has_its_consequence_once(tmp_path: Path, unit: dict[str, Any], changed: str, need: str) -> None:
    applied = Applied(tmp_path / "state", unit)
    applied.remember()
    assert applied.need() == "none"
    (tmp_path / changed).write_text("2")
    assert applied.need() == need
    applied.remember()
    assert applied.need() == "none"


def test_a_unit_that_gets_files_to_reload_is_reloaded(tmp_path: Path, unit: dict[str, Any]) -> None:
    Applied(tmp_path / "state", {**unit, "reload_files": []}).remember()
    assert Applied(tmp_path / "state", unit).need() == "reload"


def test_nothing_is_left_of_a_forgotten_unit(tmp_path: Path, unit: dict[str, Any]) -> None:
    applied = Applied(tmp_path / "state", unit)
    applied.remember()
    applied.forget()
    assert list((tmp_path / "state").iterdir()) == []


def test_copies_of_configurations_are_roots_alone_whatever_the_umask(tmp_path: Path, unit: dict[str, Any]) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    Applied(state, unit).remember()
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


SYSTEMCTL = """#!/bin/sh
case "$1 $2" in
    "try-restart "*) echo "Job for $3 failed" >&2; exit 1 ;;
    "show --property=NeedDaemonReload") echo no ;;
    "show --property=ActiveState")
        if [ $# = 4 ]; then echo active; else echo active; echo activating; fi ;;
esac
"""


def test_a_unit_that_does_not_start_leaves_the_others_not_half_way(tmp_path: Path, unit: dict[str, Any]) -> None:
    (tmp_path / "bin").mkdir()
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.write_text(SYSTEMCTL)
    systemctl.chmod(0o755)
    units = [unit, {**unit, "name": "mpquic@mpq2.service"}]
    state = tmp_path / "state"
    answer = run_module("units_current", {"units": units, "state": str(state)}, path=str(tmp_path / "bin"))
    assert answer["restarted"] == [unit["name"], "mpquic@mpq2.service"]
    assert answer["late"] == ["mpquic@mpq2.service"]
    assert all(Applied(state, each).need() == "none" for each in units)
