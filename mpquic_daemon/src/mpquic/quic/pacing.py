"""The pacer of both data planes, as aioquic asks it for the packets that it writes itself."""

from aioquic.quic.recovery import QuicPacketPacer

from mpquic.proto.congestion.pacer import Pacer

QUANTUM = 0.001
"""Shortest pause of QUIC in seconds once a burst is spent."""


class LinkPacer(QuicPacketPacer):
    """Asks a `Pacer`, whose rate is set by whoever has the congestion controller."""

    def __init__(self, pacer: Pacer, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._pacer = pacer
        self._datagram = max_datagram_size

    def next_send_time(self, now: float) -> float | None:  # type: ignore[override]
        """When the next packet may leave; None for now."""
        at = self._pacer.next_allowance(now)
        return at if at > now else None

    def update_after_send(self, now: float) -> None:  # noqa: ARG002
        """A packet left. aioquic doesn't say how large it was: a full one is taken for it."""
        self._pacer.spend(self._datagram)

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        """Nothing: the rate is the controller's."""
