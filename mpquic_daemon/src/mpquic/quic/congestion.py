"""Congestion control of QUIC: what aioquic tells packet by packet becomes the batches of the controllers' contract.

aioquic creates the controller of a connection from a registered name and keeps it to itself. `LinkControl` is
registered under own names by its public `register_congestion_control`; `capture` hands over the instance that a
connection got. It keeps the bytes in flight, samples the delivery rate, and owns the controller and the pacer.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from aioquic.quic.congestion.base import QuicCongestionControl, register_congestion_control
from aioquic.quic.packet_builder import QuicSentPacket

from mpquic.proto.congestion.algorithms import ALGORITHMS, AUTO, controller_class
from mpquic.proto.congestion.controller import AckSample
from mpquic.proto.congestion.pacer import Pacer
from mpquic.proto.congestion.sampler import DeliveryRateSampler, SendStamp
from mpquic.proto.path.estimators import PathEstimators
from mpquic.quic.pacing import QUANTUM


@dataclass(slots=True)
class PathMeter:
    """What a connection has counted since it began."""

    packets_sent: int = 0
    bytes_sent: int = 0
    packets_acked: int = 0
    bytes_acked: int = 0
    packets_lost: int = 0
    congestion_events: int = 0
    """How often the congestion window was cut."""


class LinkControl(QuicCongestionControl):
    """Stands between aioquic and a controller. `finish` ends a batch: call it when losses have been looked for."""

    def __init__(self, algorithm: str, *, max_datagram_size: int) -> None:
        # aioquic has no time to give here; what counts begins with the first packet.
        self.controller = controller_class(algorithm, "cubic")(max_datagram_size, 0.0)
        self.pacer = Pacer(self.controller.pacing_rate, 0.0, quantum=QUANTUM)
        self.meter = PathMeter()
        self.estimators = PathEstimators()
        """Those of the path, which everything else that measures it feeds as well."""
        self.bytes_in_flight = 0
        self.on_lost: Callable[[Sequence[QuicSentPacket]], None] | None = None
        self._sampler = DeliveryRateSampler()
        self._acked: list[QuicSentPacket] = []
        self._lost: list[QuicSentPacket] = []
        self._rtt: float | None = None
        self._is_persistent = False
        if _capture:
            _capture[-1].append(self)

    @property
    def congestion_window(self) -> int:  # type: ignore[override]
        """Bytes that may be in flight."""
        return self.controller.congestion_window

    @property
    def rate(self) -> float:
        """Bytes per second that the controller believes in; 0.0 before the first sample."""
        return self.controller.bandwidth

    def mark_app_limited(self) -> None:
        """Nothing more is to be sent for now: while the window has room, samples tell nothing of the path."""
        if self.bytes_in_flight * 2 < self.controller.congestion_window:
            self._sampler.mark_app_limited(self.bytes_in_flight)

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        """Count a packet that aioquic wrote itself: it seldom has as much to say as there is room for."""
        self.on_packets_sent([packet], packet.sent_bytes)
        self.mark_app_limited()

    def on_packets_sent(self, packets: Sequence[QuicSentPacket], size: int) -> None:
        """Count packets of `size` bytes together, all sent at the same time."""
        now = packets[0].sent_time or 0.0
        controller, flight = self.controller, self.bytes_in_flight
        if not flight:
            controller.on_idle(now)
        stamp = self._sampler.on_sent(now, flight, probing_down=controller.probing_down)
        for packet in packets:
            packet.stamp = stamp  # type: ignore[attr-defined]
        self.bytes_in_flight = flight + size
        self.meter.packets_sent += len(packets)
        self.meter.bytes_sent += size
        controller.on_sent(size, now)

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:  # noqa: ARG002
        """Take it into the batch."""
        self._acked.append(packet)

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:  # noqa: ARG002
        """Take them into the batch."""
        lost = list(packets)
        self._lost += lost
        self._tell_lost(lost)

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        """Forget packets that may have been lost, which a timeout has shown."""
        expired = list(packets)
        self.bytes_in_flight -= sum([packet.sent_bytes for packet in expired])
        self._tell_lost(expired)

    def _tell_lost(self, packets: Sequence[QuicSentPacket]) -> None:
        if self.on_lost is not None:
            self.on_lost(packets)

    def on_persistent_congestion(self) -> None:
        """Remember it for the end of the batch."""
        self._is_persistent = True

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:  # noqa: ARG002
        """Take it into the batch."""
        self._rtt = rtt

    def finish(self, now: float) -> None:
        """Give the controller what was acknowledged and lost since the last call."""
        acked, lost = self._acked, self._lost
        if not acked and not lost:
            return
        sample = AckSample()
        sample.prior_in_flight = self.bytes_in_flight
        if acked:
            self._acked = []
            self._add_acked(sample, acked)
        if lost:
            self._lost = []
            self._add_lost(sample, lost)
        sample.in_flight = self.bytes_in_flight = self.bytes_in_flight - sample.bytes_acked - sample.bytes_lost
        estimators, controller = self.estimators, self.controller
        if self._rtt is not None:
            estimators.rtt.add(self._rtt, now)
            sample.rtt, self._rtt = self._rtt, None
        estimators.on_sent(len(acked), len(lost), now)
        sample.smoothed_rtt = estimators.rtt.smoothed
        if acked:
            self._sampler.sample(_stamp(acked[-1]), sample, now)
        window = controller.congestion_window
        controller.on_ack(sample, now)
        if self._is_persistent:
            self._is_persistent = False
            controller.on_persistent_congestion(now)
        self.meter.congestion_events += bool(lost) and controller.congestion_window < window
        self.pacer.set_rate(controller.pacing_rate, now)

    def _add_acked(self, sample: AckSample, acked: list[QuicSentPacket]) -> None:
        sample.acked_packets = count = len(acked)
        sample.bytes_acked = size = sum([packet.sent_bytes for packet in acked])
        sample.sent_at = acked[-1].sent_time or 0.0
        sample.low_delivered = _count_low(acked)
        self._sampler.delivered += size
        self.meter.packets_acked += count
        self.meter.bytes_acked += size

    def _add_lost(self, sample: AckSample, lost: list[QuicSentPacket]) -> None:
        sample.lost_packets = count = len(lost)
        sample.bytes_lost = sum([packet.sent_bytes for packet in lost])
        sample.lost_sent_at = lost[-1].sent_time or 0.0
        sample.low_lost = _count_low(lost)
        self.meter.packets_lost += count


def _stamp(packet: QuicSentPacket) -> SendStamp:
    stamp = packet.stamp  # type: ignore[attr-defined]
    assert isinstance(stamp, SendStamp)
    return stamp


def _count_low(packets: list[QuicSentPacket]) -> int:
    """Return how many left while the controller held back. What left together has one stamp."""
    if _stamp(packets[0]) is _stamp(packets[-1]):
        return len(packets) if _stamp(packets[0]).probing_down else 0
    return sum([_stamp(packet).probing_down for packet in packets])


_capture: list[list[LinkControl]] = []
_PREFIX = "mpquic-"
_NAMES = (AUTO, *ALGORITHMS)
for _algorithm in _NAMES:
    register_congestion_control(_PREFIX + _algorithm, partial(LinkControl, _algorithm))


def registered_name(algorithm: str) -> str:
    """Name by which aioquic knows our controller.

    Raises:
        ValueError: no algorithm has this name.
    """
    controller_class(algorithm, "cubic")
    return _PREFIX + algorithm


@contextmanager
def capture() -> Iterator[list[LinkControl]]:
    """Collect the controllers made inside the block: a connection makes its own while it is constructed."""
    made: list[LinkControl] = []
    _capture.append(made)
    try:
        yield made
    finally:
        _capture.remove(made)
