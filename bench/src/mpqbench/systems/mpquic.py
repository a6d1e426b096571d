"""This project's daemon, deployed as on a host: an unprivileged user, a TUN device made for it."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from typing import TYPE_CHECKING, Literal

import yaml

from mpqbench.authority import IDENTITY, SERVER_NAME, Authority
from mpqbench.systems.base import MTU, System
from mpqbench.topology import DEVICE

if TYPE_CHECKING:
    from pathlib import Path

    from mpqbench.topology import Node

TUN = "mpq9"
PORT = 45009
USER_ID = GROUP_ID = 65534
DATAGRAM_SIZE = 1452
"""What an interface of MTU 1500 leaves for a UDP payload over IPv6, as the plan derives it."""


class MpquicQuic(System):
    """Packets in QUIC datagram frames, or on a QUIC stream."""

    def __init__(self, mode: Literal["datagram", "reliable"]) -> None:
        super().__init__()
        self.mode = mode
        self.name = f"quic-{mode}"

    extra: dict[str, object] = {}

    def start(self, a: Node, b: Node) -> None:
        """Start the server at `b`, the client at `a`."""
        folder = b.directory.parent / self.name
        authority = Authority(folder)
        tun = folder / "tun"
        if not tun.exists():
            os.mknod(tun, stat.S_IFCHR | 0o600, os.makedev(10, 200))
            tun.chmod(0o666)
        for path in (folder, *folder.iterdir()):
            if path != tun:
                os.chown(path, USER_ID, GROUP_ID)
        for node, peer in ((b, a), (a, b)):
            node.ip("tuntap", "add", "dev", TUN, "mode", "tun", "vnet_hdr", "user", str(USER_ID))
            self.configure(node, TUN, peer)
        client, server = authority.client, authority.server
        shared = {"tun_name": TUN, "tun_mtu": MTU, "transport_mode": self.mode, "max_datagram_size": DATAGRAM_SIZE}
        self._spawn(
            b, folder, tun,
            {
                "name": "server", "role": "server", "bind_ip": b.outer, "bind_port": PORT, **shared,
                "tls": {"ca_file": str(authority.ca), "cert_file": str(server[0]), "key_file": str(server[1])},
                "peers": [{"identity": IDENTITY, "tunnel": TUN, "allowed": [f"{a.inner}/32"]}],
            },
        )  # fmt: skip
        self._spawn(
            a, folder, tun,
            {
                "name": "client", "role": "client", "site": "bench", "tunnel": TUN, "wan": "wan", **shared,
                "inner_addresses": [f"{a.inner}/32"], "bind_ip": f"iface:{DEVICE}", **self.extra,
                "remote_addr": b.outer, "remote_port": PORT,
                "tls": {
                    "ca_file": str(authority.ca), "cert_file": str(client[0]), "key_file": str(client[1]),
                    "server_name": SERVER_NAME,
                },
            },
        )  # fmt: skip
        self.wait_ready(a, b)

    def _spawn(self, node: Node, folder: Path, tun: Path, config: dict[str, object]) -> None:
        file = folder / f"{config['name']}.yml"
        file.write_text(yaml.safe_dump(config))
        drop = [
            "setpriv", f"--reuid={USER_ID}", f"--regid={GROUP_ID}", "--clear-groups", "--bounding-set=-all",
            "--inh-caps=-all", "--no-new-privs", sys.executable, "-m", "mpquic.cli", "--config", str(file),
        ]  # fmt: skip
        # Some machines keep /dev/net/tun for root, against Debian's default; `ip netns exec` has given this process
        # a mount namespace of its own, so that the open device node is seen by the daemon alone.
        script = f"mount --bind {shlex.quote(str(tun))} /dev/net/tun && exec {shlex.join(drop)}"
        environment = {"MPQUIC_RUNTIME_DIR": str(folder), "MPQUIC_LINKD_SOCKET": str(folder / "linkd")}
        self.processes.append(node.spawn(self.name, "sh", "-c", script, environment=environment))


class MpquicStripe(MpquicQuic):
    def __init__(self, name: str, **extra: object) -> None:
        super().__init__("datagram")
        self.name = name
        self.extra = {"transport": "stripe", **extra}
