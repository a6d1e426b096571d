import os
import stat
from pathlib import Path

import pytest
from module_process import run_module
from staging_folder import Refused, examine, shortages

ME = os.getuid()


def run(path: Path, **arguments: object) -> dict[str, object]:
    return run_module("staging_folder", {"path": str(path), "owner_id": ME, **arguments})


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    folder = tmp_path / "mpquic"
    folder.mkdir(mode=0o755)
    return folder


def test_the_folder_is_made_for_root_alone_and_mended(parent: Path) -> None:
    folder = parent / "staging"
    assert run(folder)["changed"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not run(folder)["changed"]
    folder.chmod(0o755)
    assert run(folder)["changed"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_symbolic_link_in_its_place_is_refused_and_its_target_untouched(parent: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    (theirs / "file").write_text("x")
    (parent / "staging").symlink_to(theirs)
    assert "is a symbolic link, which no run of ours made" in str(run(parent / "staging")["msg"])
    assert (theirs / "file").exists()
    assert stat.S_IMODE(theirs.stat().st_mode) == 0o755


@pytest.mark.parametrize("kind", ["link", "hard link", "folder"])
def test_what_others_have_put_into_it_is_refused(parent: Path, tmp_path: Path, kind: str) -> None:
    folder = parent / "staging"
    folder.mkdir(mode=0o777)
    (tmp_path / "theirs").write_text("x")
    entry = folder / "1.tar"
    if kind == "link":
        entry.symlink_to(tmp_path / "theirs")
    elif kind == "hard link":
        entry.hardlink_to(tmp_path / "theirs")
    else:
        entry.mkdir()
    assert f"{entry} is not a plain file of root's" in str(run(folder)["msg"])


def test_another_owner_is_refused(parent: Path) -> None:
    (parent / "staging").mkdir()
    with pytest.raises(Refused, match="belongs to user"):
        examine(parent / "staging", ME + 1 if ME == 0 else 0)


def test_a_parent_that_others_may_write_to_is_refused(parent: Path) -> None:
    parent.chmod(0o777)
    with pytest.raises(Refused, match=f"{parent} belongs to user"):
        examine(parent / "staging", ME)


def test_what_an_interrupted_run_left_goes_but_the_archive_that_is_wanted_stays(parent: Path) -> None:
    folder = parent / "staging"
    folder.mkdir(mode=0o700)
    for name in ("1.tar", "2.tar"):
        (folder / name).write_text("x")
    assert run(folder, keep="2.tar")["removed"] == ["1.tar"]
    assert [path.name for path in folder.iterdir()] == ["2.tar"]


def test_a_full_disk_is_told_with_path_and_bytes_before_anything_is_sent(parent: Path) -> None:
    room = os.statvfs(parent)
    half = room.f_bavail * room.f_frsize * 3 // 4
    assert shortages({parent / "a": half}) == []
    (problem,) = shortages({parent / "a": half, parent / "b": half})
    assert problem.startswith(f"the disk is full: {parent}/a and {parent}/b needs {2 * half / 1e6:.1f} MB, ")
    assert "MB are free there" in problem
