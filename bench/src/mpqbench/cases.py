"""The cases: each measures one system and returns samples.

Those of `STARTED` find it started on a veth pair; those of `ALONE` start it themselves, on a topology of their own.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mpqbench import iperf, udpgso
from mpqbench.browsing import Browsing
from mpqbench.clean import Clean
from mpqbench.errors import BenchError
from mpqbench.fairness import Fairness
from mpqbench.flowcap import FlowCap
from mpqbench.lossy import Lossy
from mpqbench.processes import wait_for
from mpqbench.results import Sample, percentile
from mpqbench.search import highest_rate
from mpqbench.sessions import Sessions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mpqbench.systems.base import System
    from mpqbench.topology import Node, Topology

SMALL_PAYLOAD = 200
PING_INTERVAL = 0.01
PROBE_SECONDS = 1.0
UNDER_WAY = 5_000_000
"""Bytes on the link after which a TCP connection counts as under way."""
MARGIN = 3.0
"""Seconds by which a load outlasts the pings that it is to hinder."""
VOLUME = 10_000_000_000
VOLUME_LIMIT = 180.0
"""Bytes that a daemon carries before its memory is looked at, and seconds in which it must have done so."""


def _tcp(bench: str, streams: int) -> Callable[[System, Topology, float], list[Sample]]:
    def measure(system: System, topology: Topology, seconds: float) -> list[Sample]:
        a, b = topology.a, topology.b
        return [
            Sample(bench, case, "goodput", system.transfer(source, target, seconds, streams).rate, "Mbit/s")
            for case, source, target in (("up", a, b), ("down", b, a))
        ]

    return measure


def _small(system: System, topology: Topology, seconds: float) -> list[Sample]:
    """UDP with 200 bytes of payload; a probe is shorter than other cases, since the search takes about ten."""
    a, b = topology.a, topology.b
    length = max(PROBE_SECONDS, round(seconds / 4))

    def found(case: str, flow: Callable[[Node, Node, str, float, int, float], iperf.Flow]) -> Sample:
        rate = highest_rate(lambda rate: flow(a, b, system.address(b), length, SMALL_PAYLOAD, rate))
        return Sample("small", case, "packet rate", rate, "packets/s")

    return [found("up", iperf.udp), found("up, USO", udpgso.measure)]


def round_trips(node: Node, address: str, seconds: float) -> list[float]:
    """Ping `address` from `node` for about `seconds`; return the round-trip times in milliseconds."""
    count = max(10, int(seconds / PING_INTERVAL))
    times = node.ping(address, count, PING_INTERVAL)
    if len(times) < count * 0.9:
        raise BenchError(f"ping {address}: {len(times)} of {count} answered")
    return times


def _latency(case: str, times: list[float]) -> list[Sample]:
    return [Sample("ping", case, name, percentile(times, share), "ms") for name, share in (("p50", 0.5), ("p99", 0.99))]


def _idle(system: System, topology: Topology, seconds: float) -> list[Sample]:
    return _latency("idle", round_trips(topology.a, system.address(topology.b), seconds))


def _loaded(system: System, topology: Topology, seconds: float) -> list[Sample]:
    """Ping while one TCP connection saturates the tunnel."""
    a, b = topology.a, topology.b
    with ThreadPoolExecutor(1) as pool:
        transfer = pool.submit(system.transfer, a, b, seconds + MARGIN, 1)
        before = b.received()
        wait_for(lambda: b.received() - before > UNDER_WAY, 10, f"{system.name}: load")
        times = round_trips(a, system.address(b), seconds)
        if transfer.done():
            raise BenchError(f"{system.name}: the load ended before the last ping")
        transfer.result()
    return _latency("loaded", times)


def _cpu(system: System, topology: Topology, seconds: float) -> list[Sample]:
    """CPU of both ends together, kernel time on their behalf included as far as it is charged to them."""
    before = [process.usage() for process in system.processes]
    transfer = system.transfer(topology.a, topology.b, seconds, 1)
    after = [process.usage() for process in system.processes]
    if not transfer.size:
        raise BenchError(f"{system.name}: nothing was carried")
    spent = sum(usage.cpu for usage in after) - sum(usage.cpu for usage in before)
    return [
        Sample("cpu", "up", "CPU time", spent / (transfer.size / 1e9), "s/GB"),
        Sample("cpu", "up", "peak memory", max(usage.peak for usage in after) / 1e6, "MB"),
    ]


def _memory(system: System, topology: Topology, seconds: float) -> list[Sample]:
    """Resident memory of the larger end half way through a volume and at its end."""
    del seconds
    a, b = topology.a, topology.b
    before = b.received()
    with ThreadPoolExecutor(1) as pool:
        transfer = pool.submit(iperf.volume, a, b, system.address(b), VOLUME, VOLUME_LIMIT)
        wait_for(
            lambda: transfer.done() or b.received() - before > VOLUME / 2,
            VOLUME_LIMIT,
            f"{system.name}: half the volume",
        )
        half = [process.usage().resident for process in system.processes]
        transfer.result()
    end = [process.usage().resident for process in system.processes]
    growth = max(after - earlier for after, earlier in zip(end, half, strict=True))
    return [
        Sample("cpu", "10 GB up", "memory at the end", max(end) / 1e6, "MB"),
        Sample("cpu", "10 GB up", "growth since 5 GB", growth / 1e6, "MB"),
    ]


@dataclass(frozen=True, slots=True)
class Case:
    """Part of a bench. `measure` takes the system, the topology, and the usual length of a measurement in seconds."""

    bench: str
    measure: Callable[[System, Topology, float], list[Sample]]
    runs: int
    """In so many runs, at most."""
    only: str | None = None
    """The one system for which this is done, if not for all of the bench."""


class Alone(Protocol):
    """A bench that needs a topology of its own."""

    def measure(self, system: System, directory: Path, seconds: float, repetition: int) -> list[Sample]:
        """Start the system, measure, stop it."""


STARTED = (
    Case("tcp1", _tcp("tcp1", 1), 3),
    Case("tcp8", _tcp("tcp8", 8), 2),
    Case("small", _small, 3),
    Case("ping", _idle, 3),
    Case("ping", _loaded, 2),
    Case("cpu", _cpu, 2),
    Case("cpu", _memory, 1, only="stripe"),
)
ALONE: dict[str, tuple[Callable[[], Alone], int]] = {
    "lossy": (Lossy, 2),
    "flowcap": (FlowCap, 2),
    "sessions": (Sessions, 2),
    "fairness": (Fairness, 2),
    "clean": (Clean, 3),
    "browsing": (Browsing, 3),
}
"""For each bench what measures it, made anew for a series of runs, and in how many runs at most."""
