"""`mpquicctl watch`: each change of state, as it happens."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import selectors
import socket
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from mpquic import control_client
from mpquic.ctl.exit_status import UNUSABLE
from mpquic.ctl.instances import Row, add_directory, instance_files, reason, row_of_file, row_of_stopped, tell_unknown
from mpquic.ctl.peers import names
from mpquic.proto.control.printable import printable
from mpquic.proto.control.validity import shown

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mpquic.ctl.command import Commands

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z")
RESCAN = 1.0
"""Seconds between two looks for instances that have appeared, and at those that don't run."""


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "watch",
        help="follow changes of state",
        description="Prints the state of each instance, and of each site of a server, then a line for each change, "
        "until it is interrupted. Instances that appear or disappear meanwhile are followed, too.",
    )
    command.add_argument("names", nargs="*", metavar="NAME", help="only these instances")
    command.add_argument("--json", action="store_true", help="an object on each line instead of words")
    add_directory(command)
    command.set_defaults(run=_run)


@dataclass(frozen=True, slots=True)
class Change:
    """One line. `identity` and `tunnel` name the site of a server; `state` is None for what doesn't exist any more."""

    time: str
    name: str
    identity: str | None
    tunnel: str | None
    previous: str | None
    state: str | None
    error: str | None
    hold: dict[str, object] | None
    hold_at: str | None

    def words(self, called: str) -> str:
        """Return the line for people."""
        state = self.state or "removed"
        arrow = f"{self.previous} -> {state}" if self.previous not in (None, self.state) else state
        error = f": {self.error}" if self.error else ""
        return printable(f"{self.time} {called} {arrow}{error}")


class Follower:
    """Finds what differs between two states of an instance; `tell` gets each change and how its subject is called."""

    def __init__(self, tell: Callable[[Change, str], None]) -> None:
        self._tell = tell
        self._known: dict[str, dict[tuple[str, str] | None, Row]] = {}

    def take(self, name: str, row: Row | None, time: str) -> None:
        """Take an instance's row of `status`, None when there is no such instance any more."""
        before = self._known.pop(name, {})
        after: dict[tuple[str, str] | None, Row] = {}
        if row is not None:
            peers = row.get("peers")
            if peers is None:
                # Without a process nothing is known of its sites: they are what they were.
                after = {key: peer for key, peer in before.items() if key is not None}
            else:
                after = {(peer["identity"], peer["tunnel"]): peer for peer in peers}
            after[None] = row
            self._known[name] = after
        called = {**_called(name, before), **_called(name, after)}
        # The instance itself first.
        for key in {None: None, **after, **before} if after or before else ():
            old, new = before.get(key), after.get(key)
            if old is None or new is None or _shown(old) != _shown(new):
                self._tell(_change(time, name, key, old, new), called[key])


def _called(name: str, rows: dict[tuple[str, str] | None, Row]) -> dict[tuple[str, str] | None, str]:
    keys = [key for key in rows if key is not None]
    called = names([rows[key] for key in keys])
    return {None: name, **{key: f"{name}/{each}" for key, each in zip(keys, called, strict=True)}}


def _shown(row: Row) -> tuple[object, object]:
    """What makes a line: a reason in which only the time differs is the same."""
    error = row.get("error")
    return row.get("state"), _TIME.sub("", error) if isinstance(error, str) else None


def _change(time: str, name: str, key: tuple[str, str] | None, old: Row | None, new: Row | None) -> Change:
    row = new or {}
    identity, tunnel = key or (None, None)
    previous = old.get("state") if old is not None else None
    return Change(
        time, name, identity, tunnel, previous, row.get("state"), row.get("error"), row.get("hold"), row.get("hold_at")
    )


