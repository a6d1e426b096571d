"""What was set at run time through the control socket: kept in /run, with an owner and an expiry, never in /etc.

It survives a restart of the process, and not that of the machine. Times are seconds of the wall clock.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path


class Entry(msgspec.Struct, frozen=True):
    """One value that was set."""

    value: str | int | float | bool | None
    owner: str
    expires: float | None = None


class Policy:
    """The values in force. A file that can't be read or written costs persistence, never the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries = self._load()

    def get(self, key: str) -> object:
        """Return the value of `key`, None when it isn't set."""
        entry = self._entries.get(key)
        return None if entry is None else entry.value

    def put(self, key: str, value: str | float | bool | None, owner: str, expires: float | None) -> None:
        """Set `key`, in place of whoever set it before."""
        self._entries[key] = Entry(value, owner, expires)
        self._save()

    def expire(self, now: float) -> None:
        """Forget what has come to its end."""
        over = [key for key, entry in self._entries.items() if entry.expires is not None and entry.expires <= now]
        for key in over:
            del self._entries[key]
        if over:
            self._save()

    def next_expiry(self) -> float | None:
        """Return when `expire` has something to do."""
        return min((entry.expires for entry in self._entries.values() if entry.expires is not None), default=None)

    def values(self) -> dict[str, object]:
        """Return everything as plain data."""
        return {key: msgspec.to_builtins(entry) for key, entry in self._entries.items()}

    def _load(self) -> dict[str, Entry]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Entry])
        except (OSError, msgspec.MsgspecError, ValueError):
            return {}

    def _save(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(self.values()))
            temporary.replace(self._path)
        except OSError:
            return  # A full or absent /run: the values hold in this process.
