"""What controllers that grow a window and cut it on loss have in common (RFC 9002 section 7, RFC 9406)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mpquic.proto.congestion.hystart import CSS_GROWTH_DIVISOR, SlowStart

if TYPE_CHECKING:
    from mpquic.proto.congestion.controller import AckSample

INITIAL_PACKETS = 10
MIN_PACKETS = 2
PACING_GAIN = 1.25
"""Pacing rate over window per RTT: without a surplus a path never fills its window (RFC 9002 section 7.7)."""
FILLED = 0.8
"""Share of the window in flight from which on it is the window that limits what is sent: in slow start it is twice what
was in flight one RTT ago, so that little less than half of it is always in use."""
IDLE_TIME = 2.0
"""Seconds after which a window is out of date."""
_MIN_RTT = 0.001


class WindowController:
    """Implements `controller.Controller` but for how the window grows and by how much a loss cuts it.

    `datagram` is the size of a full packet in bytes; windows are bytes, times seconds. The window grows only while it
    is in use (RFC 9002 section 7.8): hours of little traffic must not end in a burst of megabytes.

    A loss while little is sent says nothing of where the path is full: slow start then ends where it did before, and
    the window remains as wide as that of a new connection (RFC 5681 section 4.1). Else a single lost ping of an idle
    tunnel would have each transfer begin at a crawl.
    """

    name: ClassVar[str] = ""
    reduction: ClassVar[float] = 0.5
    """What a loss leaves of the window."""
    probing_down = False

    def __init__(self, datagram: int, now: float) -> None:
        self.datagram = datagram
        self.congestion_window = INITIAL_PACKETS * datagram
        self.slow_start_threshold: int | None = None
        self._slow_start = SlowStart()
        self._smoothed_rtt: float | None = None
        self._recovery_start = float("-inf")
        self._in_recovery = False
        self._active_at = now

    @property
    def state_name(self) -> str:
        """`slow_start`, `recovery` or `congestion_avoidance`."""
        if self._in_recovery:
            return "recovery"
        return "slow_start" if self.in_slow_start else "congestion_avoidance"

    @property
    def in_slow_start(self) -> bool:
        """Whether the window grows by what is acknowledged."""
        return self.slow_start_threshold is None or self.congestion_window < self.slow_start_threshold

    @property
    def pacing_rate(self) -> float:
        """Bytes per second; before the first RTT sample a millisecond is taken for it: the window limits then."""
        return PACING_GAIN * self.congestion_window / max(self._smoothed_rtt or 0.0, _MIN_RTT)

    @property
    def bandwidth(self) -> float:
        """Bytes per second that the window allows over the smoothed RTT, 0.0 before the first sample."""
        if self._smoothed_rtt is None:
            return 0.0
        return self.congestion_window / max(self._smoothed_rtt, _MIN_RTT)

    def on_sent(self, _size: int, now: float) -> None:
        """Remember that the path is in use."""
        self._active_at = now

    def on_idle(self, now: float) -> None:
        """Begin with the initial window after a long pause, in slow start to most of what was (RFC 5681, RFC 2861)."""
        pause = now - self._active_at
        if pause <= 0:
            return
        self._on_pause(pause)
        if pause < IDLE_TIME:
            return
        if self.slow_start_threshold is not None:
            self.slow_start_threshold = max(self.slow_start_threshold, self.congestion_window * 3 // 4)
        self.congestion_window = min(self.congestion_window, INITIAL_PACKETS * self.datagram)
        self._slow_start = SlowStart()

    def on_ack(self, sample: AckSample, now: float) -> None:
        """Grow by what was acknowledged, or cut once for a round trip's losses."""
        self._active_at = now
        if sample.smoothed_rtt is not None:
            self._smoothed_rtt = sample.smoothed_rtt
        if sample.bytes_acked > 0:
            self._on_delivered(sample, now)
        if sample.bytes_lost > 0 and sample.lost_sent_at > self._recovery_start:
            self._on_loss(sample, now)

    def on_persistent_congestion(self, now: float) -> None:
        """Begin anew with the smallest window, in slow start up to what a loss would have left."""
        threshold = self.slow_start_threshold
        if threshold is None or self.congestion_window > threshold:
            self.slow_start_threshold = self._smallest(int(self.congestion_window * self.reduction))
        self.congestion_window = MIN_PACKETS * self.datagram
        self._recovery_start = now
        self._in_recovery = False
        self._slow_start = SlowStart()

    def _on_delivered(self, sample: AckSample, now: float) -> None:
        if sample.sent_at <= self._recovery_start:
            return  # RFC 9002 section 7.3.2: nothing grows before what was sent after the loss arrives
        self._in_recovery = False
        window = self.congestion_window
        filled = sample.prior_in_flight * 2 >= window
        if not self.in_slow_start:
            if filled:
                self._grow(sample, now)
            else:
                self._on_unfilled(now)
            return
        growth = sample.bytes_acked
        if self.slow_start_threshold is None:
            slow_start = self._slow_start
            slow_start.on_acked(sample.sent_at, now, filled=sample.prior_in_flight >= FILLED * window)
            if sample.rtt is not None:
                slow_start.on_rtt(sample.rtt)
            if slow_start.conservative:
                growth //= CSS_GROWTH_DIVISOR
        if filled:
            self.congestion_window = window + growth
        if self._slow_start.over:
            self.slow_start_threshold = self.congestion_window
            self._slow_start = SlowStart()
        if not self.in_slow_start:
            self._begin_avoidance(now)

    def _on_loss(self, sample: AckSample, now: float) -> None:
        self._recovery_start = now
        self._in_recovery = True
        window = self.congestion_window
        if sample.prior_in_flight * 2 < window:
            self._slow_start = SlowStart()
            self.congestion_window = max(int(window * self.reduction), min(window, INITIAL_PACKETS * self.datagram))
            if self.slow_start_threshold is not None and not self.in_slow_start:
                self._begin_avoidance(now)
            return
        self._note_loss(window)
        self.congestion_window = self._smallest(int(min(window, sample.prior_in_flight) * self.reduction))
        self.slow_start_threshold = self.congestion_window
        self._begin_avoidance(now)

    def _smallest(self, window: int) -> int:
        return max(window, MIN_PACKETS * self.datagram)

    def _grow(self, sample: AckSample, now: float) -> None:
        """Grow in congestion avoidance."""
        raise NotImplementedError

    def _begin_avoidance(self, now: float) -> None:
        """Congestion avoidance begins at the present window."""

    def _note_loss(self, window: int) -> None:
        """A loss is about to cut the window that is given."""

    def _on_pause(self, pause: float) -> None:
        """Nothing was sent for `pause` seconds."""

    def _on_unfilled(self, now: float) -> None:
        """A batch was acknowledged in congestion avoidance while the window wasn't in use."""
