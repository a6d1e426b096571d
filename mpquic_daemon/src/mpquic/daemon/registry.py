"""Registrations at a server, from the wish of a client whose identity is proven to the end of its connection."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from mpquic.daemon import expiry, server_report
from mpquic.daemon.admission import Admission
from mpquic.daemon.incarnation import CONFLICTS
from mpquic.daemon.server_connection import ServerConnection
from mpquic.daemon.session import CloseCode
from mpquic.proto.control.messages import Welcome
from mpquic.proto.control.validity import Validity
from mpquic.quic.memory import QuicBudgets

if TYPE_CHECKING:
    import asyncio

    from mpquic.config import ServerConfig
    from mpquic.daemon.authorization import Authorization
    from mpquic.daemon.clients import Clients
    from mpquic.daemon.journal import Journal
    from mpquic.daemon.server_connections import ServerConnections
    from mpquic.daemon.server_planes import ServerPlanes
    from mpquic.daemon.server_tunnels import ServerTunnels
    from mpquic.daemon.session import Session
    from mpquic.proto.control.groups import GroupTable
    from mpquic.proto.control.handshake import Rejected
    from mpquic.proto.control.identity import Identity
    from mpquic.proto.control.messages import Register
    from mpquic.quic.link import QuicLink
    from mpquic.quic.listener import QuicListener

SECOND_MACHINE_INTERVAL = 600.0
"""Least seconds between two journal lines about second machines with a client's identity: they may stay for weeks."""
MAX_CLAIM = 100
"""Characters of a name that an unregistered connection claims, in the journal."""


class Registry:
    """Enters clients into `table` as `authorization` allows, and gives them their tunnels and data planes."""

    def __init__(
        self,
        config: ServerConfig,
        authorization: Authorization,
        table: GroupTable[ServerConnection],
        clients: Clients,
        connections: ServerConnections,
        tunnels: ServerTunnels,
        planes: ServerPlanes,
        listener: QuicListener,
        journal: Journal,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._loop = loop
        self._config = config
        self.authorization = authorization
        self._table = table
        self._clients = clients
        self._connections = connections
        self._tunnels = tunnels
        self._planes = planes
        self._listener = listener
        self._journal = journal
        self._budgets = QuicBudgets()
        self.admission = Admission(table, clients)
        self.count = 0
        """Registrations so far."""

    @property
    def sessions(self) -> list[Session]:
        """The sessions of all connections that are registered now."""
        return [connection.session for group in self._table for connection in group.connections]

    def configure(self, config: ServerConfig, authorization: Authorization) -> None:
        """Use these from now on; close the connections that they don't allow."""
        self._config, self.authorization = config, authorization
        for connection in self._connections:
            connection.session.retime(config.probe_interval, config.down_after)
        self.expel_objectionable()
        for connection in self._table.revoke(lambda registration: not authorization.permits(registration)):
            self._connections.end(connection, CloseCode.REVOKED, "not allowed any more")

    def expel_objectionable(self) -> None:
        """Close the connections of clients whose certificates aren't accepted any more."""
        today = dt.datetime.now(dt.UTC)
        for connection in self._connections:
            admitted = connection.admitted
            reason = self.authorization.objection(admitted.identity, today) if admitted is not None else None
            if reason is not None:
                self._connections.end(connection, CloseCode.REVOKED, reason)

    def connect(self, link: QuicLink, now: float) -> ServerConnection:
        """Return the connection of a new QUIC link: it may register."""
        connection = ServerConnection(
            link,
            self.authorization.verifier,
            self._admit,
            now,
            probe_interval=self._config.probe_interval,
            down_after=self._config.down_after,
        )
        self._connections.add(connection)
        return connection

    def _admit(self, connection: ServerConnection, identity: Identity, register: Register) -> Welcome | None:
        """Authorise a client whose identity is proven and enter it, None while it waits; RegistrationRefusedError."""
        now = self._loop.time()
        rule, registration = self.authorization.authorize(identity, register)
        place = self.admission.judge(registration, connection, now)
        if place is None:
            self._listener.identify(connection.link, identity.uri, now)
            return None
        joined = self._table.register(registration, connection, now, takeover=place.replaces)
        self.admission.entered(registration, connection, place, joined)
        for replaced in joined.replaced:
            self._connections.end(replaced, *place.ending(connection.peer))
        self._tunnels.forget_empty()
        tunnel = connection.tunnel = self._tunnels.of(joined.group, rule)
        tunnel.add(connection.session, registration)
        connection.link.dscp = rule.dscp
        connection.session.budget.limit(rule.max_rate)
        inner = [str(prefix) for prefix in registration.prefixes]
        grant = self._planes.grant(connection, tunnel, register.stripe, registration)
        return Welcome(session=joined.group.session, inner=inner, tun_mtu=self._config.tun_mtu, stripe=grant)

    def welcome(self, connection: ServerConnection, now: float) -> None:
        """A connection has registered."""
        assert connection.admitted is not None
        identity = connection.admitted.identity
        self._listener.admit(connection.link, now)
        connection.link.share_budget(self._budgets.of(identity.uri))
        self.count += 1
        inner = ",".join(connection.admitted.register.inner)
        self._journal.info("client.registered", inner=inner, **server_report.names(connection))
        self._clients.registered(connection)
        expiry.warn_of_peer(Validity.of(identity.leaf), self._journal, identity.uri, dt.datetime.now(dt.UTC), now)

    def leave(self, connection: ServerConnection, now: float) -> None:
        """A connection is over, registered or not."""
        group = self._table.remove(connection)
        if group is not None:
            self.admission.gone(group, connection, now)
        self.admission.abandon(connection)
        if connection.tunnel is not None:
            connection.tunnel.remove(connection.session)
        if connection.admitted is not None:
            reason = connection.ending[1] if connection.ending is not None else "closed by the client"
            self._journal.info("client.gone", reason=reason, **server_report.names(connection))
            self._clients.note(connection, now)
        elif connection.refusal is not None:
            self.refused(connection.peer, connection.refusal, now)

    def refused(self, peer: str, refusal: Rejected, now: float) -> None:
        """Tell why a registration was refused: of each client that we know, and of all others together."""
        reason = f"{refusal.code}: {refusal.reason}"
        if refusal.identity is None:
            # Anybody can cause these lines: one a minute.
            claims = refusal.claims[:MAX_CLAIM] if refusal.claims is not None else "nobody"
            self._journal.limited("refused", now, "client.refused", peer=peer, claims=claims, reason=reason)
            return
        # A client may name as many tunnels as it likes.
        known = refusal.tunnel if self._clients.refused((refusal.identity, refusal.tunnel), reason) else "-"
        self._journal.limited(
            f"refused {refusal.identity} {known}",
            now,
            "client.refused",
            SECOND_MACHINE_INTERVAL if refusal.code in CONFLICTS else 60.0,
            peer=peer,
            identity=refusal.identity,
            tunnel=refusal.tunnel,
            reason=reason,
        )
