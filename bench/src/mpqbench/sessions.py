"""One server with many registered clients, of which a few are busy.

bench-c1 .. bench-c10 --+
                        +-- bridge wan0 10.78.0.2/24  bench-b
bench-swarm ------------+
"""

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
from mpqbench.swarm import READY
from mpqbench.systems.base import MTU
from mpqbench.systems.mpquic import TUN, Deployment, Mpquic, peer
from mpqbench.topology import DEVICE, Namespaces, Node

if TYPE_CHECKING:
    from pathlib import Path

    from mpqbench.processes import Process
    from mpqbench.systems.base import System

ACTIVE = 10
IDLE = 990
TURNS = 5
"""Measurements with the idle clients; as many come without them."""
OMIT = 4.0
"""Seconds that don't count: connections that begin together first drive each other down."""
WINDOW = 2.0
STILL_FALLING = 0.9
SETTLE = 60.0
"""After the last registration most of the idle clients still look for what their path carries, and ask on all of their
pipes. It is waited, `SETTLE` seconds at most, until the processor time that they take in `WINDOW` seconds isn't below
`STILL_FALLING` of the time in those before."""
INNER_NET = 16
"""Prefix length of the inner network."""
START = 20.0
SWARM_START = 180.0
SWARM_STOP = 30.0
"""Seconds in which the active clients, and the idle ones, must have registered, and these must have gone again."""


class Star(Namespaces):
    """A bridge in `b`, to which every client and the namespace of the idle ones are joined."""

    def __init__(self, directory: Path) -> None:
        self.b = Node("b", 2, directory)
        self.clients = [Node(f"c{number}", 10 + number, directory) for number in range(1, ACTIVE + 1)]
        self.swarm = Node("swarm", 100, directory)
        super().__init__((self.b, *self.clients, self.swarm))

    def connect(self) -> None:
        """Make the bridge and a veth pair to each of the others."""
        self.b.ip("link", "add", DEVICE, "type", "bridge")
        self.b.ip("addr", "add", f"{self.b.outer}/24", "dev", DEVICE)
        self.b.ip("link", "set", DEVICE, "up")
        for node in (*self.clients, self.swarm):
            node.ip("link", "add", DEVICE, "type", "veth", "peer", node.role, "netns", self.b.namespace)
            self.b.ip("link", "set", node.role, "master", DEVICE, "up")
            node.join(self.b.outer)


def idle_address(index: int) -> str:
    """Return the inner address of an idle client, by its number from 0: behind those of the active ones."""
    return f"10.201.{1 + index // 250}.{1 + index % 250}"


class Sessions:
    """Measures what the active clients carry together: while the idle ones are registered, and after they have gone.

    Each is measured several times and its median counts: one measurement differs by a third from the next. On a server
    of its own nobody would feel what the idle clients' own process takes; here it shares the processors. So when they
    have gone, a stand-in takes as much.
    """

    def measure(self, system: System, directory: Path, seconds: float, turn: int) -> list[Sample]:
        """Return the rate in both states, and their ratio."""
        del turn
        if not isinstance(system, Mpquic):
            raise BenchError(f"{system.name} has no server of this project")
        with Star(directory) as star:
            try:
                deployment = Deployment(directory / system.name)
                _start(system, star, deployment)
                swarm = _start_swarm(system, star, deployment)
                _settle(swarm)
                earlier, since = swarm.usage().cpu, time.monotonic()
                many = median(_rate_of_all(star, deployment, seconds) for _ in range(TURNS))
                spent = (swarm.usage().cpu - earlier) / (time.monotonic() - since)
                _stop_swarm(system, deployment)
                command = [sys.executable, "-m", "mpqbench.standin", f"{min(spent, 1.0):.3f}"]
                system.processes.append(star.swarm.spawn("standin", *command))
                few = median(_rate(star, seconds) for _ in range(TURNS))
            finally:
                system.stop()
        return [
            Sample("sessions", f"{ACTIVE} registered", "goodput", few, "Mbit/s"),
            Sample("sessions", f"{ACTIVE + IDLE:,} registered", "goodput", many, "Mbit/s"),
            Sample("sessions", f"{ACTIVE + IDLE:,} registered", "ratio", many / few, "share"),
            Sample("sessions", "idle clients", "CPU", spent, "cores"),
        ]


def _start(system: Mpquic, star: Star, deployment: Deployment) -> None:
    b = star.b
    peers = [peer(node.role, node.inner) for node in star.clients]
    peers += [peer(f"idle{index}", idle_address(index)) for index in range(IDLE)]
    deployment.add_tun(b)
    b.ip("link", "set", TUN, "mtu", str(MTU), "up")
    b.ip("addr", "add", f"{b.inner}/{INNER_NET}", "dev", TUN)
    system.processes.append(deployment.server(b, peers, system.shared))
    for node in star.clients:
        deployment.add_tun(node)
        system.configure(node, TUN, b)
        system.processes.append(deployment.client(node, b, node.role, {**system.shared, **system.client}))

    def answered() -> bool:
        for process in system.processes:
            process.check()
        return all(node.answers(b.inner) for node in star.clients)

    wait_for(answered, START, f"{system.name}: first ping of each client")
    for node in star.clients:
        system.wait_carrying(node, b, deployment, node.role)


def _start_swarm(system: Mpquic, star: Star, deployment: Deployment) -> Process:
    keys = {**system.shared, **system.client, "bind_ip": star.swarm.outer}
    instances = [deployment.client_keys(star.b, f"idle{index}", idle_address(index), keys) for index in range(IDLE)]
    specification = deployment.folder / "swarm.json"
    specification.write_text(json.dumps(instances))
    swarm = star.swarm.spawn("swarm", sys.executable, "-m", "mpqbench.swarm", str(specification))
    system.processes.append(swarm)

    def ready() -> bool:
        for process in system.processes:
            process.check()
        return f"{READY} {IDLE}" in swarm.log.read_text()

    wait_for(ready, SWARM_START, f"{system.name}: registration of {IDLE} idle clients")
    return swarm


def _settle(swarm: Process) -> None:
    """Wait until the idle clients are at rest."""
    deadline = time.monotonic() + SETTLE
    before = _window(swarm)
    while (latest := _window(swarm)) < STILL_FALLING * before:
        if time.monotonic() > deadline:
            raise BenchError(f"{IDLE} idle clients are not at rest after {SETTLE:.0f} s")
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
        return iperf.tcp(star.clients[index], star.b, star.b.inner, length, 1, omit=OMIT, port=port).rate

    with ThreadPoolExecutor(ACTIVE) as pool:
        return sum(pool.map(send, range(ACTIVE)))
