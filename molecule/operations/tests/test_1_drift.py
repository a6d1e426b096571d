"""What somebody does to our part of a host by hand mends itself, and costs nothing that it doesn't touch."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from mpqlab.waiting import wait_for

from .conftest import CARRYING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpqlab.testing import Lab, Probe

    from .conftest import Journal

WITHIN = 10
"""Seconds in which everything is back."""
MAX_LINES = 20
"""Lines of both machines' journals for a fault."""
STATE = " ; ".join(
    (
        "nft --stateless list table inet mpquic",
        "ip -4 rule | sed 's/ proto static//' | sort",
        "ip -6 rule | sed 's/ proto static//' | sort",
        "ip -4 route show table all | grep -v 'table local\\|cache' | sed 's/ linkdown//' | sort",
        "ip -6 route show table all | grep -v 'table local\\|expires\\|multicast\\|cache' | sed 's/ linkdown//' | sort",
        "ip -oneline link show up type tun | sed -E 's/^[0-9]+: ([^:]+):.* mtu ([0-9]+).*/\\1 \\2/' | sort",
        "ip -brief address | awk '{$2 = \"\"; print}' | sort",
        "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.all.rp_filter",
        "sysctl -a -r 'net.ipv4.conf.(mpq|enp7s).*rp_filter'",
    )
)


@dataclass(frozen=True)
class Fault:
    """A shell command on a machine, and the tunnels whose traffic it may interrupt."""

    node: str
    command: str
    touches: tuple[int, ...]


TUN_TABLE = "ip route show table all | sed -n 's/.*default dev mpq4.*table \\([^ ]*\\).*/\\1/p' | head -n 1"
FAULTS = {
    "ruleset flushed, client": Fault("client", "nft flush ruleset", CARRYING),
    "ruleset flushed, vps": Fault("vps", "nft flush ruleset", CARRYING),
    "nftables restarted, client": Fault("client", "systemctl restart nftables", CARRYING),
    "nftables restarted, vps": Fault("vps", "systemctl restart nftables", CARRYING),
    "table deleted, client": Fault("client", "nft delete table inet mpquic", CARRYING),
    "chain flushed, vps": Fault("vps", "nft flush chain inet mpquic forward", CARRYING),
    "policy opened, client": Fault("client", "nft chain inet mpquic input '{ policy accept; }'", ()),
    "rule inserted, client": Fault("client", "nft insert rule inet mpquic forward oifname mpq4 drop", (4,)),
    "rules flushed, client": Fault(
        "client", "ip rule flush; ip rule add from all lookup main priority 32766", CARRYING
    ),
    "ipv6 rules flushed, client": Fault("client", "ip -6 rule flush; ip -6 rule add lookup main priority 32766", ()),
    "LAN table flushed, client": Fault("client", f"ip route flush table $({TUN_TABLE})", (4,)),
    "WAN table flushed, client": Fault("client", "ip route flush table wan4", (4,)),
    "TUN deleted, client": Fault("client", "ip link delete mpq4", (4,)),
    "TUN deleted, vps": Fault("vps", "ip link delete mpq4", (4,)),
    "TUN set down, client": Fault("client", "ip link set mpq4 down", (4,)),
    "address deleted, vps": Fault("vps", "ip address flush dev mpq4", (4,)),
    "forwarding off, client": Fault("client", "sysctl -qw net.ipv4.ip_forward=0", CARRYING),
    "forwarding off, vps": Fault("vps", "sysctl -qw net.ipv6.conf.all.forwarding=0 net.ipv4.ip_forward=0", CARRYING),
    "rp_filter on, client": Fault(
        "client", "sysctl -qw net.ipv4.conf.mpq4.rp_filter=1 net.ipv4.conf.enp7s6.rp_filter=1", (4,)
    ),
    "rp_filter on, vps": Fault("vps", "sysctl -qw net.ipv4.conf.all.rp_filter=1", CARRYING),
}

