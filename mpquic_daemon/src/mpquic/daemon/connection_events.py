"""What the connections of a server bring, and what follows from it, until each of them has been forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.daemon import faults, server_report
from mpquic.daemon.claims import UNREGISTERED
from mpquic.daemon.session import CloseCode
from mpquic.proto.control.messages import Held
from mpquic.proto.packet.frame import FrameError
from mpquic.proto.path.path import PathState
from mpquic.quic.connection_view import LinkState

if TYPE_CHECKING:
    from mpquic.daemon.announcer import Announcer
    from mpquic.daemon.clients import Clients
    from mpquic.daemon.journal import Journal
    from mpquic.daemon.processor_share import ProcessorShare
    from mpquic.daemon.quic_port import QuicPort
    from mpquic.daemon.registry import Registry
    from mpquic.daemon.server_connection import ServerConnection
    from mpquic.daemon.server_connections import ServerConnections
    from mpquic.daemon.server_planes import ServerPlanes
    from mpquic.daemon.server_tun import ServerTun
    from mpquic.daemon.server_tunnel import ServerTunnel
    from mpquic.daemon.server_tunnels import ServerTunnels
    from mpquic.quic.listener import QuicListener


class ConnectionEvents:
    """Serves `connections`, in the iterations of the event loop at whose time `now` it is called."""

    def __init__(
        self,
        connections: ServerConnections,
        registry: Registry,
        clients: Clients,
        tunnels: ServerTunnels,
        planes: ServerPlanes,
        listener: QuicListener,
        port: QuicPort,
        tun: ServerTun,
        share: ProcessorShare,
        announcer: Announcer,
        journal: Journal,
    ) -> None:
        self._connections = connections
        self._registry = registry
        self._clients = clients
        self._tunnels = tunnels
        self._planes = planes
        self._listener = listener
        self._port = port
        self._tun = tun
        self._share = share
        self._announcer = announcer
        self._journal = journal

    def serve_ready(self, now: float) -> None:
        """Serve the connections of which QUIC has something to tell."""
        ready = self._listener.pop_ready()
        # What is done for one alone is charged with what is sent for it then.
        each = len(ready) > 1 or self._share.is_short
        for link in ready:
            connection = self._connections.of(link)
            if connection is None and link.state is LinkState.CLOSED:
                link.pop_events()  # Forgotten already, or never came as far as to be known.
                continue
            if connection is None:
                connection = self._registry.connect(link, now)
            connection.contain(self._take, connection, now)
            if each:
                self._share.charge(connection.tunnel or UNREGISTERED)

    def decide(self, now: float) -> None:
        """Go on with the registrations that have waited long enough."""
        for connection in self._registry.admission.poll(now):
            connection.is_decided = True
            connection.contain(self._take, connection, now)
            self._share.charge(connection.tunnel or UNREGISTERED)

    def poll(self, now: float) -> None:
        """Let time pass for every connection."""
        for connection in self._connections:
            if now < connection.next_poll:
                continue
            before = connection.session.path.state
            connection.contain(connection.poll, now)
            after = connection.session.path.state
            if before is not after and connection.tunnel is not None:
                self._tunnels.resume(connection.tunnel)
            if before is not after and PathState.DOWN in (before, after) and connection.admitted is not None:
                self._journal.info(f"path.{after.value}", **server_report.names(connection))
                self._clients.note(connection, now)
            if connection.ending is not None:
                self._connections.note_change(connection)
        self._tun.show_carrier()

    def close_ended(self, now: float) -> None:
        """Close what is to be closed, and forget what is over: at once, with everything that it had."""
        if not self._connections.has_changed:
            return
        # A REFUSE or an answer to a goodbye leaves first: a closing connection sends nothing of its streams.
        changed = self._connections.take_changed()
        self._port.flush(now)
        for connection in changed:
            try:
                if not connection.over and connection.ending is not None:
                    connection.link.close(*connection.ending)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is of this connection
                faults.tell(self._journal, now, "connection.fault", error, peer=connection.peer)
            if self._connections.remove(connection):
                self._port.forget(connection.unproven)
                self._planes.drop(connection)
                self._registry.leave(connection, now)
        self._port.flush(now)
        self._tunnels.forget_empty()
        self._tun.show_carrier()
        self._announcer.announce()

    def _take(self, connection: ServerConnection, now: float) -> None:
        was_admitted = connection.admitted is not None
        if was_admitted:
            inbox = connection.advance(now)
        else:
            with self._listener.counting(connection.link, now):
                inbox = connection.advance(now)
        if connection.admitted is not None and not was_admitted:
            self._registry.welcome(connection, now)
            self._announcer.announce()
        tunnel = connection.tunnel
        if tunnel is not None:
            for _, message in inbox.messages:
                if isinstance(message, Held):
                    self._clients.told(connection, message, now)
            is_usable = not connection.wants_data_stream and connection.ending is None and not connection.over
            if is_usable and tunnel.use(connection.session):
                self._tun.show_carrier()
            self._planes.renew(connection, tunnel, inbox.messages, now)
            self._deliver(connection, tunnel, now)
        if connection.ending is not None or connection.over:
            self._connections.note_change(connection)

    def _deliver(self, connection: ServerConnection, tunnel: ServerTunnel, now: float) -> None:
        if not connection.session.has_frames:
            return
        try:
            writes = connection.session.writes(tunnel.receiver, now)
        except FrameError as error:
            tunnel.counters.refuse(f"stream_{error.reason}")
            connection.end(CloseCode.PROTOCOL, "malformed frame on the data stream")
            return
        for buffers in writes:
            self._tun.device.write(buffers)
