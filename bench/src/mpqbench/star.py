"""One server and many clients, each in a namespace of its own and with an identity of its own.

bench-c1 .. bench-cN --+
                       +-- bridge wan0 10.78.0.2/24  bench-b
others ----------------+
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpqbench.processes import wait_for
from mpqbench.systems.base import MTU
from mpqbench.systems.mpquic import TUN, Deployment, Keys, Mpquic, peer
from mpqbench.topology import DEVICE, Namespaces, Node

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mpqbench.processes import Process

INNER_NET = 16
"""Prefix length of the inner network."""
START = 20.0
"""Seconds in which all clients must have registered."""


class Star(Namespaces):
    """A bridge in `b`, to which `clients` clients and the other nodes are joined."""

    def __init__(self, directory: Path, clients: int, others: Sequence[Node] = ()) -> None:
        self.b = Node("b", 2, directory)
        self.clients = [Node(f"c{number}", 10 + number, directory) for number in range(1, clients + 1)]
        self._others = tuple(others)
        super().__init__((self.b, *self.clients, *self._others))

    def connect(self) -> None:
        """Make the bridge and a veth pair to each of the others."""
        self.b.ip("link", "add", DEVICE, "type", "bridge")
        self.b.ip("addr", "add", f"{self.b.outer}/24", "dev", DEVICE)
        self.b.ip("link", "set", DEVICE, "up")
        for node in (*self.clients, *self._others):
            node.ip("link", "add", DEVICE, "type", "veth", "peer", node.role, "netns", self.b.namespace)
            self.b.ip("link", "set", node.role, "master", DEVICE, "up")
            node.join(self.b.outer)


def start(system: Mpquic, star: Star, deployment: Deployment, more: Sequence[Keys] = ()) -> Process:
    """Start the server, which knows `more` peers besides the clients, and all clients; return the server.

    A node's role is the name of its tunnel and of its site. Returns when all clients carry packets in the way that is
    to be measured.
    """
    b = star.b
    peers = [peer(node.role, node.inner, node.role) for node in star.clients]
    deployment.add_tun(b)
    b.ip("link", "set", TUN, "mtu", str(MTU), "up")
    b.ip("addr", "add", f"{b.inner}/{INNER_NET}", "dev", TUN)
    server = deployment.server(b, [*peers, *more], system.shared)
    system.processes.append(server)
    for node in star.clients:
        deployment.add_tun(node)
        system.configure(node, TUN, b)
        keys = {**system.shared, **system.client}
        system.processes.append(deployment.client(node, b, node.role, keys, site=node.role))

    def answered() -> bool:
        for process in system.processes:
            process.check()
        return all(node.answers(b.inner) for node in star.clients)

    wait_for(answered, START, f"{system.name}: first ping of each client")
    for node in star.clients:
        system.wait_carrying(node, b, deployment, node.role)
    return server
