"""The UDP socket of a server on which all its QUIC connections are."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from mpquic.daemon.arrivals import Arrivals
from mpquic.daemon.claims import UNPROVEN, UNREGISTERED, Unproven
from mpquic.daemon.processor_share import PIECE
from mpquic.daemon.server_tunnel import ServerTunnel
from mpquic.net.send_status import SendStatus
from mpquic.net.udp import split_segments

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Hashable

    from mpquic.daemon.processor_share import ProcessorShare
    from mpquic.daemon.server_connections import ServerConnections
    from mpquic.net.udp import Received, UdpSocket
    from mpquic.proto.path.address import Address
    from mpquic.quic.listener import QuicListener

STALE_TIME = 1.0
"""Seconds after sleep in which a server that is too busy to empty its socket takes handshakes for old ones, at most."""


class QuicPort:
    """Moves datagrams between `socket` and `listener`, each client's in its turn of `share`.

    `on_read` is called with the time before a read, and `on_writable` when the socket takes datagrams again.
    """

    def __init__(
        self,
        socket: UdpSocket,
        listener: QuicListener,
        connections: ServerConnections,
        share: ProcessorShare,
        loop: asyncio.AbstractEventLoop,
        on_read: Callable[[float], None],
        on_writable: Callable[[], None],
    ) -> None:
        self.socket = socket
        self.has_received = False
        """Whether QUIC was given datagrams since this was set to False."""
        self._listener = listener
        self._connections = connections
        self._share = share
        self._loop = loop
        self._on_read = on_read
        self._on_writable = on_writable
        self._arrivals: Arrivals[Hashable] = Arrivals(socket, self._claim, self._on_arrival)
        self._writing = False
        self._accept_at = 0.0
        """When new connections are accepted again at the latest."""
        loop.add_reader(socket.fileno(), self._on_readable)

    @property
    def dropped(self) -> int:
        """Reads that were dropped because too much waited."""
        return self._arrivals.dropped

    def close(self) -> None:
        """Release the socket."""
        self._loop.remove_reader(self.socket.fileno())
        self._loop.remove_writer(self.socket.fileno())
        self.socket.close()

    def forget(self, claim: Hashable) -> None:
        """Drop what waits of a sender that has gone."""
        self._arrivals.forget(claim)

    def after_sleep(self, now: float) -> None:
        """What waits in the socket may be old: no handshake in it is new."""
        self._listener.accepting, self._accept_at = False, now + STALE_TIME

    # In

    def _on_readable(self) -> None:
        now = self._loop.time()
        self._on_read(now)
        alone = self._arrivals.read_alone(ServerTunnel, now) if self._share.is_idle else None
        if alone is None:
            is_empty = self._share.read(self._arrivals, _payer, now)
            self._share.start()
        else:
            is_empty = self.socket.drained
            tunnel, batch = alone
            self._share.do(tunnel, partial(self._take, batch), sum([len(read[0]) for read in batch]), now)
        if (is_empty and not self._arrivals) or now >= self._accept_at:
            self._listener.accepting = True

    def _claim(self, read: Received) -> Hashable:
        connection = self._connections.claimant(read[0])
        if connection is None or connection.tunnel is None:
            return UNREGISTERED
        return connection.tunnel if connection.link.peer_address == read[2] else connection.unproven

    def _on_arrival(self, claim: Hashable) -> None:
        self._share.add(_payer(claim), partial(self._receive, claim))

    def _receive(self, claim: Hashable, now: float) -> None:
        # A first packet costs much more than a client's data: sockets are read between two pieces in any case.
        limit = self._share.piece if isinstance(claim, ServerTunnel) else PIECE
        batch = self._arrivals.take(claim, limit)
        self._share.carry(_payer(claim), sum([len(read[0]) for read in batch]))
        self._take(batch, now)
        if claim in self._arrivals:
            self._on_arrival(claim)

    def _take(self, batch: list[Received], now: float) -> None:
        for data, segment, address in batch:
            try:
                self._listener.receive(split_segments(data, segment), address, now)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is of this sender
                self._connections.fault_of_sender(data, error, now)
        self.has_received = True

    # Out

    def flush(self, now: float) -> None:
        """Send what QUIC holds."""
        self._transmit(self._listener.flush(now))

    def flush_each(self, now: float) -> None:
        """Send what QUIC holds, and charge each client for what is sent for it."""
        for link, groups in self._listener.flush_each(now):
            self._transmit(groups, 0 if link is None else link.dscp)
            connection = self._connections.of(link)
            self._share.charge(UNREGISTERED if connection is None else connection.tunnel or UNREGISTERED)

    def _transmit(self, groups: list[tuple[list[bytes], Address]], dscp: int = 0) -> None:
        for datagrams, address in groups:
            if self.socket.send_batch(datagrams, address, dscp) is SendStatus.TOO_LARGE:
                self._on_too_large(address, max(map(len, datagrams)))
        if self.socket.wants_write != self._writing:
            self._writing = self.socket.wants_write
            if self._writing:
                self._loop.add_writer(self.socket.fileno(), self._resume)
            else:
                self._loop.remove_writer(self.socket.fileno())

    def _resume(self) -> None:
        self.socket.resume()
        self._on_writable()

    def _on_too_large(self, address: Address, size: int) -> None:
        """The device towards an address takes no packets of this size."""
        for link in self._listener.links:
            if link.peer_address == address:
                link.on_too_large(size, self._loop.time())


def _payer(claim: Hashable) -> Hashable:
    """Return who is charged for what waits under a key of `QuicPort._arrivals`."""
    return UNPROVEN if isinstance(claim, Unproven) else claim
