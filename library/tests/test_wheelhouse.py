import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import wheelhouse
from wheelhouse import (
    build_hash,
    build_own_wheel,
    download_sum,
    install_list,
    locked_wheels,
    oversize,
    requirements_for,
)

LOCK = """\
aioquic==1.7.2 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via -r daemon.in
typing-extensions==4.16.0 ; python_full_version < '3.13' \\
    --hash=sha256:cc
win-inet-pton==1.1.0 ; sys_platform == 'win32' \\
    --hash=sha256:dd
"""


def test_markers_are_those_of_the_host_not_of_the_controller() -> None:
    older = requirements_for(LOCK, "3.11", "x86_64")
    newer = requirements_for(LOCK, "3.13", "x86_64")
    assert older == ("aioquic==1.7.2 --hash=sha256:aa --hash=sha256:bb\ntyping-extensions==4.16.0 --hash=sha256:cc\n")
    assert newer == "aioquic==1.7.2 --hash=sha256:aa --hash=sha256:bb\n"


def test_each_wheel_is_pinned_by_its_own_hash(tmp_path: Path) -> None:
    wheel = tmp_path / "pure_thing-1.0-py3-none-any.whl"
    wheel.write_bytes(b"")
    assert install_list([wheel]) == (
        "pure-thing==1.0 --hash=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n"
    )


def test_a_build_hash_follows_sources_and_lock_and_nothing_else(tmp_path: Path) -> None:
    source, lock = tmp_path / "package", tmp_path / "daemon.txt"
    (source / "src" / "mpquic" / "__pycache__").mkdir(parents=True)
    (source / "pyproject.toml").write_text("[project]\n")
    module = source / "src" / "mpquic" / "cli.py"
    module.write_text("x = 1\n")
    lock.write_text(LOCK)
    first = build_hash(source, lock)
    (source / "src" / "mpquic" / "__pycache__" / "cli.pyc").write_bytes(b"litter")
    (source / "tests").mkdir()
    (source / "tests" / "test_cli.py").write_text("")
    assert build_hash(source, lock) == first
    module.write_text("x = 2\n")
    other = build_hash(source, lock)
    lock.write_text(f"{LOCK}# more\n")
    assert len({first, other, build_hash(source, lock)}) == 3


def test_a_wheel_names_its_build_and_the_checkout_does_not(tmp_path: Path) -> None:
    source, target = Path(__file__).parents[2] / "mpquic_daemon", tmp_path / "wheels"
    target.mkdir()
    build_own_wheel(source, target, "0123456789ab", Building(tmp_path))
    (wheel,) = target.iterdir()
    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(wheel).extractall(unpacked)
    version = tomllib.loads((source / "pyproject.toml").read_text())["project"]["version"]
    for folder, release in ((unpacked, f"{version}-0123456789ab"), (source / "src", f"{version}+dev")):
        found = subprocess.run(
            [sys.executable, "-c", "from mpquic.release import RELEASE; print(RELEASE)"],
            env={"PYTHONPATH": str(folder)}, check=True, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert found.stdout == f"{release}\n"


class Module:
    """Stands for AnsibleModule."""

    def __init__(self, cache: Path) -> None:
        self.params = {"cache": str(cache), "python_version": "3.11", "machine": "x86_64"}


class Building(Module):
    """Runs commands."""

    def run_command(self, command: list[str], cwd: str, environ_update: dict[str, str]) -> tuple[int, str, str]:
        env = {**os.environ, **environ_update}
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)
        return done.returncode, done.stdout, done.stderr


def test_what_was_downloaded_for_a_lock_is_not_downloaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def download(_module: object, lock: Path, target: Path) -> None:
        asked.append(lock.read_text())
        (target / "a.whl").write_text("wheel")

    monkeypatch.setattr(wheelhouse, "download", download)
    module = Module(tmp_path)
    first = locked_wheels(module, "a==1\n")
    assert locked_wheels(module, "a==1\n") == first
    assert [path.name for path in first.iterdir()] == ["a.whl"]
    assert locked_wheels(module, "a==2\n") != first
    assert asked == ["a==1\n", "a==2\n"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"locked-3.11-x86_64-{download_sum(lock)}" for lock in ("a==1\n", "a==2\n")
    )


def test_an_archive_that_is_too_large_names_what_makes_it_so(tmp_path: Path) -> None:
    wheel = tmp_path / "cryptography-1-py3-none-any.whl"
    wheel.write_bytes(bytes(5_000_000))
    assert oversize([wheel], 7_000_000, 8_000_000) == ""
    assert oversize([wheel], 9_000_000, 8_000_000) == (
        "the wheels make 9.0 MB, more than 8.0 MB: the largest are cryptography-1-py3-none-any.whl (5.0 MB)"
    )


class EndedError(Exception):
    """What fail_json does to a module."""


class Failing(Module):
    """Runs a command that fails with these words."""

    def __init__(self, cache: Path, words: str) -> None:
        super().__init__(cache)
        self.params["pip"] = ["python3", "-m", "pip"]
        self.words = words

    def run_command(self, _command: list[str]) -> tuple[int, str, str]:
        return 1, "", self.words

    def fail_json(self, msg: str) -> None:
        raise EndedError(msg)


@pytest.mark.parametrize(
    ("words", "told"), [("python3: No module named pip", True), ("No matching distribution", False)]
)
def test_a_checkout_without_pip_is_told_how_to_get_it(tmp_path: Path, words: str, *, told: bool) -> None:
    with pytest.raises(EndedError, match=words) as ended:
        wheelhouse.download(Failing(tmp_path, words), tmp_path / "lock.txt", tmp_path)
    assert ("make bootstrap" in str(ended.value)) == told
