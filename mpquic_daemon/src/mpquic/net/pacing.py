"""The pacer of a QUIC connection (RFC 9002 section 7.7), fit for timers of a millisecond."""

from aioquic.quic.recovery import QuicPacketPacer

GAIN = 1.25
"""Pacing rate over window per RTT: without a surplus a connection never fills its window (RFC 9002 section 7.7)."""
BURST_SECONDS = 0.002
"""Time of the rate that may leave at once. epoll wakes on whole milliseconds: less would throttle fast connections, as
aioquic's own 16 datagrams do above 180 Mbit/s."""
BURST_DATAGRAMS = 16
_SLOWEST_PACKET = 1.0
_SHORTEST = 1e-6


class BurstPacer(QuicPacketPacer):
    """A leaky bucket in units of time, as aioquic's, with a burst that follows the rate."""

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._datagram = max_datagram_size

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        """Take window (bytes) and smoothed RTT (seconds)."""
        rate = GAIN * congestion_window / max(smoothed_rtt, _SHORTEST)
        self.packet_time = max(_SHORTEST, min(self._datagram / rate, _SLOWEST_PACKET))
        burst = max(BURST_DATAGRAMS * self._datagram, rate * BURST_SECONDS)
        self.bucket_max = max(2 * self._datagram, min(congestion_window / 4, burst)) / rate
        self.bucket_time = min(self.bucket_time, self.bucket_max)
