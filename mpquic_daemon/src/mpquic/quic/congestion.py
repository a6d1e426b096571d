"""Congestion controllers for aioquic that tell what they know: window, flight, RTT, loss.

aioquic creates the controller of a connection from a registered name and keeps it to itself. Ours are subclasses of its
controllers, registered under own names by its public `register_congestion_control`; `capture` hands over the instance
that a connection got. Nothing private of aioquic is needed to read them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from aioquic.quic.congestion.base import QuicCongestionControl, register_congestion_control
from aioquic.quic.congestion.cubic import CubicCongestionControl
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.packet_builder import QuicSentPacket

from mpquic.proto.congestion.hystart import CSS_GROWTH_DIVISOR, SlowStart

_LOSS_SAMPLE_PACKETS = 64
_LOSS_WEIGHT = 0.25
FILLED = 0.8
"""Share of the window in flight from which on it is the window that limits what is sent: in slow start it is twice what
was in flight one RTT ago, so that little less than half of it is always in use."""


@dataclass(slots=True)
class PathMeter:
    """What a controller measured. Times in seconds; counters since the connection began."""

    packets_sent: int = 0
    bytes_sent: int = 0
    packets_acked: int = 0
    bytes_acked: int = 0
    packets_lost: int = 0
    congestion_events: int = 0
    rtt_latest: float | None = None
    rtt_smoothed: float | None = None
    rtt_variation: float = 0.0
    rtt_min: float | None = None
    loss: float = 0.0
    """Share of lost packets, smoothed over samples of 64."""
    _sample_acked: int = 0
    _sample_lost: int = 0

    def on_rtt(self, rtt: float) -> None:
        """Take a sample (RFC 9002 section 5.3; the peer's acknowledgement delay is part of it)."""
        self.rtt_latest = rtt
        self.rtt_min = rtt if self.rtt_min is None else min(self.rtt_min, rtt)
        if self.rtt_smoothed is None:
            self.rtt_smoothed, self.rtt_variation = rtt, rtt / 2
        else:
            self.rtt_variation += (abs(self.rtt_smoothed - rtt) - self.rtt_variation) / 4
            self.rtt_smoothed += (rtt - self.rtt_smoothed) / 8
        total = self.packets_acked + self.packets_lost - self._sample_acked - self._sample_lost
        if total >= _LOSS_SAMPLE_PACKETS:
            self.loss += _LOSS_WEIGHT * ((self.packets_lost - self._sample_lost) / total - self.loss)
            self._sample_acked, self._sample_lost = self.packets_acked, self.packets_lost


class MeasuredControl(QuicCongestionControl):
    """Mixin over one of aioquic's controllers: it counts, and the window grows only while it is in use.

    aioquic's controllers grow with each acknowledgement, even while the application sends far less than the window
    allows: hours of little traffic would end in a burst of megabytes (RFC 9002 section 7.8 forbids it).
    """

    last_ack: float = 0.0
    """When the packet was sent that was acknowledged last: aioquic's CUBIC begins anew after two idle seconds."""

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.meter = PathMeter()
        self._initial_window = self.congestion_window
        self._slow_start = SlowStart()
        self._is_avoiding = False
        """Whether an acknowledgement came in congestion avoidance: CUBIC's time begins with the first."""
        self.on_lost: Callable[[Sequence[QuicSentPacket]], None] = _ignore_losses
        if _capture:
            _capture[-1].append(self)

    @property
    def rate(self) -> float:
        """Bytes per second that the window allows over the smoothed RTT; 0.0 before the first sample."""
        smoothed = self.meter.rtt_smoothed
        return self.congestion_window / max(smoothed, 0.001) if smoothed is not None else 0.0

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        """Count, then act as the controller does."""
        meter = self.meter
        meter.packets_sent += 1
        meter.bytes_sent += packet.sent_bytes
        super().on_packet_sent(packet=packet)  # type: ignore[safe-super]

    def on_packets_sent(self, packets: Sequence[QuicSentPacket], size: int) -> None:
        """Do what `on_packet_sent` would for packets of `size` bytes together, all sent at the same time."""
        first = packets[0]
        meter = self.meter
        meter.packets_sent += len(packets) - 1
        meter.bytes_sent += size - first.sent_bytes
        self.on_packet_sent(packet=first)  # where a controller sees that it was idle
        self.bytes_in_flight += size - first.sent_bytes

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        """Count, then act as the controller does, but don't grow a window that isn't filled."""
        meter = self.meter
        meter.packets_acked += 1
        meter.bytes_acked += packet.sent_bytes
        window = self.congestion_window
        # In slow start the window is twice what was in flight one RTT ago, so half of it counts as filled.
        flight = self.bytes_in_flight
        filled = flight * 2 >= window
        if not filled and self._is_avoiding:
            # Of what the controller would reckon for each packet nothing would be kept.
            self.bytes_in_flight -= packet.sent_bytes
            self.last_ack = packet.sent_time or 0.0
            return
        super().on_packet_acked(now=now, packet=packet)  # type: ignore[safe-super]
        self._is_avoiding = self.ssthresh is not None and self.congestion_window >= self.ssthresh
        if self.ssthresh is None:
            self._slow_start.on_acked(packet.sent_time or 0.0, now, filled=flight >= FILLED * window)
            if self._slow_start.conservative:
                self.congestion_window = window + (self.congestion_window - window) // CSS_GROWTH_DIVISOR
            if self._slow_start.over:
                self.ssthresh = self.congestion_window
                self._slow_start = SlowStart()
        if not filled and self.congestion_window > window:
            self.congestion_window = window

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        """Count, then act as the controller does.

        A loss while little is sent says nothing of where the path is full: so slow start ends where it did before, and
        the window remains as wide as that of a new connection (RFC 5681 section 4.1). aioquic would let a single lost
        ping of an idle tunnel have each transfer begin at a crawl.
        """
        lost = list(packets)
        self.meter.packets_lost += len(lost)
        window, threshold = self.congestion_window, self.ssthresh
        filled = self.bytes_in_flight * 2 >= window
        super().on_packets_lost(now=now, packets=lost)  # type: ignore[safe-super]
        self.meter.congestion_events += self.congestion_window < window
        if not filled and self.ssthresh != threshold:
            self.ssthresh = threshold
            self._slow_start = SlowStart()
            self.congestion_window = max(self.congestion_window, min(window, self._initial_window))
        self._is_avoiding = False
        self.on_lost(lost)

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        """Act as the controller does: these may have been lost, which a timeout has shown."""
        expired = list(packets)
        super().on_packets_expired(packets=expired)  # type: ignore[safe-super]
        self.on_lost(expired)

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:  # noqa: ARG002
        """Measure. aioquic's own controllers would end slow start here, see `hystart`."""
        self.meter.on_rtt(rtt)
        if self.ssthresh is None:
            self._slow_start.on_rtt(rtt)


class MeasuredCubic(MeasuredControl, CubicCongestionControl):
    """CUBIC (RFC 9438) with a meter."""

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        """Measure, and give CUBIC the RTT by which it looks ahead."""
        self.rtt = rtt
        super().on_rtt_measurement(now=now, rtt=rtt)


class MeasuredReno(MeasuredControl, RenoCongestionControl):
    """NewReno (RFC 9002 section 7) with a meter."""


def _ignore_losses(_packets: Sequence[QuicSentPacket]) -> None:
    """Stand in for a callback that nobody set."""


_capture: list[list[MeasuredControl]] = []
_REGISTERED = {"cubic": "mpquic-cubic", "reno": "mpquic-reno"}
ALGORITHMS = tuple(_REGISTERED)
"""Names that `congestion_algorithm` may have."""

register_congestion_control(_REGISTERED["cubic"], MeasuredCubic)
register_congestion_control(_REGISTERED["reno"], MeasuredReno)


def registered_name(algorithm: str) -> str:
    """Name by which aioquic knows our controller; KeyError for an unknown algorithm."""
    return _REGISTERED[algorithm]


@contextmanager
def capture() -> Iterator[list[MeasuredControl]]:
    """Collect the controllers made inside the block: a connection makes its own while it is constructed."""
    made: list[MeasuredControl] = []
    _capture.append(made)
    try:
        yield made
    finally:
        _capture.remove(made)
