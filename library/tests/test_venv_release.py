import os
from pathlib import Path

from venv_release import closed, leads_to, point, surplus


def release(releases: Path, name: str, age: float, *, complete: bool = True) -> None:
    (releases / name).mkdir(parents=True)
    if complete:
        (releases / name / "complete").write_text("")
        os.utime(releases / name / "complete", (1000 - age, 1000 - age))


def test_the_current_and_the_latest_others_stay(tmp_path: Path) -> None:
    for age, name in enumerate(["d", "c", "b", "a"]):
        release(tmp_path, name, age)
    assert surplus(tmp_path, "a", 3) == ["b"]


def test_what_an_interrupted_run_left_goes(tmp_path: Path) -> None:
    release(tmp_path, "good", 0)
    release(tmp_path, "half", 1, complete=False)
    assert surplus(tmp_path, "good", 3) == ["half"]


def test_a_link_is_replaced_in_one_step(tmp_path: Path) -> None:
    link = tmp_path / "current"
    point(link, "releases/a")
    point(link, "releases/b")
    assert leads_to(link, "releases/b")
    assert [entry.name for entry in tmp_path.iterdir()] == ["current"]


def test_folders_that_a_strict_umask_has_closed_are_found(tmp_path: Path) -> None:
    root = tmp_path / "mpquic"
    (root / "releases").mkdir(parents=True)
    root.chmod(0o755)
    (root / "releases").chmod(0o700)
    assert closed(root) == [root / "releases"]
