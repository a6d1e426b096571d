import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest
from module_process import run_module
from venv_release import ArchiveError, closed, explain, leads_to, point, read_archive, surplus


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


def packed(path: Path, files: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> str:
    """The sum of a new archive."""
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(data)
            tar.addfile(member, io.BytesIO(data))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_archive_is_read_when_its_sum_is_the_controllers(tmp_path: Path) -> None:
    archive = tmp_path / "wheels.tar"
    sum_ = packed(archive, {"a.whl": b"wheel", "install.txt": b"a"})
    assert read_archive(archive, sum_, 1000) == {"a.whl": b"wheel", "install.txt": b"a"}


def test_an_archive_that_was_cut_or_changed_is_not_looked_into(tmp_path: Path) -> None:
    archive = tmp_path / "wheels.tar"
    sum_ = packed(archive, {"a.whl": b"wheel"})
    archive.write_bytes(archive.read_bytes()[:700])
    with pytest.raises(ArchiveError, match=f"the controller's has {sum_}: it was cut or changed"):
        read_archive(archive, sum_, 1000)
    with pytest.raises(ArchiveError, match="No such file"):
        read_archive(tmp_path / "none.tar", sum_, 1000)


def test_a_symbolic_link_in_place_of_the_archive_is_refused(tmp_path: Path) -> None:
    sum_ = packed(tmp_path / "theirs.tar", {"a.whl": b"wheel"})
    (tmp_path / "wheels.tar").symlink_to(tmp_path / "theirs.tar")
    with pytest.raises(ArchiveError, match="symbolic link"):
        read_archive(tmp_path / "wheels.tar", sum_, 1000)


@pytest.mark.parametrize(
    ("name", "kind"), [("../a.whl", tarfile.REGTYPE), (".a", tarfile.REGTYPE), ("a", tarfile.SYMTYPE)]
)
def test_what_is_no_wheel_is_refused(tmp_path: Path, name: str, kind: bytes) -> None:
    archive = tmp_path / "wheels.tar"
    with pytest.raises(ArchiveError, match="which is no wheel"):
        read_archive(archive, packed(archive, {name: b""}, kind), 1000)


def test_an_archive_that_holds_too_much_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "wheels.tar"
    with pytest.raises(ArchiveError, match="more than it may"):
        read_archive(archive, packed(archive, {"a.whl": bytes(600), "b.whl": bytes(600)}), 1000)


def test_a_full_disk_reads_as_such(tmp_path: Path) -> None:
    assert explain("[Errno 28] No space left on device", tmp_path).startswith("the disk is full: ")
    assert explain("no such option", tmp_path) == "no such option"


def test_nothing_is_half_done_after_a_failure(tmp_path: Path) -> None:
    archive = tmp_path / "wheels.tar"
    sum_ = packed(archive, {"install.txt": b"nothing==1.0 --hash=sha256:00"})
    arguments = {"root": str(tmp_path / "opt"), "release": "1", "archive": str(archive), "links": str(tmp_path)}
    wrong = run_module("venv_release", {**arguments, "sha256": "0" * 64})
    assert "run site.yml again" in wrong["msg"]
    assert not (tmp_path / "opt").exists()
    broken = run_module("venv_release", {**arguments, "sha256": sum_, "python": "/bin/false"})
    assert broken["failed"]
    assert list((tmp_path / "opt" / "releases").iterdir()) == []


def test_commands_and_shared_files_are_linked_and_follow_the_current_release(tmp_path: Path) -> None:
    root, links, share = tmp_path / "opt", tmp_path / "bin", tmp_path / "share"
    for name in ("r1", "r2"):
        release(root / "releases", name, 0)
        page = root / "releases" / name / "venv/share/man/man1/mpquicctl.1"
        page.parent.mkdir(parents=True)
        page.write_text(name)
    links.mkdir()
    arguments = {
        "root": str(root),
        "links": str(links),
        "share": str(share),
        "commands": ["mpquicctl"],
        "shared": ["man/man1/mpquicctl.1"],
    }
    assert run_module("venv_release", {**arguments, "release": "r1"})["changed"]
    assert (share / "man/man1/mpquicctl.1").read_text() == "r1"
    assert not run_module("venv_release", {**arguments, "release": "r1"})["changed"]
    assert run_module("venv_release", {**arguments, "release": "r2"})["switched"]
    assert (share / "man/man1/mpquicctl.1").read_text() == "r2"
