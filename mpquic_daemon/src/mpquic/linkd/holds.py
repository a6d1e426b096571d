"""The holds that operators have put on instances of this host: on disk, and as linkd knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic import hold

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mpquic.daemon.journal import Journal
    from mpquic.hold import Hold


class Holds:
    """Nobody else writes them, so what is read at the start stays true. Times are seconds of the wall clock."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._holds: dict[str, Hold] = {}
        self._leftover: set[str] = set()
        """The instances whose hold has expired and whose record is still to be removed."""

    def load(self) -> None:
        """Read what an earlier process has left. A record that can't be read holds nothing; OSError."""
        folder = hold.directory()
        folder.mkdir(mode=0o755, exist_ok=True)
        folder.chmod(0o755)
        for path in folder.iterdir():
            if path.suffix == hold.UNFINISHED:
                path.unlink()  # The beginning of a record.
            if path.suffix != ".json":
                continue
            found = hold.read(path.stem)
            if found is None:
                self._journal.error("linkd.hold_unreadable", file=path, hint="it holds nothing; remove it")
            else:
                self._holds[path.stem] = found

    @property
    def all(self) -> Mapping[str, Hold]:
        """The holds by the instance's name."""
        return self._holds

    def put(self, name: str, record: Hold) -> None:
        """Hold an instance, in place of an earlier hold; OSError leaves everything as it was."""
        hold.write(name, record)
        self._holds[name] = record
        self._leftover.discard(name)

    def end(self, name: str) -> None:
        """End the hold of an instance; OSError leaves everything as it was."""
        hold.remove(name)
        self._holds.pop(name, None)

    def expire(self, now: float) -> list[str]:
        """End the holds whose time is over, whether or not their records can be removed; return the instances."""
        ended = [name for name, record in self._holds.items() if record.is_over(now)]
        for name in ended:
            del self._holds[name]
        self._leftover.update(ended)
        return ended

    def tidy(self) -> None:
        """Remove the records of holds that have expired; what OSError leaves is tried again by the next call."""
        for name in sorted(self._leftover):
            hold.remove(name)
            self._leftover.discard(name)

    def next_end(self) -> float | None:
        """Return when the next hold ends by itself; None when none does."""
        return min((record.until for record in self._holds.values() if record.until is not None), default=None)
