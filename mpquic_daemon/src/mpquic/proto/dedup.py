"""Which tunnel sequence numbers have been seen: a sliding window over 64-bit numbers in the manner of RFC 6479."""

from __future__ import annotations

from enum import Enum

from mpquic.proto.frame import expand_sequence


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
                self._clear(highest + 1, step)
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

    def add_low_run(self, low32: int, count: int) -> bool:
        """Enter `count` numbers from the one with these low bits on, if it is due; False, and none entered, if not."""
        due = self.highest + 1
        if due & 0xFFFFFFFF != low32:
            return False
        self.extend(self.highest + count)
        return True

    def extend(self, highest: int) -> None:
        """Enter all numbers up to `highest`, which is above the highest so far."""
        first, count, size = self.highest + 1, highest - self.highest, self._size
        self.highest = highest
        if count >= size:
            self._seen[:] = b"\1" * size
            return
        start = first & self._mask
        end = start + count
        if end <= size:
            self._seen[start:end] = b"\1" * count
        else:
            self._seen[start:] = b"\1" * (size - start)
            self._seen[: end - size] = b"\1" * (end - size)

    def holds(self, first: int, count: int) -> bool:
        """Tell whether all of `count` numbers from `first` on have been entered and are still remembered."""
        last = first + count - 1
        if last > self.highest or first <= self.highest - self._size:
            return False
        start = first & self._mask
        end = start + count
        if end <= self._size:
            return self._seen.find(0, start, end) < 0
        return self._seen.find(0, start) < 0 and self._seen.find(0, 0, end - self._size) < 0

    def _clear(self, first: int, count: int) -> None:
        size = self._size
        if count >= size:
            self._seen[:] = bytes(size)
            return
        start = first & self._mask
        end = start + count
        if end <= size:
            self._seen[start:end] = bytes(count)
        else:
            self._seen[start:] = bytes(size - start)
            self._seen[: end - size] = bytes(end - size)
