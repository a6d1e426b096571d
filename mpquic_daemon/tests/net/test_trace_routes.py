"""The evaluation of rules and routes against the kernel's own choice, in a namespace with random ones."""

from __future__ import annotations

import ipaddress
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from mpquic.trace import host
from mpquic.trace.fib import Flow, decide
from mpquic.trace.way import agree

from .namespace import ip, new_namespace

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root and network namespaces")]

DEVICES = ("d0", "d1", "d2", "d3", "d4")
WITHOUT_CARRIER = frozenset({"d3", "d4"})
GROUPED = "d1"
TABLES = ("100", "200", "100011", "main")
MARKS = (0, 1, 0x10, 0x11, 0xFF)
TYPES = ("unreachable", "blackhole", "prohibit", "throw")
SOURCES = {4: ("198.18.0.7", "198.18.5.9", "198.19.0.1"), 6: ("2001:db8:f::7", "2001:db8:f:5::9", "2001:db8:e::1")}
SOURCE_PREFIXES = {4: ("198.18.0.0/16", "198.18.5.0/24"), 6: ("2001:db8:f::/48", "2001:db8:f:5::/64")}
DESTINATIONS = {
    4: ("10.0.0.9", "10.0.77.9", "10.1.0.1", "10.200.0.1", "203.0.113.5"),
    6: ("2001:db8:a::9", "2001:db8:a:77::9", "2001:db8:b::1", "2001:db8:c::1", "2001:db8:d::5"),
}
PREFIXES = {
    4: ("default", "10.0.0.0/8", "10.0.0.0/16", "10.0.0.0/24", "10.1.0.1/32", "203.0.112.0/23"),
    6: ("default", "2001:db8::/32", "2001:db8:a::/48", "2001:db8:a::/64", "2001:db8:b::1/128", "2001:db8:d::/48"),
}
GATEWAYS = {4: "192.0.2.{}", 6: "fe80::{}"}


@dataclass
class Case:
    version: int
    rules: list[str]
    routes: list[str]
    flows: list[Flow]


def one_rule(dice: Random, version: int, priority: int, later: list[int]) -> str:
    """A rule for ip(8), whose selectors match some of the packets. `later` are the priorities of rules behind it."""

    def perhaps(chance: float, *words: str) -> str:
        return f" {dice.choice(words)}" if dice.random() < chance else ""

    selectors = perhaps(0.15, "not")
    selectors += perhaps(0.25, *(f"from {prefix}" for prefix in SOURCE_PREFIXES[version]))
    selectors += perhaps(0.25, *(f"to {prefix}" for prefix in PREFIXES[version][1:]))
    selectors += perhaps(0.3, *(f"iif {device}" for device in (*DEVICES[:3], "absent0")))
    selectors += perhaps(0.1, "oif d0")
    selectors += perhaps(0.2, "fwmark 0x1", "fwmark 0x10/0x10", "fwmark 0x0/0xf", "fwmark 0xff")
    selectors += perhaps(0.2, "ipproto udp", "ipproto tcp", "ipproto udp dport 50-60", "ipproto tcp dport 443")
    selectors += perhaps(0.1, "tos 0x10") if version == 4 else ""
    if dice.random() < 0.75:
        action = f" lookup {dice.choice(TABLES)}"
        action += perhaps(0.3, *(f"suppress_prefixlength {length}" for length in (0, 8, 16, 32)))
        action += perhaps(0.15, "suppress_ifgroup 7")
    elif dice.random() < 0.7:
        action = f" goto {dice.choice([*later, 32766])}"
    else:
        action = f" {dice.choice(('unreachable', 'blackhole', 'prohibit', 'nop'))}"
    return f"rule add{selectors} priority {priority}{action}"


def one_route(dice: Random, version: int, metric: int) -> str:
    """A route for ip(8). Each has a metric of its own: of two equal ones the older wins."""
    prefix, table = dice.choice(PREFIXES[version]), dice.choice(TABLES)
    chance = dice.random()
    if chance < 0.15:
        return f"route add {dice.choice(TYPES)} {prefix} table {table} metric {metric}"
    if chance < 0.2 and prefix != "default":
        return f"route add local {prefix} dev lo table {table} metric {metric}"
    devices = [dice.choice(DEVICES) for _ in range(2 if dice.random() < 0.2 else 1)]
    gateways = [f" via {GATEWAYS[version].format(number + 8)}" for number in range(2)]
    if len(devices) > 1 and version == 6:
        # Which of them it is, and so whether a rule refuses it by its group, a hash says.
        devices = [GROUPED if GROUPED in devices else device for device in devices]
    if len(devices) > 1:
        way = "".join(f" nexthop{gateways[at]} dev {device} onlink" for at, device in enumerate(devices))
    else:
        way = f"{gateways[0]} dev {devices[0]} onlink" if dice.random() < 0.3 else f" dev {devices[0]}"
    tos = " tos 0x10" if version == 4 and dice.random() < 0.15 else ""
    return f"route add {prefix}{tos} table {table} metric {metric}{way}"


