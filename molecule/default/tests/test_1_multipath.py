"""The tunnel over several WANs: for its VLAN and for the VPS one tunnel, which goes by its preferred WAN."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mpqlab.testing import INTERNET, INTERNET6, VPS_ADDRESS, VPS_ADDRESS6

if TYPE_CHECKING:
    from mpqlab.testing import Lab

HOST = "host1"
SOURCE = "192.168.17.2"
SOURCE6 = "fd00:100:17::2"


@pytest.fixture(autouse=True)
def up(lab: Lab) -> None:
    lab.wait_state("mp1", "up", within=15)


def test_its_vlan_goes_by_the_preferred_wan_and_leaves_from_the_vps(lab: Lab) -> None:
    size = 2_000_000
    before = {wan: lab.counters(wan) for wan in ("wan4", "wan5", "wan6")}
    curl = f"curl -sS --fail --interface {SOURCE}"
    assert lab.run(HOST, f"{curl} http://{INTERNET}/ip").strip() == VPS_ADDRESS
    lab.run(HOST, f"{curl} -o /dev/null http://{INTERNET}/bytes/{size}")
    for wan, earlier in before.items():
        received = lab.counters(wan)["down"]["out_bytes"] - earlier["down"]["out_bytes"]
        assert received > size if wan == "wan5" else received < size / 10
    seen = lab.run(HOST, f"curl -sS --fail -6 --interface {SOURCE6} 'http://[{INTERNET6}]/ip'")
    assert seen.strip() == VPS_ADDRESS6


def test_its_vlan_goes_by_no_other_tunnel(lab: Lab) -> None:
    before = lab.carried()
    lab.run(HOST, f"ping -n -I {SOURCE} -c 20 -i 0.1 -W 2 {INTERNET}")
    moved = [name for name, count in lab.carried().items() if count - before[name] >= 10]
    assert moved == ["mp1"]


def test_the_vps_reaches_its_inner_address(lab: Lab) -> None:
    got = lab.run("vps", "ping -n -I mp1 -c 3 -i 0.2 -W 2 10.200.17.1")
    assert got.count("bytes from") == 3
