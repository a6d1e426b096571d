"""The contract between a data plane and its congestion controller. One controller for each path and direction."""

from __future__ import annotations

from typing import Protocol


class AckSample:
    """What one processed batch of acknowledgements says. Bytes are on the wire, times seconds, rates bytes per second.

    A batch is a receiver report of a striped session or an ACK frame of QUIC, with the losses that it made known; or
    the losses that a timer found, without anything acknowledged.
    """

    __slots__ = (
        "acked_packets",
        "app_limited",
        "bytes_acked",
        "bytes_lost",
        "delivered",
        "in_flight",
        "lost_packets",
        "lost_sent_at",
        "low_delivered",
        "low_lost",
        "prior_delivered",
        "prior_in_flight",
        "rate",
        "rtt",
        "sent_at",
        "smoothed_rtt",
    )

    def __init__(self) -> None:
        self.bytes_acked = 0
        self.acked_packets = 0
        self.bytes_lost = 0
        self.lost_packets = 0
        """Less those that arrived although they had been called lost: negative when there are more of them."""
        self.in_flight = 0
        """Bytes on their way after the batch."""
        self.prior_in_flight = 0
        """Bytes on their way before it."""
        self.rtt: float | None = None
        """Of the newest packet acknowledged; None when the batch gives no sample."""
        self.smoothed_rtt: float | None = None
        """The path's smoothed RTT, `rtt` included."""
        self.sent_at = 0.0
        """When the newest of the packets left that were acknowledged."""
        self.lost_sent_at = 0.0
        """When the newest of the packets left that were lost."""
        # The delivery-rate sample, see `sampler`.
        self.delivered = 0
        self.prior_delivered = 0
        self.rate = 0.0
        """0.0 when the batch gives no sample."""
        self.app_limited = False
        # Packets that were sent while the controller held back (`probing_down`): what they lost was lost by the link
        # and not by a queue that overflowed.
        self.low_delivered = 0
        self.low_lost = 0


class Controller(Protocol):
    """Congestion control of one direction of a path. Losses that FEC repaired are losses here (RFC 9265).

    The data plane keeps what it sent; the controller keeps how much may be sent. It never sleeps and has no clock.
    """

    @property
    def name(self) -> str:
        """Name as in the configuration."""
        ...

    @property
    def state_name(self) -> str:
        """What it is doing, for people: `slow_start`, `probe_bw` and so on."""
        ...

    @property
    def pacing_rate(self) -> float:
        """Bytes per second at which to send, always positive."""
        ...

    @property
    def congestion_window(self) -> int:
        """Bytes that may be on their way, at least two packets."""
        ...

    @property
    def probing_down(self) -> bool:
        """True while it sends less than it believes possible; see `AckSample.low_lost`."""
        ...

    @property
    def bandwidth(self) -> float:
        """Estimated delivery rate in bytes per second, 0.0 while unknown."""
        ...

    def on_sent(self, size: int, now: float) -> None:
        """`size` bytes left together."""
        ...

    def on_ack(self, sample: AckSample, now: float) -> None:
        """A batch was processed, loss detection included. Once for each batch."""
        ...

    def on_persistent_congestion(self, now: float) -> None:
        """All that was sent for several probe timeouts is lost (RFC 9002 section 7.6). After `on_ack` of its batch."""
        ...

    def on_idle(self, now: float) -> None:
        """Nothing is on its way and something is about to be sent: what is known of the path may be out of date."""
        ...
