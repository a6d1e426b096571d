"""Running a command with its output on the terminal and in a log, and ending it with all of its children.

One may run in the background, with its output in the log alone: it gives way to what runs beside it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What an interrupted step is sent, and how many seconds it has after each. SIGINT lets pytest tear its fixtures down.
ENDING = ((signal.SIGINT, 30.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))
CLOSED = -1
# Of what runs in the background. It still gets a tenth where others want all: what it waits for must not time out.
NICENESS = 10
_ESCAPE = re.compile(rb"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)")


class Interruption:
    """While entered, SIGNALS are noted instead of ending this process; `descriptor` can be polled for them."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.descriptor = CLOSED
        self._others: list[Interruption] = []

    def __enter__(self) -> Self:
        self._open()
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._close()

    @contextlib.contextmanager
    def another(self) -> Iterator[Interruption]:
        """Yield one for another thread, which gets every signal of this one as well."""
        other = Interruption()
        other.received = self.received
        other._open()
        self._others.append(other)
        try:
            yield other
        finally:
            self._others.remove(other)
            other._close()

    def _open(self) -> None:
        self.descriptor, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def _close(self) -> None:
        os.close(self.descriptor)
        os.close(self._writer)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number)
        for other in self._others:
            other.note(self.received)

    def note(self, number: signal.Signals) -> None:
        """Take a signal that another thread has got."""
        self.received = self.received or number
        os.write(self._writer, b"\0")

    def clear(self) -> None:
        """Make `descriptor` quiet until the next signal; `received` stays."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.descriptor, 64):
                pass


def run(
    command: Sequence[str],
    log: Path,
    interruption: Interruption,
    *,
    folder: Path,
    environment: Mapping[str, str],
    ending: Sequence[tuple[signal.Signals, float]] = ENDING,
    background: bool = False,
) -> int:
    """Exit status of a command whose output goes to the terminal and, without colours, to `log`.

    An interruption ends the command and its children. In the background it prints nothing and gives way to others.

    Raises:
        OSError: the command can't be started.
    """
    ours, theirs = os.pipe() if background else _output_pair()
    try:
        process = subprocess.Popen(
            # Lowered before it has children, which inherit it.
            ["nice", f"-n{NICENESS}", *command] if background else command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
    except OSError:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    if background:
        _give_way(process.pid)
    os.set_blocking(ours, False)
    with log.open("wb") as file, contextlib.closing(_Output(ours, file, shown=not background)) as output:
        running = _Running(process, output, interruption)
        try:
            if not running.follow():
                running.end(ending)
        finally:
            # Also when the terminal has gone away (BrokenPipeError).
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
        return status


class _Running:
    """A started command: follows its output until it ends or is interrupted."""

    def __init__(self, process: subprocess.Popen[bytes], output: _Output, interruption: Interruption) -> None:
        self._process = process
        self._output = output
        self._interruption = interruption

    def follow(self) -> bool:
        """Pass output on until the command has ended; False when an interruption came first.

        Processes that the command leaves running may keep its output open; they aren't waited for.
        """
        ended = os.pidfd_open(self._process.pid)
        try:
            while self._interruption.received is None:
                ready = self._poll({ended})
                if ended in ready and self._output.descriptor not in ready:
                    return True
            return False
        finally:
            os.close(ended)

    def end(self, ending: Sequence[tuple[signal.Signals, float]]) -> None:
        """Send the signals of `ending` one after the other until the command and its descendants have ended.

        The first goes to the process group, as a terminal does it. The later ones go to every descendant, since some
        have a session of their own (Ansible's workers). Another interruption moves on to the next signal at once.
        """
        with contextlib.ExitStack() as opened:
            members: dict[int, int] = {}
            for turn, (number, seconds) in enumerate(ending):
                for pid in family({self._process.pid, *members}) - set(members):
                    with contextlib.suppress(ProcessLookupError):
                        members[pid] = os.pidfd_open(pid)
                        opened.callback(os.close, members[pid])
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)
                for descriptor in members.values() if turn > 0 else ():
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(descriptor, number)
                if self._all_end(set(members.values()), seconds):
                    return

    def _all_end(self, running: set[int], seconds: float) -> bool:
        """Whether all processes (pidfds) end within `seconds`; False as well when another interruption comes."""
        deadline = time.monotonic() + seconds
        self._interruption.clear()
        while running and (left := deadline - time.monotonic()) > 0:
            ready = self._poll(running, left)
            running = running - ready
            if self._interruption.descriptor in ready:
                return False
        return not running

    def _poll(self, descriptors: set[int], seconds: float | None = None) -> set[int]:
        """Return the descriptors that are ready within a time, output and interruption among them; pass output on."""
        poll = select.poll()
        for descriptor in {*descriptors, self._interruption.descriptor, self._output.descriptor} - {CLOSED}:
            poll.register(descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(None if seconds is None else seconds * 1000)}
        if self._output.descriptor in ready:
            self._output.pass_on()
        return ready


class _Output:
    """What a command prints: on to the terminal as it is, if `shown`, and line by line without colours into the log."""

    def __init__(self, descriptor: int, log: IO[bytes], *, shown: bool = True) -> None:
        self.descriptor = descriptor
        self._log = log
        self._shown = shown
        self._rest = b""

    def pass_on(self) -> None:
        """Read what is there; at its end close the descriptor."""
        try:
            data = os.read(self.descriptor, 1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            # A pseudo-terminal whose other side is closed.
            if error.errno != errno.EIO:
                raise
            data = b""
        if not data:
            self.close()
            return
        if self._shown:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._log.write(_ESCAPE.sub(b"", line).rstrip(b"\r") + b"\n")
        self._log.flush()

    def close(self) -> None:
        """Write the last line and close the descriptor, unless that has been done."""
        if self.descriptor != CLOSED:
            self._log.write(_ESCAPE.sub(b"", self._rest))
            os.close(self.descriptor)
            self.descriptor = CLOSED


def family(pids: set[int]) -> set[int]:
    """Return `pids` and all of their descendants."""
    children: dict[int, set[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            # A process may end between the two calls.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), set()).add(int(folder.name))
    found: set[int] = set()
    left = set(pids)
    while left:
        pid = left.pop()
        found.add(pid)
        left |= children.get(pid, set()) - found
    return found


def _give_way(leader: int) -> None:
    """Lower the priority of a session where the kernel schedules each as one (sched_autogroup_enabled).

    The niceness of its processes then counts among them alone.
    """
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        Path(f"/proc/{leader}/autogroup").write_text(f"{NICENESS}")


def _output_pair() -> tuple[int, int]:
    """Return our and the command's end of its output: a pseudo-terminal when we print on a terminal, else a pipe."""
    if not sys.stdout.isatty():
        return os.pipe()
    ours, theirs = pty.openpty()
    attributes = termios.tcgetattr(theirs)
    # Line ends stay as they are: our own terminal adds carriage returns.
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, bytes(8)))
    return ours, theirs
