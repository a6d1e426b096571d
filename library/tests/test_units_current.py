import json
import stat
import sys
from collections.abc import Callable
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


SYSTEMCTL = """#!{python}
import json, sys
from pathlib import Path

folder = Path(__file__).parent
units = json.loads((folder / "units.json").read_text())
verb, *words = sys.argv[1:]
with (folder / "log").open("a") as log:
    log.write(" ".join([verb, *(word for word in words if not word.startswith("-"))]) + "\\n")
names = [word for word in words if word in units]
if verb == "list-units":
    for name, unit in units.items():
        print(name, unit["LoadState"], unit["ActiveState"], "sub", name)
elif verb == "show":
    keys = next(word for word in words if word.startswith("--property=")).removeprefix("--property=").split(",")
    for name in names:
        print(*(unit_value if "--value" in words else f"{{key}}={{unit_value}}"
                for key in keys for unit_value in [units[name].get(key, "no")]), "", sep="\\n")
elif verb in ("reload", "try-restart"):
    refused = [name for name in names if units[name]["LoadState"] == "masked" or units[name].get("broken")]
    for name in refused:
        print(f"Failed to {{verb}} {{name}}", file=sys.stderr)
        units[name]["ActiveState"] = "activating"
    (folder / "units.json").write_text(json.dumps(units))
    sys.exit(bool(refused))
"""


@pytest.fixture
def systemd(tmp_path: Path) -> Callable[[dict[str, dict[str, Any]]], Path]:
    """Put an imitation of systemctl with units into a folder; its file `log` has what is asked of it."""

    def make(units: dict[str, dict[str, Any]]) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "units.json").write_text(json.dumps(units))
        command = folder / "systemctl"
        command.write_text(SYSTEMCTL.format(python=sys.executable))
        command.chmod(0o755)
        return folder

    return make


def _asked(folder: Path) -> list[str]:
    """What changed something."""
    return [line for line in (folder / "log").read_text().splitlines() if not line.startswith(("show", "list-units"))]


Systemd = Callable[[dict[str, dict[str, Any]]], Path]
RUNNING = {"LoadState": "loaded", "ActiveState": "active"}


def test_a_unit_that_does_not_start_leaves_the_others_not_half_way(
    tmp_path: Path, unit: dict[str, Any], systemd: Systemd
) -> None:
    folder = systemd({unit["name"]: RUNNING, "mpquic@mpq2.service": {**RUNNING, "broken": True}})
    units = [unit, {**unit, "name": "mpquic@mpq2.service"}]
    state = tmp_path / "state"
    answer = run_module("units_current", {"units": units, "state": str(state)}, path=str(folder))
    assert answer["restarted"] == [unit["name"], "mpquic@mpq2.service"]
    assert answer["late"] == ["mpquic@mpq2.service"]
    assert all(Applied(state, each).need() == "none" for each in units)


@pytest.mark.parametrize("active", ["active", "inactive", "failed"])
def test_a_masked_unit_is_no_obstacle_and_is_made_current_once_it_may_run(
    tmp_path: Path, unit: dict[str, Any], systemd: Systemd, active: str
) -> None:
    """An upgrade, while an operator has one tunnel out of service by `systemctl mask`."""
    state = tmp_path / "state"
    Applied(state, unit).remember()
    (tmp_path / "release").write_text("2")
    other = {**unit, "name": "mpquic@mpq2.service"}
    folder = systemd({unit["name"]: {"LoadState": "masked", "ActiveState": active}, other["name"]: RUNNING})
    answer = run_module("units_current", {"units": [unit, other], "state": str(state)}, path=str(folder))
    assert answer["restarted"] == [other["name"]]
    assert _asked(folder) == [f"try-restart {other['name']}"]
    # What runs with former files is noticed again; what doesn't run will start with those of today.
    assert answer["masked"] == ([unit["name"]] if active == "active" else [])
    assert Applied(state, unit).need() == ("restart" if active == "active" else "none")


@pytest.mark.parametrize(
    ("load", "active", "stopped"),
    [
        ("loaded", "active", True),
        ("masked", "active", True),
        ("masked", "failed", True),
        ("masked", "inactive", False),
        ("loaded", "inactive", False),
    ],
)
def test_an_instance_that_is_gone_or_out_of_service_is_stopped_once(
    tmp_path: Path, unit: dict[str, Any], systemd: Systemd, load: str, active: str, *, stopped: bool
) -> None:
    state = tmp_path / "state"
    Applied(state, unit).remember()
    folder = systemd({unit["name"]: {"LoadState": load, "ActiveState": active}})
    arguments = {"units": [], "state": str(state), "patterns": ["mpquic@*.service"]}
    answer = run_module("units_current", arguments, path=str(folder))
    assert answer["changed"] is stopped
    assert answer["stopped"] == ([unit["name"]] if stopped else [])
    assert _asked(folder) == ([f"stop {unit['name']}", f"reset-failed {unit['name']}"] if stopped else [])
    assert Applied(state, unit).need() == ("restart" if stopped else "none")
