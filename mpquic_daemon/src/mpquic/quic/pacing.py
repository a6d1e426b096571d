"""The pacer of a QUIC connection (RFC 9002 section 7.7), fit for timers of a millisecond."""

from math import ceil

from aioquic.quic.recovery import QuicPacketPacer

GAIN = 1.25
"""Pacing rate over window per RTT: without a surplus a connection never fills its window (RFC 9002 section 7.7)."""
BURST_SECONDS = 0.002
"""Time of the rate that may leave at once. epoll wakes on whole milliseconds: less would throttle fast connections, as
aioquic's own 16 datagrams do above 180 Mbit/s."""
BURST_DATAGRAMS = 16
QUANTUM_SECONDS = 0.001
"""Shortest pause once the burst is spent. Without it a busy loop would send one or two datagrams at a time, each with
the cost of a system call."""
UNPACED = 1024
"""Datagrams that may leave at once while no RTT is known: the congestion window has room for far fewer."""
_SLOWEST_PACKET = 1.0
_SHORTEST = 1e-6


class BurstPacer(QuicPacketPacer):
    """A leaky bucket in units of time, as aioquic's, with a burst that follows the rate."""

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._datagram = max_datagram_size
        self._resume_at: float | None = None

    def next_send_time(self, now: float) -> float | None:  # type: ignore[override]
        """When the next packet may leave; None for now."""
        if self.packet_time is None:
            return None
        self.update_bucket(now=now)
        if self._resume_at is not None:
            if now < self._resume_at:
                return self._resume_at
            self._resume_at = None
        if self.bucket_time <= 0:
            self._resume_at = now - self.bucket_time + min(QUANTUM_SECONDS, self.bucket_max / 2)
            return self._resume_at
        return None

    def allowance(self, now: float) -> int:
        """How many full datagrams may leave now, with the pause that `next_send_time` keeps."""
        if self.next_send_time(now) is not None:
            return 0
        return UNPACED if self.packet_time is None else ceil(self.bucket_time / self.packet_time)

    def spend(self, size: int) -> None:
        """Take bytes that left out of the bucket; see `update_after_send`."""
        if self.packet_time is not None:
            self.bucket_time -= size / self._datagram * self.packet_time

    def update_after_send(self, now: float) -> None:
        """Take a packet out of the bucket, which may go into debt. aioquic's forgives it and so exceeds the rate."""
        if self.packet_time is not None:
            self.update_bucket(now=now)
            self.bucket_time -= self.packet_time

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        """Take window (bytes) and smoothed RTT (seconds)."""
        rate = GAIN * congestion_window / max(smoothed_rtt, _SHORTEST)
        self.packet_time = max(_SHORTEST, min(self._datagram / rate, _SLOWEST_PACKET))
        burst = max(BURST_DATAGRAMS * self._datagram, rate * BURST_SECONDS)
        self.bucket_max = max(2 * self._datagram, min(congestion_window / 4, burst)) / rate
        self.bucket_time = min(self.bucket_time, self.bucket_max)
