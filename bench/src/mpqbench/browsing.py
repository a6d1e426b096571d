"""Many users who browse over a link that they saturate: how long pages take, and what a ping beside them sees."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import TYPE_CHECKING

from mpqbench import pages
from mpqbench.clean import order
from mpqbench.emulated import EmulatedTopology
from mpqbench.errors import BenchError
from mpqbench.processes import wait_for
from mpqbench.results import Sample, percentile

if TYPE_CHECKING:
    from pathlib import Path

    from mpqbench.processes import Process
    from mpqbench.systems.base import System
    from mpqbench.topology import Topology

DOWN, UP, ROUND_TRIP = 60.0, 10.0, 34.0
"""Mbit/s and milliseconds."""
LINK = {"down.rate_mbit": DOWN, "up.rate_mbit": UP, "delay_ms": ROUND_TRIP / 2}
USERS = 30
LONGER = 15.0
"""How much longer than in other cases is measured: a page takes seconds."""
PING_INTERVAL = 0.2
PING_WAIT = 2
"""Seconds after the last ping in which replies count."""
IDLE_PINGS = 25
OMIT = 5.0
"""Seconds until all users have begun, in which nobody pings."""
PORT = 8080
START = 10.0
PATIENCE = 30.0
CASE = f"{USERS} users"


class Browsing:
    """Measures pages through the tunnel and beside it, in alternation on the same link."""

    def measure(self, system: System, directory: Path, seconds: float, repetition: int) -> list[Sample]:
        """Return the median time of a page both ways and their ratio, and what became of the pings in the tunnel."""
        length = seconds * LONGER
        with EmulatedTopology(directory, LINK) as topology:
            try:
                system.start(topology.a, topology.b)
                command = [sys.executable, "-m", "mpqbench.pages", "serve", str(PORT)]
                server = topology.b.spawn("pages", *command)
                system.processes.append(server)
                wait_for(lambda: _is_ready(server), START, "server of pages")
                ways = {"tunnel": system.address(topology.b), "plain": topology.b.outer}
                idle = topology.a.ping(ways["tunnel"], IDLE_PINGS, PING_INTERVAL, PING_WAIT)
                found = {way: _browse(topology, ways[way], length, repetition) for way in order(repetition)}
            finally:
                system.stop()
        page = {way: median(times) for way, (times, _) in found.items()}
        pings = found["tunnel"][1]
        sent = _pings(length)
        above = percentile(pings, 0.95) - percentile(idle, 0.5)
        beside = percentile(found["plain"][1], 0.95) - ROUND_TRIP
        return [
            Sample("browsing", CASE, "page", page["tunnel"], "s"),
            Sample("browsing", CASE, "page, plain TCP", page["plain"], "s"),
            Sample("browsing", CASE, "page ratio", page["tunnel"] / page["plain"], "x"),
            Sample("browsing", CASE, "pings lost", sent - len(pings), f"of {sent}"),
            Sample("browsing", CASE, "ping p95 above idle", above, "ms"),
            Sample("browsing", CASE, "ping p95 above idle, plain", beside, "ms"),
        ]


def _pings(length: float) -> int:
    return int((length - OMIT) / PING_INTERVAL)


def _browse(topology: Topology, address: str, length: float, seed: int) -> tuple[list[float], list[float]]:
    """Return how long pages took, in seconds, and the round-trip times of pings meanwhile, in milliseconds."""
    options = [address, str(PORT), str(USERS), str(length), str(seed)]
    command = [sys.executable, "-m", "mpqbench.pages", "browse", *options]
    with ThreadPoolExecutor(1) as pool:
        users = pool.submit(topology.a.run, *command, timeout=length + PATIENCE)
        time.sleep(OMIT)
        pings = topology.a.ping(address, _pings(length), PING_INTERVAL, PING_WAIT)
        times = [float(seconds) for seconds in json.loads(users.result())]
    if not times:
        raise BenchError("no page was loaded")
    return times, pings


def _is_ready(server: Process) -> bool:
    server.check()
    return pages.READY in server.log.read_text()
