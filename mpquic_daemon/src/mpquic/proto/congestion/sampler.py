"""Samples of the delivery rate (draft-cheng-iccrg-delivery-rate-estimation), for any data plane.

A data plane keeps the stamp that `on_sent` gives with what left, tells of each delivery, and asks for a sample once for
each batch, with the stamp of the newest packet in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpquic.proto.congestion.controller import AckSample


class SendStamp:
    """State of the connection when packets left together. Times in seconds, `delivered` in bytes."""

    __slots__ = ("app_limited", "delivered", "delivered_at", "probing_down", "sent_at", "window_start")

    def __init__(
        self,
        sent_at: float,
        delivered: int,
        delivered_at: float,
        window_start: float,
        app_limited: bool,
        probing_down: bool,
    ) -> None:
        self.sent_at = sent_at
        self.delivered = delivered
        self.delivered_at = delivered_at
        self.window_start = window_start
        self.app_limited = app_limited
        self.probing_down = probing_down


class DeliveryRateSampler:
    """Counts what is delivered and when. `delivered` is in bytes since the beginning."""

    def __init__(self) -> None:
        self.delivered = 0
        self._delivered_at = 0.0
        self._window_start = 0.0
        self._app_limited_until = 0

    def mark_app_limited(self, in_flight: int) -> None:
        """The sender had less to send than it might: samples until now's flight has landed say nothing of the path."""
        self._app_limited_until = max(self.delivered + in_flight, 1)

    def on_sent(self, now: float, in_flight: int, *, probing_down: bool) -> SendStamp:
        """Packets leave together; `in_flight` are the bytes on their way before them."""
        if not in_flight:
            self._delivered_at = self._window_start = now
        limited = self._app_limited_until > 0
        return SendStamp(now, self.delivered, self._delivered_at, self._window_start, limited, probing_down)

    def sample(self, newest: SendStamp, sample: AckSample, now: float) -> None:
        """Enter the rate into `sample`. `newest` belongs to the packet sent last of those just delivered.

        The rate is what was delivered since that packet left, over the longer of the times in which it was sent and
        acknowledged.
        """
        self._delivered_at = now
        if self._app_limited_until and self.delivered > self._app_limited_until:
            self._app_limited_until = 0
        sample.delivered = self.delivered
        sample.prior_delivered = newest.delivered
        sample.app_limited = newest.app_limited
        self._window_start = newest.sent_at
        interval = max(newest.sent_at - newest.window_start, now - newest.delivered_at)
        if interval > 0:
            sample.rate = (self.delivered - newest.delivered) / interval
