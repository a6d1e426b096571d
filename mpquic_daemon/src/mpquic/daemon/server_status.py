"""What a server tells people: the rows of `mpquicctl`, and its counters."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from mpquic.daemon import expiry, server_report
from mpquic.daemon.statistics import TunnelStatistics, snapshot, tunnel_statistics

if TYPE_CHECKING:
    from mpquic.daemon.clients import Clients
    from mpquic.daemon.period import Period
    from mpquic.daemon.quic_port import QuicPort
    from mpquic.daemon.registry import Registry
    from mpquic.daemon.server_connection import ServerConnection
    from mpquic.daemon.server_connections import ServerConnections
    from mpquic.daemon.server_tun import ServerTun
    from mpquic.daemon.server_tunnels import ServerTunnels
    from mpquic.daemon.stripe_listener import StripeListener
    from mpquic.proto.control.groups import GroupTable
    from mpquic.quic.listener import QuicListener


class ServerStatus:
    """Reads the parts of a server, and changes nothing of them. `period` is that since which the server is up."""

    def __init__(
        self,
        period: Period,
        table: GroupTable[ServerConnection],
        registry: Registry,
        clients: Clients,
        connections: ServerConnections,
        tunnels: ServerTunnels,
        tun: ServerTun,
        listener: QuicListener,
        port: QuicPort,
        stripe: StripeListener | None,
        device: str | None,
    ) -> None:
        self._period = period
        self._table = table
        self._registry = registry
        self._clients = clients
        self._connections = connections
        self._tunnels = tunnels
        self._tun = tun
        self._listener = listener
        self._port = port
        self._stripe = stripe
        self._device = device

    def status(self) -> dict[str, object]:
        """Return the row of `mpquicctl status` without the name."""
        totals = self._totals()
        peers = self._clients.rows()
        return {
            **brief(),
            **self._period.status(),
            "peer": server_report.peer_summary(peers),
            "peers": peers,
            "wan": None,
            "class": None,
            "rtt_seconds": None,
            "loss_ratio": None,
            "tx_bytes": totals.tx_bytes,
            "rx_bytes": totals.rx_bytes,
            "reconnects": max(0, self._registry.count - self._table.connection_count),
            "flaps": self._clients.log.flaps,
            "hold": None,
            "hold_at": None,
            "certificate": expiry.status(self._registry.authorization.dates, dt.datetime.now(dt.UTC)),
        }

    def paths(self) -> list[dict[str, object]]:
        """Return the rows of `mpquicctl paths`."""
        return server_report.paths(self._table, self._device)

    def counters(self) -> dict[str, object]:
        """Return all counters, with the size of every table."""
        return {
            "tunnel": snapshot(self._totals()),
            "unrouted": dict(self._tun.unrouted.refused),
            "tun": snapshot(self._tun.device.counters),
            "udp": snapshot(self._port.socket.counters),
            "dropped_waiting": self._port.dropped,
            "listener": snapshot(self._listener.counters),
            "stripe": self._stripe.counters() if self._stripe is not None else None,
            "registrations": self._registry.count,
            "flaps": self._clients.log.flaps,
            "tables": {
                "groups": len(self._table),
                "registered": self._table.connection_count,
                "tunnels": len(self._tunnels),
                "connections": len(self._connections),
                "quic_connections": len(self._listener.links),
                "unregistered": self._listener.unregistered,
                "waiting_registrations": self._registry.admission.waiting,
                "stripe_sessions": len(self._stripe.table) if self._stripe is not None else 0,
            },
        }

    def _totals(self) -> TunnelStatistics:
        totals = TunnelStatistics()
        totals.add(self._tunnels.past)
        for tunnel in self._tunnels:
            totals.add(tunnel_statistics(tunnel.sender, tunnel.receiver))
        return totals


def brief() -> dict[str, object]:
    """Return `state` and `error` of the status alone: a server is up while it listens."""
    return {"state": "up", "error": None}
