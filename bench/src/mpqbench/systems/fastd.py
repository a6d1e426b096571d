"""fastd, with its default cipher choice for machines with SSE2 (salsa2012+umac)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpqbench import debian
from mpqbench.processes import run
from mpqbench.systems.base import MTU, System

if TYPE_CHECKING:
    from pathlib import Path

    from mpqbench.topology import Node

DEVICE = "tunfastd"
PORT = 10000


class Fastd(System):
    """Point to point in TUN mode."""

    name = "fastd"

    def install(self, cache: Path) -> None:
        """Install the package."""
        del cache
        debian.install("fastd")

    def start(self, a: Node, b: Node) -> None:
        """Start both ends."""
        secrets = {node.role: run(["fastd", "--machine-readable", "--generate-key"]).split()[0] for node in (a, b)}
        publics = {
            role: run(["fastd", "--machine-readable", "--show-key", "--config", "-"], text=f'secret "{secret}";\n')
            for role, secret in secrets.items()
        }
        for node, peer in ((b, a), (a, b)):
            configuration = node.directory / "fastd.conf"
            configuration.write_text(
                f'log level warn;\nmode tun;\ninterface "{DEVICE}";\nmtu {MTU};\n'
                f'method "salsa2012+umac";\nbind {node.outer}:{PORT};\nsecret "{secrets[node.role]}";\n'
                f'peer "{peer.role}" {{ key "{publics[peer.role].strip()}"; remote {peer.outer}:{PORT}; }}\n'
            )
            self.processes.append(node.spawn(self.name, "fastd", "--config", str(configuration)))
            self.configure(node, DEVICE, peer)
        self.wait_ready(a, b)
