"""CUBIC (RFC 9438): after a loss the window returns to where it was along a cubic function of time.

Different from the RFC: in the region that is friendly to Reno the window grows by a whole packet each round trip from
the loss on and not by 0.53 of one (section 4.3), see docs/decisions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mpquic.proto.congestion.window import WindowController

if TYPE_CHECKING:
    from mpquic.proto.congestion.controller import AckSample

C = 0.4
BETA = 0.7
MAX_GROWTH = 1.5
"""Of the window, at most, that a round trip may make of it (section 4.2)."""


class Cubic(WindowController):
    """Implements `controller.Controller`. Windows are kept in bytes, the cubic function counts packets."""

    name: ClassVar[str] = "cubic"
    reduction: ClassVar[float] = BETA

    def __init__(self, datagram: int, now: float) -> None:
        super().__init__(datagram, now)
        self._maximum = 0.0
        """W_max in bytes: the window before the last loss."""
        self._exact = 0.0
        """The window with its fraction."""
        self._reno = 0.0
        """W_est: the window that Reno would have."""
        self._epoch = now
        self._k = 0.0
        self._limited_since: float | None = None

    def _note_loss(self, window: int) -> None:
        # Fast convergence (section 4.7): a maximum that falls makes room for who has come.
        self._maximum = window * (1 + BETA) / 2 if window < self._maximum else float(window)

    def _begin_avoidance(self, now: float) -> None:
        window = float(self.congestion_window)
        self._epoch = now
        self._exact = self._reno = window
        self._maximum = max(self._maximum, window)
        self._k = ((self._maximum - window) / (C * self.datagram)) ** (1 / 3)
        self._limited_since = None

    def _grow(self, sample: AckSample, now: float) -> None:
        if self._limited_since is not None:
            # Time in which the window wasn't in use doesn't count (section 5.8).
            self._epoch += now - self._limited_since
            self._limited_since = None
        window = self._exact if int(self._exact) == self.congestion_window else float(self.congestion_window)
        self._reno += self.datagram * sample.bytes_acked / window
        elapsed = now - self._epoch
        if self._cubic(elapsed) < self._reno:
            window = max(window, self._reno)
        else:
            target = min(max(self._cubic(elapsed + (self._smoothed_rtt or 0.0)), window), MAX_GROWTH * window)
            window += (target - window) * min(1.0, sample.bytes_acked / window)
        self._exact = window
        self.congestion_window = int(window)

    def _cubic(self, elapsed: float) -> float:
        offset = elapsed - self._k
        return float(C * offset * offset * offset * self.datagram + self._maximum)

    def _on_pause(self, pause: float) -> None:
        if self._limited_since is None:
            self._epoch += pause

    def _on_unfilled(self, now: float) -> None:
        if self._limited_since is None:
            self._limited_since = now
