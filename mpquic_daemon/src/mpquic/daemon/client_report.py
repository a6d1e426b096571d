"""What a client tells about its connection: a row for people and programs, numbers of a path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.daemon import server_report
from mpquic.daemon.statistics import path_statistics, rtt_of, snapshot
from mpquic.proto.path.address import endpoint
from mpquic.release import RELEASE

if TYPE_CHECKING:
    from mpquic.daemon.client_connection import ClientConnection
    from mpquic.proto.path.traffic import Traffic


def path(connection: ClientConnection | None, traffic: Traffic) -> dict[str, object]:
    """Return what `mpquicctl paths` shows of a path; `connection` is the registered one, if there is one."""
    row = snapshot(path_statistics(connection.session if connection is not None else None, traffic))
    if connection is None:
        return row
    chain = connection.server_chain
    host, port = connection.socket.local_address[:2]
    return row | {
        "state": connection.session.path.state.value,
        "local": endpoint(host, port),
        "identity": connection.server_name,
        "peer_certificate": server_report.peer_certificate(chain.own) if chain is not None else None,
        "release": RELEASE,
        "peer_release": connection.peer_release,
        "transport_mode": "reliable" if connection.session.path.reliable else "datagram",
    }


def path_counters(connection: ClientConnection | None, traffic: Traffic) -> dict[str, object]:
    """Return the statistics of a path, with those of the socket of its present connection."""
    if connection is None:
        return {**snapshot(path_statistics(None, traffic)), "udp": None}
    return {**snapshot(path_statistics(connection.session, traffic)), "udp": snapshot(connection.socket.counters)}


def quality(connection: ClientConnection | None) -> dict[str, object]:
    """Return the round-trip time and the loss that `mpquicctl status` shows."""
    if connection is None:
        return {"rtt_seconds": None, "loss_ratio": None}
    return {"rtt_seconds": rtt_of(connection.session), "loss_ratio": round(connection.session.estimators.loss, 4)}


def rtt_ms(connection: ClientConnection) -> float | None:
    """Return the round-trip time as the log has it, in milliseconds."""
    rtt = rtt_of(connection.session)
    return round(rtt * 1000, 2) if rtt is not None else None
