"""The contract between the tunnel and what carries its frames over one WAN: a QUIC connection, or striped pipes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mpquic.proto.path.path import FrameOrRun, PathState


class DataPlane(Protocol):
    """One way of sending over one WAN.

    Implementations hold no queue of their own beyond what is already on its way to the socket: what they do not accept
    stays with the tunnel, where class queues decide what is worth sending.
    """

    @property
    def name(self) -> str:
        """Name of the path inside its tunnel, the same on both ends."""
        ...

    @property
    def state(self) -> PathState:
        """Whether it carries."""
        ...

    @property
    def reliable(self) -> bool:
        """True when frames travel on an ordered stream: superframes are carried whole and nothing is fragmented."""
        ...

    @property
    def takes_runs(self) -> bool:
        """True when `send` takes runs of segments beside frames."""
        ...

    @property
    def frame_capacity(self) -> int:
        """Largest encoded frame in bytes, header included, that one datagram takes now. Not used when `reliable`."""
        ...

    @property
    def rtt(self) -> float | None:
        """Smoothed round-trip time in seconds, None before the first sample."""
        ...

    @property
    def loss(self) -> float:
        """Estimated share of lost packets, 0.0 to 1.0."""
        ...

    @property
    def rate(self) -> float:
        """Estimated deliverable rate in bytes per second, 0.0 while unknown."""
        ...

    def repair_time(self, traffic_class: int, now: float) -> float:
        """Seconds in which it may yet bring what it has lost of a class, 0.0 when nothing that is lost comes again.

        The receiver's reorder buffer waits for what is missing as long.
        """
        ...

    def budget(self, now: float) -> int:
        """Bytes of encoded frames that may be handed over now (congestion window, pacing, share of the WAN)."""
        ...

    def send(self, frames: Sequence[FrameOrRun], now: float) -> int:
        """Take frames in order and return how many were taken; the rest is offered again later.

        A frame, or a run, is taken whole while `budget` is positive, so the last one may overshoot it.
        """
        ...

    def unacknowledged(self, since: float) -> list[FrameOrRun]:
        """Return what was sent since then and isn't known to have arrived, in order, with low bits of the numbers.

        That is what another path sends again when this one has gone silent. Empty where the plane can't know.
        """
        ...
