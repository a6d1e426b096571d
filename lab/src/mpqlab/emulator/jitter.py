"""Jitter that keeps the order: the delay wanders between random values instead of being drawn for each packet.

Independent draws at thousands of packets a second either reorder, or, kept in order, make bursts and add the whole
jitter to the mean. Here a packet at any time finds the straight line between two draws.
"""

import random

KNOT_S = 0.010
"""Time between two draws, so that packets 10 ms apart see almost independent values."""


class Wander:
    """A value between -1 and 1 over time, scaled by the caller's amplitude."""

    def __init__(self, chance: random.Random) -> None:
        self._uniform = chance.uniform
        self._start = 0.0
        self._end = float("-inf")
        self._from = 0.0
        self._to = 0.0

    def at(self, time: float, amplitude: float) -> float:
        """Return the deviation at `time`, in seconds like `amplitude`, its largest value; times don't go back."""
        # A line that falls by less than a second a second keeps the order: 2 * amplitude over 4 * amplitude.
        length = max(KNOT_S, 4 * amplitude)
        if time >= self._end:
            if time - self._end > length:
                self._from = self._uniform(-1.0, 1.0)
                self._start = time
            else:
                self._from = self._to
                self._start = self._end
            self._to = self._uniform(-1.0, 1.0)
            self._end = self._start + length
        place = (time - self._start) / (self._end - self._start)
        return amplitude * (self._from + (self._to - self._from) * place)
