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
    "bits_per_second": "MBIT/S",
    "moved": "BYTES",
    "tun": "TUN",
    "wan": "WAN",
    "by": "BY",
    "verdict": "WAY PROVEN",
}
MEDIANS = {
    "direction": "DIRECTION",
    "connections": "CONNECTIONS",
    "tunnel_bits_per_second": "TUNNEL MBIT/S",
    "bare_bits_per_second": "BARE LINK MBIT/S",
    "ratio": "RATIO",
    "by": "TUNNEL BY",
}


def render(runs: Sequence[Mapping[str, Any]], medians: Sequence[Mapping[str, Any]]) -> str:
    """Return both tables; TUN and WAN are what the TUN and all WANs moved in the run's direction, BY is who carried."""
    return "\n".join(
        [table([_row(run) for run in runs], COLUMNS), "", table([_median_row(row) for row in medians], MEDIANS)]
    )


def _row(run: Mapping[str, Any]) -> dict[str, Any]:
    side = "tx_bytes" if run["direction"] == "up" else "rx_bytes"
    words = [*(["yes"] if run["valid"] else [f"NOT VALID: {'; '.join(run['problems'])}"]), *run["notes"]]
    return {
        **_in_megabits(run),
        "moved": amount(run["bytes"]) if run["bytes"] is not None else None,
        "tun": amount(run["tun"][f"{side}_after"] - run["tun"][f"{side}_before"]),
        "wan": amount(sum(wan[f"{side}_after"] - wan[f"{side}_before"] for wan in run["wans"])),
        "by": ", ".join(run["carried_by"]) or None,
        "verdict": "; ".join(words),
    }


def _median_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**_in_megabits(row), "by": ", ".join(row["carried_by"]) or None}


def _in_megabits(row: Mapping[str, Any]) -> dict[str, Any]:
    rates = {key: value for key, value in row.items() if key.endswith("bits_per_second") and value is not None}
    return {**row, **{key: f"{value / 1e6:.2f}" for key, value in rates.items()}}
