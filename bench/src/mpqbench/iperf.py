"""iperf3 between two nodes: TCP transfers, and UDP flows of a given rate."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpqbench.errors import BenchError
from mpqbench.processes import wait_for

if TYPE_CHECKING:
    from mpqbench.processes import Process
    from mpqbench.topology import Node

PORT = 5201
BUFFER = 4 << 20
"""Bytes of each socket buffer of a UDP flow."""
PATIENCE = 30.0
"""Seconds beyond its length after which a measurement is given up."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Bytes that arrived, and the seconds that it took."""

    size: int
    seconds: float

    @property
    def rate(self) -> float:
        """Goodput in Mbit/s."""
        return self.size * 8 / self.seconds / 1e6


@dataclass(frozen=True, slots=True)
class Flow:
    """A UDP flow: packets sent and lost, and the seconds that it lasted."""

    sent: int
    lost: int
    seconds: float

    @property
    def loss(self) -> float:
        """Share of the packets that were lost."""
        return self.lost / self.sent if self.sent else 1.0

    @property
    def sent_rate(self) -> float:
        """Packets sent in a second."""
        return self.sent / self.seconds

    @property
    def received_rate(self) -> float:
        """Packets received in a second."""
        return (self.sent - self.lost) / self.seconds


def serve(node: Node, port: int = PORT) -> Process:
    """Start an iperf3 server at `node` and wait until it listens; the caller stops it."""
    process = node.spawn("iperf3", "iperf3", "-s", "-p", str(port))

    def listens() -> bool:
        process.check()
        return f":{port}" in node.run("ss", "-Hltn", f"sport = :{port}")

    try:
        wait_for(listens, 5, "iperf3 server")
    except BenchError:
        process.stop()
        raise
    return process


def tcp(
    source: Node,
    target: Node,
    address: str,
    seconds: float,
    streams: int,
    *,
    omit: float = 0,
    port: int = PORT,
    niceness: int = 0,
) -> Transfer:
    """Send from `source` to `address` at `target` over `streams` TCP connections; return what was received.

    The first `omit` seconds come before the `seconds` that count. The sender gives way to others by its `niceness`.
    """
    options = ["-t", f"{seconds:.0f}", "-C", "cubic", "-P", str(streams)]
    if omit:
        options += ["-O", f"{omit:.0f}"]
    end = _client(source, target, address, port, options, seconds + omit, niceness)["sum_received"]
    return Transfer(int(end["bytes"]), float(end["seconds"]))


def volume(source: Node, target: Node, address: str, size: int, limit: float) -> Transfer:
    """Send `size` bytes over one TCP connection; BenchError when that takes more than `limit` seconds."""
    end = _client(source, target, address, PORT, ["-n", str(size), "-C", "cubic"], limit)["sum_received"]
    return Transfer(int(end["bytes"]), float(end["seconds"]))


def udp(source: Node, target: Node, address: str, seconds: float, payload: int, rate: float) -> Flow:
    """Send UDP packets of `payload` bytes, `rate` of them a second."""
    bits = str(int(rate * payload * 8))
    options = ["-t", f"{seconds:.0f}", "-u", "-l", str(payload), "-b", bits, "-w", str(BUFFER)]
    end = _client(source, target, address, PORT, options, seconds)["sum"]
    return Flow(int(end["packets"]), int(end["lost_packets"]), float(end["seconds"]))


def _client(
    source: Node, target: Node, address: str, port: int, options: list[str], seconds: float, niceness: int = 0
) -> Any:
    server = serve(target, port)
    try:
        command = ["nice", f"-n{niceness}", "iperf3", "-J", "-c", address, "-p", str(port), *options]
        answer = json.loads(source.run(*command, timeout=seconds + PATIENCE))
    finally:
        server.stop()
    if "error" in answer:
        raise BenchError(f"iperf3: {answer['error']}")
    return answer["end"]
