"""What one client may make the server keep by all its QUIC connections together; `proto.path.memory` for pipes.

Flow control lets each connection of a client fill its window, and a client may have several: so what waits for gaps is
counted over all of them, and so is what was sent on streams and isn't acknowledged from its first byte on. Beyond the
budget a packet that would add to what waits is dropped as if the path had lost it, and no more is written to streams.
What fills the first gap of a stream is always taken, so that both come to an end. `FLOOR` bytes of a stream are always
allowed, so that a connection that is flooded takes nothing from those of the same client that keep little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Hashable

MAX_RECEIVED = 24 << 20
"""Bytes that wait behind gaps in streams, gaps included: more than one connection's window."""
MAX_SENT = 32 << 20
"""Bytes written to streams and not yet acknowledged from the first one on."""
FLOOR = 64 << 10
"""Bytes of one stream that are allowed in any case."""


class Keeper(Protocol):
    """A connection."""

    @property
    def received_bytes(self) -> int:
        """What it keeps of the peer's streams, in bytes."""
        ...

    @property
    def sent_bytes(self) -> int:
        """What it keeps of its own streams, in bytes."""
        ...


class QuicBudget:
    """The budget of one client. Connections `join` it and `leave` it."""

    def __init__(self, max_received: int = MAX_RECEIVED, max_sent: int = MAX_SENT) -> None:
        self._max_received = max_received
        self._max_sent = max_sent
        self._connections: list[Keeper] = []

    def __len__(self) -> int:
        """Return the number of connections."""
        return len(self._connections)

    @property
    def received_bytes(self) -> int:
        """What all connections keep of the peer's streams."""
        return sum(connection.received_bytes for connection in self._connections)

    @property
    def sent_bytes(self) -> int:
        """What they keep of this end's streams."""
        return sum(connection.sent_bytes for connection in self._connections)

    def join(self, connection: Keeper) -> None:
        """Count what a connection keeps."""
        self._connections.append(connection)

    def leave(self, connection: Keeper) -> None:
        """Don't count it any more; one that isn't there is no error."""
        if connection in self._connections:
            self._connections.remove(connection)

    def may_receive(self, size: int) -> bool:
        """Tell whether `size` bytes more may wait."""
        return self.received_bytes + size <= self._max_received

    def may_send(self) -> bool:
        """Tell whether more may be written."""
        return self.sent_bytes < self._max_sent


class QuicBudgets:
    """The budgets of all clients. Each lives as long as a connection has joined it."""

    def __init__(self) -> None:
        self._budgets: WeakValueDictionary[Hashable, QuicBudget] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._budgets)

    def of(self, client: Hashable) -> QuicBudget:
        """Return the budget of a client."""
        budget = self._budgets.get(client)
        if budget is None:
            budget = self._budgets[client] = QuicBudget()
        return budget
