"""What a client tells about its connection: a row for people, numbers of a queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.daemon import server_report
from mpquic.daemon.telemetry import snapshot
from mpquic.proto.path.address import endpoint
from mpquic.release import RELEASE

if TYPE_CHECKING:
    from mpquic.daemon.client_connection import ClientConnection
    from mpquic.proto.tunnel.class_queue import ClassQueue
    from mpquic.quic.link import QuicLink


def path(connection: ClientConnection) -> dict[str, object]:
    """Return what `mpquicctl paths` shows of a registered connection."""
    used, server = connection.session.path, connection.server_certificate
    host, port = connection.socket.local_address[:2]
    return {
        "state": used.state.value,
        "local": endpoint(host, port),
        "identity": connection.server_name,
        "peer_certificate": server_report.peer_certificate(server) if server is not None else None,
        "release": RELEASE,
        "peer_release": connection.peer_release,
        "rtt_ms": rtt_ms(connection),
        "loss": round(used.loss, 4),
        "transport_mode": "reliable" if used.reliable else "datagram",
        "max_datagram_size": connection.link.max_datagram_size,
        "frame_capacity": used.frame_capacity,
        "congestion_window": connection.link.congestion_window,
        "rate_bytes_per_s": round(connection.link.rate),
        "stripe": server_report.stripe(connection.plane),
    }


def rtt_ms(connection: ClientConnection) -> float | None:
    """Return the smoothed round-trip time: of the probes, or QUIC's own until the first is answered."""
    rtt = connection.session.liveness.rtt.smoothed or connection.session.path.rtt
    return round(rtt * 1000, 2) if rtt is not None else None


def quic(link: QuicLink) -> dict[str, object]:
    """Return what the congestion controller measured, with round-trip times in milliseconds."""
    found: dict[str, object] = {"black_holes": link.black_holes}
    for name, value in snapshot(link.meter).items():
        if name.startswith("rtt_"):
            found[f"{name}_ms"] = round(value * 1000, 2) if isinstance(value, float) else None
        else:
            found[name] = value
    return found


def queue(waiting: ClassQueue) -> dict[str, int]:
    """Return the numbers of a class queue."""
    names = ("bytes", "overflow_drops", "codel_drops", "codel_marks", "expired")
    return {name: int(getattr(waiting, name)) for name in names}
