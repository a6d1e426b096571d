"""This project's daemon, deployed as on a host: an unprivileged user, a TUN device made for it."""

from __future__ import annotations

import json
import os
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from mpqbench import interpreter
from mpqbench.authority import SERVER_NAME, SITE, Authority, identity
from mpqbench.processes import run, wait_for
from mpqbench.systems.base import MTU, System
from mpqbench.topology import DEVICE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mpqbench.processes import Process
    from mpqbench.topology import Node

Fec = Literal["adaptive", "off", "always"]
Keys = dict[str, Any]

CHECKOUT = Path(__file__).parents[4]
CACHE = CHECKOUT / ".cache" / "bench"
TUN = "mpq9"
PORT = 45009
USER_ID = GROUP_ID = 65534
DATAGRAM_SIZE = 1452
"""What an interface of MTU 1500 leaves for a UDP payload over IPv6, as the plan derives it."""
SHARED: Keys = {"tun_name": TUN, "tun_mtu": MTU, "max_datagram_size": DATAGRAM_SIZE}


def peer(tunnel: str, inner: str, site: str = SITE) -> Keys:
    """Return the server's entry for one tunnel of a site."""
    return {"identity": identity(site), "tunnel": tunnel, "allowed": [f"{inner}/32"]}


def client_name(tunnel: str) -> str:
    """Return the name of the instance that is the client of a tunnel."""
    return f"client-{tunnel}"


class Deployment:
    """Instances of the daemon that share an authority: their files are in `folder`, which the daemon's user owns."""

    def __init__(self, folder: Path, sites: Iterable[str] = (SITE,)) -> None:
        self.folder = folder
        self._python = interpreter.install(CACHE, CHECKOUT)
        self.authority = Authority(folder, sites)
        self._tun = folder / "tun"
        if not self._tun.exists():
            os.mknod(self._tun, stat.S_IFCHR | 0o600, os.makedev(10, 200))
            self._tun.chmod(0o666)
        for path in (folder, *folder.iterdir()):
            if path != self._tun:
                os.chown(path, USER_ID, GROUP_ID)

    def server(self, node: Node, peers: Sequence[Keys], keys: Mapping[str, Any]) -> Process:
        """Start a server at `node`, whose TUN device is configured."""
        certificate, key = self.authority.server
        tls = {"ca_file": str(self.authority.ca), "cert_file": str(certificate), "key_file": str(key)}
        config = {
            "name": "server", "role": "server", "bind_ip": node.outer, "bind_port": PORT, "tls": tls,
            "peers": list(peers), **SHARED, **keys,
        }  # fmt: skip
        return self._spawn(node, config)

    def client_keys(self, server: Node, tunnel: str, inner: str, keys: Mapping[str, Any], *, site: str = SITE) -> Keys:
        """Return the configuration of a client of `server`."""
        certificate, key = self.authority.clients[site]
        tls = {
            "ca_file": str(self.authority.ca), "cert_file": str(certificate), "key_file": str(key),
            "server_name": SERVER_NAME,
        }  # fmt: skip
        return {
            "name": client_name(tunnel), "role": "client", "tunnel": tunnel, "wan": "wan",
            "inner_addresses": [f"{inner}/32"], "bind_ip": f"iface:{DEVICE}", "remote_addr": server.outer,
            "remote_port": PORT, "tls": tls, **SHARED, **keys,
        }  # fmt: skip

    def client(self, node: Node, server: Node, tunnel: str, keys: Mapping[str, Any], *, site: str = SITE) -> Process:
        """Start a client at `node`, whose TUN device is configured."""
        return self._spawn(node, self.client_keys(server, tunnel, node.inner, keys, site=site))

    def counters(self, name: str) -> Keys:
        """Return what the instance `name` counts."""
        found: Keys = json.loads(self._ctl("counters", name))
        return found

    def _ctl(self, *arguments: str) -> str:
        environment = f"MPQUIC_RUNTIME_DIR={self.folder}"
        return run(["env", environment, str(self._python), "-m", "mpquic.ctl", *arguments], timeout=20)

    def uses_pipes(self, tunnel: str) -> bool:
        """Whether packets have come in on the pipes of the client of `tunnel`: until they do, QUIC carries."""
        sessions = [path["stripe"] for path in self.counters(client_name(tunnel))["paths"]]
        return any(session is not None and session["rx_shards"] > 0 for session in sessions)

    @staticmethod
    def add_tun(node: Node) -> None:
        """Make the TUN device that an instance at `node` attaches to, unless an earlier one has left it."""
        if not node.has_device(TUN):
            node.ip("tuntap", "add", "dev", TUN, "mode", "tun", "vnet_hdr", "user", str(USER_ID))

    def _spawn(self, node: Node, config: Keys) -> Process:
        file = self.folder / f"{config['name']}.yml"
        file.write_text(yaml.safe_dump(config))
        drop = [
            "setpriv", f"--reuid={USER_ID}", f"--regid={GROUP_ID}", "--clear-groups", "--bounding-set=-all",
            "--inh-caps=-all", "--no-new-privs", str(self._python), "-m", "mpquic.cli", "--config", str(file),
        ]  # fmt: skip
        # Some machines keep /dev/net/tun for root, against Debian's default; `ip netns exec` has given this process
        # a mount namespace of its own, so that the open device node is seen by the daemon alone.
        script = f"mount --bind {shlex.quote(str(self._tun))} /dev/net/tun && exec {shlex.join(drop)}"
        environment = {"MPQUIC_RUNTIME_DIR": str(self.folder), "MPQUIC_LINKD_SOCKET": str(self.folder / "linkd")}
        return node.spawn(str(config["name"]), "sh", "-c", script, environment=environment)


