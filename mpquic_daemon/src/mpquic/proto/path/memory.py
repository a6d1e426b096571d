"""What one peer may make us keep, over all its tunnels: shards that wait for FEC, segments that wait for others.

Each store may grow by `STEP` bytes before it asks again, so that counting costs next to nothing. Beyond the limit the
oldest of the fullest store goes: a tunnel that is flooded doesn't take from those of the same peer that keep little.
"""

from __future__ import annotations

from typing import Protocol

MAX_STORED = 24 << 20
"""Bytes that the stores of one peer hold together, about; what Python takes beside is allowed for in each store."""
MAX_IN_FLIGHT = 32 << 20
"""Bytes of shards on their way to one peer, kept to be sent again: a peer that delays its reports makes a path seem
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


class Sending(Protocol):
    """Something that keeps what it has sent to a peer until that is acknowledged."""

    def limit_kept(self, in_flight_bytes: int, lost: int) -> None:
        """Keep no more than so many bytes on their way, and so many shards that are lost."""


class MemoryBudget:
    """The budget of one peer: of its stores, and of what is sent to it."""

    def __init__(self, limit: int = MAX_STORED) -> None:
        self._limit = limit
        self._stores: list[Store] = []
        self._sending: list[Sending] = []

    @property
    def stored(self) -> int:
        """Bytes in all stores."""
        return sum(store.bytes for store in self._stores)

    def add(self, store: Store) -> None:
        """Count what a store keeps."""
        self._stores.append(store)

    def remove(self, store: Store) -> None:
        """Don't count it any more; one that isn't there is no error."""
        if store in self._stores:
            self._stores.remove(store)

    def join(self, sending: Sending) -> None:
        """Have somebody share what may be kept of what is sent."""
        self._sending.append(sending)
        self._share()

    def leave(self, sending: Sending) -> None:
        """Give its share to the others; one that isn't there is no error."""
        if sending in self._sending:
            self._sending.remove(sending)
            self._share()

    def _share(self) -> None:
        count = max(1, len(self._sending))
        for sending in self._sending:
            sending.limit_kept(MAX_IN_FLIGHT // count, MAX_LOST // count)

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
