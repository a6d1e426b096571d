"""When slow start ends without a loss: HyStart++ (RFC 9406).

aioquic's own detector ends it for good once the RTT is a quarter above its minimum: on links of a millisecond, or with
the jitter of a satellite link, that is after a few round trips, and CUBIC then takes minutes to find the capacity.
"""

import math

MIN_RTT_THRESHOLD = 0.004
MAX_RTT_THRESHOLD = 0.016
MIN_RTT_DIVISOR = 8
RTT_SAMPLES = 3
"""Fewer than the 8 of the RFC: an acknowledgement comes every 4 ms here and gives one sample for dozens of packets."""
CSS_GROWTH_DIVISOR = 4
CSS_ROUNDS = 5


class SlowStart:
    """Watches rounds of slow start: `conservative` while the RTT has risen, `over` after five such rounds.

    Rounds in which the window wasn't filled don't count: acknowledgements of a transfer in the other direction have the
    RTT of the queue that this one has made, and the way that they take may be empty.
    """

    def __init__(self) -> None:
        self._round_began = 0.0
        self._last_minimum = math.inf
        self._minimum = math.inf
        self._samples = 0
        self._baseline = math.inf
        self._conservative_rounds = 0
        self._filled = False

    @property
    def conservative(self) -> bool:
        """Whether the window grows by a quarter of what slow start would add."""
        return self._baseline < math.inf

    @property
    def over(self) -> bool:
        """Whether slow start has ended."""
        return self.conservative and self._conservative_rounds >= CSS_ROUNDS

    def on_acked(self, sent_at: float, now: float, *, filled: bool) -> None:
        """A round ends with the acknowledgement of a packet that was sent in it. `filled` tells of the window."""
        self._filled = self._filled or filled
        if sent_at >= self._round_began:
            self._round_began = now
            self._last_minimum, self._minimum, self._samples = self._minimum, math.inf, 0
            if not self._filled:
                self._baseline = math.inf
            elif self.conservative:
                self._conservative_rounds += 1
            self._filled = False

    def on_rtt(self, rtt: float) -> None:
        """Take an RTT sample in seconds."""
        self._minimum = min(self._minimum, rtt)
        self._samples += 1
        if self._samples < RTT_SAMPLES:
            return
        if self.conservative:
            if self._minimum < self._baseline:  # it was jitter, not a queue
                self._baseline = math.inf
        elif self._last_minimum < math.inf:
            threshold = max(MIN_RTT_THRESHOLD, min(self._last_minimum / MIN_RTT_DIVISOR, MAX_RTT_THRESHOLD))
            if self._minimum >= self._last_minimum + threshold:
                self._baseline = self._minimum
                self._conservative_rounds = 0
