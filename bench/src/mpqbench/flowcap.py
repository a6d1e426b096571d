"""A link that caps each flow: what several pipes make of it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from mpqbench import iperf
from mpqbench.emulated import EmulatedTopology
from mpqbench.errors import BenchError
from mpqbench.results import Sample
from mpqbench.systems.mpquic import Stripe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from mpqbench.systems.base import System

RATE = 300.0
FLOW_RATE = 80.0
"""Mbit/s, of the link and of each flow."""
LINK = {"rate_mbit": RATE, "flow_rate_mbit": FLOW_RATE, "delay_ms": 15.0, "queue_ms": 30.0, "flow_queue_ms": 30.0}
PIPES = (1, 4, 8, 12)
LONGER = 2.5
OMIT = 3.0
LOOK = 0.1
"""Seconds between two looks at the link's counters."""
STARTED = 1_000_000
"""Bytes on the link after which the transfer counts as begun."""


def ceiling(pipes: int) -> float:
    """Return what a link that caps each flow lets through for so many of them, Mbit/s."""
    return min(RATE, pipes * FLOW_RATE)


def steady_rate(counts: Sequence[tuple[float, int]], begin: float, length: float) -> float:
    """Return the mean rate in Mbit/s of counted bytes, given as (time, sum), between `begin` and `begin + length`.

    Raises:
        BenchError: fewer than two counts lie between.
    """
    inside = [(when, count) for when, count in counts if begin <= when <= begin + length]
    if len(inside) < 2:
        raise BenchError("the transfer was over before its rate could be seen")
    (first, low), (last, high) = inside[0], inside[-1]
    return (high - low) * 8 / (last - first) / 1e6


class FlowCap:
    """Measures `stripe` with several numbers of pipes."""

    def measure(self, system: System, directory: Path, seconds: float, repetition: int) -> list[Sample]:
        """Return what left the link and what TCP received, with their shares of what the link lets through."""
        del repetition
        if not isinstance(system, Stripe):
            raise BenchError(f"{system.name} has no pipes")
        usual, samples = system.pipes, []
        try:
            for pipes in PIPES:
                system.pipes = pipes
                folder = directory / f"{pipes}-pipes"
                folder.mkdir()
                wire, goodput = _measure(system, folder, seconds * LONGER)
                case = f"{pipes} pipe" + ("s" if pipes > 1 else "")
                for name, rate in (("wire rate", wire), ("goodput", goodput)):
                    samples.append(Sample("flowcap", case, name, rate, "Mbit/s"))
                for name, rate in (("wire share", wire), ("goodput share", goodput)):
                    samples.append(Sample("flowcap", case, name, rate / ceiling(pipes), "share"))
        finally:
            system.pipes = usual
        return samples


def _measure(system: System, folder: Path, length: float) -> tuple[float, float]:
    with EmulatedTopology(folder, LINK) as topology, ThreadPoolExecutor(1) as pool:
        a, b = topology.a, topology.b
        try:
            system.start(a, b)
            transfer = pool.submit(iperf.tcp, a, b, system.address(b), length, 1, omit=OMIT)
            counts = _count(topology, transfer)
            goodput = transfer.result().rate
        finally:
            system.stop()
    began = next((when for when, count in counts if count - counts[0][1] > STARTED), float("inf"))
    return steady_rate(counts, began + OMIT, length), goodput


def _count(topology: EmulatedTopology, transfer: Future[iperf.Transfer]) -> list[tuple[float, int]]:
    counts: list[tuple[float, int]] = []
    while not transfer.done():
        counts.append((time.monotonic(), topology.delivered()))
        time.sleep(LOOK)
    return counts
