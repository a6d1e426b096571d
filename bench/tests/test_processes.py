"""Running, weighing and ending processes, and what is read from apt's sources."""

import os
import sys
import time
from pathlib import Path

import pytest
from mpqbench.debian import main_archive
from mpqbench.errors import BenchError
from mpqbench.processes import TICKS, Process, Usage, read_usage, run, wait_for


def test_usage_is_read_behind_a_command_name_with_spaces_and_parentheses() -> None:
    stat = "42 (a) b (c) S " + " ".join(str(number) for number in range(4, 53))
    assert read_usage(stat, "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n") == Usage(
        (14 + 15) / TICKS, 2048 * 1024, 1024 * 1024
    )


def test_usage_grows_with_work(tmp_path: Path) -> None:
    program = "x = bytearray(30_000_000)\nwhile True: pass"
    process = Process("spin", [sys.executable, "-c", program], tmp_path / "log", None)
    try:
        wait_for(lambda: process.usage().cpu > 0.1, 10, "CPU time")
        assert process.usage().peak >= process.usage().resident > 30_000_000
    finally:
        process.stop()


def test_ended_process_is_reported_with_its_last_words(tmp_path: Path) -> None:
    process = Process("short", ["sh", "-c", "echo no such key >&2; exit 3"], tmp_path / "log", None)
    try:
        with pytest.raises(BenchError, match=r"short ended with status 3: no such key"):
            wait_for(process.check, 10, "its end")
    finally:
        process.stop()


def test_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    program = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    process = Process("deaf", [sys.executable, "-c", program], tmp_path / "log", None)
    wait_for(lambda: "ready" in process.log.read_text(), 10, "its start")
    began = time.monotonic()
    process.stop()
    assert time.monotonic() - began < 15
    with pytest.raises(BenchError, match="status -9"):
        process.check()


def test_failure_tells_command_and_message() -> None:
    with pytest.raises(BenchError, match=r"sh -c echo oops; exit 2: status 2: oops"):
        run(["sh", "-c", "echo oops; exit 2"])
    with pytest.raises(BenchError, match="no-such-program is not installed"):
        run(["no-such-program"])
    with pytest.raises(BenchError, match="not done within"):
        run(["sleep", "30"], timeout=0.1)


def test_state_that_never_comes_is_an_error() -> None:
    with pytest.raises(BenchError, match=f"{os.getpid()} in heaven: not reached within 0 s"):
        wait_for(lambda: False, 0, f"{os.getpid()} in heaven")


@pytest.mark.parametrize(
    ("text", "archive"),
    [
        ("Types: deb\nURIs: http://mirror.test/debian\nSuites: x\n", "http://mirror.test/debian"),
        ("# URIs: http://no.test/debian\ndeb http://mirror.test/debian/ bookworm main\n", "http://mirror.test/debian"),
        ("deb [arch=amd64 signed-by=/k] http://mirror.test/debian bookworm main", "http://mirror.test/debian"),
        ("URIs: http://mirror.test/debian-security\ndeb http://other.test/apt x main", None),
        ("deb-src http://mirror.test/debian bookworm main", None),
    ],
)
def test_archive_is_found_in_both_formats_of_sources(text: str, archive: str | None) -> None:
    assert main_archive(text) == archive