class Mpquic(System):
    """A client at `a`, a server at `b`; `shared` and `client` are what the instances' files say besides the usual."""

    def __init__(self, name: str, shared: Keys, client: Keys) -> None:
        super().__init__()
        self.name = name
        self.shared = shared
        self.client = client

    def start(self, a: Node, b: Node) -> None:
        """Start the server at `b`, the client at `a`."""
        deployment = Deployment(b.directory.parent / self.name)
        for node, other in ((b, a), (a, b)):
            deployment.add_tun(node)
            self.configure(node, TUN, other)
        self.processes.append(deployment.server(b, [peer(TUN, a.inner)], self.shared))
        self.processes.append(deployment.client(a, b, TUN, {**self.shared, **self.client}))
        self.wait_ready(a, b)
        self.wait_carrying(a, b, deployment, TUN)

    def wait_carrying(self, client: Node, server: Node, deployment: Deployment, tunnel: str) -> None:
        """Wait until the client of `tunnel` carries packets in the way that is to be measured."""


class Quic(Mpquic):
    """Packets in QUIC datagram frames, or on a QUIC stream."""

    def __init__(self, mode: Literal["datagram", "reliable"]) -> None:
        super().__init__(f"quic-{mode}", {"transport_mode": mode}, {})
        self.benches |= {"lossy"} if mode == "reliable" else {"fairness", "clean", "browsing"}


class Stripe(Mpquic):
    """The striped data plane."""

    def __init__(self, fec: Fec = "adaptive", pipes: int = 4) -> None:
        name = "stripe" if fec == "adaptive" else f"stripe-fec-{fec}"
        client = {"transport": "stripe", "pipes": pipes, "stripe_fec": fec}
        if fec == "always":
            client |= {"stripe_data_shards": 10, "stripe_parity_shards": 2}
        super().__init__(name, {}, client)
        if fec == "adaptive":
            self.benches |= {"lossy", "flowcap", "sessions", "fairness", "clean", "browsing"}
        else:
            self.benches = frozenset({"tcp1", "tcp8", "cpu"})

    def wait_carrying(self, client: Node, server: Node, deployment: Deployment, tunnel: str) -> None:
        """Ping until the answers come through the pipes."""
        wait_for(
            lambda: client.answers(server.inner) and deployment.uses_pipes(tunnel),
            10,
            f"{self.name}: pipes of {tunnel}",
        )

    @property
    def pipes(self) -> int:
        """How many sockets carry the packets."""
        return int(self.client["pipes"])

    @pipes.setter
    def pipes(self, count: int) -> None:
        self.client["pipes"] = count
