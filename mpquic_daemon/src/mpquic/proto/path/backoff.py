"""When to try again: at once, then exponentially later, with jitter so that a fleet does not return in step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random


class Backoff:
    """Delays between attempts, in seconds.

    The first retry after a connection that held is immediate. Later ones wait `initial`, doubled each time up to
    `maximum`, each shortened at random by up to half. A connection that broke before `stable_after` does not reset the
    series, or one that is accepted and dropped would be retried in a tight loop.
    """

    def __init__(
        self, rng: random.Random, *, initial: float = 0.25, maximum: float = 8.0, stable_after: float = 5.0
    ) -> None:
        if not 0 < initial <= maximum:
            raise ValueError("0 < initial <= maximum does not hold")
        self._rng = rng
        self._initial = initial
        self._maximum = maximum
        self._stable_after = stable_after
        self._connected_at: float | None = None
        self.attempts = 0

    def connected(self, now: float) -> None:
        """Note that a connection stands."""
        self._connected_at = now

    def next_delay(self, now: float) -> float:
        """A connection or attempt has ended: return how long to wait before the next."""
        if self._connected_at is not None and now - self._connected_at >= self._stable_after:
            self.attempts = 0
        self._connected_at = None
        attempts, self.attempts = self.attempts, self.attempts + 1
        if attempts == 0:
            return 0.0
        # The exponent is bounded, since 2.0 ** 1024 overflows after a long outage.
        ceiling = min(self._maximum, self._initial * 2.0 ** min(attempts - 1, 32))
        return ceiling * (1.0 - 0.5 * self._rng.random())

    def reset(self) -> None:
        """Forget failures: circumstances have changed (the link came back), so the next retry is immediate."""
        self.attempts = 0
        self._connected_at = None
