import os
from pathlib import Path

from owned_files import Attributes, misplaced_names, plan_changes, write_atomically

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
