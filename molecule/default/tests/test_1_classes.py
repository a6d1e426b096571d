"""Class tunnels: each flow goes by the tunnel of its class and by no other, by VLAN and by the rules of the classes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from mpqlab.testing import INTERNET, INTERNET6, VPS_ADDRESS, VPS_ADDRESS6
from mpqlab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpqlab.testing import Lab

PREFIXES = ("cr", "br", "df")
VLANS = {10 * lan + place: f"{prefix}{lan}" for lan in (1, 2, 3) for place, prefix in enumerate(PREFIXES, 1)}
TUNNELS = tuple(VLANS.values())
CLASSIFIED = 24
"""A VLAN over wan5 whose connections go by rules."""
COUNT = 20
PORTS = (80, 443, 5001, 5060, 8443, 9000, 10000, 20000, 20001)
EF = 46
FILTER = "/etc/mpquic/nftables.nft"
RELOAD = "systemctl reload mpquic-firewall"


@pytest.fixture(scope="module", autouse=True)
def echo(lab: Lab) -> Iterator[None]:
    """What the Internet sends back, at the ports of the rules; 80 is that of its web server."""
    ports = [str(port) for port in PORTS if port != 80]
    with lab.echo("serve", *ports):
        yield


def by(lab: Lab, before: dict[str, int]) -> dict[str, int]:
    """Tunnels that have carried more than a stray packet since `before`."""
    return {name: count - before[name] for name, count in lab.carried().items() if count - before[name] > COUNT / 10}


def ask(lab: Lab, protocol: str, vlan: int, port: int, *, ipv6: bool = False, dscp: int = 0) -> int:
    """Replies to `COUNT` requests from the network that uses a VLAN."""
    source = f"fd00:100:{vlan}::2" if ipv6 else f"192.168.{vlan}.2"
    target = INTERNET6 if ipv6 else INTERNET
    words = [protocol, source, target, str(port), str(COUNT), str(dscp)]
    return int(lab.run(f"host{vlan // 10}", f"{sys.executable} -m mpqlab.echo send {' '.join(words)}"))


@pytest.mark.parametrize("tunnel", TUNNELS)
def test_each_class_tunnel_is_up(lab: Lab, tunnel: str) -> None:
    lab.wait_state(tunnel, "up", within=15)


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("vlan", VLANS)
def test_a_vlan_goes_by_the_tunnel_of_its_class_and_by_no_other(lab: Lab, vlan: int, ipv6: bool) -> None:
    before = lab.carried()
    assert ask(lab, "udp", vlan, 9000, ipv6=ipv6) >= COUNT - 1
    assert list(by(lab, before)) == [VLANS[vlan]]


@pytest.mark.parametrize("vlan", [11, 21, 31])
def test_a_vlan_goes_by_the_wan_of_its_tunnel_and_leaves_from_the_vps(lab: Lab, vlan: int) -> None:
    size, host = 2_000_000, f"host{vlan // 10}"
    wan = {1: "wan4", 2: "wan5", 3: "wan6"}[vlan // 10]
    before = {name: lab.counters(name) for name in ("wan4", "wan5", "wan6")}
    curl = f"curl -sS --fail --interface 192.168.{vlan}.2"
    assert lab.run(host, f"{curl} http://{INTERNET}/ip").strip() == VPS_ADDRESS
    lab.run(host, f"{curl} -o /dev/null http://{INTERNET}/bytes/{size}")
    for name, earlier in before.items():
        received = lab.counters(name)["down"]["out_bytes"] - earlier["down"]["out_bytes"]
        assert received > size if name == wan else received < size / 10
    seen = lab.run(host, f"curl -sS --fail -6 --interface fd00:100:{vlan}::2 'http://[{INTERNET6}]/ip'")
    assert seen.strip() == VPS_ADDRESS6


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize(
    ("protocol", "port", "dscp", "tunnel"),
    [
        ("udp", 5060, 0, "cr2"),
        ("udp", 10000, 0, "cr2"),
        ("udp", 20000, 0, "cr2"),
        ("udp", 20001, 0, "br2"),
        ("udp", 9000, EF, "cr2"),
        ("tcp", 443, 0, "df2"),
        ("tcp", 8443, 0, "df2"),
        ("tcp", 443, EF, "cr2"),
        ("tcp", 5001, 0, "br2"),
        ("tcp", 9000, 0, "br2"),
        ("udp", 443, 0, "br2"),
    ],
)
def test_rules_choose_the_class(lab: Lab, protocol: str, port: int, dscp: int, tunnel: str, ipv6: bool) -> None:
    before = lab.carried()
    assert ask(lab, protocol, CLASSIFIED, port, ipv6=ipv6, dscp=dscp) >= COUNT - 1
    assert list(by(lab, before)) == [tunnel]


def test_web_pages_go_by_the_class_of_the_web(lab: Lab) -> None:
    before = lab.carried()
    lab.run("host2", f"curl -sS --fail --interface 192.168.{CLASSIFIED}.2 -o /dev/null http://{INTERNET}/bytes/2000000")
    assert list(by(lab, before)) == ["df2"]


def test_a_connection_keeps_its_class_when_rules_change(lab: Lab) -> None:
    source = f"192.168.{CLASSIFIED}.2"
    script = (
        "import socket,sys\n"
        f"s=socket.create_connection(('{INTERNET}',9000),5,('{source}',0))\n"
        "print('open',flush=True)\n"
        "sys.stdin.readline()\n"
        "n=0\n"
        f"for _ in range({COUNT}):\n"
        " s.sendall(bytes(1000)); k=0\n"
        " while k<1000: k+=len(s.recv(65536))\n"
        " n+=1\n"
        "print(n,flush=True)\n"
    )
    connection = subprocess.Popen(
        ["mpqlab", "exec", "host2", "--", sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert connection.stdout is not None
    assert connection.stdout.readline() == "open\n"
    try:
        # The catch-all is another class from now on.
        lab.run("client", f"cp {FILTER} /run/nftables.before")
        lab.run("client", f"sed -i 's/^\\t\\tgoto class_2$/\\t\\tgoto class_1/' {FILTER} && {RELOAD}")
        before = lab.carried()
        assert ask(lab, "tcp", CLASSIFIED, 9000) == COUNT
        assert list(by(lab, before)) == ["cr2"]
        before = lab.carried()
        assert connection.communicate("go\n", timeout=30)[0] == f"{COUNT}\n"
        assert list(by(lab, before)) == ["br2"]
    finally:
        lab.run("client", f"cp /run/nftables.before {FILTER} && {RELOAD}")
        connection.kill()


@pytest.mark.parametrize("vlan", [11, 13, 24])
@pytest.mark.parametrize("target", ["192.168.31.2", "192.168.105.2", "192.168.106.2"])
def test_no_packet_goes_from_one_vlan_or_lan_to_another(lab: Lab, vlan: int, target: str) -> None:
    host = f"host{vlan // 10}"
    got = lab.run(host, f"ping -n -I 192.168.{vlan}.2 -c 3 -i 0.2 -W 1 {target} || true")
    assert got.count("bytes from") == 0


def test_the_vps_reaches_each_inner_address_and_gets_its_reply_by_the_same_tunnel(lab: Lab) -> None:
    for listener, third in (("mt4", 10), ("mt5", 11), ("mt6", 12)):
        for last in (1, 5, 9):
            got = lab.run("vps", f"ping -n -I {listener} -c 3 -i 0.2 -W 2 10.200.{third}.{last}")
            assert got.count("bytes from") == 3


def test_what_each_vlan_has_sent_by_each_class_is_counted(lab: Lab) -> None:
    def counted() -> dict[str, int]:
        shown = json.loads(lab.run("client", "nft -j list counters table inet mpquic"))["nftables"]
        return {each["counter"]["name"]: each["counter"]["packets"] for each in shown if "counter" in each}

    before = counted()
    assert ask(lab, "udp", 12, 9000) >= COUNT - 1
    after = counted()
    moved = {name for name in after if after[name] - before[name] >= COUNT - 1}
    assert moved == {"lan1.12/br1.up", "lan1.12/br1.down"}


@pytest.mark.parametrize(("vlan", "tunnel"), [(31, "cr3"), (32, "br3"), (33, "df3")])
def test_a_class_whose_tunnel_is_down_gets_an_error_at_once_and_its_neighbours_go_on(
    lab: Lab, vlan: int, tunnel: str
) -> None:
    lab.run("client", f"mpquicctl hold {tunnel} --reason test")
    try:
        lab.wait_state(tunnel, "held", within=10)
        ping = f"ping -n -I 192.168.{vlan}.2 -c 1 -W 1 {INTERNET} || true"
        wait_for(lambda: "nreachable" in lab.run("host3", ping), 3, "an ICMP error")
        for other in (31, 32, 33):
            if other != vlan:
                assert ask(lab, "udp", other, 9000) >= COUNT - 1
    finally:
        lab.run("client", f"mpquicctl release {tunnel}")
    lab.wait_state(tunnel, "up", within=15)
    wait_for(lambda: ask(lab, "udp", vlan, 9000) >= COUNT - 1, 10, f"traffic of VLAN {vlan}")
