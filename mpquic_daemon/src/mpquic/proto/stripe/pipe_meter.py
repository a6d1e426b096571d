"""What one pipe has carried in each direction, and what of it was lost.

The sender knows it by the reports of its peer. The receiver can't tell by the numbers of shards, which all pipes share:
REGISTER and KEEPALIVE tell how many shards their sender has sent by their pipe (as the sender reports of RFC 3550
section 6.4.1 do), and what had come by it when they came is known.
"""

from __future__ import annotations

from mpquic.proto.path.estimators import LossEstimator


class _Meter:
    """What one direction of a pipe has carried, whichever."""

    __slots__ = ("_loss", "control", "lost", "octets", "shards")

    def __init__(self) -> None:
        self.shards = 0
        self.control = 0
        """Datagrams that hold no shard."""
        self.octets = 0
        """Of the UDP payloads of both."""
        self.lost = 0
        self._loss = LossEstimator()

    @property
    def datagrams(self) -> int:
        """Datagrams of both kinds."""
        return self.shards + self.control

    @property
    def loss(self) -> float:
        """Share of shards that is lost of late, 0.0 to 1.0; 0.0 while nothing is known."""
        return self._loss.loss


class SendingMeter(_Meter):
    """What this end has sent by a pipe. A shard is acknowledged, lost or on its way; one that was lost may come yet."""

    __slots__ = ("_sampled", "acked", "acked_at")

    def __init__(self) -> None:
        super().__init__()
        self.acked = 0
        self.acked_at: float | None = None
        """When a shard was last acknowledged."""
        self._sampled = (0, 0)
        """What had been acknowledged and lost at the last sample."""

    def sample(self, now: float) -> None:
        """Take into `loss` what has become known since the last call: to be called a few times a second."""
        acked, lost = self._sampled
        if (self.acked, self.lost) != self._sampled:
            self._loss.add(self.acked - acked, self.lost - lost, now)
            self._sampled = self.acked, self.lost


class ReceivingMeter(_Meter):
    """What has come by a pipe: what is authentic and new.

    `lost` are shards that the peer had sent by this pipe, as it has told last, and that hadn't come by then.
    """

    __slots__ = ("_received", "_told", "heard_at")

    def __init__(self) -> None:
        super().__init__()
        self.heard_at: float | None = None
        self._told = 0
        self._received = 0

    def on_told(self, sent: int, received: int, now: float) -> None:
        """The peer has sent `sent` shards by this pipe before a packet, and `received` had come when that came."""
        if sent < self._told:
            return  # It was overtaken by a later one.
        lost = max(0, sent - received)
        self._loss.add(received - self._received, lost - self.lost, now)
        self._told, self._received, self.lost = sent, received, lost
