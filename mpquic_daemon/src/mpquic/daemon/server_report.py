"""What a server tells about its connections: rows for people, fields for the log, numbers of a tunnel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.proto.path import PathState
from mpquic.proto.validity import Validity, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mpquic.daemon.server_connection import ServerConnection
    from mpquic.daemon.server_tunnel import ServerTunnel
    from mpquic.daemon.stripe_plane import StripePlane
    from mpquic.proto.groups import Group, GroupTable


def paths(
    table: GroupTable[ServerConnection],
    tunnels: Mapping[Group[ServerConnection], ServerTunnel],
    device: str | None,
) -> list[dict[str, object]]:
    """Return the rows of `mpquicctl paths`: one for each connection that is registered."""
    rows: list[dict[str, object]] = []
    for group in table:
        counters = tunnels[group].counters
        for name, member in group.members.items():
            session, admitted = member.connection.session, member.connection.admitted
            rtt = session.liveness.rtt.smoothed or session.path.rtt
            rows.append(
                {
                    "path": name,
                    "state": session.path.state.value,
                    "identity": group.identity,
                    "peer_certificate": peer_certificate(Validity.of(admitted.identity.leaf)) if admitted else None,
                    "tunnel": group.tunnel,
                    "inner": [str(prefix) for prefix in group.prefixes],
                    "peer": member.connection.peer,
                    "device": device,
                    "epoch": member.registration.epoch,
                    "rtt_ms": round(rtt * 1000, 2) if rtt is not None else None,
                    "loss": round(session.path.loss, 4),
                    "tx_bytes": counters.tx_bytes,
                    "rx_bytes": counters.rx_bytes,
                    "transport_mode": "reliable" if session.path.reliable else "datagram",
                    "max_datagram_size": member.connection.link.max_datagram_size,
                    "stripe": stripe(member.connection.plane),
                }
            )
    return rows


def peer_certificate(validity: Validity) -> dict[str, object]:
    """Return what identifies the certificate of a peer, and its end."""
    return {"serial": f"{validity.serial:x}", "not_after": shown(validity.not_after)}


def stripe(plane: StripePlane | None) -> dict[str, object] | None:
    """Return the numbers of a striped data plane, None where there is none."""
    if plane is None:
        return None
    session = plane.session
    return {"session": f"{session.session:08x}", "carries": plane.path.state is PathState.UP, **session.counters()}


def names(connection: ServerConnection) -> dict[str, object]:
    """Return the fields by which the log names a connection."""
    admitted = connection.admitted
    if admitted is None:
        return {"peer": connection.peer}
    register = admitted.register
    return {
        "identity": admitted.identity.uri,
        "tunnel": register.tunnel,
        "path": register.path,
        "peer": connection.peer,
    }


def numbers(tunnel: ServerTunnel) -> dict[str, object]:
    """Return the counters of a tunnel without nesting."""
    values: dict[str, object] = dict(tunnel.counters.snapshot())
    refused = values.pop("refused")
    assert isinstance(refused, dict)
    values |= {f"reassembly {name}": count for name, count in tunnel.receiver.reassembler.snapshot().items()}
    values["coalesced"] = tunnel.receiver.coalescer.coalesced
    return values | {f"refused: {reason}": count for reason, count in refused.items()}
