"""A measurement for people: each run with its proof, and the medians."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpquic.speedtest.runs import amount
from mpquic.table import table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COLUMNS = {
    "run": "RUN",
    "direction": "DIRECTION",
    "connections": "CONNECTIONS",
    "way": "WAY",
    "mbit": "MBIT/S",
    "moved": "BYTES",
    "tun": "TUN",
    "wan": "WAN",
    "verdict": "WAY PROVEN",
}
MEDIANS = {
    "direction": "DIRECTION",
    "connections": "CONNECTIONS",
    "tunnel": "TUNNEL MBIT/S",
    "bare": "BARE LINK MBIT/S",
    "ratio": "RATIO",
}


def render(runs: Sequence[Mapping[str, Any]], medians: Sequence[Mapping[str, Any]]) -> str:
    """Return both tables; the columns TUN and WAN are what these devices moved in the direction of the run."""
    return "\n".join([table([_row(run) for run in runs], COLUMNS), "", table(medians, MEDIANS)])


def _row(run: Mapping[str, Any]) -> dict[str, Any]:
    side = "sent" if run["direction"] == "up" else "received"
    words = [*(["yes"] if run["valid"] else [f"NOT VALID: {'; '.join(run['problems'])}"]), *run["notes"]]
    return {
        **run,
        "moved": amount(run["bytes"]) if run["bytes"] is not None else None,
        "tun": amount(run["tun"][f"{side}_after"] - run["tun"][f"{side}_before"]),
        "wan": amount(run["wan"][f"{side}_after"] - run["wan"][f"{side}_before"]),
        "verdict": "; ".join(words),
    }
