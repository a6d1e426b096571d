"""Clean links with the rates and delays of the lab's WANs: one TCP connection through the tunnel, one beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpqlab.topology import EMULATED_WANS

from mpqbench import iperf
from mpqbench.emulated import EmulatedTopology
from mpqbench.results import Sample

if TYPE_CHECKING:
    from pathlib import Path

    from mpqlab.topology import Wan

    from mpqbench.systems.base import System

OMIT = 3.0
"""Seconds that don't count, so that the start of a connection is not what is measured."""
LONGER = 2.0
"""How much longer than in other cases is measured: a congestion window of 100 ms grows slowly."""


def link(wan: Wan) -> dict[str, float]:
    """Return the emulator's keys of a WAN, as `mpqlab` starts its link; queues stay at the emulator's default."""
    return {"delay_ms": wan.rtt_ms / 2, "up.rate_mbit": wan.up, "down.rate_mbit": wan.down}


class Clean:
    """Measures tunnel and plain TCP in alternation on the same link, in both directions."""

    def measure(self, system: System, directory: Path, seconds: float, repetition: int) -> list[Sample]:
        """Return both rates and their ratio for each WAN and direction; who is first alternates."""
        samples: list[Sample] = []
        for wan in EMULATED_WANS:
            folder = directory / wan.name
            folder.mkdir()
            with EmulatedTopology(folder, link(wan)) as topology:
                try:
                    system.start(topology.a, topology.b)
                    for direction in ("up", "down"):
                        source, target = topology.a, topology.b
                        if direction == "down":
                            source, target = target, source
                        ways = {"tunnel": system.address(target), "plain": target.outer}
                        rates = {
                            way: iperf.tcp(source, target, ways[way], seconds * LONGER, 1, omit=OMIT).rate
                            for way in order(repetition)
                        }
                        samples += _samples(f"{wan.name} {direction}", rates["tunnel"], rates["plain"])
                finally:
                    system.stop()
        return samples


def order(repetition: int) -> tuple[str, str]:
    """Return which way is measured first in a run."""
    return ("tunnel", "plain") if repetition % 2 else ("plain", "tunnel")


def _samples(case: str, tunnel: float, plain: float) -> list[Sample]:
    return [
        Sample("clean", case, "goodput", tunnel, "Mbit/s"),
        Sample("clean", case, "plain TCP", plain, "Mbit/s"),
        Sample("clean", case, "ratio", tunnel / plain, "share"),
    ]
