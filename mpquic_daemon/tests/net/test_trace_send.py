"""A packet of `trace --send` in namespaces: by the tunnel's device and by no other, whatever the main table says."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from mpquic.trace.send import Order, Sent, send
from waiting import wait_for

from .namespace import FarSide, ip

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root and network namespaces")]

THERE = {4: "192.0.2.80", 6: "2001:db8:80::80"}
OWN = {4: "172.16.5.1", 6: "fd00:16:5::1"}
NEAR, FAR = "02:00:5e:00:53:01", "02:00:5e:00:53:02"
RULES = """
table inet mpquic {
    chain postrouting { type nat hook postrouting priority srcnat; oifname "mpq5" masquerade; }
}
"""


@pytest.fixture
def host(far_side: FarSide) -> FarSide:
    """A LAN, a device that stands for the TUN, and a WAN to which the main table leads."""
    for device in ("mpq5", "wan5"):
        # A TUN has no neighbours to find.
        ip(f"link add {device} address {NEAR} type veth peer name far-{device} address {FAR}")
        far_side.take(f"far-{device}")
        ip(f"link set {device} up")
    ip("link add enp7s1 type bridge")
    ip("link set enp7s1 up")
    for address in (f"{OWN[4]}/30", f"{OWN[6]}/64 nodad"):
        ip(f"addr add {address} dev enp7s1")
    ip("addr add 10.200.5.1/32 dev mpq5")
    ip("addr add fd00:200:5::1/128 dev mpq5 nodad")
    ip("addr add 198.51.100.2/24 dev wan5")
    ip("route add default via 198.51.100.1 dev wan5")
    ip("-6 route add default dev wan5")
    ip("-6 route add default dev mpq5 table 205")
    with far_side.entered():
        for device in ("far-mpq5", "far-wan5"):
            ip(f"link set {device} up")
        ip(f"addr add {THERE[4]}/32 dev lo")
        ip(f"addr add {THERE[6]}/128 dev lo nodad")
        ip("addr add 198.51.100.1/24 dev far-wan5")
        ip("route add 10.200.5.1/32 dev far-mpq5")
        ip("-6 route add fd00:200:5::1/128 dev far-mpq5")
    with far_side.entered():
        for address in ("10.200.5.1", "fd00:200:5::1"):
            ip(f"neigh add {address} lladdr {NEAR} dev far-mpq5")
    for address in THERE.values():
        ip(f"neigh add {address} lladdr {FAR} dev mpq5")
    nft(RULES)
    # Until the kernel has noticed the carrier, a device drops what is sent.
    wait_for(lambda: is_up("mpq5") and is_up("wan5"))
    with far_side.entered():
        wait_for(lambda: is_up("far-mpq5") and is_up("far-wan5"))
    return far_side


def is_up(device: str) -> bool:
    shown = subprocess.run(["ip", "-br", "link", "show", device], capture_output=True, text=True, check=True)
    return shown.stdout.split()[1] == "UP"


def nft(rules: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


def order(version: int, protocol: str, **more: object) -> Order:
    facts: dict[str, object] = {
        "device": "mpq5",
        "source": ip_address(OWN[version]),
        "destination": ip_address(THERE[version]),
        "protocol": protocol,
        "port": None if protocol == "icmp" else 4444,
        "table": "205",
    }
    return Order(**(facts | more))  # type: ignore[arg-type]


@contextmanager
def listening(side: FarSide, version: int, kind: socket.SocketKind) -> Iterator[None]:
    """Have somebody listen there, who sends back what comes."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with side.entered():
        server = socket.socket(family, kind)
        server.bind((THERE[version], 4444))
    with server:
        if kind == socket.SOCK_STREAM:
            server.listen()
            yield
            return

        def answer() -> None:
            data, address = server.recvfrom(2048)
            server.sendto(data, address)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield
        thread.join(5)


def assert_came_back(sent: Sent, reply: str) -> None:
    assert sent.error is None
    assert sent.reply is not None
    assert reply in sent.reply
    assert (sent.left, sent.returned, sent.delivered) == (["mpq5"], ["mpq5"], True)


VERSIONS = pytest.mark.parametrize("version", [4, 6])


@VERSIONS
def test_a_ping_goes_and_comes_by_the_tunnel(host: FarSide, version: int) -> None:  # noqa: ARG001
    assert_came_back(send(order(version, "icmp")), "echo reply")


@VERSIONS
def test_a_datagram_that_is_answered(host: FarSide, version: int) -> None:
    with listening(host, version, socket.SOCK_DGRAM):
        assert_came_back(send(order(version, "udp")), "UDP datagram")


@VERSIONS
def test_a_datagram_to_a_closed_port(host: FarSide, version: int) -> None:  # noqa: ARG001
    assert_came_back(send(order(version, "udp")), "port unreachable")


@VERSIONS
def test_a_connection_that_is_accepted(host: FarSide, version: int) -> None:
    with listening(host, version, socket.SOCK_STREAM):
        assert_came_back(send(order(version, "tcp")), "SYN-ACK")


@VERSIONS
def test_a_connection_that_is_refused(host: FarSide, version: int) -> None:  # noqa: ARG001
    assert_came_back(send(order(version, "tcp")), "RST")


@VERSIONS
def test_without_a_reply_it_ends_in_time_and_leaves_nothing_behind(host: FarSide, version: int) -> None:
    with host.entered():
        nft("table inet silent {\n chain input {\n type filter hook input priority 0; policy drop;\n }\n}")
    sent = send(order(version, "icmp"), timeout=0.3)
    assert (sent.left, sent.returned, sent.delivered) == (["mpq5"], [], False)
    assert "990:" not in subprocess.run(["ip", "-6", "rule"], capture_output=True, text=True, check=True).stdout


@VERSIONS
def test_a_device_without_carrier_sends_nothing_by_another(host: FarSide, version: int) -> None:
    with host.entered():
        ip("link set far-mpq5 down")
    assert "wan5" not in send(order(version, "udp"), timeout=0.3).left


def test_the_mark_is_that_of_the_rules(host: FarSide) -> None:  # noqa: ARG001
    match = 'meta mark != 0x7 oifname "mpq5" drop'
    nft(f"table inet marked {{\n chain output {{\n type filter hook output priority 0;\n {match}\n }}\n}}")
    assert_came_back(send(order(4, "icmp", mark=7)), "echo reply")
    assert send(order(4, "udp"), timeout=0.3).left == []


def test_a_rule_that_a_killed_run_has_left_is_taken_over(host: FarSide) -> None:  # noqa: ARG001
    ip(f"-6 rule add from {OWN[6]}/128 to {THERE[6]}/128 priority 990 lookup 205")
    assert_came_back(send(order(6, "icmp")), "echo reply")
    assert "990:" not in subprocess.run(["ip", "-6", "rule"], capture_output=True, text=True, check=True).stdout
