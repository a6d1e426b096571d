"""One server with many registered clients, of which a few are busy; the idle ones share the namespace bench-swarm."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import TYPE_CHECKING

from mpqbench import iperf
from mpqbench.errors import BenchError
from mpqbench.processes import wait_for
from mpqbench.results import Sample
from mpqbench.star import Star, start
from mpqbench.swarm import READY
from mpqbench.systems.mpquic import Deployment, Mpquic, peer
from mpqbench.topology import Node

if TYPE_CHECKING:
    from pathlib import Path

    from mpqbench.processes import Process
    from mpqbench.systems.base import System

ACTIVE = 10
IDLE = 990
REPETITIONS = 5
"""Measurements with the idle clients; as many come without them."""
OMIT = 4.0
"""Seconds that don't count: connections that begin together first drive each other down."""
NICENESS = 10
"""Of the senders. Until the other end has told iperf3 to begin, it asks over and over whether it may write, and ten of
those take the processors from the daemons that have to carry that word."""
WINDOW = 2.0
STILL_FALLING = 0.9
IDLE_WAIT = 60.0
"""After the last registration most of the idle clients still search their path's MTU, and probe all of their pipes. The
measurement begins when the processor time that they take in `WINDOW` seconds isn't below `STILL_FALLING` of the time in
those before, `IDLE_WAIT` seconds later at most."""
SWARM_START = 180.0
SWARM_STOP = 30.0
"""Seconds in which the idle clients must have registered, and must have gone again."""


def idle_address(index: int) -> str:
    """Return the inner address of an idle client, by its number from 0: behind those of the active ones."""
    return f"10.201.{1 + index // 250}.{1 + index % 250}"


class Sessions:
    """Measures what the active clients carry together: while the idle ones are registered, and after they have gone.

    Each is measured several times and its median counts: one measurement differs by a third from the next. On a server
    of its own nobody would feel what the idle clients' own process takes; here it shares the processors. So when they
    have gone, a stand-in takes as much.
    """

    def measure(self, system: System, directory: Path, seconds: float, repetition: int) -> list[Sample]:
        """Return the rate in both states, their ratio, and what idle clients take at both ends."""
        del repetition
        if not isinstance(system, Mpquic):
            raise BenchError(f"{system.name} has no server of this project")
        node = Node("swarm", 100, directory)
        with Star(directory, ACTIVE, [node]) as star:
            try:
                sites = [_idle_name(index) for index in range(IDLE)]
                deployment = Deployment(directory / system.name, [*(each.role for each in star.clients), *sites])
                idle = [peer(site, idle_address(index), site) for index, site in enumerate(sites)]
                server = start(system, star, deployment, idle)
                swarm = _start_swarm(system, node, star.b, deployment)
                _wait_until_idle(swarm)
                resting = median(_window(server) for _ in range(REPETITIONS)) / WINDOW
                earlier, since = swarm.usage().cpu, time.monotonic()
                many = median(_rate_of_all(star, deployment, seconds) for _ in range(REPETITIONS))
                spent = (swarm.usage().cpu - earlier) / (time.monotonic() - since)
                _stop_swarm(system, deployment)
                command = [sys.executable, "-m", "mpqbench.standin", f"{min(spent, 1.0):.3f}"]
                system.processes.append(node.spawn("standin", *command))
                few = median(_rate(star, seconds) for _ in range(REPETITIONS))
            finally:
                system.stop()
        return [
            Sample("sessions", f"{ACTIVE} registered", "goodput", few, "Mbit/s"),
            Sample("sessions", f"{ACTIVE + IDLE:,} registered", "goodput", many, "Mbit/s"),
            Sample("sessions", f"{ACTIVE + IDLE:,} registered", "ratio", many / few, "share"),
            Sample("sessions", "idle clients", "CPU", spent, "cores"),
            Sample("sessions", "server of idle clients", "CPU", resting, "cores"),
        ]


def _idle_name(index: int) -> str:
    return f"idle{index}"


def _start_swarm(system: Mpquic, node: Node, server: Node, deployment: Deployment) -> Process:
    keys = {**system.shared, **system.client, "bind_ip": node.outer}
    instances = [
        deployment.client_keys(server, _idle_name(index), idle_address(index), keys, site=_idle_name(index))
        for index in range(IDLE)
    ]
    specification = deployment.folder / "swarm.json"
    specification.write_text(json.dumps(instances))
    swarm = node.spawn("swarm", sys.executable, "-m", "mpqbench.swarm", str(specification))
    system.processes.append(swarm)

    def ready() -> bool:
        for process in system.processes:
            process.check()
        return f"{READY} {IDLE}" in swarm.log.read_text()

    wait_for(ready, SWARM_START, f"{system.name}: registration of {IDLE} idle clients")
    return swarm


def _wait_until_idle(swarm: Process) -> None:
    """Wait until the idle clients are at rest."""
    deadline = time.monotonic() + IDLE_WAIT
    before = _window(swarm)
    while (latest := _window(swarm)) < STILL_FALLING * before:
        if time.monotonic() > deadline:
            raise BenchError(f"{IDLE} idle clients are not at rest after {IDLE_WAIT:.0f} s")
        before = latest


def _window(process: Process) -> float:
    """Return the processor time in seconds that a process takes in the next `WINDOW` seconds."""
    start = process.usage().cpu
    time.sleep(WINDOW)
    return process.usage().cpu - start


def _stop_swarm(system: Mpquic, deployment: Deployment) -> None:
    """End what was started last, and wait until the server knows."""
    system.processes.pop().stop()
    wait_for(lambda: _registered(deployment) == ACTIVE, SWARM_STOP, f"{system.name}: farewell of {IDLE} idle clients")


def _registered(deployment: Deployment) -> int:
    return int(deployment.counters("server")["tables"]["registered"])


def _rate_of_all(star: Star, deployment: Deployment, length: float) -> float:
    """Return the rate of the active clients; BenchError when the idle ones aren't all registered after it."""
    rate = _rate(star, length)
    registered = _registered(deployment)
    if registered != ACTIVE + IDLE:
        raise BenchError(f"{registered} clients are left of {ACTIVE + IDLE}")
    return rate


def _rate(star: Star, length: float) -> float:
    """Return what all active clients send together, Mbit/s; each has a port of its own at the server."""

    def send(index: int) -> float:
        port = iperf.PORT + index
        return iperf.tcp(
            star.clients[index], star.b, star.b.inner, length, 1, omit=OMIT, port=port, niceness=NICENESS
        ).rate

    with ThreadPoolExecutor(ACTIVE) as pool:
        return sum(pool.map(send, range(ACTIVE)))
