"""When the connections of a listener want to be called.

Each packet of a peer may move the timer of its connection. What it was moved from stays in the heap until its time, or
until there are many of those, and is recognized by the time that is in force.
"""

import heapq

SPARE_TIMERS = 256
"""Timers beside two for each connection, of which one at most is in force, before those that aren't are removed."""


class Timers:
    """One timer at most for each of many connections, which are known by number: it keeps no connection alive."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._due: dict[int, float] = {}

    def __len__(self) -> int:
        """Number of entries of the heap, those that are not in force included."""
        return len(self._heap)

    def set(self, number: int, at: float | None) -> None:
        """Call connection `number` at that time instead of what was set before; None leaves that as it is."""
        if at is None or self._due.get(number) == at:
            return
        self._due[number] = at
        heapq.heappush(self._heap, (at, number))
        if len(self._heap) > 2 * len(self._due) + SPARE_TIMERS:
            self._heap = [(due, each) for each, due in self._due.items()]
            heapq.heapify(self._heap)

    def remove(self, number: int) -> None:
        """Forget a connection."""
        self._due.pop(number, None)

    def next(self) -> float | None:
        """Earliest time that is set; None without any."""
        heap, due = self._heap, self._due
        while heap:
            at, number = heap[0]
            if due.get(number) == at:
                return at
            heapq.heappop(heap)
        return None

    def pop_due(self, now: float) -> int | None:
        """Take the connection whose time has come first; None when there is none."""
        at = self.next()
        if at is None or at > now:
            return None
        number = heapq.heappop(self._heap)[1]
        del self._due[number]
        return number
