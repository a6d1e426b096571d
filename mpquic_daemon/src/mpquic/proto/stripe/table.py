"""The sessions of a server that share one port: found by the id in the header, forgotten when idle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from mpquic.proto.stripe.keys import SECRET_SIZE
from mpquic.proto.stripe.wire import session_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic.proto.stripe.session import StripeSession

Owner = TypeVar("Owner")


class SessionTable(Generic[Owner]):
    """Maps ids to sessions and to whatever owns them. Ids and secrets come from `entropy` (bytes of so many)."""

    def __init__(self, entropy: Callable[[int], bytes], max_sessions: int = 4096) -> None:
        self._entropy = entropy
        self._max_sessions = max_sessions
        self._sessions: dict[int, tuple[StripeSession, Owner]] = {}
        self.refused: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def allocate(self) -> tuple[int, bytes] | None:
        """Return a free id and a secret for a new session, None when the table is full."""
        if len(self._sessions) >= self._max_sessions:
            return None
        while True:
            number = int.from_bytes(self._entropy(4), "big")
            if number and number not in self._sessions:
                return number, self._entropy(SECRET_SIZE)

    def add(self, session: StripeSession, owner: Owner) -> None:
        """Enter a session under its id.

        Raises:
            ValueError: the id is taken.
        """
        if session.session in self._sessions:
            raise ValueError("the session id is taken")
        self._sessions[session.session] = (session, owner)

    def remove(self, session: StripeSession) -> None:
        """Forget a session, at once; one that isn't there is no error."""
        entry = self._sessions.get(session.session)
        if entry is not None and entry[0] is session:
            del self._sessions[session.session]

    def find(self, datagram: bytes | bytearray | memoryview) -> tuple[StripeSession, Owner] | None:
        """Return the session that a datagram claims to be of; it is not authenticated by that. Others are counted."""
        number = session_of(datagram)
        if number is None:
            self._refuse("foreign")
            return None
        entry = self._sessions.get(number)
        if entry is None:
            self._refuse("session")
        return entry

    def collect_idle(self, now: float) -> list[tuple[StripeSession, Owner]]:
        """Remove and return the sessions from which nothing authentic came for their idle timeout."""
        idle = [entry for entry in self._sessions.values() if entry[0].idle(now)]
        for session, _ in idle:
            self.remove(session)
        return idle

    def _refuse(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1
