"""The connections of a server, registered and not, and which of them are to be looked at because they end."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from mpquic.daemon import faults

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from mpquic.daemon.journal import Journal
    from mpquic.daemon.server_connection import ServerConnection
    from mpquic.daemon.server_planes import ServerPlanes
    from mpquic.daemon.server_tunnel import ServerTunnel
    from mpquic.daemon.session import CloseCode
    from mpquic.quic.link import QuicLink
    from mpquic.quic.listener import QuicListener


class ServerConnections:
    """Connections by their QUIC link. `iterate_soon` is called when one is to be closed outside of an iteration."""

    def __init__(
        self,
        listener: QuicListener,
        planes: ServerPlanes,
        journal: Journal,
        loop: asyncio.AbstractEventLoop,
        iterate_soon: Callable[[], None],
    ) -> None:
        self._listener = listener
        self._planes = planes
        self._journal = journal
        self._loop = loop
        self._turn_soon = iterate_soon
        self._connections: dict[QuicLink, ServerConnection] = {}
        self._changed: dict[ServerConnection, None] = {}

    def __iter__(self) -> Iterator[ServerConnection]:
        return iter(self._connections.values())

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def has_changed(self) -> bool:
        """Whether `take_changed` has something to return."""
        return bool(self._changed)

    def add(self, connection: ServerConnection) -> None:
        """Know a connection."""
        self._connections[connection.link] = connection
        connection.on_fault = partial(self._on_fault, connection)

    def remove(self, connection: ServerConnection) -> bool:
        """Forget a connection; False when that was done before."""
        return self._connections.pop(connection.link, None) is not None

    def of(self, link: QuicLink | None) -> ServerConnection | None:
        """Return the connection of a QUIC link."""
        return self._connections.get(link) if link is not None else None

    def claimant(self, datagram: memoryview) -> ServerConnection | None:
        """Return the connection whose id a datagram carries, which anybody can write into it."""
        return self.of(self._listener.claimant(datagram))

    def note_change(self, connection: ServerConnection) -> None:
        """A connection is over, or is to be closed."""
        self._changed[connection] = None

    def take_changed(self) -> list[ServerConnection]:
        """Return the connections that are over, or are to be closed, once."""
        changed, self._changed = self._changed, {}
        return list(changed)

    def end(self, connection: ServerConnection, code: CloseCode, reason: str) -> None:
        """Have a connection closed in this or the next iteration; the first reason counts."""
        connection.end(code, reason)
        self.note_change(connection)

    def _on_fault(self, connection: ServerConnection, error: Exception) -> None:
        """A fault ends a connection, with its data plane, and no other."""
        faults.tell(self._journal, self._loop.time(), "connection.fault", error, peer=connection.peer)
        self._planes.drop(connection)
        self.note_change(connection)
        self._turn_soon()

    def fault_of_sender(self, datagram: memoryview, error: Exception, now: float) -> None:
        """A fault ends the connection of which a datagram claims to be, which may be nobody's."""
        link = self._listener.claimant(datagram)
        connection = self.of(link)
        if connection is not None:
            connection.contain.fail(error)
            return
        faults.tell(self._journal, now, "connection.fault", error)
        if link is not None:
            link.abandon("internal error")

    def fault_of_tunnel(self, tunnel: ServerTunnel, error: Exception) -> None:
        """A fault in what all connections of a tunnel share ends them."""
        for connection in [each for each in self if each.tunnel is tunnel]:
            connection.contain.fail(error)
