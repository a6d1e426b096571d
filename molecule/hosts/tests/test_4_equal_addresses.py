"""A lease that equals another address of the site disturbs nothing and leaks nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from mpqlab.testing import INTERNET, VPS_ADDRESS
from mpqlab.topology import find_wan
from mpqlab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpqlab.testing import Lab

DEVICE = find_wan("wan6").device
LEASE = "100.64.0.100/24"
TUNNELS = ("mpq4", "mpq5", "mpq6")
LEASES = {
    "another WAN": "192.168.1.100/24",
    "the management": "10.10.11.100/24",
    "a LAN": "172.16.5.1/30",
    "a tunnel": "10.200.5.1/30",
}


def give(lab: Lab, lease: str) -> None:
    """WAN6 has this lease, and its client knows."""
    lab.link("renumber", "wan6", "--flap", "--lease", lease)
    show = f"ip -brief -4 address show dev {DEVICE}"
    wait_for(lambda: lease in lab.run("client", show), 30, f"the lease {lease}")


@pytest.fixture(autouse=True)
def former_lease(lab: Lab) -> Iterator[None]:
    yield
    give(lab, LEASE)
    lab.wait_state("mpq6", "up", within=30)


def watch(lab: Lab, number: int, lease: str) -> None:
    """Count what comes to an ISP that isn't of its own WAN: by the source, or by the port of another tunnel."""
    others = [port + other for other in (4, 5, 6) if other != number for port in (45000, 46000)]
    own = f"{lease.partition('/')[0]}, 0.0.0.0"
    lab.run(
        f"isp{number}",
        "nft -f - <<'END'\n"
        "table ip foreign {\nchain from_customer {\ntype filter hook prerouting priority raw;\n"
        f'iifname "lan" ip saddr != {{ {own} }} counter comment "source"\n'
        f'iifname "lan" udp dport {{ {", ".join(map(str, others))} }} counter comment "tunnel"\n'
        "}\n}\nEND",
    )


def counted(lab: Lab, number: int) -> dict[str, int]:
    """Packets by what was wrong with them; the watch is over."""
    rules = json.loads(lab.run(f"isp{number}", "nft --json list table ip foreign; nft delete table ip foreign"))
    return {
        entry["rule"]["comment"]: next(
            part["counter"]["packets"] for part in entry["rule"]["expr"] if "counter" in part
        )
        for entry in rules["nftables"]
        if "rule" in entry
    }


@pytest.mark.parametrize("lease", LEASES.values(), ids=LEASES.keys())
def test_a_lease_that_equals_another_address(lab: Lab, lease: str) -> None:
    give(lab, lease)
    for tunnel in TUNNELS:
        lab.wait_state(tunnel, "up", within=30)
    leases = {4: "192.168.1.100/24", 5: "10.150.19.95/24", 6: lease}
    for number, own in leases.items():
        watch(lab, number, own)
    for number in leases:
        assert lab.run(f"host{number}", f"curl -sS --fail --max-time 10 http://{INTERNET}/ip").strip() == VPS_ADDRESS
    lab.run("mgmt", "ping -c 2 -W 2 10.10.11.100")
    lab.run("openwrt", "ping -c 2 -W 2 172.16.5.1")
    lab.run("client", "mpquicctl reconnect mpq6")
    lab.wait_state("mpq6", "up", within=10)
    for number in leases:
        assert counted(lab, number) == {"source": 0, "tunnel": 0}, f"isp{number}"


def test_nobody_else_sends_from_another_devices_address(lab: Lab) -> None:
    watch(lab, 6, LEASE)
    lab.run("client", f"ping -c 2 -W 1 -I {DEVICE} -I 192.168.1.100 {INTERNET}", check=False)
    assert counted(lab, 6)["source"] == 0


def test_a_lease_that_covers_the_server_is_named_as_the_cause(lab: Lab) -> None:
    give(lab, "203.0.113.50/24")
    lab.wait_state("mpq6", "down", within=30)
    error = lab.status()["mpq6"]["error"]
    assert error.startswith(f"the lease 203.0.113.50/24 of {DEVICE} covers the VPS's address {VPS_ADDRESS}: ")
    assert error in lab.run("client", "mpquicctl status")
    give(lab, LEASE)
    lab.wait_state("mpq6", "up", within=30)
    assert lab.status()["mpq6"]["error"] is None