FOREIGN = {
    "add": (
        "nft add table ip foreign",
        "nft add chain ip foreign output '{ type filter hook output priority 5; policy accept; }'",
        "ip rule add priority 20000 from 198.51.100.77 lookup 7777",
        "ip -6 rule add priority 20000 from 2001:db8:77::77 lookup 7777",
        "ip route add blackhole 198.51.100.78/32 table 7777",
        "ip route add blackhole 198.51.100.79/32",
        "ip link add foreign0 type veth peer name foreign1",
    ),
    "show": (
        "nft list table ip foreign",
        "ip rule show priority 20000",
        "ip -6 rule show priority 20000",
        "ip route show table 7777",
        "ip route show 198.51.100.79/32",
        "ip -brief link show type veth | grep -o 'foreign[01]' | sort",
    ),
    "delete": (
        "nft delete table ip foreign",
        "ip rule delete priority 20000",
        "ip -6 rule delete priority 20000",
        "ip route flush table 7777",
        "ip route delete blackhole 198.51.100.79/32",
        "ip link delete foreign0",
    ),
}


OF_CLASS_TUNNELS = re.compile(r"\b(cr1|br1|df1)\b|:45010\b")
"""Lines of the class tunnels on the WAN whose tunnel mpq4 is looked at."""


def state(lab: Lab, node: str) -> str:
    """What of the kernel's state is ours, or at least stays as it is."""
    return lab.run(node, STATE, check=False)


@pytest.fixture(scope="module")
def before(lab: Lab) -> dict[str, str]:
    """The state of both machines while all is well."""
    for number in CARRYING:
        lab.wait_state(f"mpq{number}", "up", within=30)
    return {node: state(lab, node) for node in ("client", "vps")}


@pytest.mark.parametrize("name", FAULTS)
def test_drift_mends_itself(
    lab: Lab, before: dict[str, str], traffic: dict[int, Probe], journals: dict[str, Journal], name: str
) -> None:
    fault = FAULTS[name]
    began = time.time()
    lab.run(fault.node, fault.command)
    wait_for(lambda: state(lab, fault.node) == before[fault.node], WITHIN, f"everything back after: {name}")
    for number in fault.touches:
        traffic[number].wait_replies(20, within=began + WITHIN - time.time(), after=time.time())
    for number in set(CARRYING) - set(fault.touches):
        traffic[number].wait_replies(20, within=10, after=time.time())
        assert traffic[number].lost(began) == 0
    lines = {node: journal.lines() for node, journal in journals.items()}
    assert any("mpquic" in line for line in lines[fault.node])
    # What befalls a WAN, each of its tunnels tells for itself: the lines of one of them are counted.
    every = [line for found in lines.values() for line in found if not OF_CLASS_TUNNELS.search(line)]
    assert len(every) <= MAX_LINES, "\n".join(every)


@pytest.fixture
def foreign(lab: Lab) -> Iterator[dict[str, str]]:
    """Somebody else's table, rules, routes and links on both machines."""
    for node in ("client", "vps"):
        lab.run(node, " && ".join(FOREIGN["add"]))
    yield {node: lab.run(node, " && ".join(FOREIGN["show"])) for node in ("client", "vps")}
    for node in ("client", "vps"):
        lab.run(node, " && ".join(FOREIGN["delete"]))


def test_what_others_have_made_stays_through_repairs(lab: Lab, before: dict[str, str], foreign: dict[str, str]) -> None:
    ours = {node: state(lab, node) for node in before}
    for node, table in (("client", "lan4"), ("vps", "")):
        rules = "ip rule show | sed -n 's/^\\([0-9]*\\):.*iif enp6s23.*/\\1/p' | head -n 1"
        lab.run(node, "nft delete table inet mpquic && ip link delete mpq4")
        if table:
            lab.run(node, f"ip rule delete priority $({rules})")
        wait_for(lambda node=node: state(lab, node) == ours[node], WITHIN, f"everything back on {node}")
        assert lab.run(node, " && ".join(FOREIGN["show"])) == foreign[node]


def test_a_repair_is_told_in_one_line_that_names_what_was_missing(lab: Lab, journals: dict[str, Journal]) -> None:
    lab.run("client", "ip link set mpq5 mtu 1300")
    wait_for(
        lambda: json.loads(lab.run("client", "ip -json link show mpq5"))[0]["mtu"] == 1400, WITHIN, "the MTU is back"
    )
    told = [line for line in journals["client"].lines() if "mpquic-guard" in line]
    assert len(told) == 1
    assert "mpq5" in told[0]
