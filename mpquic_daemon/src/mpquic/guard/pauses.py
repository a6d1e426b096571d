"""When something that is missing is repaired, and when it is written to the journal: pure, time comes in.

A thing is repaired once it has been missing for as long as its kind may be while somebody else is at work on it. Where
a repair doesn't help, the pauses between repairs grow at once; where it helps and somebody takes the thing away again,
after some repairs. They end when it has been there for a while.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ThingT = TypeVar("ThingT")

AT_ONCE = 10
"""Repairs of one thing that help before there are pauses between them."""
FIRST_PAUSE = 1.0
LAST_PAUSE = 60.0
RESET_AFTER = 10.0
"""Seconds for which a thing that was repaired must be there, so that its next repair isn't a repetition."""


@dataclass(slots=True)
class _Known:
    missing_since: float | None
    present_since: float | None = None
    attempts: int = 0
    useless: int = 0
    """Repairs in a row after which it wasn't there."""
    came_back: bool = True
    not_before: float = 0.0


class Pauses(Generic[ThingT]):
    """What is known of the things that are, or were lately, missing. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._known: dict[ThingT, _Known] = {}

    def due(self, missing: Mapping[ThingT, float], now: float) -> list[ThingT]:
        """Return what is to be repaired now; `missing` maps each missing thing to the seconds that it may be."""
        for thing, known in list(self._known.items()):
            if thing in missing:
                continue
            known.missing_since = None
            known.came_back = True
            known.present_since = now if known.present_since is None else known.present_since
            if not known.attempts or now - known.present_since >= RESET_AFTER:
                del self._known[thing]
        found = []
        for thing, patience in missing.items():
            known = self._known.setdefault(thing, _Known(now))
            if known.present_since is not None and now - known.present_since >= RESET_AFTER:
                known = self._known[thing] = _Known(now)
            known.present_since = None
            if known.missing_since is None:
                known.missing_since = now
            if now >= known.missing_since + patience and now >= known.not_before:
                found.append(thing)
        return found

    def repaired(self, things: Iterable[ThingT], now: float) -> list[int]:
        """Note a repair; gives for each thing how often it was repaired lately, counted from 1."""
        attempts = []
        for thing in things:
            known = self._known.setdefault(thing, _Known(now))
            known.attempts += 1
            known.useless = 0 if known.came_back else known.useless + 1
            known.came_back = False
            known.not_before = now + _pause(max(known.useless, known.attempts - AT_ONCE + 1))
            attempts.append(known.attempts)
        return attempts

    def next_time(self, missing: Mapping[ThingT, float]) -> float | None:
        """Return when something that is missing is due; None when nothing is."""
        times = []
        for thing, patience in missing.items():
            known = self._known.get(thing)
            if known is not None and known.missing_since is not None:
                times.append(max(known.missing_since + patience, known.not_before))
        return min(times, default=None)


def _pause(repetitions: int) -> float:
    return 0.0 if repetitions < 1 else min(FIRST_PAUSE * 2.0 ** min(repetitions - 1, 16), LAST_PAUSE)


def is_told(attempt: int) -> bool:
    """Tell whether the repair with this number is written to the journal: the first ones, then each power of two."""
    return attempt <= AT_ONCE + 1 or attempt & (attempt - 1) == 0
