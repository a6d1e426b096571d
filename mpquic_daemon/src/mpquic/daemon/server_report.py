"""What a server tells about its connections: rows for people, fields for the log, numbers of a tunnel."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mpquic import held, release
from mpquic.daemon.period import ago, lasting
from mpquic.daemon.statistics import path_statistics, rtt_of, snapshot
from mpquic.proto.control.validity import Validity, shown
from mpquic.table import SITE_PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mpquic.config import Peer as Rule
    from mpquic.daemon.peer_log import Peer, SecondMachine
    from mpquic.daemon.server_connection import ServerConnection
    from mpquic.proto.control.groups import Group, GroupTable

NAMED_PEERS = 3
"""At most so many peers are named in a line."""


def paths(table: GroupTable[ServerConnection], device: str | None) -> list[dict[str, object]]:
    """Return the rows of `mpquicctl paths`: one for each connection that is registered."""
    rows: list[dict[str, object]] = []
    for group in table:
        for name, member in group.members.items():
            session, admitted = member.connection.session, member.connection.admitted
            rows.append(
                {
                    "path": name,
                    "state": session.path.state.value,
                    "identity": group.identity,
                    "peer_certificate": peer_certificate(Validity.of(admitted.identity.leaf)) if admitted else None,
                    "release": release.RELEASE,
                    "peer_release": release.of_peer(admitted.register.release) if admitted else None,
                    "tunnel": group.tunnel,
                    "inner": [str(prefix) for prefix in group.prefixes],
                    "peer": member.connection.peer,
                    "device": device,
                    "transport_mode": "reliable" if session.path.reliable else "datagram",
                    **snapshot(path_statistics(session, session.link.traffic)),
                }
            )
    return rows


def peer(rule: Rule, known: Peer, group: Group[ServerConnection] | None, now: float, wall: float) -> dict[str, object]:
    """Return who may connect, and how it is with it: a row of `peers` of `mpquicctl status --json`.

    `now` is seconds since the boot, `wall` seconds of the wall clock.
    """
    member = next(iter(group.members.values()), None) if group is not None else None
    session = member.connection.session if member is not None and known.state == "up" else None
    state, hold, hold_at = known.shown_state(wall), known.hold_in_force(wall), "peer"
    if not rule.enabled and state != "up":
        state, hold, hold_at = "held", held.by_variables(wall - (now - known.since)), "here"
    second = known.second_machine_shown(now)
    error = held.words(hold) if hold is not None else known.error
    if second is not None:
        error = "; ".join(text for text in (error, _second_machine(second)) if text is not None)
    admitted = member.connection.admitted if member is not None and session is not None else None
    until = known.handover.until if known.handover.is_open(now) else None
    return {
        "identity": rule.identity,
        "tunnel": rule.tunnel,
        "class": rule.class_name,
        "connected": state == "up",
        "state": state,
        **lasting(now - known.since),
        "last_heard": ago(now - known.heard) if known.heard is not None else None,
        "peer": member.connection.peer if member is not None else None,
        "rtt_seconds": rtt_of(session) if session is not None else None,
        "loss_ratio": round(session.estimators.loss, 4) if session is not None else None,
        "flaps": known.flaps,
        "release": release.of_peer(admitted.register.release) if admitted is not None else None,
        "error": error,
        "hold": held.report(hold),
        "hold_at": hold_at if hold is not None else None,
        "second_machine": {"peer": second.peer, "attempts": second.attempts, "last": ago(now - second.at)}
        if second is not None
        else None,
        "handover_until": held.rfc3339(wall + (until - now)) if until is not None else None,
    }


def _second_machine(second: SecondMachine) -> str:
    # Each attempt has another port, and `watch` tells of each other text.
    host = second.peer.rpartition(":")[0]
    return f"a second machine at {host} has this identity, too, and is refused"


def peer_summary(rows: Sequence[Mapping[str, object]]) -> str:
    """Return in a few words which peers are connected, which aren't, and which are out of service on purpose."""
    sites = [site_of(row) for row in rows]
    count = Counter(sites)
    here: list[str] = []
    out: list[str] = []
    absent: list[str] = []
    for site, row in zip(sites, rows, strict=True):
        name = site if count[site] == 1 else f"{site}/{row['tunnel']}"
        (here if row["connected"] else out if row.get("state") == "held" else absent).append(name)
    summary = f"{len(here)} of {len(rows)}"
    if 0 < len(here) <= NAMED_PEERS:
        summary += f": {', '.join(here)}"
    if absent:
        summary += f"{';' if here else ','} not {_some(absent)}"
    if out:
        summary += f"{';' if here or absent else ','} held {_some(out)}"
    return summary


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED_PEERS} more" if len(names) > NAMED_PEERS else ""
    return ", ".join(names[:NAMED_PEERS]) + more


def site_of(row: Mapping[str, object]) -> str:
    """Return the site that a peer's identity names, or the identity."""
    return str(row["identity"]).removeprefix(SITE_PREFIX)


def peer_certificate(validity: Validity) -> dict[str, object]:
    """Return what identifies the certificate of a peer, and its end."""
    return {"serial": f"{validity.serial:x}", "not_after": shown(validity.not_after)}


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
