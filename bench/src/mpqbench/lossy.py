"""A link that loses packets: goodput, and its share of what an erasure channel allows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mpqbench import iperf
from mpqbench.emulated import EmulatedTopology
from mpqbench.results import Sample

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mpqbench.systems.base import System
    from mpqbench.topology import Topology

RATE = 50.0
"""Mbit/s."""
ROUND_TRIP = 30.0
QUEUE = 30.0
"""ms: one bandwidth-delay product."""
LINK = {"rate_mbit": RATE, "delay_ms": ROUND_TRIP / 2, "queue_ms": QUEUE}
LONGER = 2.0
"""How much longer than in other cases is measured: a congestion window of 30 ms grows slowly."""
OMIT = 3.0
"""Seconds that don't count, so that the start of a connection is not what is measured."""
SEED = 1


@dataclass(frozen=True, slots=True)
class Loss:
    """What the link does to the packets of the forward direction, in percent."""

    case: str
    keys: Mapping[str, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Share of the packets that are lost in the long run, 0 to 1 (Gilbert-Elliott: the bad state loses all)."""
        enter, leave = self.keys.get("burst_enter_percent", 0.0), self.keys.get("burst_leave_percent", 0.0)
        bad = enter / (enter + leave) if enter else 0.0
        return 1 - (1 - bad) * (1 - self.keys.get("loss_percent", 0.0) / 100)


CLEAN = Loss("0 %")
BURSTS = Loss("bursts", {"burst_enter_percent": 1.0, "burst_leave_percent": 20.0})
"""One packet in a hundred begins a burst of 5 packets in the mean: 4.8 % of all."""
FEW = (CLEAN, *(Loss(f"{percent} %", {"loss_percent": float(percent)}) for percent in (1, 10)))
ALL = (CLEAN, *(Loss(f"{percent} %", {"loss_percent": float(percent)}) for percent in (1, 2, 5, 10, 30)), BURSTS)
POINTS = {"veth": (CLEAN,), "stripe": ALL}
"""Systems that are measured at other points than `FEW`."""
RESET = {"loss_percent": 0.0, "burst_enter_percent": 0.0, "burst_leave_percent": 0.0}


def share_of_limit(rate: float, loss: float, clean_rate: float) -> float:
    """Return the share of the erasure limit: (1 - loss) of what plain TCP reaches on the same link without loss."""
    return rate / ((1 - loss) * clean_rate)


class Lossy:
    """Measures a system on an emulated link. What plain TCP reaches there is measured once for each run."""

    def __init__(self) -> None:
        self._clean: tuple[int, float] | None = None

    def measure(self, system: System, directory: Path, seconds: float, repetition: int) -> list[Sample]:
        """Return goodput and share at each point of `system`."""
        length = seconds * LONGER
        samples: list[Sample] = []
        with EmulatedTopology(directory, LINK) as topology:
            clean = self._plain(topology, length, repetition)
            for loss in POINTS.get(system.name, FEW):
                rate = clean if system.name == "veth" else _measure(system, topology, loss, length)
                samples.append(Sample("lossy", loss.case, "goodput", rate, "Mbit/s"))
                samples.append(Sample("lossy", loss.case, "share", share_of_limit(rate, loss.mean, clean), "share"))
        return samples

    def _plain(self, topology: EmulatedTopology, length: float, repetition: int) -> float:
        if self._clean is None or self._clean[0] != repetition:
            self._clean = (repetition, _goodput(topology, topology.b.outer, length))
        return self._clean[1]


def _measure(system: System, topology: EmulatedTopology, loss: Loss, length: float) -> float:
    """Start the system anew, so that no point depends on those before it; the link loses nothing until it is up."""
    topology.set_forward(RESET)
    try:
        system.start(topology.a, topology.b)
        topology.set_forward({**loss.keys, "seed": SEED})
        return _goodput(topology, system.address(topology.b), length)
    finally:
        system.stop()


def _goodput(topology: Topology, address: str, length: float) -> float:
    return iperf.tcp(topology.a, topology.b, address, length, 1, omit=OMIT).rate
