"""Keeps the packet filter's table loaded as its file says."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mpquic.guard.files import NoteFile, RulesFile
from mpquic.guard.nftables import Filter, FilterError, FilterTimeoutError
from mpquic.guard.pauses import Pauses, is_told
from mpquic.guard.ruleset import Note, Verdict, judge, needs_digest

if TYPE_CHECKING:
    from pathlib import Path

    from mpquic.daemon.journal import Journal

_TABLE = "table inet mpquic"
_LOADS = 4
"""How often the rules are loaded until the listing is certain; where it isn't, the next look loads them again."""
_READINGS = 3
"""How often the table is read until it stays the same meanwhile."""


class FilterGuard:
    """Looks at the table and loads it again where that is called for."""

    def __init__(self, note: Path, kernel: Filter, journal: Journal) -> None:
        self._kernel = kernel
        self._journal = journal
        self._note = NoteFile(note)
        self._file = RulesFile()
        self._pauses: Pauses[str] = Pauses()
        self._problem = ""
        self._wrong = False
        self.loaded = True
        """Whether the rules are in place: without them the host must not forward."""

    def look(self, file: Path, now: float, process: str = "") -> None:
        """Compare and repair; `process` made the last change."""
        try:
            verdict = self._judge(file)
        except (FilterError, OSError) as error:
            self._journal.limited("judge", now, "guard.filter_unknown", error=error)
            self._wrong = False  # Not known: the next look is the one that comes without a load that is due.
            return
        self._wrong = verdict is not Verdict.INTACT
        if not self._wrong:
            self._pauses.due({}, now)
            self._set_loaded(loaded=True)
            return
        if not self._pauses.due({_TABLE: 0.0}, now):
            # Whoever takes it away goes on: what isn't filtered isn't forwarded.
            self._set_loaded(loaded=self.loaded and verdict is not Verdict.MISSING)
            return
        (attempt,) = self._pauses.repaired([_TABLE], now)
        began = time.monotonic()
        try:
            self._load(file)
        except (FilterTimeoutError, TimeoutError) as error:
            # A slow host is no judgement of the rules: a table that is there goes on filtering until the next attempt.
            self._journal.limited("load", now, "guard.filter_unknown", error=error)
            self._set_loaded(loaded=self.loaded and verdict is not Verdict.MISSING)
            return
        except (FilterError, OSError) as error:
            self._refused(file, error, attempt)
            return
        self._wrong = False
        took = round((time.monotonic() - began) * 1000)
        self._problem = ""
        self._set_loaded(loaded=True)
        if verdict is not Verdict.UNKNOWN and is_told(attempt):
            self._journal.warning(
                "guard.repaired", what=_TABLE, was=verdict.value, by=process or "-", done=f"loaded {file}",
                revision=self._file.revision.removeprefix("revision "), attempt=attempt, ms=took,
            )  # fmt: skip

    def next_time(self) -> float | None:
        """Return when a load that was put off is due; None when none is."""
        return self._pauses.next_time({_TABLE: 0.0}) if self._wrong else None

    def _judge(self, file: Path) -> Verdict:
        table, digest = self._kernel.table(), ""
        for _ in range(_READINGS):
            # After the table: a run writes the file first, so a table of another revision is never ahead of it.
            if self._file.refresh(file):
                self._pauses = Pauses()
            digest = self._kernel.digest() if needs_digest(table, self._note.note) else ""
            before, table = table, self._kernel.table()
            if table == before:
                break
        return judge(table, digest, self._note.note, self._file.revision)

    def _load(self, file: Path) -> None:
        """Load the table and note what it is like. What somebody changes between the two must not be noted as right.

        So a listing counts when it is the one that is known of these rules, or when two loads in a row give the same.
        """
        note = self._note.note
        before = ""
        for _ in range(_LOADS):
            self._kernel.load(file)
            table = self._kernel.table()
            digest = self._kernel.digest() if table is not None else ""
            known = note.digest if note is not None and table is not None and note.comment == table.comment else ""
            if table is not None and digest and digest in (known, before):
                self._note.write(Note(table.handle, table.comment, digest))
                return
            before = digest

    def _refused(self, file: Path, error: Exception, attempt: int) -> None:
        self._set_loaded(loaded=False)
        if str(error) != self._problem or is_told(attempt):
            self._problem = str(error)
            self._journal.error(
                "guard.filter_refused", file=file, error=error, attempt=attempt, done="no forwarding until it loads"
            )

    def _set_loaded(self, *, loaded: bool) -> None:
        if loaded and not self.loaded:
            self._journal.info("guard.filter_back", done="forwarding as before")
        self.loaded = loaded
