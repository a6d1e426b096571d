"""Forged and honest ICMP against real processes: four tunnels, over IPv4 and IPv6, QUIC and stripe, at the same time.

The forger sits in the middle, quotes what each end has sent last, and reports every kind of error about it. The kernels
believe it, for ten minutes: what they have cached from one test is there in the next.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.root
Site = Any
WITHIN = 2.0
"""Seconds in which packets pass again, once the path is fine."""
PATHS = {"v4quic": (4, "quic"), "v4stripe": (4, "stripe"), "v6quic": (6, "quic"), "v6stripe": (6, "stripe")}
SERVERS = {4: "10.77.2.2", 6: "2001:db8:77:2::2"}
PING_BYTES = 1272
"""Octets behind the ICMP header: a packet of 1300 bytes, which exceeds the smallest datagrams in both directions."""

FORGER = r"""
import socket, struct, sys, time
V4 = [(3, 4, mtu) for mtu in (0, 68, 552, 1227, 1228, 1279, 1280, 1400)]
V4 += [(3, code, 0) for code in (0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)] + [(11, 0, 0), (12, 0, 0)]
V6 = [(2, 0, mtu) for mtu in (0, 68, 552, 1227, 1279, 1280, 1400)]
V6 += [(1, code, 0) for code in range(7)] + [(3, 0, 0), (4, 0, 0), (4, 1, 0), (4, 2, 0)]
raw4 = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
raw6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
taps = []
for device in ("m1", "m2"):
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    tap.bind((device, 3))
    tap.setblocking(False)
    taps.append(tap)
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF ^ total
def forge(packet, kind):
    if packet[0] >> 4 == 4:
        icmp, code, mtu = V4[kind % len(V4)]
        body = struct.pack("!BBHHH", icmp, code, 0, 0, mtu) + packet[:28]
        body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
        raw4.sendto(body, (socket.inet_ntoa(packet[12:16]), 0))
    else:
        icmp, code, value = V6[kind % len(V6)]
        body = struct.pack("!BBHI", icmp, code, 0, value) + packet[:48]
        raw6.sendto(body, (socket.inet_ntop(socket.AF_INET6, packet[8:24]), 0))
flows, end, forged = {}, time.monotonic() + float(sys.argv[1]), 0
print("ready", flush=True)
for kind in range(1 << 30):
    if time.monotonic() > end:
        break
    for tap in taps:
        for _ in range(400):
            try:
                packet, address = tap.recvfrom(128)
            except BlockingIOError:
                break
            if address[2] == socket.PACKET_OUTGOING:
                continue
            if packet[0] >> 4 == 4 and packet[9] == 17:
                flows[packet[12:24]] = packet
            elif packet[0] >> 4 == 6 and packet[6] == 17:
                flows[packet[8:44]] = packet
    for packet in list(flows.values())[-40:]:
        try:
            forge(packet, kind)
            forged += 1
        except OSError:
            pass
    time.sleep(0.015)
