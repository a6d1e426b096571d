"""VLANs as a site has them: devices of systemd-networkd, frames with tags, each flow by its tunnel and its WAN."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import pytest
from mpqlab import qmp
from mpqlab.qemu import nic_identifier
from mpqlab.state import State
from mpqlab.testing import INTERNET, INTERNET6, VPS_ADDRESS, VPS_ADDRESS6
from mpqlab.topology import CLIENT
from mpqlab.waiting import wait_for

from .conftest import COUNT, PORT, ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mpqlab.testing import Lab

TRUNK = "enp6s21"
TUNNELS = {21: "cr2", 22: "br2", 23: "df2"}
PRIORITIES = {21: 5, 22: 0, 23: 1}
ALL_TUNNELS = (*TUNNELS.values(), "mpq6")
WANS = ("wan5", "wan6")
SIZE = 1000
"""Octets of each request of `mpqlab.echo`."""


@dataclass(frozen=True)
class Counts:
    """Packets of each tunnel and bytes of the links of both WANs: both ways, the smaller of both counts."""

    packets: dict[str, int]
    octets: dict[str, int]

    @classmethod
    def read(cls, lab: Lab) -> Self:
        links = {
            link["wan"]: link["counters"]
            for link in json.loads(lab.mpqlab("status", "--json"))["links"]
            if "counters" in link
        }
        return cls(lab.carried(), {wan: min(links[wan][way]["out_bytes"] for way in ("up", "down")) for wan in WANS})

    def ways(self, lab: Lab) -> tuple[list[str], list[str]]:
        """Tunnels and WANs that have carried `COUNT` requests and replies since; a stray packet is the tunnel's own."""
        now = Counts.read(lab)
        tunnels = [name for name in ALL_TUNNELS if now.packets[name] - self.packets[name] > COUNT / 10]
        return tunnels, [wan for wan in WANS if now.octets[wan] - self.octets[wan] > COUNT * SIZE * 0.9]


@pytest.mark.parametrize("tunnel", ALL_TUNNELS)
def test_each_tunnel_is_up(lab: Lab, tunnel: str) -> None:
    lab.wait_state(tunnel, "up", within=60)


def test_the_devices_are_real_ones_of_the_trunk(lab: Lab) -> None:
    found = {link["ifname"]: link for link in json.loads(lab.run("client", "ip -d -j link show type vlan"))}
    assert sorted(found) == [f"{TRUNK}.{vlan}" for vlan in TUNNELS]
    for vlan, priority in PRIORITIES.items():
        link = found[f"{TRUNK}.{vlan}"]
        assert link["link"] == TRUNK
        data = link["linkinfo"]["info_data"]
        assert (data["protocol"], data["id"]) == ("802.1Q", vlan)
        assert {each["to"] for each in data.get("egress_qos", [])} == ({priority} if priority else set())


@pytest.mark.parametrize("target", [INTERNET, INTERNET6])
@pytest.mark.parametrize("vlan", TUNNELS)
def test_a_vlan_goes_by_its_tunnel_and_its_wan_in_both_directions_and_by_no_other(
    lab: Lab, vlan: int, target: str
) -> None:
    before = Counts.read(lab)
    assert ask(lab, vlan, target) >= COUNT - 1
    assert before.ways(lab) == ([TUNNELS[vlan]], ["wan5"])


def test_the_lan_without_tags_goes_by_the_other_wan(lab: Lab) -> None:
    before = Counts.read(lab)
    send = f"{sys.executable} -m mpqlab.echo send udp 192.168.106.2 {INTERNET} {PORT} {COUNT}"
    assert int(lab.run("host6", send)) >= COUNT - 1
    assert before.ways(lab) == (["mpq6"], ["wan6"])


@pytest.mark.parametrize("vlan", TUNNELS)
def test_it_leaves_from_the_vps(lab: Lab, vlan: int) -> None:
    curl = "curl -sS --fail --max-time 30 --interface"
    assert lab.run("host2", f"{curl} 192.168.{vlan}.2 http://{INTERNET}/ip").strip() == VPS_ADDRESS
    assert lab.run("host2", f"{curl} fd00:100:{vlan}::2 'http://[{INTERNET6}]/ip'").strip() == VPS_ADDRESS6


@pytest.mark.parametrize(("vlan", "priority"), PRIORITIES.items())
def test_frames_have_the_tag_and_the_priority_of_their_vlan(lab: Lab, vlan: int, priority: int) -> None:
    # As they come in on OpenWrt's end of the trunk. Its kernel has taken the tag out by then, and tells it.
    tcpdump = f"exec timeout 60 tcpdump -n -e -l -Q in -c {COUNT // 2} -i lan2 'vlan {vlan} and udp' 2>&1"
    seen = lab.start("openwrt", "sh", "-c", tcpdump)
    assert seen.stdout is not None
    while not (line := seen.stdout.readline()).startswith("listening on"):
        assert line, "tcpdump has ended"
    assert ask(lab, vlan, INTERNET) >= COUNT - 1
    frames = [line for line in seen.communicate(timeout=90)[0].splitlines() if "UDP" in line]
    assert len(frames) == COUNT // 2
    for frame in frames:
        found = re.search(r"802\.1Q.*vlan (\d+), p (\d+)", frame)
        assert found is not None, frame
        assert (int(found[1]), int(found[2])) == (vlan, priority)


@pytest.mark.parametrize("vlan", TUNNELS)
def test_full_frames_pass_the_trunk_beside_their_tag(lab: Lab, vlan: int) -> None:
    ping = f"ping -n -c 3 -i 0.2 -W 5 -M do -I lan2.{vlan}"
    assert lab.run("openwrt", f"{ping} -s 1472 172.16.{vlan}.1").count("bytes from") == 3
    assert lab.run("openwrt", f"{ping} -s 1452 fd00:16:{vlan}::1").count("bytes from") == 3


@pytest.mark.parametrize("vlan", TUNNELS)
def test_no_packet_goes_from_a_vlan_to_a_lan(lab: Lab, vlan: int) -> None:
    got = lab.run("host2", f"ping -n -I 192.168.{vlan}.2 -c 3 -i 0.2 -W 1 192.168.106.2 || true")
    assert got.count("bytes from") == 0


@pytest.fixture
def plugged(lab: Lab) -> Iterator[Callable[[bool], None]]:
    """Plugs and unplugs the client's end of the trunk, which is plugged in the end."""
    control = State().control / f"{CLIENT}.qmp"

    def plug(on: bool) -> None:
        if control.exists():
            # What happens to a tap, its NIC isn't told.
            qmp.execute(control, "set_link", name=nic_identifier(TRUNK), up=on)
        lab.run("openwrt", f"ip link set lan2 {'up' if on else 'down'}")

    yield plug
    plug(True)


def test_a_trunk_that_was_unplugged_is_as_before(lab: Lab, plugged: Callable[[bool], None]) -> None:
    """Public reports of systemd-networkd tell of VLANs that lose addresses with their trunk and don't get them back."""
    plugged(False)
    shown = "ip -br link show type vlan"
    wait_for(lambda: lab.run("client", shown).count("NO-CARRIER") == len(TUNNELS), 30, "no VLAN has a carrier")
    plugged(True)
    flows = [(vlan, target) for vlan in TUNNELS for target in (INTERNET, INTERNET6)]
    wait_for(lambda: all(ask(lab, *flow) >= COUNT - 1 for flow in flows), 90, "replies to all VLANs")
    for vlan, target in flows:
        before = Counts.read(lab)
        assert ask(lab, vlan, target) >= COUNT - 1
        assert before.ways(lab) == ([TUNNELS[vlan]], ["wan5"])
