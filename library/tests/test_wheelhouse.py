from pathlib import Path

from wheelhouse import install_list, release_sum, requirements_for

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


def test_a_release_follows_sources_lock_python_and_machine_and_nothing_else(tmp_path: Path) -> None:
    source, lock = tmp_path / "package", tmp_path / "daemon.txt"
    (source / "src" / "mpquic" / "__pycache__").mkdir(parents=True)
    (source / "pyproject.toml").write_text("[project]\n")
    module = source / "src" / "mpquic" / "cli.py"
    module.write_text("x = 1\n")
    lock.write_text(LOCK)
    first = release_sum(source, lock, "3.11", "x86_64")
    (source / "src" / "mpquic" / "__pycache__" / "cli.pyc").write_bytes(b"litter")
    (source / "tests").mkdir()
    (source / "tests" / "test_cli.py").write_text("")
    assert release_sum(source, lock, "3.11", "x86_64") == first
    others = {release_sum(source, lock, "3.13", "x86_64"), release_sum(source, lock, "3.11", "aarch64")}
    module.write_text("x = 2\n")
    others.add(release_sum(source, lock, "3.11", "x86_64"))
    assert first not in others
    assert len(others) == 3
