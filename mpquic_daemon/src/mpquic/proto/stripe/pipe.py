"""One pipe of a session as seen from one end: where its peer is, and whether it works."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.proto.path.estimators import RttEstimator
from mpquic.proto.stripe.pipe_meter import ReceivingMeter, SendingMeter

if TYPE_CHECKING:
    from mpquic.proto.stripe.return_path import Address, UnprovenAddress

DEAD_AFTER = 3.5
MAX_IDLE = 20.0
"""Seconds after an answer for which an idle pipe isn't registered anew."""


class Pipe:
    """One pipe as seen from one end."""

    __slots__ = (
        "address",
        "charged_bytes",
        "confirmed_at",
        "highest",
        "highest_control",
        "next_request_at",
        "number",
        "reached_at",
        "receiving",
        "registering",
        "requested_at",
        "rtt",
        "sending",
        "unproven",
        "untold_rtt",
    )

    def __init__(self, number: int, now: float) -> None:
        self.number = number
        self.address: Address | None = None
        """Where the peer is known to receive; None at a client, whose sockets are connected."""
        self.reached_at = float("-inf")
        """When a token returned that had been sent there, although packets came from yet another address by then."""
        self.unproven: UnprovenAddress | None = None
        """Where the newest packet came from, if that is another address."""
        self.highest = -1
        self.highest_control = -1
        self.confirmed_at: float | None = None
        """When both directions were last known to work."""
        self.next_request_at = now
        self.requested_at = float("-inf")
        self.registering = True
        """Whether its last request was that of one that has had no reply."""
        self.rtt = RttEstimator()
        self.untold_rtt: float | None = None
        """What was measured last, if the peer hasn't been told."""
        self.sending = SendingMeter()
        self.receiving = ReceivingMeter()
        self.charged_bytes = 0
        """What decides whose turn it is: what it has sent, and what it is charged for when it is to come last."""

    def alive(self, now: float) -> bool:
        """True when both directions have worked of late."""
        return self.confirmed_at is not None and now - self.confirmed_at < DEAD_AFTER

    @property
    def waits(self) -> bool:
        """Whether the last request has had no reply."""
        return self.confirmed_at is None or self.requested_at > self.confirmed_at

    def is_idle(self, now: float) -> bool:
        """True when it carried before the session fell idle, and nothing tells that it wouldn't now."""
        return (
            self.confirmed_at is not None
            and now - self.confirmed_at < MAX_IDLE
            and self.requested_at <= self.confirmed_at
        )
