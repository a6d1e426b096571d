"""A tunnel's share of the WAN that it uses.

It bounds the pacing. A budget has one member, so its share is the whole, limited only by a configured rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(slots=True)
class BudgetMember:
    """One instance on a WAN."""

    name: str
    wan: str
    weight: float = 1.0
    priority: int = 100


class PathBudget:
    """Upper bound of what a path may send: a token bucket of the member's share, unlimited without a rate.

    `burst` is in seconds of the share; the bucket always has room for `MIN_BURST` bytes, so that one superframe passes.
    """

    MIN_BURST: ClassVar[int] = 65536

    def __init__(self, member: BudgetMember, *, burst: float = 0.05) -> None:
        self.member = member
        self._rate_limit: float | None = None
        self._burst = burst
        self._tokens = 0.0
        self._filled_at: float | None = None

    def limit(self, bits: int | None) -> None:
        """Allow so many bits per second from now on; None is no limit."""
        self._rate_limit = None if bits is None else bits / 8

    @property
    def share(self) -> float | None:
        """Bytes per second that this member may send; None when nothing limits it."""
        return self._rate_limit

    def allowance(self, wanted: int, now: float) -> int:
        """How many of `wanted` bytes the share allows now; never negative."""
        share = self.share
        if share is None:
            return wanted
        capacity = max(share * self._burst, self.MIN_BURST)
        if self._filled_at is None:
            self._tokens = capacity
        else:
            self._tokens = min(capacity, self._tokens + max(0.0, now - self._filled_at) * share)
        self._filled_at = now
        return max(0, min(wanted, int(self._tokens)))

    def spend(self, size: int) -> None:
        """Take `size` bytes that were sent out of the bucket; it may go into debt by one frame."""
        if self.share is not None:
            self._tokens -= size

    def next_allowance(self, now: float) -> float | None:
        """When a bucket in debt allows sending again; None when it allows it now."""
        share = self.share
        if share is None or self._filled_at is None:
            return None
        missing = 1.0 - self._tokens
        ready = self._filled_at + missing / share
        return ready if missing > 0 and ready > now else None
