"""Decides whether the packet filter's table is the file's, and what to do if it isn't: pure.

A load by anybody makes the table anew, with another handle. What was noted right after a load of the guard's own is
the only listing that is known to be the file's; so a table that somebody else has loaded is loaded once more, which
nobody notices, before it's noted. A run of site.yml writes the file first and loads it a moment later: the intact table
of an older revision is left alone meanwhile.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpquic.guard.nftables import Table

_REVISION = re.compile(r'^\s*comment "(revision [0-9a-f]+)"', re.MULTILINE)


class Verdict(Enum):
    """What the table is found to be."""

    INTACT = "intact"
    UNKNOWN = "unknown"
    """Somebody else has loaded it: load it, note it, and say nothing."""
    MISSING = "missing"
    EDITED = "edited"


@dataclass(frozen=True, slots=True)
class Note:
    """The table right after a load of the guard's own."""

    handle: int
    comment: str
    digest: str


def revision(text: str) -> str:
    """Return the comment by which a file's revision is known; empty where it has none."""
    found = _REVISION.search(text)
    return found[1] if found else ""


def needs_digest(table: Table | None, note: Note | None) -> bool:
    """Tell whether `judge` asks for the table's digest."""
    return table is not None and note is not None and (table.handle, table.comment) == (note.handle, note.comment)


def judge(table: Table | None, digest: str, note: Note | None, wanted: str) -> Verdict:
    """Return what the table is, given the revision that the file has (empty where there is no file)."""
    if table is None:
        return Verdict.MISSING
    if needs_digest(table, note):
        return Verdict.INTACT if note is not None and digest == note.digest else Verdict.EDITED
    # Made anew by somebody: with the file's own revision it's a load of it. Another one is no rules of ours.
    return Verdict.UNKNOWN if note is None or table.comment == wanted or not wanted else Verdict.EDITED
