"""The striped data planes of a server's clients, each beside the QUIC connection that has registered it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.proto.control.messages import RenewStripe, StripeRenewed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from mpquic.daemon.server_connection import ServerConnection
    from mpquic.daemon.server_tunnel import ServerTunnel
    from mpquic.daemon.stripe_listener import ServerStripe, StripeListener
    from mpquic.proto.control.groups import GroupTable, Registration
    from mpquic.proto.control.messages import Message, StripeGrant, StripeRequest

RENEW_INTERVAL = 1.0
"""Least seconds between two striped sessions of one connection."""


class ServerPlanes:
    """Grants, renews and drops data planes; `listener` is None where there is no striping.

    `on_change` is called with the tunnel when one of its planes has come up,
    gone down or been dropped: what waits in the tunnel may then leave by another path, or not at all.
    """

    def __init__(
        self,
        listener: StripeListener | None,
        table: GroupTable[ServerConnection],
        loop: asyncio.AbstractEventLoop,
        on_change: Callable[[ServerTunnel], object],
    ) -> None:
        self._listener = listener
        self._table = table
        self._loop = loop
        self._on_change = on_change

    def grant(
        self,
        connection: ServerConnection,
        tunnel: ServerTunnel,
        request: StripeRequest | None,
        registration: Registration,
    ) -> StripeGrant | None:
        """Begin the data plane that a client requests; None when there is none here, or for it."""
        if request is None or self._listener is None:
            return None
        granted = self._listener.grant(registration.path, request, tunnel.pump, tunnel)
        if granted is None:
            return None
        grant, plane = granted
        plane.on_fault = connection.contain.fail
        plane.on_change = lambda: self._changed(plane, tunnel)
        plane.dscp = connection.link.dscp
        plane.session.count_in(connection.link.traffic)
        plane.session.limit_by(connection.session.budget)
        connection.plane = connection.session.plane = plane
        connection.stripe_granted_at = self._loop.time()
        tunnel.add_plane(connection.session, plane)
        return grant

    def renew(
        self, connection: ServerConnection, tunnel: ServerTunnel, messages: list[tuple[int, Message]], now: float
    ) -> None:
        """Replace the striped session of a client that has lost it, at most once in `RENEW_INTERVAL`."""
        for message_id, message in messages:
            group = self._table.group_of(connection)
            if not isinstance(message, RenewStripe) or group is None:
                continue
            grant = None
            if now - connection.stripe_granted_at >= RENEW_INTERVAL:
                self.drop(connection)
                registration = group.members[connection.session.path.name].registration
                grant = self.grant(connection, tunnel, message.stripe, registration)
            connection.session.send(StripeRenewed(stripe=grant), message_id)

    def drop(self, connection: ServerConnection) -> None:
        """End the data plane of a connection, if it has one."""
        plane, connection.plane, connection.session.plane = connection.plane, None, None
        if plane is None or self._listener is None:
            return
        self._listener.remove(plane)
        if connection.tunnel is not None:
            connection.tunnel.remove_plane(connection.session, plane)
            self._on_change(connection.tunnel)

    def drop_idle(self, connections: Iterable[ServerConnection], now: float) -> None:
        """End the data planes from which nothing authentic has come for long."""
        if self._listener is None:
            return
        idle = set(self._listener.collect_idle(now))
        for connection in connections if idle else ():
            if connection.plane in idle:
                self.drop(connection)

    def _changed(self, plane: ServerStripe, tunnel: ServerTunnel) -> None:
        if not plane.closed:  # it was dropped since
            self._on_change(tunnel)
