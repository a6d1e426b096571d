"""Which runs are made in which order, and which of their figures count."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Way = Literal["tunnel", "bare"]
Direction = Literal["down", "up"]

CONNECTIONS: Final = (1, 10)
DIRECTIONS: Final[tuple[Direction, ...]] = ("down", "up")
STRAY_SHARE: Final = 0.5
"""Part of a bare run's bytes that the TUN may have moved meanwhile: beyond it the link wasn't bare."""
CARRIED_SHARE: Final = 0.1
"""Least part of what all WANs of a tunnel have moved that tells that a WAN has carried, and not only its probes."""
FOREIGN_SHARE: Final = 1.25
FOREIGN_BYTES: Final = 10_000_000
"""What a device may count beyond a run's bytes, as a factor and as an amount, before others are said to have used it:
headers, the tunnel's own overhead and its parity are within."""


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement. `number` counts repetitions from 1."""

    way: Way
    direction: Direction
    connections: int
    number: int = 1


@dataclass(frozen=True, slots=True)
class Counters:
    """Bytes that a device has sent and received."""

    sent: int
    received: int

    def toward(self, direction: Direction) -> int:
        """Return the bytes of the direction of a run: what this end has sent when it uploads."""
        return self.sent if direction == "up" else self.received


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters of the TUN and, by their names, of all WANs of the tunnel at one time."""

    tun: Counters
    wans: Mapping[str, Counters]


@dataclass(frozen=True, slots=True)
class Transfer:
    """What iperf3 tells of a run: rate and amount at the receiver."""

    bits_per_second: int
    bytes: int
    seconds: float
    retransmits: int | None


