"""Rows of `mpquicctl status` for the sites of a server: what matters first, and not more than fits."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from mpquic.table import SITE_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mpquic.ctl.instances import Row

FEW = 10
"""So many sites of a server are all shown, of more only those that need a look."""
URGENCY = ("silent", "down", "never", "held", "up")
"""States in the order in which rows are shown."""
_COLUMNS = ("class", "state", "duration_seconds", "peer", "rtt_seconds", "loss_ratio", "flaps", "release", "error")
_BLANK = (*_COLUMNS, "wan", "tx_bytes", "rx_bytes", "reconnects", "peer_releases")


def names(peers: Sequence[Row]) -> list[str]:
    """Return what each peer is called: its site, with the tunnel where a site has several here."""
    sites = [str(peer["identity"]).removeprefix(SITE_PREFIX) for peer in peers]
    count = Counter(sites)
    pairs = zip(sites, peers, strict=True)
    return [site if count[site] == 1 else f"{site}/{peer['tunnel']}" for site, peer in pairs]


def rows(instance: str, peers: Sequence[Row] | None, *, complete: bool) -> list[Row]:
    """Return the rows below that of an instance: all peers if they are few or `complete`, else those that aren't up."""
    named = list(zip(names(peers or ()), peers or (), strict=True))
    named.sort(key=lambda pair: _urgency(pair[1]))
    shown = named if complete or len(named) <= FEW else [pair for pair in named if pair[1].get("state") != "up"]
    found = [_row(name, peer) for name, peer in shown]
    if len(shown) < len(named):
        left_out = f"and {len(named) - len(shown)} that are up: mpquicctl status {instance}"
        found.append({"name": f"  {left_out}", "role": "", **dict.fromkeys(_BLANK, "")})
    return found


def _row(name: str, peer: Row) -> Row:
    row: dict[str, Any] = {"name": f"  {name}", "role": "peer", **{key: peer.get(key) for key in _COLUMNS}}
    if peer.get("state") == "never":
        row["duration_seconds"] = None
    if row["error"] is None and peer.get("state") == "silent":
        row["error"] = f"last heard {peer['last_heard']}" if peer.get("last_heard") else "silent"
    return row


def _urgency(peer: Row) -> int:
    state = peer.get("state")
    return URGENCY.index(state) if state in URGENCY else 0
