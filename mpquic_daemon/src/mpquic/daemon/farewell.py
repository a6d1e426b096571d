"""Tells peers why this end goes, and waits until those that answer know it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mpquic.proto.control.messages import Held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mpquic.daemon.session import Session
    from mpquic.hold import Hold

PATIENCE = 2.0
"""Seconds in which peers must have acknowledged: less than a stop may take, with room for a retransmission or two."""


class Farewell:
    """`sessions` gives the peers that are registered now: one that joins meanwhile is told, too."""

    def __init__(self, hold: Hold, sessions: Callable[[], Iterable[Session]]) -> None:
        since = max(hold.since, 0.0)
        self._message = Held(by=hold.by, reason=hold.reason, since=since, until=hold.until, origin=hold.origin)
        self._sessions = sessions
        self._told: set[Session] = set()
        self._is_done = asyncio.Event()

    def advance(self) -> None:
        """Tell those that haven't been told; call it in each iteration of the loop."""
        sessions = list(self._sessions())
        for session in sessions:
            if session not in self._told:
                self._told.add(session)
                session.tell(self._message)
        if not any(session.awaits_receipt for session in sessions):
            self._is_done.set()

    async def done(self) -> None:
        """Wait until all that answer have acknowledged, or PATIENCE is over."""
        try:
            await asyncio.wait_for(self._is_done.wait(), PATIENCE)
        except TimeoutError:
            return  # Whoever doesn't know it finds this end silent, or stopped.
