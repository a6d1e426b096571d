import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from module_process import run_module
from owned_files import (
    Attributes,
    misplaced_names,
    plan_changes,
    plan_directories,
    set_directory,
    write_atomically,
)

OURS = Attributes(os.getuid(), os.getgid(), 0o644)


def put(directory: Path, name: str, content: str) -> Path:
    path = directory / name
    write_atomically(path, content, OURS)
    return path


def test_what_is_as_wanted_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path, "30-a.network", "x\n")
    assert plan_changes(tmp_path, ["30-*"], {"30-a.network": "x\n"}, OURS) == ([], [])


def test_other_content_and_other_mode_are_written_again(tmp_path: Path) -> None:
    put(tmp_path, "30-a", "x\n")
    put(tmp_path, "30-b", "y\n").chmod(0o600)
    changes = plan_changes(tmp_path, ["30-*"], {"30-a": "z\n", "30-b": "y\n"}, OURS)
    assert changes.written == ["30-a", "30-b"]


def test_owned_names_that_are_not_wanted_go_and_foreign_ones_stay(tmp_path: Path) -> None:
    put(tmp_path, "30-old", "x\n")
    put(tmp_path, "10-theirs", "x\n")
    assert plan_changes(tmp_path, ["30-*"], {}, OURS) == ([], ["30-old"])


def test_a_link_in_place_of_a_file_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    target = put(tmp_path, "theirs", "secret\n")
    (tmp_path / "30-a").symlink_to(target)
    assert plan_changes(tmp_path, ["30-*"], {"30-a": "secret\n"}, OURS).written == ["30-a"]
    put(tmp_path, "30-a", "ours\n")
    assert target.read_text() == "secret\n"
    assert not (tmp_path / "30-a").is_symlink()


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "30-a"
    path.mkdir()
    try:
        write_atomically(path, "x", OURS)
    except OSError:
        assert [entry.name for entry in tmp_path.iterdir()] == ["30-a"]
    else:
        raise AssertionError("a directory was replaced by a file")


def test_names_that_could_never_be_removed_are_refused() -> None:
    assert misplaced_names({"30-a": "", "x/../30-b": "", "other": ""}, ["30-*"]) == ["other", "x/../30-b"]


@pytest.fixture
def strict_umask() -> Iterator[None]:
    """The umask of hardened sudoers."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


OPEN = Attributes(os.getuid(), os.getgid(), 0o755)


@pytest.mark.usefixtures("strict_umask")
def test_directories_that_are_made_have_their_mode_under_umask_077_the_parents_too(tmp_path: Path) -> None:
    directory = tmp_path / "etc" / "mpquic" / "instances"
    for path, attributes in plan_directories(directory, None, OPEN):
        set_directory(path, attributes)
    assert [mode(path) for path in (directory, directory.parent, directory.parent.parent)] == [0o755] * 3
    assert plan_directories(directory, None, OPEN) == []


@pytest.mark.usefixtures("strict_umask")
def test_a_directory_that_an_earlier_run_left_closed_is_mended(tmp_path: Path) -> None:
    directory = tmp_path / "iproute2" / "rt_tables.d"
    directory.mkdir(parents=True)
    directory.parent.chmod(0o700)
    changes = plan_directories(directory, tmp_path / "iproute2", OPEN)
    assert [path for path, _ in changes] == [directory.parent, directory]
    for path, attributes in changes:
        set_directory(path, attributes)
    assert mode(directory) == mode(directory.parent) == 0o755


def test_a_directory_of_somebody_else_keeps_its_mode(tmp_path: Path) -> None:
    directory = tmp_path / "system"
    directory.mkdir()
    directory.chmod(0o711)
    assert plan_directories(directory, None, None) == []
    inner = directory / "ours"
    assert [path for path, _ in plan_directories(inner, None, OPEN)] == [inner]


@pytest.mark.usefixtures("strict_umask")
def test_the_module_writes_and_mends_modes_under_umask_077(tmp_path: Path) -> None:
    directory = tmp_path / "instances"
    owned = {
        "name": "instances",
        "directory": str(directory),
        "directory_mode": "0755",
        "patterns": ["*.yml"],
        "files": {"a.yml": "x\n"},
        "mode": "0640",
    }
    arguments = {"sets": [owned]}
    assert run_module("owned_files", arguments)["changed"]
    assert (mode(directory), mode(directory / "a.yml")) == (0o755, 0o640)
    directory.chmod(0o700)
    mended = run_module("owned_files", arguments)
    found = mended["sets"]["instances"]
    assert (mended["changed"], found["directories"], found["written"]) == (True, [str(directory)], [])
    assert mode(directory) == 0o755
    assert not run_module("owned_files", arguments)["changed"]


def owned(directory: Path, name: str, *, text: str = "x\n", **more: object) -> dict[str, object]:
    """A set with the one file `name`.conf."""
    file = f"{name}.conf"
    return {"name": name, "directory": str(directory), "patterns": [file], "files": {file: text}, **more}


def test_each_set_tells_what_was_done_for_it(tmp_path: Path) -> None:
    sets = [owned(tmp_path / "a", "one"), owned(tmp_path / "b", "two")]
    assert run_module("owned_files", {"sets": sets})["changed"]
    (tmp_path / "b/two.conf").unlink()
    done = run_module("owned_files", {"sets": sets})
    assert {name: found["changed"] for name, found in done["sets"].items()} == {"one": False, "two": True}
    assert done["sets"]["two"] == {
        "changed": True,
        "directory": str(tmp_path / "b"),
        "written": ["two.conf"],
        "missing": ["two.conf"],
        "removed": [],
        "directories": [],
    }


def test_a_wrong_file_of_the_last_set_leaves_the_first_as_it_was(tmp_path: Path) -> None:
    right = owned(tmp_path / "a", "one", validate="grep -q x %s")
    wrong = owned(tmp_path / "b", "two", text="y\n", validate="grep -q x %s")
    failed = run_module("owned_files", {"sets": [right, wrong]})
    assert failed["failed"]
    assert failed["msg"].startswith(f"two.conf is not valid, nothing was changed in {tmp_path / 'b'}")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_a_set_has_made_keeps_its_mode_when_another_makes_one_in_it(tmp_path: Path) -> None:
    outer = owned(tmp_path / "mpquic", "one", directory_mode="0750")
    inner = owned(tmp_path / "mpquic/instances", "two")
    assert run_module("owned_files", {"sets": [outer, inner]})["changed"]
    assert (mode(tmp_path / "mpquic"), mode(tmp_path / "mpquic/instances")) == (0o750, 0o755)
    assert not run_module("owned_files", {"sets": [outer, inner]})["changed"]


def test_a_set_without_patterns_is_about_its_directory_alone(tmp_path: Path) -> None:
    put(tmp_path, "theirs", "x\n")
    arguments = {"sets": [{"name": "state", "directory": str(tmp_path / "new"), "patterns": [], "files": {}}]}
    assert run_module("owned_files", arguments)["sets"]["state"]["directories"] == [str(tmp_path / "new")]
    assert not run_module("owned_files", arguments)["changed"]


def test_two_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    failed = run_module("owned_files", {"sets": [owned(tmp_path, "one"), owned(tmp_path, "one")]})
    assert failed["failed"]
    assert "two sets have one name" in failed["msg"]