class _Watched:
    """A connection to an instance that reports its changes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.understood = False
        """Whether it has told of a state."""
        self._buffer = bytearray()
        try:
            self.socket.settimeout(1.0)
            self.socket.connect(str(control_client.socket_path(name)))
            request = {"v": control_client.VERSION, "id": 1, "op": "watch"}
            self.socket.sendall(json.dumps(request).encode() + b"\n")
            self.socket.setblocking(False)
        except OSError:
            self.socket.close()
            raise

    def rows(self) -> Iterator[Row]:
        """Return the states that have come. ConnectionError when the process has gone or isn't understood."""
        data = self.socket.recv(1 << 16)
        if not data or len(self._buffer) > control_client.MAX_ANSWER:
            raise ConnectionResetError
        self._buffer += data
        *lines, rest = bytes(self._buffer).split(b"\n")
        self._buffer = bytearray(rest)
        for line in lines:
            row = _row_of(line)
            self.understood = True
            yield row


def _row_of(line: bytes) -> Row:
    try:
        message: Any = json.loads(line)
        row = message["event"] if "event" in message else message["result"]
        assert isinstance(row, dict)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise ConnectionResetError("not understood") from error
    return row


class Watch:
    """Follows instances of `directory`, all or those of `only`."""

    def __init__(self, directory: Path, only: list[str], follower: Follower) -> None:
        self._directory = directory
        self._only = only
        self._follower = follower
        self._selector = selectors.DefaultSelector()
        self._watched: dict[str, _Watched] = {}
        self._names: set[str] = set()

    def run(self) -> NoReturn:
        """Follow for ever. OSError when the directory can't be listed."""
        due = time.monotonic()
        while True:
            if time.monotonic() >= due:
                due = time.monotonic() + RESCAN
                self.scan()
            self.wait(max(0.0, due - time.monotonic()))

    def scan(self) -> None:
        """Look for instances that have appeared or disappeared, and for those that began to run."""
        files = [path for path in instance_files(self._directory) if not self._only or path.stem in self._only]
        present = {path.stem for path in files}
        for name in sorted(self._names - present):
            self._drop(name)
            self._follower.take(name, None, _now())
        self._names = present
        for path in files:
            if path.stem not in self._watched:
                self._connect(path)

    def wait(self, seconds: float) -> None:
        """Take what instances report, for so long."""
        order = list(self._watched)
        ready: list[_Watched] = [key.data for key, _ in self._selector.select(seconds)]
        for watched in sorted(ready, key=lambda each: order.index(each.name)):
            try:
                for row in watched.rows():
                    self._follower.take(watched.name, row, _now())
            except OSError:
                self._drop(watched.name)
                # One that refuses each connection, as when it has too many, is tried again by the next scan.
                if watched.understood:
                    self._connect(self._directory / f"{watched.name}.yml")

    def close(self) -> None:
        """Close all connections."""
        for name in list(self._watched):
            self._drop(name)
        self._selector.close()

    def _connect(self, path: Path) -> None:
        try:
            watched = _Watched(path.stem)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            if path.exists():
                self._follower.take(path.stem, row_of_stopped(path), _now())
        except OSError as error:
            row = {**row_of_file(path), "state": "down", "error": reason(error)}
            self._follower.take(path.stem, row, _now())
        else:
            self._watched[path.stem] = watched
            self._selector.register(watched.socket, selectors.EVENT_READ, watched)

    def _drop(self, name: str) -> None:
        watched = self._watched.pop(name, None)
        if watched is not None:
            self._selector.unregister(watched.socket)
            watched.socket.close()


def _now() -> str:
    return shown(dt.datetime.now(dt.UTC))


def _run(options: argparse.Namespace) -> int:
    directory = options.instances_dir

    def tell(change: Change, called: str) -> None:
        print(json.dumps(asdict(change)) if options.json else change.words(called), flush=True)

    watch = Watch(directory, options.names, Follower(tell))
    try:
        known = {path.stem for path in instance_files(directory)}
        for name in options.names:
            if name not in known:
                return tell_unknown(name, directory)
        watch.run()
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        # Whoever read it has seen enough. Nothing more is written, not at the end of the process either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"mpquicctl: can't list {directory}: {error.strerror}", file=sys.stderr)
        return UNUSABLE
    finally:
        watch.close()
