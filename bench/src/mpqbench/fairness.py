"""Busy clients on one server whose process may use a part of a core only: who gets how much of it."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpqbench import iperf
from mpqbench.cpulimit import CpuLimit
from mpqbench.errors import BenchError
from mpqbench.results import Sample
from mpqbench.star import Star, start
from mpqbench.systems.mpquic import TUN, Deployment, Keys, Mpquic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mpqbench.processes import Process
    from mpqbench.systems.base import System
    from mpqbench.topology import Node

CLIENTS = 10
CORES = 0.3
PAYLOAD = 200
RATE = 20_000
"""Payload and packets a second of a client that doesn't carry TCP: several times what its share lets through."""
OMIT = 4.0
"""Seconds that don't count: connections that begin together first drive each other down."""
FOREIGN = "10.201.250.1"
"""An inner address that the server allows no client."""
SINK = "10.201.240.1"
"""An inner address that nobody has: what the server passes on to it is dropped without a reply."""
DISCARD = 9
"""RFC 863."""
PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Load:
    """What the clients do: the last ones send small packets, or what the server refuses, and all others TCP."""

    case: str
    small: bool = False
    refused: bool = False
    down: bool = False

    @property
    def tcp(self) -> int:
        """How many clients carry TCP."""
        return CLIENTS - self.small - self.refused


ALL = Load("10 TCP, up")
LOADS = (
    ALL,
    Load("10 TCP, down", down=True),
    Load("9 TCP, small", small=True),
    Load("9 TCP, refused", refused=True),
    Load("8 TCP, small, refused", small=True, refused=True),
)


def jain(values: Sequence[float]) -> float:
    """Return Jain's index of fairness: 1 when all values are equal, 1/n when all but one are 0.

    R. Jain, D. Chiu, W. Hawe, DEC-TR-301 (1984): (sum x)^2 / (n sum x^2).

    Raises:
        BenchError: nobody got anything.
    """
    squares = sum(value * value for value in values)
    if not squares:
        raise BenchError("no client carried anything")
    return sum(values) ** 2 / (len(values) * squares)


def taken(goodput: float, of_all: float) -> float:
    """Return the share of the server's processor time that those took who don't carry TCP.

    The server has the same processor time in both cases, and a byte of TCP costs the same: what is missing in
    `goodput`, of `of_all` when all carry TCP, is what the others took. Below 0 when nothing is missing.
    """
    return 1 - goodput / of_all


class Fairness:
    """Measures each load on the same server, one after the other."""

    def measure(self, system: System, directory: Path, seconds: float, repetition: int) -> list[Sample]:
        """Return index and goodput for each load, and what the clients without TCP got."""
        del repetition
        if not isinstance(system, Mpquic):
            raise BenchError(f"{system.name} has no server of this project")
        samples: list[Sample] = []
        with Star(directory, CLIENTS) as star, CpuLimit(CORES) as limit:
            try:
                deployment = Deployment(directory / system.name, [node.role for node in star.clients])
                server = start(system, star, deployment)
                star.clients[-1].ip("addr", "add", f"{FOREIGN}/32", "dev", TUN)
                for node in star.clients:
                    node.ip("route", "add", f"{SINK}/32", "dev", TUN)
                limit.add(server)
                of_all = 0.0
                for load in LOADS:
                    rates, extra = _measure(star, server, deployment, load, seconds)
                    of_all = of_all or sum(rates)
                    samples += [
                        Sample("fairness", load.case, "Jain index", jain(rates), "share"),
                        Sample("fairness", load.case, "lowest goodput", min(rates), "Mbit/s"),
                        Sample("fairness", load.case, "goodput of all", sum(rates), "Mbit/s"),
                    ]
                    if load.tcp < CLIENTS:
                        share = taken(sum(rates), of_all)
                        samples.append(Sample("fairness", load.case, "CPU share of the others", share, "share"))
                    samples += extra
            finally:
                system.stop()
        return samples


def _measure(
    star: Star, server: Process, deployment: Deployment, load: Load, seconds: float
) -> tuple[list[float], list[Sample]]:
    """Return the goodput of each client with TCP, and what was seen of the server and of the other clients."""
    b = star.b
    clients, others = star.clients[: load.tcp], star.clients[load.tcp :]
    # The last one has the foreign address.
    sources = [node.inner for node in others]
    if load.refused:
        sources[-1] = FOREIGN
    length = OMIT + seconds
    at_first = _refused(deployment.counters("server")["tunnel"])
    with ThreadPoolExecutor(CLIENTS) as pool:
        floods = [pool.submit(_flood, *each, length) for each in zip(others, sources, strict=True)]
        transfers = [pool.submit(_transfer, node, b, load, index, seconds) for index, node in enumerate(clients)]
        time.sleep(OMIT)
        before, used, since = deployment.counters("server")["tunnel"], server.usage().cpu, time.monotonic()
        time.sleep(seconds)
        elapsed = time.monotonic() - since
        used = server.usage().cpu - used
        after = deployment.counters("server")["tunnel"]
        rates = [transfer.result() for transfer in transfers]
        for flood in floods:
            flood.result()
    samples = [Sample("fairness", load.case, "server CPU", used / elapsed, "cores")]
    if load.refused:
        # In the window it may be none: that is what the server makes of it. In all it can't be.
        if _refused(deployment.counters("server")["tunnel"]) == at_first:
            raise BenchError("the server has refused nothing")
        refused = (_refused(after) - _refused(before)) / elapsed
        samples.append(Sample("fairness", load.case, "refused", refused, "packets/s"))
    return rates, samples


def _refused(counters: Keys) -> int:
    return int(counters["refused"].get("source", 0))


def _transfer(client: Node, server: Node, load: Load, index: int, seconds: float) -> float:
    source, target = (server, client) if load.down else (client, server)
    return iperf.tcp(source, target, target.inner, seconds, 1, omit=OMIT, port=iperf.PORT + index).rate


def _flood(node: Node, source: str, seconds: float) -> None:
    options = [SINK, str(DISCARD), str(PAYLOAD), str(RATE), str(seconds), "1", source]
    command = [sys.executable, "-m", "mpqbench.udpgso", "send", *options]
    if not json.loads(node.run(*command, timeout=seconds + PATIENCE))["packets"]:
        raise BenchError(f"{node.role} has sent nothing")