print(forged)
"""


class Forger:
    """Reports errors of every kind to both ends, about everything that they send, for so many seconds."""

    def __init__(self, site: Site, seconds: float) -> None:
        command = ["ip", "netns", "exec", site.namespace("middle"), sys.executable, "-c", FORGER, str(seconds)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def done(self) -> int:
        """Wait for the end; return how many messages were forged."""
        out, _ = self._process.communicate(timeout=30)
        return int(out)


class Tunnels:
    """Four clients and their server, with a ping of large packets in each tunnel all the time."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._pings: list[subprocess.Popen[bytes]] = []

    def build(self) -> None:
        site = self.site
        for role, device, other, network in (("client", "wan0", "m1", 1), ("server", "eth0", "m2", 2)):
            site.ip("middle", "addr", "add", f"2001:db8:77:{network}::1/64", "dev", other, "nodad")
            site.ip(role, "addr", "add", f"2001:db8:77:{network}::2/64", "dev", device, "nodad")
            site.ip(role, "-6", "route", "add", "default", "via", f"2001:db8:77:{network}::1", "dev", device)
        site.run("middle", "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1", "net.ipv4.icmp_ratelimit=0",
                 "net.ipv6.icmp.ratelimit=0")  # fmt: skip
        peers = []
        for number, name in enumerate(PATHS, 11):
            inner = f"10.200.9.{number}"
            site.ip("client", "tuntap", "add", "dev", name, "mode", "tun", "vnet_hdr")
            site.ip("client", "link", "set", name, "mtu", "1400", "up")
            site.ip("client", "addr", "add", f"{inner}/32", "dev", name)
            site.ip("client", "route", "add", "10.200.9.0/24", "dev", name, "metric", str(number))
            peers.append({"identity": "urn:mpquic:site:site1", "tunnel": name, "allowed": [f"{inner}/32"]})
        site.start("server", site.server_config(bind_ip="::", peers=peers))
        for number, (name, (version, transport)) in enumerate(PATHS.items(), 11):
            inner = [f"10.200.9.{number}/32"]
            settings = {"tunnel": name, "tun_name": name, "inner_addresses": inner, "transport": transport}
            config = site.client_config(name, remote_addr=SERVERS[version], **settings)
            config.write_text(config.read_text().replace("name: cl\n", f"name: {name}\n"))
            site.start("client", config)
        for name in PATHS:
            site.wait_state("up", 15.0, name)
            self._ping(name)
        began = time.time()
        self.until(lambda: all(self.replies(name)[-1:] > [began] for name in PATHS), 10.0, "replies in each tunnel")
        self.until(lambda: all(self.is_striped(name) for name in PATHS), 10.0, "stripes where they are wanted")

    def is_striped(self, name: str) -> bool:
        """Whether the tunnel has the data plane that it is configured for."""
        (row,) = self.site.ask(name, "paths")
        return PATHS[name][1] == "quic" or bool(row["stripe"] and row["stripe"]["carries"])

    def _ping(self, name: str) -> None:
        command = ("ping", "-n", "-D", "-i", "0.05", "-s", str(PING_BYTES), "-I", name, "10.200.9.2")
        with self._log(name).open("wb") as log:
            full = ["ip", "netns", "exec", self.site.namespace("client"), "stdbuf", "-oL", *command]
            self._pings.append(subprocess.Popen(full, stdout=log, stderr=log))

    def _log(self, name: str) -> Path:
        return Path(self.site.directory) / f"{name}.ping"

    def replies(self, name: str) -> list[float]:
        """Times of all replies in a tunnel, by the wall clock."""
        return [
            float(found)
            for found in re.findall(r"^\[([0-9.]+)\].*bytes from", self._log(name).read_text(), re.MULTILINE)
        ]

    def pause(self, name: str, since: float, until: float) -> float:
        """Seconds of the longest time without a reply."""
        times = [since, *(moment for moment in self.replies(name) if since < moment < until), until]
        return max(after - before for before, after in itertools.pairwise(times))

    def pauses(self, since: float, until: float) -> dict[str, float]:
        """The longest pause of each tunnel."""
        return {name: round(self.pause(name, since, until), 2) for name in PATHS}

    def reconnect(self, name: str) -> None:
        """Have a client forget its connection and begin anew, as after a crash."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.site.runtime / f"{name}.sock"))
            connection.sendall(json.dumps({"v": 1, "id": 1, "op": "reconnect", "silent": True}).encode() + b"\n")
            assert b"result" in connection.recv(4096)

    def limit(self, mtu: int, *versions: int) -> None:
        """Give the middle's way to both ends another MTU, of which it tells honestly."""
        for version, network, device in itertools.product(versions, (1, 2), ("m1", "m2")):
            if int(device[1]) == network:
                prefix = f"10.77.{network}.0/24" if version == 4 else f"2001:db8:77:{network}::/64"
                metric = [] if version == 4 else ["metric", "10"]
                lock = ["mtu", "lock", str(mtu)]
                self.site.ip("middle", f"-{version}", "route", "replace", prefix, "dev", device, *metric, *lock)

    def check_replies(self, since: float, within: float = WITHIN) -> None:
        """Each tunnel has replies again, soon after `since`."""
        self.until(
            lambda: all(any(moment > since for moment in self.replies(name)) for name in PATHS), within + 3.0, "replies"
        )
        first = {name: min(each for each in self.replies(name) if each > since) - since for name in PATHS}
        assert max(first.values()) < within, first

    def until(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        """Wait until the condition holds."""
        wait_for(condition, seconds, what, shown=lambda: [self.site.ask(name) for name in PATHS])

    def close(self) -> None:
        for ping in self._pings:
            ping.kill()
            ping.wait(5)


@pytest.fixture(scope="module")
def tunnels(site: Site) -> Iterator[Tunnels]:
    found = Tunnels(site)
    try:
        found.build()
        yield found
    finally:
        found.close()
        for name in list(site.processes):
            site.kill(name)


def test_forged_icmp_does_not_stop_a_tunnel_that_runs(tunnels: Tunnels) -> None:
    since = time.time()
    forged = Forger(tunnels.site, 6.0).done()
    assert forged > 1000
    pauses = tunnels.pauses(since, time.time())
    assert max(pauses.values()) < WITHIN, pauses
    assert "552" in tunnels.site.run("client", "ip", "route", "get", SERVERS[4]), "the kernel believes it"
    assert "1280" in tunnels.site.run("client", "ip", "-6", "route", "get", SERVERS[6])
    for name in PATHS:
        status = tunnels.site.ask(name)
        assert (status["state"], status["reconnects"], status["flaps"]) == ("up", 0, 0)


def test_forged_icmp_does_not_stop_a_tunnel_that_connects(tunnels: Tunnels) -> None:
    forger = Forger(tunnels.site, 7.0)
    since = time.time()
    for name in PATHS:
        tunnels.reconnect(name)
    tunnels.check_replies(since + 0.1)
    # And attempts into an outage, which is over while the forger goes on.
    tunnels.site.cut()
    tunnels.until(lambda: all(tunnels.site.state(name) == "down" for name in PATHS), 6.0, "every tunnel down")
    tunnels.site.heal()
    tunnels.check_replies(time.time())
    assert forger.done() > 500


def test_a_port_that_was_unreachable_is_reached_as_soon_as_it_listens(tunnels: Tunnels) -> None:
    site = tunnels.site
    before = {name: site.ask(name, "counters")["attempts"] for name in PATHS}
    site.kill("sv")
    for name in PATHS:
        site.wait_state("down", 10.0, name)
    tunnels.until(lambda: all(site.ask(name, "counters")["attempts"] > before[name] for name in PATHS), 5.0, "attempts")
    site.start("server", site.directory / "instances/sv.yml")
    tunnels.until(lambda: site.state("sv") == "up", 10.0, "server")
    tunnels.check_replies(time.time())


def test_an_honest_too_big_is_followed(tunnels: Tunnels) -> None:
    for role, version in itertools.product(("client", "server"), ("-4", "-6")):
        tunnels.site.run(role, "ip", version, "route", "flush", "cache")
    since = time.time()
    before = {name: tunnels.site.ask(name)["reconnects"] for name in PATHS}
    tunnels.limit(1296, 4, 6)
    try:
        tunnels.check_replies(since + 0.1)
        for name, (version, transport) in PATHS.items():
            (row,) = tunnels.site.ask(name, "paths")
            if transport == "quic":
                assert row["quic"]["max_datagram_bytes"] <= 1296 - {4: 28, 6: 48}[version]
            assert tunnels.site.ask(name)["reconnects"] == before[name]
        for name in PATHS:
            tunnels.reconnect(name)
        tunnels.check_replies(time.time())
    finally:
        tunnels.limit(1500, 4, 6)
    tunnels.check_replies(time.time())


def test_an_mtu_that_is_too_small_for_quic_is_told_as_the_cause(tunnels: Tunnels) -> None:
    tunnels.site.run("client", "ip", "route", "flush", "cache")
    tunnels.limit(1000, 4)
    try:
        for name in ("v4quic", "v4stripe"):
            tunnels.site.wait_state("down", 20.0, name)
        # What came at first may have been a smaller value that was forged: the kernel keeps the least.
        for name in ("v4quic", "v4stripe"):
            tunnels.until(lambda name=name: "QUIC needs 1228" in (tunnels.site.ask(name)["error"] or ""), 10.0, "cause")
            assert re.search("the path's MTU is (1000|below 1228)", tunnels.site.ask(name)["error"])
            assert "path.mtu" in tunnels.site.log(name)
        assert tunnels.pause("v6quic", time.time() - 3.0, time.time()) < WITHIN
    finally:
        tunnels.limit(1500, 4)
    tunnels.check_replies(time.time())
