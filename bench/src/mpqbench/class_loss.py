"""Loss on one class tunnel alone: what the soak scenario has measured, beside what the earlier implementation had."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpqbench.table import markdown, number

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE = "classes.json"
"""Name of the figures, beside those of the benches."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One loss: TCP of the class itself by data plane, TCP, round trips and lost packets of its neighbours."""

    own: Mapping[str, float]
    neighbours: float
    ping: float
    lost_percent: float


EARLIER = {
    0: Figures({"earlier": 48.1}, 50, 13, 0),
    10: Figures({"earlier": 2.3}, 50, 13, 0),
    30: Figures({"earlier": 0.4}, 50, 13, 0),
}
"""The earlier implementation in the field, on a link of about 50 Mbit/s; by the loss in percent."""


@dataclass(frozen=True, slots=True)
class ClassLoss:
    """What was measured, and where."""

    date: str
    processor: str
    kernel: str
    figures: Mapping[int, Figures]

    def section(self) -> str:
        """The part of the document."""
        own = {percent: {**EARLIER[percent].own, **now.own} for percent, now in self.figures.items()}
        planes = list(dict.fromkeys(plane for each in own.values() for plane in each))
        heading = ["loss", *(f"the class: {plane}" for plane in planes)]
        heading += [
            f"{what}: {whose}" for what in ("neighbours", "ping, ms", "lost, %") for whose in ("earlier", "now")
        ]
        rows = [heading]
        for percent, now in self.figures.items():
            earlier = EARLIER[percent]
            pairs = (
                (earlier.neighbours, now.neighbours),
                (earlier.ping, now.ping),
                (earlier.lost_percent, now.lost_percent),
            )
            cells = [*(own[percent][plane] for plane in planes), *(each for pair in pairs for each in pair)]
            rows.append([f"{percent} %", *map(number, cells)])
        return "\n\n".join((_TEXT, f"* Measured {self.date} on {self.processor}, kernel {self.kernel}", markdown(rows)))


_TEXT = """## Loss on one class

From `make soak`. Three class tunnels share one WAN of the lab (50 Mbit/s up, round trip 13 ms); the provider drops
packets of one of them at random, in both directions. One TCP connection (CUBIC) up, Mbit/s, one class at a time; the
median of three rounds. *Neighbours* is the median rate of the other two classes, *ping* their median round trip, *lost*
the most pings of theirs without a reply: the worst of these, whichever class has the loss. *Earlier* is the earlier
implementation in the field."""


def load(file: Path) -> ClassLoss | None:
    """Read the figures; None where there are none.

    Raises:
        KeyError: a row lacks a figure.
    """
    if not file.exists():
        return None
    kept: dict[str, Any] = json.loads(file.read_text())
    by_loss: dict[int, list[dict[str, Any]]] = {}
    for row in kept["rows"]:
        by_loss.setdefault(row["loss_percent"], []).append(row)
    figures = {
        percent: Figures(
            {row["data_plane"]: row["own"] for row in rows},
            min(row["neighbours"] for row in rows),
            max(row["ping"] for row in rows),
            max(row["lost"] for row in rows),
        )
        for percent, rows in sorted(by_loss.items())
    }
    return ClassLoss(kept["date"], kept["processor"], kept["kernel"], figures)
