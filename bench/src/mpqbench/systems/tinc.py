"""tinc 1.0 with its default cipher and digest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from mpqbench import debian
from mpqbench.systems.base import System

if TYPE_CHECKING:
    from pathlib import Path

    from mpqbench.topology import Node

DEVICE = "tuntinc"


class Tinc(System):
    """Two nodes in router mode."""

    name = "tinc"

    def install(self, cache: Path) -> None:
        """Install the package."""
        del cache
        debian.install("tinc")

    def start(self, a: Node, b: Node) -> None:
        """Start both ends; `a` connects to `b`."""
        keys = {node.role: rsa.generate_private_key(65537, 2048) for node in (a, b)}
        for node, peer in ((b, a), (a, b)):
            folder = node.directory / "tinc"
            (folder / "hosts").mkdir(parents=True, exist_ok=True)
            lines = [f"Name = {node.role}", f"Interface = {DEVICE}", "DeviceType = tun", "Mode = router"]
            if node is a:
                lines.append(f"ConnectTo = {peer.role}")
            (folder / "tinc.conf").write_text("\n".join(lines) + "\n")
            private = folder / "rsa_key.priv"
            private.write_bytes(
                keys[node.role].private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.TraditionalOpenSSL,
                    serialization.NoEncryption(),
                )
            )
            private.chmod(0o600)
            for host in (a, b):
                public = keys[host.role].public_key()
                pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1).decode()
                text = f"Address = {host.outer}\nSubnet = {host.inner}/32\n{pem}"
                (folder / "hosts" / host.role).write_text(text)
            # tincd locks itself into memory and detaches unless told otherwise.
            command = ["tincd", "-c", str(folder), "-D", f"--pidfile={folder / 'pid'}"]
            self.processes.append(node.spawn(self.name, *command))
            self.configure(node, DEVICE, peer)
        self.wait_ready(a, b)
