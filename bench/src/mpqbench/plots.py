"""Plots of the results of one processor, as SVG files in a folder of its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from mpqbench.flowcap import ceiling
from mpqbench.lossy import ALL

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.typing import RcKeyType

    from mpqbench.results import Result

INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
OURS, OTHERS = ("#1d4ed8", "#93b4f5"), ("#52606d", "#b8c1cb")
LINES = {"stripe": "#1d4ed8", "quic-reliable": "#0e9f6e", "openvpn": "#b45309", "wireguard-go-deb13": "#7e3af2"}
STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",  # Text stays text.
    "svg.hashsalt": "mpqbench",  # The same results make the same file.
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
}
BARS: dict[str, tuple[tuple[str, str], ...]] = {
    "tcp1": (("up", "goodput"), ("down", "goodput")),
    "tcp8": (("up", "goodput"), ("down", "goodput")),
    "small": (("up", "packet rate"),),
    "ping": (("idle", "p50"), ("idle", "p99")),
    "cpu": (("up", "CPU time"),),
    "fairness": (("10 TCP, up", "Jain index"), ("8 TCP, small, refused", "Jain index")),
    "clean": (("wan5 up", "ratio"), ("wan5 down", "ratio")),
    "browsing": (("30 users", "page ratio"), ("30 users", "ping p95 above idle")),
    "sessions": (("10 registered", "goodput"), ("1,000 registered", "goodput")),
}
"""For each bench what becomes a bar: case and metric."""
BARE = "veth"
"""Out of scale beside tunnels, so it is in the tables and not in the plots."""
MINE = ("quic-", "stripe")


def folder_name(processor: str) -> str:
    """Return the name of the folder for the plots of a processor model."""
    return re.sub(r"[^a-z0-9]+", "-", processor.lower()).strip("-")


def draw(results: Sequence[Result], folder: Path) -> list[str]:
    """Write a file BENCH.svg for each bench that can be drawn, remove those of others; return the benches drawn."""
    benches: dict[str, list[Result]] = {}
    for result in results:
        if result.system != BARE:
            benches.setdefault(result.bench, []).append(result)
    drawn = []
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    with mpl.rc_context(STYLE):
        for bench, members in benches.items():
            figure = _figure(bench, members)
            if figure is not None:
                metadata = {"Date": None, "Creator": None}
                figure.savefig(folder / f"{bench}.svg", format="svg", metadata=metadata, bbox_inches="tight")
                drawn.append(bench)
    return drawn


def _figure(bench: str, members: list[Result]) -> Figure | None:
    if bench == "lossy":
        return _lossy(members)
    if bench == "flowcap":
        return _flowcap(members)
    return _bars(members, BARS[bench])


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, height), facecolor="white")
    axes = figure.add_subplot()
    axes.tick_params(length=0)
    return figure, axes


def _bars(members: list[Result], bars: tuple[tuple[str, str], ...]) -> Figure | None:
    """Horizontal bars: a group for each system, a bar for each of `bars`; the spread of the runs is a thin line."""
    values = {(each.system, each.case, each.metric): each for each in members}
    systems = [system for system in dict.fromkeys(each.system for each in members) if (system, *bars[0]) in values]
    if not systems:
        return None
    thickness = 0.8 / len(bars)
    figure, axes = _axes(0.6 + len(systems) * (0.22 + 0.16 * len(bars)))
    largest = max(each.spread[1] for key, each in values.items() if key[1:] in bars)
    for row, system in enumerate(systems):
        colours = OURS if system.startswith(MINE) else OTHERS
        for index, bar in enumerate(bars):
            result = values.get((system, *bar))
            if result is None:
                continue
            place = row - 0.4 + thickness * (index + 0.5)
            axes.barh(place, result.value, thickness * 0.9, color=colours[index])
            low, high = result.spread
            axes.plot([low, high], [place, place], color=INK, linewidth=0.8)
            axes.text(high + largest * 0.01, place, f" {_short(result.value)}", va="center", fontsize=7.5)
    axes.set_yticks(range(len(systems)), systems)
    axes.invert_yaxis()
    axes.set_xlim(0, largest * 1.1)
    axes.grid(axis="x", color=GRID)
    axes.spines["left"].set_visible(False)
    unit = values[systems[0], *bars[0]].unit
    names = [f"{case}: {metric}" for case, metric in bars]
    axes.set_xlabel(f"{unit}" + (f"  (dark: {names[0]}, light: {names[1]})" if len(bars) > 1 else f"  ({names[0]})"))
    return figure


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _lossy(members: list[Result]) -> Figure:
    """Share of the erasure limit over the loss; the bursts stand apart, at their mean loss."""
    figure, axes = _axes(3.2)
    places = {loss.case: (index, loss) for index, loss in enumerate(ALL)}
    for system in dict.fromkeys(each.system for each in members):
        shares = {each.case: each for each in members if each.system == system and each.metric == "share"}
        points = sorted((places[case][0], each.value) for case, each in shares.items() if case in places)
        steady = [point for point in points if ALL[point[0]].case != "bursts"]
        colour = LINES.get(system, MUTED)
        axes.plot(*zip(*steady, strict=True), color=colour, marker="o", markersize=4, label=system)
        apart = [point for point in points if point not in steady]
        if apart:
            axes.plot(*zip(*apart, strict=True), color=colour, marker="D", markersize=5, linestyle="none")
    axes.set_xticks(
        range(len(ALL)),
        [loss.case if loss.case != "bursts" else f"bursts\n({loss.mean:.1%})" for loss in ALL],
    )
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("loss in the direction of the data")
    axes.set_ylabel("share of the erasure limit")
    axes.grid(axis="y", color=GRID)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _flowcap(members: list[Result]) -> Figure:
    """Rate on the wire and goodput for each number of pipes, with what the link lets through as a line."""
    figure, axes = _axes(3.0)
    cases = list(dict.fromkeys(each.case for each in members))
    for index, metric in enumerate(("wire rate", "goodput")):
        rates = {each.case: each.value for each in members if each.metric == metric}
        places = [place - 0.2 + 0.4 * index for place in range(len(cases))]
        bars = axes.bar(places, [rates[case] for case in cases], 0.36, color=OURS[index], label=metric)
        axes.bar_label(bars, fmt="%.0f", fontsize=7.5, padding=-12, color=("white", INK)[index])
    limits = [ceiling(int(case.split()[0])) for case in cases]
    axes.hlines(limits, [x - 0.42 for x in range(len(cases))], [x + 0.42 for x in range(len(cases))],
                color=INK, linewidth=1.2, label="what the link lets through")  # fmt: skip
    axes.set_xticks(range(len(cases)), cases)
    axes.set_ylabel("Mbit/s")
    axes.grid(axis="y", color=GRID)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
