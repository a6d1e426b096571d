"""Which tunnel sequence numbers are missing, and until when each is waited for.

A peer decides by its numbers how many are missing, so a gap is one entry however wide it is, and gaps are bounded.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

MAX_GAPS = 4096


class Gaps:
    """Missing numbers as ranges, ascending and apart. `expire` and `give_up` return how many numbers they gave up."""

    def __init__(self, most: int = MAX_GAPS) -> None:
        self._most = most
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._deadlines: list[float] = []

    def __len__(self) -> int:
        """Return the number of gaps."""
        return len(self._firsts)

    @property
    def next_time(self) -> float | None:
        """When the oldest gap is given up."""
        return self._deadlines[0] if self._deadlines else None

    def open(self, first: int, last: int, deadline: float) -> int:
        """Enter numbers above all that were entered, waited for until `deadline` or that of the gap before if later.

        Returns how many others are given up for them.
        """
        given_up = self.give_up(1 + self._most // 8) if len(self._firsts) >= self._most else 0
        if self._deadlines:
            deadline = max(deadline, self._deadlines[-1])
        self._firsts.append(first)
        self._lasts.append(last)
        self._deadlines.append(deadline)
        return given_up

    def fill(self, first: int, last: int) -> bool:
        """Numbers have come; tell whether any of them was missing."""
        firsts, lasts = self._firsts, self._lasts
        start, stop = bisect_left(lasts, first), bisect_right(firsts, last)
        if start >= stop:
            return False
        left: list[tuple[int, int, float]] = []
        if firsts[start] < first:
            left.append((firsts[start], first - 1, self._deadlines[start]))
        if lasts[stop - 1] > last:
            left.append((last + 1, lasts[stop - 1], self._deadlines[stop - 1]))
        firsts[start:stop] = [gap[0] for gap in left]
        lasts[start:stop] = [gap[1] for gap in left]
        self._deadlines[start:stop] = [gap[2] for gap in left]
        return True

    def between(self, low: int, high: int) -> bool:
        """Tell whether any number above `low` and below `high` is missing."""
        place = bisect_right(self._lasts, low)
        return place < len(self._firsts) and max(self._firsts[place], low + 1) < high

    def expire(self, now: float) -> int:
        """Give up the gaps whose time is over."""
        return self.give_up(bisect_right(self._deadlines, now))

    def give_up(self, count: int) -> int:
        """Give up the oldest gaps."""
        numbers = sum(self._lasts[:count]) - sum(self._firsts[:count]) + min(count, len(self._firsts))
        del self._firsts[:count], self._lasts[:count], self._deadlines[:count]
        return numbers
