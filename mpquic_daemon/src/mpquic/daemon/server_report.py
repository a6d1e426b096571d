"""What a server tells about its connections: rows for people, fields for the log, numbers of a tunnel."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mpquic.proto.path import PathState
from mpquic.proto.validity import Validity, shown
from mpquic.table import SITE_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mpquic.daemon.server_connection import ServerConnection
    from mpquic.daemon.server_tunnel import ServerTunnel
    from mpquic.daemon.stripe_plane import StripePlane
    from mpquic.proto.groups import Group, GroupTable
    from mpquic.proto.peers import PeerRule

NAMED_PEERS = 3
"""At most so many peers are named in a line."""


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


def peers(rules: Iterable[PeerRule], table: GroupTable[ServerConnection]) -> list[dict[str, object]]:
    """Return who may connect, and whether each does: rows of `peers` of `mpquicctl status --json`."""
    return [
        {
            "identity": rule.identity,
            "tunnel": rule.tunnel,
            "connected": table.get(rule.identity, rule.tunnel) is not None,
        }
        for rule in rules
    ]


def peer_summary(rows: Sequence[Mapping[str, object]]) -> str:
    """Return in a few words which of `peers` are connected and which are not."""
    sites = [site_of(row) for row in rows]
    count = Counter(sites)
    here: list[str] = []
    absent: list[str] = []
    for site, row in zip(sites, rows, strict=True):
        name = site if count[site] == 1 else f"{site}/{row['tunnel']}"
        (here if row["connected"] else absent).append(name)
    summary = f"{len(here)} of {len(rows)}"
    if 0 < len(here) <= NAMED_PEERS:
        summary += f": {', '.join(here)}"
    if absent:
        more = f" and {len(absent) - NAMED_PEERS} more" if len(absent) > NAMED_PEERS else ""
        summary += f"{';' if here else ','} not {', '.join(absent[:NAMED_PEERS])}{more}"
    return summary


def site_of(row: Mapping[str, object]) -> str:
    """Return the site that a peer's identity names, or the identity."""
    return str(row["identity"]).removeprefix(SITE_PREFIX)


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
