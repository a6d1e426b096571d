"""Processes that the bench starts: found by their id, ended by their id, and weighed."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpqbench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

TICKS = os.sysconf("SC_CLK_TCK")


def run(command: Sequence[str], *, timeout: float = 60, text: str | None = None) -> str:
    """Run `command` to its end and return its output; BenchError when it fails or takes more than `timeout` s."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, input=text, timeout=timeout)
    except FileNotFoundError as error:
        raise BenchError(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{' '.join(command)}: not done within {timeout:.0f} s") from error
    if done.returncode != 0:
        raise BenchError(
            f"{' '.join(command)}: status {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}"
        )
    return done.stdout


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until `condition` holds; BenchError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not reached within {seconds:.0f} s")
        time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used: CPU seconds (user and system, all threads), and its resident memory in bytes."""

    cpu: float
    peak: int
    resident: int


def read_usage(stat: str, status: str) -> Usage:
    """Parse /proc/PID/stat and /proc/PID/status (proc(5): fields 14 and 15, in ticks; memory in kB)."""
    # The second field is the command in parentheses, and may contain spaces and parentheses itself.
    fields = stat.rpartition(")")[2].split()
    sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("Vm")}
    return Usage((int(fields[11]) + int(fields[12])) / TICKS, sizes.get("VmHWM:", 0), sizes.get("VmRSS:", 0))


class Process:
    """A running program whose output goes to a log file."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def check(self) -> None:
        """Raise BenchError, with the end of its log, when the process has ended by itself."""
        status = self._popen.poll()
        if status is not None:
            raise BenchError(f"{self.name} ended with status {status}: {self.log.read_text(errors='replace')[-500:]}")

    def usage(self) -> Usage:
        """What the process has used since its start."""
        self.check()
        folder = Path("/proc") / str(self._popen.pid)
        return read_usage((folder / "stat").read_text(), (folder / "status").read_text())

    def stop(self) -> None:
        """End the process: SIGTERM, and SIGKILL after 5 s."""
        self._popen.terminate()
        try:
            self._popen.wait(5)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait(5)
