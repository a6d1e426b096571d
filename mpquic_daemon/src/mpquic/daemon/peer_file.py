"""Keeps what an instance knows of its peers over a restart: one small file for each instance, written rarely.

A file that is damaged, absent or can't be written is no fault: what it would tell is then not known.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mpquic import files
from mpquic.daemon.peer_log import Record  # noqa: TC001 - msgspec reads the annotations

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from mpquic.daemon.journal import Journal

DIRECTORY = "/var/lib/mpquic-instances"
DIRECTORY_VARIABLE = "MPQUIC_STATE_DIR"
MAX_BYTES = 8 << 20
FIRST_DELAY = 1.0
"""Seconds from a change to its writing: what changes together is written together."""
WRITE_INTERVAL = 10.0
"""Least seconds between two writings, whatever peers do."""
REFRESH_INTERVAL = 600.0
"""Seconds after which the file is written anew although nothing has changed, for when peers were heard last."""


class _Content(msgspec.Struct, frozen=True):
    version: int
    peers: list[Record]


def directory() -> Path:
    """Return the folder of the files: $MPQUIC_STATE_DIR or DIRECTORY."""
    return Path(os.environ.get(DIRECTORY_VARIABLE, DIRECTORY))


def decode(data: bytes) -> list[Record]:
    """Return what a file tells; nothing when it is damaged or of another version."""
    if len(data) > MAX_BYTES:
        return []
    try:
        content = msgspec.json.decode(data, type=_Content)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return []
    return content.peers if content.version == 1 else []


def encode(records: list[Record]) -> bytes:
    """Return the content of a file."""
    return msgspec.json.encode(_Content(1, records))


class PeerFile:
    """The file of the instance `name`. `records` gives what is to be written."""

    def __init__(
        self, name: str, loop: asyncio.AbstractEventLoop, journal: Journal, records: Callable[[], list[Record]]
    ) -> None:
        self._path = directory() / f"{name}.json"
        self._loop = loop
        self._journal = journal
        self._records = records
        self._written_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._is_final = False

    def read(self) -> list[Record]:
        """Return what the former process has left."""
        try:
            return decode(files.read(self._path))
        except OSError:
            return []

    def changed(self) -> None:
        """Write soon."""
        now = self._loop.time()
        due = max(now + FIRST_DELAY, self._written_at + WRITE_INTERVAL)
        if self._is_final or (self._timer is not None and self._timer.when() <= due):
            return
        self._schedule(due)

    def close(self) -> None:
        """Write now, for the last time."""
        self._is_final = True
        self._write()

    def _schedule(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._write)

    def _write(self) -> None:
        # Not flushed to the disk, which may take long, in the loop that carries packets: after a power failure the file
        # may be an older one, or damaged.
        now = self._written_at = self._loop.time()
        records = self._records()
        temporary = self._path.with_suffix(".new")
        try:
            if records or self._path.exists():
                temporary.write_bytes(encode(records))
                temporary.replace(self._path)
        except OSError as error:
            self._journal.limited("peer file", now, "peers.not_kept", 86400.0, file=self._path, error=error.strerror)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._is_final and any(record.state == "up" for record in records):
            self._schedule(now + REFRESH_INTERVAL)
