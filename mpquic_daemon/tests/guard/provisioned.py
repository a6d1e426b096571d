"""The guard's process in a network namespace, with devices, rules, routes and a packet filter to look after."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLONE_NEWNET = 0x40000000
RULES = """table inet mpquic {{}}
delete table inet mpquic
table inet mpquic {{
	comment "revision {revision}"
	chain input {{
		type filter hook input priority filter; policy drop;
		iif "lo" accept
	}}
	chain forward {{
		type filter hook forward priority filter; policy drop;
		iifname . oifname {{ "lan5" . "mpq5" }} accept
		ct state established,related counter accept
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		oifname "mpq5" masquerade
	}}
}}
"""
LAN = {"device": "lan5", "carrier": False}
WANTED: dict[str, Any] = {
    "rules": [
        {"family": family, "priority": 2005, "table": 205, "incoming": "lan5", **LAN} for family in (4, 6)
    ],
    "routes": [
        {"family": 4, "destination": "0.0.0.0/0", "table": 205, "metric": 100, "device": "mpq5"},
        {"family": 6, "destination": "::/0", "table": 205, "metric": 100, "device": "mpq5"},
        {"family": 4, "destination": "0.0.0.0/0", "table": 205, "metric": 1000000, "type": "unreachable", **LAN},
        {"family": 6, "destination": "::/0", "table": 205, "metric": 1000000, "type": "unreachable", **LAN},
        {"family": 4, "destination": "10.200.5.2/32", "table": 254, "device": "mpq5"},
        {"family": 6, "destination": "fd00:200:5::2/128", "table": 254, "device": "mpq5"},
    ],
    "addresses": [
        {"address": "172.16.5.1/30", **LAN},
        {"address": "10.200.5.1/32", "device": "mpq5", "detect_duplicates": False},
        {"address": "fd00:200:5::1/128", "device": "mpq5", "detect_duplicates": False},
    ],
    "tuns": [{"name": "mpq5", "mtu": 1400}],
    "parameters": {"net/ipv4/conf/all/rp_filter": 0, "net/ipv4/conf/mpq5/rp_filter": 0},
    "forwarding": {"net/ipv4/ip_forward": 1, "net/ipv6/conf/all/forwarding": 1},
    "masqueraded": [{"device": "wan5", "prefix": "172.16.5.0/30"}],
}  # fmt: skip


def run(command: str, *, check: bool = True) -> str:
    """Run a command in the namespace of the test; returns what it printed."""
    done = subprocess.run(["sh", "-c", command], check=False, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def new_namespace() -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        assert libc.unshare(CLONE_NEWNET) == 0
        yield
    finally:
        assert libc.setns(home, CLONE_NEWNET) == 0
        os.close(home)


class Host:
    """A namespace as a run leaves it, and the guard in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.wanted = directory / "guard.json"
        self.rules = directory / "nftables.nft"
        self.process: subprocess.Popen[bytes] | None = None
        self._output = (directory / "output").open("w+")

    def provision(self) -> None:
        """Make what systemd-networkd and the roles make."""
        run("ip link set lo up; ip link add lan5 type veth peer name far5; ip link set far5 up; ip link set lan5 up")
        run("ip link add wan5 type veth peer name isp5; ip link set wan5 up; ip link set isp5 up")
        run("ip tuntap add mpq5 mode tun user nobody vnet_hdr")
        run("ip link set mpq5 mtu 1400 up; ip addr add 172.16.5.1/30 brd + dev lan5")
        run("ip addr add 10.200.5.1/32 dev mpq5; ip addr add fd00:200:5::1/128 dev mpq5 nodad")
        run("for f in 4 6; do ip -$f rule add pref 2005 iif lan5 lookup 205 protocol static; done")
        run("for f in 4 6; do ip -$f route add default dev mpq5 table 205 metric 100 proto static; done")
        run("for f in 4 6; do ip -$f route add unreachable default table 205 metric 1000000 proto static; done")
        run("ip route add 10.200.5.2/32 dev mpq5 proto static; ip -6 route add fd00:200:5::2/128 dev mpq5 proto static")
        run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        run("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.mpq5.rp_filter=0")
        self.write_rules("aa")
        run(f"nft -f {self.rules}")

    def write_rules(self, revision: str) -> None:
        self.rules.write_text(RULES.format(revision=revision))

    def want(self, **changes: Any) -> None:
        """Write guard.json."""
        temporary = self.wanted.with_suffix(".tmp")
        temporary.write_text(json.dumps({**WANTED, "filter_file": str(self.rules), **changes}))
        temporary.rename(self.wanted)

    def start(self) -> None:
        began = self.journal().count("guard.started")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mpquic.guard", "--wanted", self.wanted, "--note", self.directory / "note",
             "--owner", "nobody"],
            stderr=self._output,
        )  # fmt: skip
        wait_for(lambda: self.journal().count("guard.started") > began)

    def look_again(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def journal(self) -> str:
        return (self.directory / "output").read_text()

    def lines(self) -> list[str]:
        """What was written since the start, without the line of the start."""
        return [line for line in self.journal().splitlines() if "guard.started" not in line]

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(10) == 0

    def state(self) -> str:
        """All that others can see of the host, without counters and numbers that grow."""
        return "\n".join(
            run(command)
            for command in (
                "ip -N rule; ip -N -6 rule",
                "ip -N route show table all | grep -v 'table 255'; ip -N -6 route show table all | grep -v 'table 255'",
                "nft -s list ruleset",
                "ip -o addr show scope global | cut -d' ' -f2-",
                "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.all.rp_filter",
            )
        )
