"""The life of a path's connection to the server: when another is tried, what its end means, and how the path is called.

Pure: times are seconds of one monotonic clock. Whoever has the sockets tells what happened, and does what is wanted. A
path has a connection that carries or did (the current one), and at most one attempt beside it (the candidate).
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from mpquic.proto.path.cause import Cause
from mpquic.proto.path.ending import Failure
from mpquic.proto.path.retry import RetryPolicy

if TYPE_CHECKING:
    import random

    from mpquic.proto.path.ending import Ending


class ConnectorState(Enum):
    """What a path is called."""

    INACTIVE = "inactive"
    """Its WAN can't be used."""
    CONNECTING = "connecting"
    """Nothing has failed yet under the present circumstances."""
    UP = "up"
    DOWN = "down"


class Connector:
    """Decides for one path. `down_after` is how long the server's word of a newer connection may precede it."""

    def __init__(self, rng: random.Random, now: float, *, reconnect_max: float, down_after: float) -> None:
        self.state = ConnectorState.CONNECTING
        self.retry = RetryPolicy(rng, reconnect_max=reconnect_max)
        self.cause = Cause()
        self.down_after = down_after
        self.replace = False
        """Whether another connection must take the place of the current one, which its WAN or server may have lost."""
        self.heard_at = now
        """When anything came from the server last, or the WAN changed."""
        self._generation: int | None = None
        self._handover_until: float | None = None
        """Until when the server's word that a newer connection has replaced the current one may precede its WELCOME."""

    @property
    def is_active(self) -> bool:
        """Whether the WAN can be used."""
        return self.state is not ConnectorState.INACTIVE

    @property
    def was_usable(self) -> bool:
        """Whether the WAN could be used when that was looked at last."""
        return self._generation is not None

    def wan_lost(self, reason: str) -> None:
        """The WAN can't be used any more: all connections are dropped."""
        self._generation = None
        self.cause.obstacle = None
        self.cause.failure(reason)
        self.state = ConnectorState.INACTIVE

    def wan_usable(self, generation: int, now: float, *, obstacle: str | None, has_current: bool) -> bool:
        """The WAN can be used; True when it isn't what it was, so that a candidate is dropped and another tried now."""
        self.cause.obstacle = obstacle
        if generation == self._generation:
            return False
        self._generation = generation
        self.retry.changed()
        self.heard_at = now
        self.replace = has_current
        # What the WAN was before explains nothing any more.
        self.cause.clear()
        if self.state in (ConnectorState.INACTIVE, ConnectorState.DOWN):
            self.state = ConnectorState.CONNECTING
        return True

    def reconnect(self, *, has_current: bool) -> None:
        """Another connection is wanted now, whatever is known of earlier attempts."""
        self.retry.changed()
        self.replace = has_current

    def slept(self, now: float, seconds: float, *, forgotten: bool) -> None:
        """This process has slept: what wasn't heard meanwhile is nobody's silence. The server may have `forgotten`."""
        self.heard_at = min(now, self.heard_at + seconds)
        self.replace = self.replace or forgotten

    def wants(self, *, carrying: bool, doubtful: bool) -> bool:
        """Whether a new connection is wanted: for want of one that carries, or to replace one that may not last."""
        return self.replace or not carrying or doubtful

    def may_try(self, now: float, *, carrying: bool, doubtful: bool) -> bool:
        """Whether an attempt is to begin now, if there is no candidate."""
        if not self.is_active or now < self.retry.next_attempt:
            return False
        return self.wants(carrying=carrying, doubtful=doubtful)

    def no_socket(self, error: Exception, now: float) -> None:
        """The attempt couldn't even begin."""
        self.cause.failure(f"no socket: {error}")
        self.retry.no_socket(now)

    def registered(self, now: float) -> None:
        """The candidate has registered: it is the current connection from now on."""
        self.replace = False
        self._handover_until = None
        self.retry.registered(now)

    def is_handed_over(self, now: float, *, replaced: bool, has_candidate: bool) -> bool:
        """Whether a connection that is over was the current one, `replaced` by our own candidate.

        That one's WELCOME is still on its way, or it was given up for another since the WAN has changed. The TUN keeps
        its carrier, packets wait meanwhile.
        """
        if replaced and has_candidate:
            self._handover_until = now + self.down_after
            return True
        if not replaced:
            self._handover_until = None
        return False

    def ended(self, ending: Ending, now: float, *, carrying: bool) -> None:
        """A connection or an attempt is over; `carrying` tells whether another one carries."""
        if carrying:
            self.retry.second_ended(ending, now)
            return
        self.retry.ended(ending, now)
        if ending.failure is Failure.SILENT or ending.unheard:
            self.cause.silence(ending.reason)
        else:
            self.cause.failure(ending.reason)

    def update(self, now: float, *, carrying: bool, has_current: bool, has_candidate: bool) -> bool:
        """Bring `state` up to date; True when an outage begins and a silent current connection is left."""
        if not self.is_active:
            return False
        if carrying:
            self.cause.clear()
            self.state = ConnectorState.UP
            return False
        if self._handover_until is not None and now < self._handover_until and has_candidate:
            return False
        begins = False
        if self.state is ConnectorState.UP:
            if not self.cause.is_known:
                self.cause.silence(f"no answer from the server for {self.down_after:g} s")
            if has_current:
                # Silent, but not over: it goes on probing while others are tried.
                self.retry.lost(now)
                begins = True
            self.state = ConnectorState.DOWN
        elif self.retry.failures:
            self.state = ConnectorState.DOWN
        return begins

    def next_time(self, *, carrying: bool, doubtful: bool) -> float | None:
        """When an attempt may be due, if there is no candidate."""
        if not self.is_active or not self.wants(carrying=carrying, doubtful=doubtful):
            return None
        return self.retry.next_attempt
