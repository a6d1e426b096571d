"""The files of the guard: what is wanted, the packet filter's rules, and the note about the loaded table."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from mpquic import files
from mpquic.guard.ruleset import Note, revision
from mpquic.guard.wanted import Wanted, WantedError, parse

if TYPE_CHECKING:
    from pathlib import Path

_Version = tuple[int, int, int] | None


def _version(path: Path) -> _Version:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


class WantedFile:
    """`guard.json`, read again when it has changed. Without the file, what was read last stays wanted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content = Wanted()
        self.problem = ""
        """Why the file can't be used; what was read last stays wanted then."""
        self._version: _Version = None
        self._read = False

    def refresh(self) -> bool:
        """Read the file if it isn't the one that was read last; tells whether it was."""
        version = _version(self.path)
        if self._read and version == self._version:
            return False
        # The version is older than what is read: a later change has another one.
        self._version, self._read = version, True
        try:
            self.content, self.problem = parse(files.read(self.path)), ""
        except (OSError, WantedError) as error:
            self.problem = str(error)
        return True


class RulesFile:
    """The file that nft(8) loads."""

    def __init__(self) -> None:
        self.revision = ""
        """By which its rules are known; empty when there is no file."""
        self._path: Path | None = None
        self._version: _Version = None

    def refresh(self, path: Path) -> bool:
        """Read the file if it isn't the one that was read last; tells whether it was."""
        version = _version(path)
        if (path, version) == (self._path, self._version):
            return False
        self._path, self._version = path, version
        try:
            self.revision = revision(files.read(path).decode(errors="replace"))
        except OSError:
            self.revision = ""
        return True


class NoteFile:
    """What the table was right after the guard loaded it; outlives the process, not a reboot."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.note = self._load()

    def _load(self) -> Note | None:
        try:
            return Note(**json.loads(files.read(self._path)))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, note: Note) -> None:
        """Remember a note."""
        self.note = note
        fields = {"handle": note.handle, "comment": note.comment, "digest": note.digest}
        # Without the file the table is loaded once more at the next start.
        with contextlib.suppress(OSError):
            self._path.write_text(json.dumps(fields))
