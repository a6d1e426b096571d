"""Which tunnel sequence numbers have been seen: a sliding window over 64-bit numbers in the manner of RFC 6479."""

from __future__ import annotations

from enum import Enum

from mpquic.proto.packet.frame import expand_sequence

_OCTETS = (b"\0", b"\1")


class Arrival(Enum):
    """What the window says of a number."""

    NEW = "new"
    DUPLICATE = "duplicate"
    LATE = "late"


class SequenceWindow:
    """Remembers the last `size` numbers (a power of two); what is older counts as late and is not let in.

    As in RFC 6479 the ring is not shifted: a number's place is its low bits, and places are cleared as the window moves
    on. One octet a number instead of a bit, which Python reads and writes without masks.
    """

    def __init__(self, size: int = 4096) -> None:
        if size < 2 or size & (size - 1):
            raise ValueError("size must be a power of two")
        self._size = size
        self._mask = size - 1
        self._seen = bytearray(size)
        self.highest = -1

    def expand(self, low32: int) -> int:
        """Return the full number of its low 32 bits, as seen from this window."""
        return expand_sequence(low32, self.highest)

    def check(self, sequence: int) -> Arrival:
        """Say what `add` would say, and change nothing."""
        if sequence > self.highest:
            return Arrival.NEW
        if sequence <= self.highest - self._size:
            return Arrival.LATE
        return Arrival.DUPLICATE if self._seen[sequence & self._mask] else Arrival.NEW

    def add(self, sequence: int) -> Arrival:
        """Enter a number and say whether it is new."""
        seen, mask, highest = self._seen, self._mask, self.highest
        if sequence > highest:
            step = sequence - highest
            if step > 1:
                self._mark(highest + 1, step, 0)
            seen[sequence & mask] = 1
            self.highest = sequence
            return Arrival.NEW
        if sequence <= highest - self._size:
            return Arrival.LATE
        place = sequence & mask
        if seen[place]:
            return Arrival.DUPLICATE
        seen[place] = 1
        return Arrival.NEW

    def add_low(self, low32: int) -> Arrival:
        """Enter a number by its low 32 bits: the same as `add` of `expand`, quicker for the one that is due next."""
        due = self.highest + 1
        if due & 0xFFFFFFFF == low32:
            self._seen[due & self._mask] = 1
            self.highest = due
            return Arrival.NEW
        return self.add(expand_sequence(low32, self.highest))

    def vacant(self, first: int, count: int) -> bool:
        """Tell whether all of `count` numbers from `first` on are new."""
        if first > self.highest:
            return True
        # The highest has been seen, so what is new lies on one side of it.
        if first + count > self.highest or first <= self.highest - self._size:
            return False
        return self._lacks(first, count, 1)

    def add_run(self, first: int, count: int) -> bool:
        """Enter `count` numbers from `first` on if all of them are new; False, and none entered, if not."""
        if not self.vacant(first, count):
            return False
        highest = self.highest
        if first > highest:
            if first > highest + 1:
                self._mark(highest + 1, first - highest - 1, 0)
            self.highest = first + count - 1
        self._mark(first, count, 1)
        return True

    def add_low_run(self, low32: int, count: int) -> bool:
        """The same as `add_run`, for the number with these low bits."""
        return self.add_run(expand_sequence(low32, self.highest), count)

    def holds(self, first: int, count: int) -> bool:
        """Tell whether all of `count` numbers from `first` on have been entered and are still remembered."""
        last = first + count - 1
        if last > self.highest or first <= self.highest - self._size:
            return False
        return self._lacks(first, count, 0)

    def _lacks(self, first: int, count: int, state: int) -> bool:
        """Tell whether none of `count` numbers from `first` on, all of them remembered, has that state."""
        start = first & self._mask
        end = start + count
        if end <= self._size:
            return self._seen.find(state, start, end) < 0
        return self._seen.find(state, start) < 0 and self._seen.find(state, 0, end - self._size) < 0

    def _mark(self, first: int, count: int, state: int) -> None:
        size, octet = self._size, _OCTETS[state]
        if count >= size:
            self._seen[:] = octet * size
            return
        start = first & self._mask
        end = start + count
        if end <= size:
            self._seen[start:end] = octet * count
        else:
            self._seen[start:] = octet * (size - start)
            self._seen[: end - size] = octet * (end - size)
