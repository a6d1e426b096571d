"""Network namespaces, and two of them joined by a veth pair:

    bench-a  wan0 10.78.0.1/24 ---- 10.78.0.2/24 wan0  bench-b

`a` is the client's side, `b` the server's.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mpqbench.errors import BenchError
from mpqbench.processes import Process, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

DEVICE = "wan0"
ROUND_TRIP = re.compile(r"time=([0-9.]+) ms")
SETTINGS = ("net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")


class Node:
    """One end: a namespace, and what runs in it. `number` is the last octet of its addresses."""

    def __init__(self, role: str, number: int, directory: Path) -> None:
        self.role = role
        self.namespace = f"bench-{role}"
        self.outer = f"10.78.0.{number}"
        self.inner = f"10.201.0.{number}"
        self.directory = directory / role
        self.directory.mkdir(parents=True, exist_ok=True)

    def ip(self, *arguments: str) -> None:
        """Run `ip` for this namespace."""
        run(["ip", "-n", self.namespace, *arguments])

    def run(self, *command: str, timeout: float = 60) -> str:
        """Run a command in this namespace; return its output."""
        return run(["ip", "netns", "exec", self.namespace, *command], timeout=timeout)

    def spawn(self, name: str, *command: str, environment: Mapping[str, str] | None = None) -> Process:
        """Start a program in this namespace; `ip netns exec` becomes it, so its process id is the program's."""
        full = ["ip", "netns", "exec", self.namespace, *command]
        return Process(f"{name} ({self.role})", full, self.directory / f"{name}.log", environment)

    def join(self, gateway: str) -> None:
        """Bring `DEVICE` up, with the outer address and a default route."""
        self.ip("addr", "add", f"{self.outer}/24", "dev", DEVICE)
        self.ip("link", "set", DEVICE, "mtu", "1500", "up")
        self.ip("route", "add", "default", "via", gateway, "dev", DEVICE)

    def has_device(self, device: str) -> bool:
        """Whether a network device of that name exists here."""
        command = ["ip", "-n", self.namespace, "link", "show", "dev", device]
        return subprocess.run(command, check=False, capture_output=True, timeout=10).returncode == 0

    def received(self) -> int:
        """Return the bytes that have arrived from other nodes so far, whatever carried them."""
        (link,) = json.loads(run(["ip", "-n", self.namespace, "-s", "-j", "link", "show", "dev", DEVICE]))
        return int(link["stats64"]["rx"]["bytes"])

    def ping(self, address: str, count: int, interval: float, wait: int = 1) -> list[float]:
        """Ping `address` every `interval` seconds; return the round-trip times of the replies in milliseconds.

        A reply counts when it comes within `wait` seconds after the last request. BenchError when ping itself fails.
        """
        command = f"ping -n -c {count} -i {interval} -W {wait} {address}"
        # Status 1 says that no reply came, which the empty list says, too.
        output = self.run("sh", "-c", f"{command}; [ $? -le 1 ]", timeout=count * interval * 3 + 20)
        return [float(found) for found in ROUND_TRIP.findall(output)]

    def answers(self, address: str) -> bool:
        """Whether `address` answers a ping from here within a second."""
        command = ["ip", "netns", "exec", self.namespace, "ping", "-n", "-c", "1", "-W", "1", address]
        return subprocess.run(command, check=False, capture_output=True, timeout=10).returncode == 0


class Namespaces(ABC):
    """Context manager: makes the nodes' namespaces and removes them, also those that a killed run has left."""

    def __init__(self, nodes: tuple[Node, ...]) -> None:
        self.nodes = nodes

    @abstractmethod
    def connect(self) -> None:
        """Join the nodes, all of which exist."""

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _build(self) -> None:
        self.remove()
        for node in self.nodes:
            run(["ip", "netns", "add", node.namespace])
            node.ip("link", "set", "lo", "up")
            node.run("sysctl", "-qw", *SETTINGS)
        self.connect()

    def remove(self) -> None:
        """Remove what is there."""
        for node in self.nodes:
            if (Path("/run/netns") / node.namespace).exists():
                try:
                    run(["ip", "netns", "del", node.namespace])
                except BenchError as error:
                    print(f"bench: {error}", file=sys.stderr)


class Topology(Namespaces):
    """Two nodes and a veth pair."""

    def __init__(self, directory: Path) -> None:
        self.a = Node("a", 1, directory)
        self.b = Node("b", 2, directory)
        super().__init__((self.a, self.b))

    def connect(self) -> None:
        """Make the pair."""
        self.a.ip("link", "add", DEVICE, "mtu", "1500", "type", "veth", "peer", DEVICE, "netns", self.b.namespace)
        for node, other in ((self.a, self.b), (self.b, self.a)):
            node.join(other.outer)
