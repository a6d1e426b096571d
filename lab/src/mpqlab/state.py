"""What the lab knows about itself between two commands: files below /run/mpqlab (or another lab's name).

A process is remembered by its id *and* its start time (field 22 of /proc/PID/stat, proc(5)), and signalled through a
pidfd that is checked after it was opened. An id that the kernel has given to another process since is never hit.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mpqlab.topology import RUN


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the lab: name, id, and start time in clock ticks since the machine's boot."""

    name: str
    pid: int
    start_time: int

    @classmethod
    def of(cls, name: str, pid: int) -> Process:
        """Remember the running process `pid`.

        Raises:
            ProcessLookupError: it has ended.
        """
        started = _start_time(pid)
        if started is None:
            raise ProcessLookupError(f"process {pid} ({name}) has ended")
        return cls(name, pid, started)

    @property
    def alive(self) -> bool:
        """Whether this very process still runs (a zombie doesn't)."""
        return _start_time(self.pid) == self.start_time

    def send(self, number: int) -> bool:
        """Send a signal; False when the process has ended already."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.alive:
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    def wait(self, seconds: float) -> bool:
        """Wait until the process has ended; False when it still runs after `seconds`."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if not self.alive:
                return True
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(seconds * 1000))
        finally:
            os.close(descriptor)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)

    def end(self, number: int = signal.SIGTERM, seconds: float = 5.0) -> None:
        """Ask the process to end by signal `number`, and kill it after `seconds`."""
        if self.send(number) and not self.wait(seconds):
            self.send(signal.SIGKILL)
            self.wait(seconds)


class State:
    """The directory below /run: processes, machine leaders and settings that no kernel object keeps."""

    def __init__(self, run: Path = RUN) -> None:
        self.run = run
        self._processes = run / "processes"

    def create(self) -> None:
        """Make the directories."""
        for folder in (self.run, self._processes, self.logs, self.control):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)

    @property
    def logs(self) -> Path:
        """Folder of what the lab's processes print."""
        return self.run / "log"

    @property
    def control(self) -> Path:
        """Folder of the emulators' control sockets."""
        return self.run / "control"

    def remember(self, process: Process) -> None:
        """Write down a process under its name, replacing what was there."""
        self._write(self._processes / f"{process.name}.json", asdict(process))

    def forget(self, name: str) -> None:
        """Drop the record of a process."""
        (self._processes / f"{name}.json").unlink(missing_ok=True)

    def process(self, name: str) -> Process | None:
        """Return the record of a process, whether it still runs or not."""
        record = self._read(self._processes / f"{name}.json")
        if record is None:
            return None
        return Process(str(record["name"]), int(record["pid"]), int(record["start_time"]))

    def processes(self) -> list[Process]:
        """Return all records, by name."""
        names = sorted(path.stem for path in self._processes.glob("*.json"))
        return [process for name in names if (process := self.process(name)) is not None]

    def leader(self, machine: str) -> Process | None:
        """Return the init process of a running machine, None when the machine isn't running."""
        process = self.process(leader_name(machine))
        return process if process is not None and process.alive else None

    def write(self, topic: str, values: dict[str, Any]) -> None:
        """Keep a small dictionary under a name."""
        self._write(self.run / f"{topic}.json", values)

    def read(self, topic: str) -> dict[str, Any]:
        """Return what `write` kept, an empty dictionary when there is nothing."""
        return self._read(self.run / f"{topic}.json") or {}

    @staticmethod
    def _write(path: Path, values: dict[str, Any]) -> None:
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(values) + "\n")
        partial.rename(path)

    @staticmethod
    def _read(path: Path) -> dict[str, Any] | None:
        try:
            values = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return values if isinstance(values, dict) else None


def leader_name(machine: str) -> str:
    """Return the record name of a machine's init process."""
    return f"{machine}.leader"


def supervisor_name(machine: str) -> str:
    """Return the record name of a machine's systemd-nspawn process."""
    return f"{machine}.nspawn"


def _start_time(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])
