"""What the guard keeps in place while a run changes things."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import guard_narrow
from hypothesis import given
from hypothesis import strategies as st
from module_process import run_module

if TYPE_CHECKING:
    from pathlib import Path

values = st.one_of(
    st.integers(), st.lists(st.integers(0, 3)), st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)), st.text()
)
files = st.dictionaries(st.sampled_from(["rules", "routes", "parameters", "filter_file"]), values)


def test_what_is_no_longer_wanted_leaves_and_what_is_not_there_yet_stays_out() -> None:
    present = {"rules": [{"priority": 1}, {"priority": 2}], "parameters": {"a": 0, "b": 1}, "filter_file": "/x"}
    wanted = {"rules": [{"priority": 2}, {"priority": 3}], "parameters": {"a": 0, "b": 2, "c": 1}, "filter_file": "/x"}
    assert guard_narrow.narrowed(present, wanted) == {
        "rules": [{"priority": 2}],
        "parameters": {"a": 0},
        "filter_file": "/x",
    }


def test_a_device_whose_properties_change_leaves() -> None:
    present = {"tuns": [{"name": "mpq4", "mtu": 1400}]}
    assert guard_narrow.narrowed(present, {"tuns": [{"name": "mpq4", "mtu": 1380}]}) == {"tuns": []}


@given(files, files)
def test_what_stays_is_in_both_and_another_run_changes_nothing(present: dict[str, Any], wanted: dict[str, Any]) -> None:
    kept = guard_narrow.narrowed(present, wanted)
    assert guard_narrow.narrowed(kept, wanted) == kept
    assert guard_narrow.narrowed(present, present) == present
    for name, value in kept.items():
        if isinstance(value, list):
            assert all(entry in present[name] and entry in wanted[name] for entry in value)
        elif isinstance(value, dict):
            assert value.items() <= present[name].items()
            assert value.items() <= wanted[name].items()
        else:
            assert value == present[name] == wanted[name]


def test_the_file_is_narrowed_with_its_mode_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "guard.json"
    wanted = {"rules": [{"priority": 2}]}
    assert not run_module("guard_narrow", {"path": str(path), "wanted": wanted})["changed"]
    assert not path.exists()
    path.write_text(json.dumps({"rules": [{"priority": 1}, {"priority": 2}]}))
    path.chmod(0o640)
    dry = run_module("guard_narrow", {"path": str(path), "wanted": wanted, "_ansible_check_mode": True})
    assert dry["changed"]
    assert len(json.loads(path.read_text())["rules"]) == 2
    answer = run_module("guard_narrow", {"path": str(path), "wanted": wanted})
    assert answer["dropped"] == ["rules"]
    assert json.loads(path.read_text()) == wanted
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not run_module("guard_narrow", {"path": str(path), "wanted": wanted})["changed"]


def test_a_file_that_cannot_be_read_is_emptied(tmp_path: Path) -> None:
    path = tmp_path / "guard.json"
    path.write_text("{")
    assert run_module("guard_narrow", {"path": str(path), "wanted": {"rules": []}})["changed"]
    assert json.loads(path.read_text()) == {}
