"""When a client requests another striped session over its control connection: pure, times are seconds of one clock.

A session that fell silent may have been forgotten by the server, and pipes that get no reply may sit behind NAT
bindings that are gone: another session, with other source ports, helps with both. As long as the control connection is
silent as well nothing can be concluded, and nothing is requested.
"""

from __future__ import annotations

FIRST_PAUSE = 2.0
LAST_PAUSE = 60.0
"""Seconds from one request to the next on a path on which QUIC works and no pipe gets a reply; doubled each time."""
GRACE = 0.5
GRACE_ROUND_TRIPS = 3.0
"""Seconds, or round trips where these take longer, in which a pipe is heard after the control connection is: clients
send on each pipe every 0.2 s until it is answered."""


class StripeRenewal:
    """The pauses of one path. Call `granted` for each new session and `poll` whenever anything may have changed."""

    def __init__(self) -> None:
        self._due: float | None = None
        self._pause = FIRST_PAUSE
        self._rtt = 0.0

    @property
    def due(self) -> float | None:
        """When the next request is due unless a pipe is heard before; None while there is no reason for one."""
        return self._due

    @property
    def unanswered(self) -> bool:
        """Whether a session has been there for a whole pause and no pipe of it got a reply."""
        return self._pause > FIRST_PAUSE

    def changed(self) -> None:
        """The WAN is another, or this process has slept: what was learned before doesn't count."""
        self._due, self._pause = None, FIRST_PAUSE

    def granted(self, now: float) -> None:
        """A session has begun, or was refused: the next is requested after a pause."""
        self._due = now + max(self._pause, GRACE_ROUND_TRIPS * self._rtt)
        self._pause = min(2 * self._pause, LAST_PAUSE)

    def poll(self, now: float, *, control: bool | None, carries: bool, usable: bool, rtt: float | None) -> bool:
        """Return whether a session is to be requested now.

        `control` tells whether the control connection works, None when that is in doubt; `carries` whether a pipe does;
        `usable` whether there is a session that a pipe may yet answer for; `rtt` is the path's round-trip time.
        """
        self._rtt = rtt or 0.0
        if carries or control is False:
            self.changed()
        elif control and self._due is None:
            self._due = now + max(GRACE, GRACE_ROUND_TRIPS * self._rtt) if usable else now
        return bool(control) and self._due is not None and now >= self._due
