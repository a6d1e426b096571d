"""Why a stopped instance is out of service on purpose, and how a hold is told to people and programs."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import overload

from mpquic import hold
from mpquic.hold import Hold
from mpquic.proto.control.printable import printable
from mpquic.proto.control.validity import shown

UNIT_FOLDERS = (Path("/etc/systemd/system"), Path("/run/systemd/system"))
"""Where `systemctl mask` and `systemctl mask --runtime` put their links."""
_LATEST = 253402300799.0
"""The last second that a time of the calendar can name."""


def find(name: str, path: Path, *, enabled: bool, now: float) -> Hold | None:
    """Return why the instance `name` of the file `path` is held on this host at `now` (seconds of the wall clock).

    The first of these counts: the record of linkd, `enabled: false` in its file, the mask of its unit.
    """
    record = hold.read(name)
    if record is not None and not record.is_over(now):
        return record
    if not enabled:
        return by_variables(_changed(path, now))
    unit = f"mpquic@{name}.service"
    for folder in UNIT_FOLDERS:
        if _is_mask(folder / unit):
            return Hold(
                by="the operator", reason=f"{unit} is masked", since=_changed(folder / unit, now), origin="mask"
            )
    return None


def by_variables(since: float) -> Hold:
    """Return the hold that `enabled: false` means."""
    return Hold(by="the variables", reason="enabled: false", since=since, origin="variables")


def _is_mask(unit: Path) -> bool:
    try:
        return unit.readlink() == Path(os.devnull)
    except OSError:
        return False


def _changed(path: Path, now: float) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return now


def words(held: Hold) -> str:
    """Return a hold as the column ERROR tells it: by whom, until when, and why; on one line."""
    until = f" until {_minute(held.until)}" if held.until is not None else ""
    reason = f": {held.reason}" if held.reason else ""
    return printable(f"held by {held.by}{until}{reason}")


def lasting(held: Hold, now: float) -> float:
    """Return for how many seconds a hold has lasted at `now`, 0 where the clock has been set back behind its start."""
    return round(max(0.0, now - _moment(held.since).timestamp()), 1)


@overload
def report(held: Hold) -> dict[str, object]: ...
@overload
def report(held: Hold | None) -> dict[str, object] | None: ...
def report(held: Hold | None) -> dict[str, object] | None:
    """Return a hold as --json tells it, with times as RFC 3339 has them."""
    if held is None:
        return None
    until = rfc3339(held.until) if held.until is not None else None
    return {**held.plain(), "since": rfc3339(held.since), "until": until}


def rfc3339(seconds: float) -> str:
    """Return a time of a hold as RFC 3339 has it; one that the calendar doesn't have is its last second."""
    return shown(_moment(seconds))


def _moment(seconds: float) -> dt.datetime:
    # A record that was made by hand may hold any number; NaN compares as false.
    return dt.datetime.fromtimestamp(seconds if 0 <= seconds <= _LATEST else _LATEST, dt.UTC)


def _minute(seconds: float) -> str:
    return f"{_moment(seconds):%Y-%m-%d %H:%MZ}"
