"""Pacing by tokens (RFC 9002 section 7.7): how many bytes may leave now. It never sleeps; it says when to ask again.

GSO wants runs of datagrams and a timer wakes late (epoll on whole milliseconds), so a burst may hold what the rate
gives in `BURST_TIME`.
"""

from __future__ import annotations

from typing import ClassVar


class Pacer:
    """A bucket that fills with the pacing rate in bytes per second; it may go into debt by one send.

    `quantum` is the shortest pause of `allowance` in seconds once the burst is spent. Without it a busy loop sends one
    or two datagrams at a time, each with the cost of a system call.
    """

    BURST_TIME: ClassVar[float] = 0.003
    MIN_BURST: ClassVar[int] = 16384
    MAX_BURST: ClassVar[int] = 1 << 20

    def __init__(self, rate: float, now: float, *, quantum: float = 0.0) -> None:
        self._rate = rate
        self._updated = now
        self._quantum = quantum
        self._resume_at = now
        self._tokens = float(self.burst)

    @property
    def burst(self) -> int:
        """Bytes that may leave at once after a pause."""
        return int(min(self.MAX_BURST, max(self.MIN_BURST, self._rate * self.BURST_TIME)))

    def set_rate(self, rate: float, now: float) -> None:
        """Change the rate in bytes per second; what was earned at the old one stays earned."""
        self._fill(now)
        self._rate = rate

    def available(self, now: float) -> int:
        """Bytes that may leave now, negative in debt."""
        self._fill(now)
        return int(self._tokens)

    def allowance(self, now: float) -> int:
        """Bytes that may leave now, 0 while the pause lasts that follows a burst."""
        return 0 if self.next_allowance(now) > now else int(self._tokens)

    def spend(self, size: int) -> None:
        """`size` bytes left."""
        self._tokens -= size

    def next_time(self, now: float) -> float:
        """When at least one byte may leave."""
        self._fill(now)
        return now if self._tokens >= 1 else self._updated + (1 - self._tokens) / self._rate

    def next_allowance(self, now: float) -> float:
        """When `allowance` is positive, `now` if it is already."""
        if now < self._resume_at:
            return self._resume_at
        at = self.next_time(now)
        if at > now:
            at = self._resume_at = at + self._quantum
        return at

    def _fill(self, now: float) -> None:
        if now <= self._updated:
            return
        self._tokens = min(float(self.burst), self._tokens + (now - self._updated) * self._rate)
        self._updated = now
