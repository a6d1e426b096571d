"""What every system under test offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from mpqbench import iperf
from mpqbench.processes import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from mpqbench.processes import Process
    from mpqbench.topology import Node

MTU = 1400
"""Of every TUN device, so that the systems differ by their work and not by their packet size."""

USUAL = frozenset({"tcp1", "tcp8", "small", "ping", "cpu"})
"""The benches of a tunnel unless it says otherwise."""


class System(ABC):
    """One way to carry packets from node `a` to node `b`, started anew for each run."""

    name: str
    benches = USUAL

    def __init__(self) -> None:
        self.processes: list[Process] = []

    def install(self, cache: Path) -> None:
        """Put everything in place that the machine lacks; `cache` is for what can't be a package."""
        del cache

    @abstractmethod
    def start(self, a: Node, b: Node) -> None:
        """Start both ends; return once packets pass between the inner addresses."""

    def stop(self) -> None:
        """End both ends and remove what they leave behind."""
        while self.processes:
            self.processes.pop().stop()

    def address(self, node: Node) -> str:
        """Return the address under which the other node reaches `node` through this system."""
        return node.inner

    def transfer(self, source: Node, target: Node, seconds: float, streams: int) -> iperf.Transfer:
        """Carry bulk data for `seconds` over TCP (CUBIC, whatever the machine's default is)."""
        return iperf.tcp(source, target, self.address(target), seconds, streams)

    def wait_ready(self, a: Node, b: Node, seconds: float = 20) -> None:
        """Wait until a ping passes; BenchError when it doesn't, or when a process has ended."""

        def answered() -> bool:
            for process in self.processes:
                process.check()
            return a.answers(self.address(b))

        wait_for(answered, seconds, f"{self.name}: first ping")

    @staticmethod
    def configure(node: Node, device: str, peer: Node) -> None:
        """Wait for a TUN device that a system makes, then give it the inner address, the MTU and a route."""
        wait_for(lambda: node.has_device(device), 10, f"device {device}")
        node.ip("link", "set", device, "mtu", str(MTU), "up")
        node.ip("addr", "replace", f"{node.inner}/32", "peer", f"{peer.inner}/32", "dev", device)
