"""The evaluation of rules and routes against the kernel's own choice, in a namespace with random ones."""

from __future__ import annotations

import ipaddress
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mpquic.trace import host
from mpquic.trace.fib import Flow, decide
from mpquic.trace.way import agree

from .namespace import ip, new_namespace

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root and network namespaces")]

DEVICES = ("d0", "d1", "d2", "d3", "d4")
WITHOUT_CARRIER = frozenset({"d3", "d4"})
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


def optional(name: str, values: st.SearchStrategy[object]) -> st.SearchStrategy[str]:
    return st.one_of(st.just(""), values.map(lambda value: f" {name} {value}"))


def one_rule(version: int, priority: int) -> st.SearchStrategy[str]:
    ports = st.sampled_from(("53", "50-60", "443"))
    selectors = st.tuples(
        st.sampled_from(("", "", "", "not")),
        optional("from", st.sampled_from(SOURCE_PREFIXES[version])),
        optional("to", st.sampled_from(PREFIXES[version][1:])),
        optional("iif", st.sampled_from((*DEVICES, "absent0"))),
        optional("oif", st.sampled_from(DEVICES[:2])),
        optional("fwmark", st.sampled_from(("0x1", "0x10/0x10", "0x0/0xf", "0xff"))),
        st.one_of(
            st.just(""), st.sampled_from((" ipproto udp", " ipproto tcp")), ports.map(" ipproto udp dport {}".format)
        ),
        optional("tos", st.just("0x10")) if version == 4 else st.just(""),
    )
    lookups = st.tuples(
        st.sampled_from(TABLES),
        optional("suppress_prefixlength", st.sampled_from((0, 8, 16, 32))),
        optional("suppress_ifgroup", st.just(7)),
    ).map(lambda parts: f" lookup {parts[0]}{parts[1]}{parts[2]}")
    actions = st.one_of(
        lookups,
        lookups,
        lookups,
        lookups,
        st.sampled_from((" unreachable", " blackhole", " prohibit", " nop")),
        st.integers(priority + 1, priority + 9).map(" goto {}".format),
    )
    return st.tuples(selectors, actions).map(
        lambda parts: f"rule add {parts[0][0]} priority {priority}{''.join(parts[0][1:])}{parts[1]}"
    )


def one_route(version: int, metric: int) -> st.SearchStrategy[str]:
    device = st.sampled_from(DEVICES)
    way = st.one_of(
        device.map(" dev {}".format),
        device.map(lambda name: f" via {GATEWAYS[version].format(9)} dev {name} onlink"),
        st.tuples(device, device).map(
            lambda pair: "".join(f" nexthop via {GATEWAYS[version].format(8)} dev {name} onlink" for name in pair)
        ),
    )
    tos = optional("tos", st.just("0x10")) if version == 4 else st.just("")
    prefix, table = st.sampled_from(PREFIXES[version]), st.sampled_from(TABLES)
    plain = st.tuples(prefix, tos, table, way).map(
        lambda parts: f"route add {parts[0]}{parts[1]} table {parts[2]} metric {metric}{parts[3]}"
    )
    refusing = st.tuples(st.sampled_from(TYPES), prefix, table).map(
        lambda parts: f"route add {parts[0]} {parts[1]} table {parts[2]} metric {metric}"
    )
    local = st.tuples(prefix.filter(lambda text: text != "default"), table).map(
        lambda parts: f"route add local {parts[0]} dev lo table {parts[1]} metric {metric}"
    )
    return st.one_of(plain, plain, plain, refusing, local)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    version = draw(st.sampled_from((4, 6)))
    priorities = draw(st.lists(st.integers(1, 12), max_size=9).map(sorted))
    # A metric of its own for each route: which of two equal ones is first is the order of their making.
    metrics = draw(st.permutations(range(1, 11)))[: draw(st.integers(1, 10))]
    flows = draw(
        st.lists(
            st.builds(
                Flow,
                destination=st.sampled_from(DESTINATIONS[version]).map(ipaddress.ip_address),
                source=st.sampled_from(SOURCES[version]).map(ipaddress.ip_address),
                iif=st.sampled_from(DEVICES),
                mark=st.sampled_from(MARKS),
                protocol=st.sampled_from((6, 17)),
                port=st.sampled_from((53, 443)),
                tos=st.sampled_from((0, 0x10)) if version == 4 else st.just(0),
            ),
            min_size=4,
            max_size=8,
            unique=True,
        )
    )
    return Case(
        version,
        [draw(one_rule(version, priority)) for priority in priorities],
        [draw(one_route(version, metric)) for metric in metrics],
        flows,
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
    ip("link set d1 group 7")
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


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(case=cases())
def test_the_evaluation_comes_to_the_kernels_choice(case: Case) -> None:
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
