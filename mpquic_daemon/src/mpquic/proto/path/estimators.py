"""Round-trip time and loss of a path, right again within 3 s of a change however few samples there are. Seconds."""

from __future__ import annotations

from collections import deque
from math import exp

TIME_CONSTANT = 0.5
"""Seconds after which a sample weighs 1/e, where samples are so rare that RFC 6298's weights would take longer."""
MINIMUM_WINDOW = 10.0
"""Seconds for which a minimum counts at least, and for twice as long at most."""
LOSS_WINDOW = 2.5
"""Seconds that a share of losses covers..."""
LOSS_EVENTS = 24
"""...but as many events at least, unless they are older than..."""
LOSS_MEMORY = 60.0
"""...so many seconds."""
DETECTION_TIME = 2.0
"""Seconds after a cut in which what was lost by it is still being found."""
_BUCKET = 0.25


class RttEstimator:
    """Smoothed round-trip time: RFC 6298 section 2, with larger weights where samples are rare.

    Its weights are meant for several samples in each round trip. A sample a second would take a minute to be believed.
    """

    def __init__(self) -> None:
        self.smoothed: float | None = None
        self.variation = 0.0
        self.latest: float | None = None
        self.samples = 0
        self._at = 0.0
        self._minimum = self._former_minimum = float("inf")
        self._window_from = float("-inf")

    @property
    def minimum(self) -> float | None:
        """Lowest sample of the last 10 to 20 seconds in which there were any; None before the first."""
        return min(self._minimum, self._former_minimum) if self.samples else None

    @property
    def timeout(self) -> float:
        """Time after which a reply is overdue: RTO without the one-second floor, 1 s before the first sample."""
        if self.smoothed is None:
            return 1.0
        return self.smoothed + max(4 * self.variation, 0.05)

    def deviates(self, sample: float, least: float) -> bool:
        """Tell whether a sample differs by more than `least` seconds, and by more than is usual."""
        return self.smoothed is not None and abs(sample - self.smoothed) > max(least, 4 * self.variation)

    def add(self, sample: float, now: float) -> None:
        """Take one measurement, made at `now`; one that comes late weighs as one of many."""
        self.samples += 1
        self.latest = sample
        if now - self._window_from >= MINIMUM_WINDOW:
            self._window_from = now
            self._former_minimum, self._minimum = self._minimum, sample
        elif sample < self._minimum:
            self._minimum = sample
        if self.smoothed is None:
            self.smoothed, self.variation, self._at = sample, sample / 2, now
            return
        age, self._at = now - self._at, max(now, self._at)
        weight = max(1 / 8, 1 - exp(-age / TIME_CONSTANT)) if age > 0 else 1 / 8
        deviation = abs(self.smoothed - sample)
        # A deviation that has grown counts at once, or timeouts would come too soon; it is forgotten as in the RFC.
        self.variation += (deviation - self.variation) * (max(weight, 1 / 4) if deviation > self.variation else 1 / 4)
        self.smoothed += (sample - self.smoothed) * weight


class LossEstimator:
    """Share of what was lost lately, of all that is known to have arrived or been lost."""

    def __init__(self) -> None:
        self._buckets: deque[list[float]] = deque()
        """When each begins, what arrived and what was lost in it."""
        self._delivered = 0
        self._lost = 0
        self._from = self._left_out_at = float("-inf")

    @property
    def loss(self) -> float:
        """0.0 to 1.0; 0.0 while nothing is known."""
        lost = max(0, self._lost)
        return min(1.0, lost / (self._delivered + lost)) if lost and self._delivered + lost > 0 else 0.0

    def restart(self, now: float) -> None:
        """An outage is over: it is told by the path's state, and says nothing of what is lost from now on."""
        self._buckets.clear()
        self._delivered = self._lost = 0
        self._from = now + DETECTION_TIME

    def leave_out(self, since: float, missing: int, now: float) -> bool:
        """Nothing came in from `since` until `now`: forget what was lost then. False when it is to count.

        A cut is told by the path's state. But where packets are lost all the time, some are in a row again and again:
        so it is done once in `LOSS_MEMORY`. So many replies are `missing`, and not yet counted as lost.
        """
        buckets = self._buckets
        within = [each for each in buckets if each[0] >= since]
        if now - self._left_out_at < LOSS_MEMORY or not (missing or any(each[2] > 0 for each in within)):
            return False
        self._left_out_at = now
        for _, arrived, lost in within:
            buckets.pop()
            self._delivered -= int(arrived)
            self._lost -= int(lost)
        self._from = now + DETECTION_TIME
        return True

    def add(self, delivered: int, lost: int, now: float) -> None:
        """Take what is known since the last call; negative `lost` takes back what arrived after all."""
        if now < self._from or not (delivered or lost):
            return
        buckets = self._buckets
        if not buckets or now - buckets[-1][0] >= _BUCKET:
            buckets.append([now, 0, 0])
        bucket = buckets[-1]
        bucket[1] += delivered
        bucket[2] += lost
        self._delivered += delivered
        self._lost += lost
        while len(buckets) > 1:
            began, arrived, missing = buckets[0]
            rest = self._delivered + self._lost - arrived - missing
            if now - began < LOSS_WINDOW or (rest < LOSS_EVENTS and now - began < LOSS_MEMORY):
                return
            buckets.popleft()
            self._delivered -= int(arrived)
            self._lost -= int(missing)


class PathEstimators:
    """What is known of one path by all of its data planes and probes."""

    def __init__(self) -> None:
        self.rtt = RttEstimator()
        self._loss = LossEstimator()

    @property
    def loss(self) -> float:
        """Share of packets that are lost, 0.0 to 1.0."""
        return self._loss.loss

    def on_sent(self, delivered: int, lost: int, now: float) -> None:
        """So many packets are known to have arrived, or to be lost, since the last call."""
        self._loss.add(delivered, lost, now)

    def outage_over(self, now: float) -> None:
        """Something came in after the path had been down."""
        self._loss.restart(now)

    def silence_over(self, since: float, missing: int, now: float) -> bool:
        """Something came in after nothing had since `since`; tell whether what was lost meanwhile is left out."""
        return self._loss.leave_out(since, missing, now)