def one_flow(dice: Random, version: int) -> Flow:
    return Flow(
        destination=ipaddress.ip_address(dice.choice(DESTINATIONS[version])),
        source=ipaddress.ip_address(dice.choice(SOURCES[version])),
        iif=dice.choice(DEVICES[:3]),
        mark=dice.choice(MARKS),
        protocol=dice.choice((6, 17)),
        port=dice.choice((53, 443)),
        tos=dice.choice((0, 0, 0x10)) if version == 4 else 0,
    )


def case_of(dice: Random) -> Case:
    version = dice.choice((4, 6))
    metrics = dice.sample(range(1, 60), dice.randint(6, 24))
    priorities = sorted(dice.randint(1, 14) for _ in range(dice.randint(0, 9)))
    return Case(
        version,
        [
            one_rule(dice, version, priority, [later for later in priorities if later > priority])
            for priority in priorities
        ],
        [one_route(dice, version, metric) for metric in metrics],
        [one_flow(dice, version) for _ in range(8)],
    )


def batch(lines: list[str], version: int) -> None:
    """Have ip(8) do what it can: some combinations are refused, and what is there afterwards is what counts."""
    subprocess.run(
        ["ip", f"-{version}", "-force", "-batch", "-"], input="\n".join(lines), capture_output=True, text=True
    )


def furnish() -> None:
    """Devices with and without carrier in a fresh namespace that forwards, as on a client."""
    ip("link set lo up")
    for number, device in enumerate(DEVICES):
        ip(f"link add {device} type veth peer name {device}x")
        ip(f"link set {device} up")
        ip(f"addr add 192.0.2.{number * 16 + 1}/28 dev {device}")
        if device not in WITHOUT_CARRIER:
            ip(f"link set {device}x up")
    ip(f"link set {GROUPED} group 7")
    values = {
        "ipv4/ip_forward": 1,
        "ipv6/conf/all/forwarding": 1,
        "ipv4/conf/all/rp_filter": 0,
        "ipv4/conf/all/ignore_routes_with_linkdown": 1,
        "ipv6/conf/all/ignore_routes_with_linkdown": 1,
    }
    for name, value in values.items():
        Path("/proc/sys/net", name).write_text(str(value))
    for device in DEVICES:
        for version in (4, 6):
            Path(f"/proc/sys/net/ipv{version}/conf/{device}/ignore_routes_with_linkdown").write_text("1")


@settings(max_examples=100, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(seed=st.integers(0, 2**32 - 1))
def test_the_evaluation_comes_to_the_kernels_choice(seed: int) -> None:
    # A seed spreads better over the combinations than strategies do. It can't be shrunk.
    case = case_of(Random(seed))
    compare(case)


def test_ipv6_prefers_the_packets_own_device_once_the_first_route_is_dead() -> None:
    routes = ["2001:db8:a::/48 dev d4 metric 1", "2001:db8:a::/48 dev d0 metric 2", "2001:db8:a::/48 dev d2 metric 3"]
    flows = [
        Flow(destination=ipaddress.ip_address("2001:db8:a::9"), source=ipaddress.ip_address(SOURCES[6][0]), iif=device)
        for device in ("d0", "d1", "d2")
    ]
    compare(Case(6, [], [f"route add {route}" for route in routes], flows))


def test_a_goto_passes_over_what_lies_between() -> None:
    rules = ["iif d0 priority 3 goto 5", "priority 4 blackhole", "priority 5 lookup 100"]
    flows = [
        Flow(destination=ipaddress.ip_address("203.0.113.5"), source=ipaddress.ip_address(SOURCES[4][0]), iif=device)
        for device in ("d0", "d1")
    ]
    compare(Case(4, [f"rule add {rule}" for rule in reversed(rules)], ["route add default dev d2 table 100"], flows))


def compare(case: Case) -> None:
    """Have the kernel say each packet's route, and expect the same of the evaluation."""
    with new_namespace():
        furnish()
        batch([*case.routes, *case.rules], case.version)
        routing = host.routing(case.version)
        for flow in case.flows:
            decision = decide(routing.rules, routing.routes, flow, routing.groups)
            kernel = host.kernel_word(flow)
            assert agree(decision, kernel), (flow, decision, kernel)
            if decision.kind == "unicast":
                assert decision.route is not None
                assert kernel.table == decision.route.table
