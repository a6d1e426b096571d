"""When a client tries a new connection: pure, times are seconds of one monotonic clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.proto.path.backoff import Backoff
from mpquic.proto.path.ending import Failure

if TYPE_CHECKING:
    import random

    from mpquic.proto.path.ending import Ending

SILENCE = 1.8
"""Seconds without a packet of the peer after which an attempt is given up for a new one, at first."""
LONG_SILENCE = 6.0
"""The same once several attempts in a row have met silence: the round trip may be longer than `SILENCE`."""
PATIENCE = 3600.0
"""Seconds of an outage in which retries stay close together: most outages are over by then, and what they cost, some
9 MB, is little. Only an attempt can show that a silent path has healed."""
CLOSE_RETRY = 1.0
"""Longest pause before a retry during PATIENCE, unless the server refused us."""
LOCAL_RETRY = 1.0
CONFLICT_RETRY = (3.0, 60.0)
"""Bounds of the pause after which a machine that was refused for another one tries again, as the server asks for it."""
SILENT_BEFORE_LONG = 6
"""Attempts in a row that meet silence before they last longer."""
JITTER = 0.1
"""Share by which the length of an attempt varies, so that clients of a server that returns don't come in step."""


class RetryPolicy:
    """Attempts of one path.

    An attempt that met silence was itself a pause, so during PATIENCE the next follows at once: a link that heals never
    waits longer than one attempt lasts. What was answered and failed is retried with exponential pauses.
    """

    def __init__(self, rng: random.Random, *, reconnect_max: float) -> None:
        self._rng = rng
        self._reconnect_max = reconnect_max
        self._backoff = Backoff(rng, maximum=reconnect_max)
        self._silent = 0
        self._next = 0.0
        self._outage_began: float | None = None
        self.failures = 0
        """Attempts and connections that ended since the last registration, or since circumstances changed."""

    @property
    def next_attempt(self) -> float:
        """When the next attempt may begin."""
        return self._next

    @property
    def patience(self) -> float:
        """Seconds of silence after which the attempt that begins now is given up."""
        silence = SILENCE if self._silent < SILENT_BEFORE_LONG else LONG_SILENCE
        return silence * (1.0 - JITTER * self._rng.random())

    def set_reconnect_max(self, seconds: float) -> None:
        """Use another longest pause."""
        self._reconnect_max = seconds
        self._backoff = Backoff(self._rng, maximum=seconds)

    def changed(self) -> None:
        """The WAN is another: what was learned of the old one doesn't count, the next attempt is immediate."""
        self._backoff.reset()
        self._silent = self.failures = 0
        self._next = 0.0
        self._outage_began = None

    def registered(self, now: float) -> None:
        """An attempt led to a registration."""
        self._silent = self.failures = 0
        self._outage_began = None
        self._backoff.connected(now)

    def lost(self, now: float) -> None:
        """The connection in use is silent: others may be tried beside it."""
        self.failures += 1
        self._outage_began = self._next = now
        # What attempts beside a connection that carried have met says nothing about this outage.
        self._backoff.reset()

    def ended(self, ending: Ending, now: float) -> None:
        """An attempt or connection came to its end."""
        self.failures += 1
        if self._outage_began is None:
            self._outage_began = now
        patient = now - self._outage_began < PATIENCE
        if ending.failure is Failure.SILENT:
            self._silent += 1
            delay = 0.0 if patient else self._backoff.next_delay(now)
        else:
            delay = self._backoff.next_delay(now)
            if ending.failure in (Failure.IN_USE, Failure.HANDED_OVER):
                least, most = CONFLICT_RETRY
                pause = min(max(ending.retry_after or 0.0, least), most)
                self._next = now + pause * (1.0 + JITTER * self._rng.random())
                return
            if ending.failure is Failure.REPLACED:
                # Whoever has taken our place would lose it to us at once, and take it again.
                delay = self._reconnect_max * (1.0 - 0.5 * self._rng.random())
            elif ending.failure is not Failure.REFUSED and patient:
                delay = min(delay, CLOSE_RETRY)
        if ending.retry_after is not None:
            delay = max(delay, min(ending.retry_after, self._reconnect_max))
        self._next = now + delay

    def second_ended(self, ending: Ending, now: float) -> None:
        """An attempt beside a connection that carries came to its end: that is no outage, and no hurry."""
        self._next = now + max(self._backoff.next_delay(now), min(ending.retry_after or 0.0, self._reconnect_max))

    def no_socket(self, now: float) -> None:
        """The attempt couldn't even begin."""
        self.failures += 1
        self._next = now + LOCAL_RETRY