@dataclass(slots=True)
class Result:
    """A run with its figure, its counters, and what speaks against it."""

    run: Run
    transfer: Transfer | None
    before: Reading
    after: Reading
    carried_by: list[str] = field(default_factory=list)
    """The WANs that have moved its bytes, that which moved most first."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def valid(self) -> bool:
        """Whether its bytes went the way that they should."""
        return not self.problems

    def plain(self) -> dict[str, Any]:
        """Return it as plain data for `--json`."""
        transfer = self.transfer
        return {
            "way": self.run.way,
            "direction": self.run.direction,
            "connections": self.run.connections,
            "run": self.run.number,
            "bits_per_second": transfer.bits_per_second if transfer is not None else None,
            "bytes": transfer.bytes if transfer is not None else None,
            "duration_seconds": transfer.seconds if transfer is not None else None,
            "retransmits": transfer.retransmits if transfer is not None else None,
            "carried_by": self.carried_by,
            "tun": _counted(self.before.tun, self.after.tun),
            "wans": [{"name": name, **_counted(was, self.after.wans[name])} for name, was in self.before.wans.items()],
            "valid": self.valid,
            "problems": self.problems,
            "notes": self.notes,
        }


def _counted(before: Counters, after: Counters) -> dict[str, int]:
    return {
        "tx_bytes_before": before.sent,
        "tx_bytes_after": after.sent,
        "rx_bytes_before": before.received,
        "rx_bytes_after": after.received,
    }


def order(repetitions: int, connections: Sequence[int] = CONNECTIONS) -> list[Run]:
    """Return the runs: each through the tunnel beside its like on the bare link, either first by turns."""
    cells = [(count, direction) for count in connections for direction in DIRECTIONS]
    found: list[Run] = []
    for number in range(1, repetitions + 1):
        for place, (count, direction) in enumerate(cells):
            pair: list[Way] = ["tunnel", "bare"]
            if (place + number) % 2 == 0:
                pair.reverse()
            found += [Run(way, direction, count, number) for way in pair]
    return found


def moved(direction: Direction, before: Reading, after: Reading) -> dict[str, int]:
    """Return the bytes that each WAN has moved in a direction."""
    return {name: after.wans[name].toward(direction) - was.toward(direction) for name, was in before.wans.items()}


def carriers(direction: Direction, before: Reading, after: Reading) -> list[str]:
    """Return the names of the WANs that have carried the tunnel, that which moved most first."""
    by_wan = moved(direction, before, after)
    least = CARRIED_SHARE * sum(by_wan.values())
    return sorted((name for name, count in by_wan.items() if count > 0 and count >= least), key=lambda n: -by_wan[n])


def judge(run: Run, transfer: Transfer, before: Reading, after: Reading, link: str) -> tuple[list[str], list[str]]:
    """Return what proves that a run's bytes went another way, and what else is to be known of it.

    `link` is the WAN of a bare run; through the tunnel any of its WANs may carry.
    """
    tun = after.tun.toward(run.direction) - before.tun.toward(run.direction)
    by_wan = moved(run.direction, before, after)
    what, wan = (f"the WAN {link}", by_wan[link]) if run.way == "bare" else ("the WANs", sum(by_wan.values()))
    if len(by_wan) == 1:
        what = "the WAN"
    problems, notes = [], []
    if transfer.bytes <= 0:
        problems.append("nothing was carried")
    if wan < transfer.bytes:
        problems.append(f"{what} moved {amount(wan)} of its {amount(transfer.bytes)}: the rest went another way")
    if run.way == "tunnel" and tun < transfer.bytes:
        problems.append(
            f"the TUN moved {amount(tun)} of its {amount(transfer.bytes)}: the rest went outside of the tunnel"
        )
    if run.way == "bare" and tun > transfer.bytes * STRAY_SHARE:
        problems.append(f"the TUN moved {amount(tun)} meanwhile: it went through the tunnel, or others took the link")
    used = tun if run.way == "tunnel" else 0
    foreign = used - transfer.bytes
    if used > transfer.bytes * FOREIGN_SHARE and foreign > FOREIGN_BYTES and not problems:
        notes.append(f"others moved about {amount(foreign)} through the tunnel meanwhile")
    return problems, notes


def measure(
    runs: Sequence[Run], read: Callable[[], Reading], transfer: Callable[[Run, str], Transfer | str], link: str
) -> list[Result]:
    """Carry out runs one after the other.

    Args:
        runs: What to measure.
        read: Gives the counters.
        transfer: Measures a run, on the WAN of this name when it is a bare one; a sentence where there is no figure.
        link: The WAN of the first bare run; a later one is on the WAN that carried the tunnel's last run.
    """
    results = []
    for run in runs:
        before = read()
        found = transfer(run, link)
        after = read()
        carried = [link] if run.way == "bare" else carriers(run.direction, before, after)
        if isinstance(found, str):
            results.append(Result(run, None, before, after, carried, [found]))
            continue
        results.append(Result(run, found, before, after, carried, *judge(run, found, before, after, link)))
        if run.way == "tunnel" and results[-1].valid:
            link = carried[0]
    return results


def summary(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return for each direction and number of connections the medians of both ways, and their ratio.

    Runs that aren't valid don't count. Without a valid one of each way there is no ratio, nor where the WANs that
    carried the tunnel, `carried_by`, aren't those of the bare runs.
    """
    cells = list(dict.fromkeys((result.run.direction, result.run.connections) for result in results))
    return [_cell(direction, connections, results) for direction, connections in cells]


def _cell(direction: Direction, connections: int, results: Sequence[Result]) -> dict[str, Any]:
    medians: dict[str, float | None] = {}
    wans: dict[str, list[str]] = {}
    for way in ("tunnel", "bare"):
        counted = [
            result
            for result in results
            if (result.run.way, result.run.direction, result.run.connections) == (way, direction, connections)
            and result.valid
        ]
        figures = [result.transfer.bits_per_second for result in counted if result.transfer is not None]
        medians[way] = round(statistics.median(figures)) if figures else None
        wans[way] = sorted({name for result in counted for name in result.carried_by})
    tunnel, bare = medians["tunnel"], medians["bare"]
    comparable = tunnel is not None and bare and wans["tunnel"] == wans["bare"]
    ratio = round(tunnel / bare, 3) if comparable and tunnel is not None and bare else None
    return {
        "direction": direction,
        "connections": connections,
        "tunnel_bits_per_second": tunnel,
        "bare_bits_per_second": bare,
        "ratio": ratio,
        "carried_by": wans["tunnel"],
    }


def amount(count: int) -> str:
    """Return bytes in the largest unit that leaves a number above one."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
