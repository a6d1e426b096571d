"""OpenVPN 2.6: TUN, UDP, AES-128-GCM, certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpqbench import debian
from mpqbench.authority import SITE, Authority
from mpqbench.systems.base import MTU, System

if TYPE_CHECKING:
    from pathlib import Path

    from mpqbench.topology import Node

DEVICE = "tunovpn"
CIPHER = "AES-128-GCM"


class OpenVpn(System):
    """Point to point, in user space as Debian ships it, buffers left at their defaults."""

    name = "openvpn"
    benches = System.benches | {"lossy"}

    def install(self, cache: Path) -> None:
        """Install the package."""
        del cache
        debian.install("openvpn")

    def start(self, a: Node, b: Node) -> None:
        """Start the server at `b`, the client at `a`."""
        authority = Authority(b.directory.parent / "openvpn-pki")
        ends = (
            (b, a, authority.server, ["--tls-server", "--dh", "none"]),
            (a, b, authority.clients[SITE], ["--tls-client", "--remote-cert-tls", "server"]),
        )
        for node, peer, (certificate, key), role in ends:
            command = [
                "openvpn", *role, "--dev", DEVICE, "--dev-type", "tun", "--proto", "udp",
                "--local", node.outer, "--remote", peer.outer, "--port", "1194",
                "--ifconfig", node.inner, peer.inner, "--tun-mtu", str(MTU),
                "--data-ciphers", CIPHER, "--cipher", CIPHER, "--disable-dco",
                "--ca", str(authority.ca), "--cert", str(certificate), "--key", str(key), "--verb", "2",
            ]  # fmt: skip
            self.processes.append(node.spawn(self.name, *command))
        self.wait_ready(a, b)
