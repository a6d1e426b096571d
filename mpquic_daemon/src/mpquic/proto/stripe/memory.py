"""What one peer may make us keep, over all its striped sessions: shards that wait for FEC, segments that wait for more.

Each store may grow by `STEP` bytes before it asks again, so that counting costs next to nothing. Beyond the limit the
oldest of the fullest store goes: a session that is flooded doesn't take from those of the same peer that keep little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mpquic.proto.stripe.session import StripeSession

MAX_STORED = 24 << 20
"""Bytes that the stores of one peer hold together, about; what Python takes beside is allowed for in each store."""
MAX_IN_FLIGHT = 32 << 20
"""Bytes of shards on their way to one peer, which are kept for copies: a peer that delays its reports makes a path seem
long. Each session has its share."""
MAX_LOST = 8192
"""Lost shards to one peer that are kept until they are sent again. Each session has its share."""
STEP = 1 << 18


class Store(Protocol):
    """Something that keeps what a peer has sent."""

    bytes: int
    """What it holds."""
    allowed: int
    """How much it may hold before `MemoryBudget.extend` is called again."""

    def shed(self) -> None:
        """Give up the oldest part of what it holds."""


class MemoryBudget:
    """The budget of one peer. Sessions `join` it and `leave` it."""

    def __init__(self, limit: int = MAX_STORED) -> None:
        self._limit = limit
        self._sessions: list[StripeSession] = []
        self._stores: list[Store] = []

    def __len__(self) -> int:
        """Return the number of sessions."""
        return len(self._sessions)

    @property
    def stored(self) -> int:
        """Bytes in all stores."""
        return sum(store.bytes for store in self._stores)

    def join(self, session: StripeSession) -> None:
        """Count what a session keeps."""
        self._sessions.append(session)
        self._share()

    def leave(self, session: StripeSession) -> None:
        """Don't count it any more; one that isn't there is no error."""
        if session in self._sessions:
            self._sessions.remove(session)
            self._share()

    def _share(self) -> None:
        self._stores = [store for session in self._sessions for store in session.stores]
        count = max(1, len(self._sessions))
        for session in self._sessions:
            session.sender.max_in_flight = MAX_IN_FLIGHT // count
            session.sender.recovery.arq.max_shards = MAX_LOST // count

    def extend(self) -> None:
        """A store has reached what it was allowed: make room if it is needed, and let all grow by another step."""
        while self.stored + STEP > self._limit:
            fullest = max(self._stores, key=lambda store: store.bytes)
            before = fullest.bytes
            fullest.shed()
            if fullest.bytes >= before:
                break
        for store in self._stores:
            store.allowed = store.bytes + STEP
