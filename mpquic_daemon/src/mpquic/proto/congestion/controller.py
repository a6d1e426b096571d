"""What a stripe path asks of a congestion controller. One for each path, whatever the number of its pipes."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


class AckSample:
    """What one receiver report says. Sizes in bytes on the wire, times in seconds, rates in bytes per second.

    `low_*` counts only shards that were sent while the controller held back (`probing_down`): what they lost was lost
    by the link and not by a queue that overflowed.
    """

    __slots__ = (
        "app_limited",
        "delivered",
        "delivered_shards",
        "in_flight",
        "lost_shards",
        "low_delivered",
        "low_lost",
        "newly_delivered",
        "now",
        "prior_delivered",
        "rate",
        "rtt",
    )

    def __init__(self, now: float) -> None:
        self.now = now
        self.delivered = 0
        self.prior_delivered = 0
        self.newly_delivered = 0
        self.delivered_shards = 0
        self.lost_shards = 0
        self.low_delivered = 0
        self.low_lost = 0
        self.in_flight = 0
        self.rate = 0.0
        self.rtt: float | None = None
        self.app_limited = False


@runtime_checkable
class Controller(Protocol):
    """Congestion control of one path. Losses that FEC repaired are losses here (RFC 9265)."""

    @property
    def name(self) -> str:
        """Name as in the configuration."""
        ...

    @property
    def pacing_rate(self) -> float:
        """Bytes per second at which to send, always positive."""
        ...

    @property
    def congestion_window(self) -> int:
        """Bytes that may be on their way."""
        ...

    @property
    def probing_down(self) -> bool:
        """True while it sends less than it believes possible; see `AckSample.low_lost`."""
        ...

    @property
    def bandwidth(self) -> float:
        """Estimated delivery rate in bytes per second, 0.0 while unknown."""
        ...

    def on_ack(self, sample: AckSample) -> None:
        """A report arrived, and loss detection has run on it."""
        ...

    def on_timeout(self, now: float) -> None:
        """Nothing was heard for several probe timeouts: all that was on its way is taken for lost."""
        ...
