"""wireguard-go: WireGuard in user space, of Debian 12 and of Debian 13."""

from __future__ import annotations

import base64
from functools import partial
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mpqbench import debian
from mpqbench.processes import run, wait_for
from mpqbench.systems.base import System

if TYPE_CHECKING:
    from pathlib import Path

    from mpqbench.processes import Process
    from mpqbench.topology import Node

PORT = 51820


def _listens(process: Process, device: str) -> bool:
    process.check()
    return device in run(["wg", "show", "interfaces"]).split()


class WireGuardGo(System):
    """The program of one Debian release, unpacked beside the system, so that it is the same one on every machine."""

    def __init__(self, name: str, suite: str) -> None:
        super().__init__()
        self.name = name
        self.suite = suite
        if suite == "trixie":
            self.benches |= {"lossy"}
        self.program = "wireguard-go"

    def install(self, cache: Path) -> None:
        """Fetch and unpack the program; `wg`, which only configures it, is the machine's."""
        debian.install("wireguard-tools")
        self.program = str(debian.unpack("wireguard-go", self.suite, cache) / "usr/bin/wireguard-go")

    def start(self, a: Node, b: Node) -> None:
        """Start both ends; each has a device name of its own, since their control sockets share a folder."""
        keys = {node.role: X25519PrivateKey.generate() for node in (a, b)}
        for node, peer in ((b, a), (a, b)):
            device = f"wgo{node.role}"
            # The program takes the kernel's module for the better choice where there is one, unless told.
            environment = {"WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD": "1", "LOG_LEVEL": "error"}
            self.processes.append(node.spawn(self.name, self.program, "-f", device, environment=environment))
            wait_for(partial(_listens, self.processes[-1], device), 10, f"{self.name}: control socket of {device}")
            configuration = node.directory / "wg.conf"
            configuration.write_text(
                "[Interface]\n"
                f"PrivateKey = {base64.b64encode(keys[node.role].private_bytes_raw()).decode()}\n"
                f"ListenPort = {PORT}\n"
                "[Peer]\n"
                f"PublicKey = {base64.b64encode(keys[peer.role].public_key().public_bytes_raw()).decode()}\n"
                f"AllowedIPs = {peer.inner}/32\n"
                f"Endpoint = {peer.outer}:{PORT}\n"
            )
            node.run("wg", "setconf", device, str(configuration))
            self.configure(node, device, peer)
        self.wait_ready(a, b)
