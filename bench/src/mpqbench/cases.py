"""The cases: each measures one started system and returns samples."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from mpqbench import iperf
from mpqbench.errors import BenchError
from mpqbench.processes import wait_for
from mpqbench.results import Sample, percentile
from mpqbench.search import highest_rate

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpqbench.systems.base import System
    from mpqbench.topology import Node, Topology

SMALL_PAYLOAD = 200
PING_INTERVAL = 0.01
PROBE_SECONDS = 1.0
STARTED = 5_000_000
"""Bytes on the link after which a TCP connection counts as under way."""
MARGIN = 3.0
"""Seconds by which a load outlasts the pings that it is to hinder."""
ROUND_TRIP = re.compile(r"time=([0-9.]+) ms")


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
    rate = highest_rate(lambda rate: iperf.udp(a, b, system.address(b), length, SMALL_PAYLOAD, rate))
    return [Sample("small", "up", "packet rate", rate, "packets/s")]


def round_trips(node: Node, address: str, seconds: float) -> list[float]:
    """Ping `address` from `node` for about `seconds`; return the round-trip times in milliseconds."""
    count = max(10, int(seconds / PING_INTERVAL))
    command = ["ping", "-n", "-c", str(count), "-i", str(PING_INTERVAL), "-W", "1", address]
    times = [float(time) for time in ROUND_TRIP.findall(node.run(*command, timeout=seconds * 3 + 20))]
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
        wait_for(lambda: b.received() - before > STARTED, 10, f"{system.name}: load")
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


CASES: dict[str, Callable[[System, Topology, float], list[Sample]]] = {
    "tcp1": _tcp("tcp1", 1),
    "tcp8": _tcp("tcp8", 8),
    "small": _small,
    "ping": _idle,
    "loaded": _loaded,
    "cpu": _cpu,
}
