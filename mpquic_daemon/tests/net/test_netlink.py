"""The watch over WANs sees each change at once, without privilege, and tells when sockets must be made anew."""

from __future__ import annotations

import os
import select
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.net import rtnetlink
from mpquic.net.netlink import LinkMonitor, WanState
from mpquic.net.rtnetlink import NeighbourState
from waiting import wait_for

from .namespace import ip

WAN = "nett-wan0"
PEER = "nett-isp0"


@pytest.fixture
def monitor(namespace):  # noqa: ARG001
    watch = LinkMonitor([WAN])
    yield watch
    watch.close()


def next_state(monitor: LinkMonitor, seconds: float = 5.0) -> WanState:
    """The state after the next change."""
    changed: list[WanState] = []

    def told() -> bool:
        if select.select([monitor], [], [], 0)[0]:
            changed.extend(monitor.read())
        return bool(changed)

    wait_for(told, seconds, "a message of a change")
    return monitor.state(WAN)


def reach(monitor: LinkMonitor, condition) -> WanState:
    for _ in range(20):
        if condition(monitor.state(WAN)):
            return monitor.state(WAN)
        next_state(monitor)
    raise AssertionError(monitor.state(WAN))


def plug() -> None:
    ip(f"link add {WAN} type veth peer name {PEER}")
    ip(f"link set {WAN} addrgenmode none up")
    ip(f"link set {PEER} up")


@pytest.mark.root
def test_a_wan_becomes_usable_step_by_step(monitor):
    assert monitor.state(WAN).reason() == "no such device"
    ip(f"link add {WAN} type veth peer name {PEER}")
    state = reach(monitor, lambda state: state.exists)
    assert state.reason() == "no carrier"
    ip(f"link set {WAN} addrgenmode none up")
    ip(f"link set {PEER} up")
    assert reach(monitor, lambda state: state.carrier).reason() == "no address"
    ip(f"addr add 192.168.1.100/24 dev {WAN}")
    assert reach(monitor, lambda state: state.addresses).reason() == "no default route"
    ip(f"route add default via 192.168.1.1 dev {WAN} table 104")
    state = reach(monitor, lambda state: state.default_route)
    assert state.usable
    assert state.usable_for(socket.AF_INET)
    assert not state.usable_for(socket.AF_INET6)
    assert str(state.gateway()) == "192.168.1.1"
    assert state.default_routes[0].table == 104
    assert state.reason() == ""


@pytest.mark.root
def test_a_wan_is_lost_in_each_way_at_once(monitor):
    plug()
    ip(f"addr add 192.168.1.100/24 dev {WAN}")
    ip(f"route add default via 192.168.1.1 dev {WAN} table 104")
    reach(monitor, lambda state: state.usable)
    ip(f"link set {PEER} down")
    assert reach(monitor, lambda state: not state.usable).reason() == "no carrier"
    ip(f"link set {PEER} up")
    reach(monitor, lambda state: state.usable)
    ip(f"route del default dev {WAN} table 104")
    assert reach(monitor, lambda state: not state.usable).reason() == "no default route"
    ip(f"route add default via 192.168.1.1 dev {WAN} table 104")
    reach(monitor, lambda state: state.usable)
    ip(f"addr del 192.168.1.100/24 dev {WAN}")
    reach(monitor, lambda state: not state.addresses)
    ip(f"link del {WAN}")
    assert reach(monitor, lambda state: not state.exists).reason() == "no such device"


@pytest.mark.root
def test_the_generation_tells_when_sockets_are_void(monitor):
    plug()
    ip(f"addr add 192.168.1.100/24 dev {WAN}")
    ip(f"route add default via 192.168.1.1 dev {WAN} table 104")
    first = reach(monitor, lambda state: state.usable)
    ip(f"link set {PEER} down")
    ip(f"link set {PEER} up")
    # Some kernels drop IPv6 routes on a flap; what IPv4 sockets depend on stays.
    flapped = reach(monitor, lambda state: state.usable)
    assert flapped.generations[socket.AF_INET] == first.generations[socket.AF_INET]
    ip(f"addr add 192.168.1.101/24 dev {WAN}")
    renumbered = reach(monitor, lambda state: len(state.addresses) == 2)
    assert renumbered.generation > first.generation
    ip(f"route replace default via 192.168.1.254 dev {WAN} table 104")
    moved = reach(monitor, lambda state: str(state.gateway()) == "192.168.1.254")
    assert moved.generation > renumbered.generation
    ip(f"link del {WAN}")
    reach(monitor, lambda state: not state.exists)
    plug()
    ip(f"addr add 192.168.1.101/24 dev {WAN}")
    ip(f"route add default via 192.168.1.254 dev {WAN} table 104")
    back = reach(monitor, lambda state: state.usable)
    assert back.generation > moved.generation
    assert back.index != moved.index


@pytest.mark.root
def test_a_new_ipv6_address_does_not_void_ipv4_sockets(monitor):
    plug()
    ip(f"addr add 192.168.1.100/24 dev {WAN}")
    ip(f"route add default via 192.168.1.1 dev {WAN}")
    before = reach(monitor, lambda state: state.usable)
    ip(f"addr add 2001:db8:5::100/64 dev {WAN} nodad")
    ip(f"route add default via 2001:db8:5::1 dev {WAN} table 104")
    after = reach(monitor, lambda state: state.usable_for(socket.AF_INET6))
    assert after.generations[socket.AF_INET] == before.generations[socket.AF_INET]
    assert after.generations[socket.AF_INET6] > before.generations[socket.AF_INET6]


@pytest.mark.root
def test_a_link_local_address_and_a_blackhole_make_nothing_usable(monitor):
    plug()
    ip(f"addr add fe80::1/64 dev {WAN} nodad")
    ip("route add blackhole default table 104")
    reach(monitor, lambda state: state.carrier)
    monitor.refresh()
    assert monitor.state(WAN).addresses == ()
    assert not monitor.state(WAN).default_route


@pytest.mark.root
def test_the_neighbour_state_of_the_gateway(monitor):
    plug()
    ip(f"addr add 192.168.1.100/24 dev {WAN}")
    ip(f"route add default via 192.168.1.1 dev {WAN} table 104")
    reach(monitor, lambda state: state.usable)
    assert monitor.neighbour(WAN) is NeighbourState.NONE
    ip(f"neigh add 192.168.1.1 lladdr 02:00:00:00:00:01 nud reachable dev {WAN}")
    assert monitor.neighbour(WAN) == NeighbourState.REACHABLE
    ip(f"neigh change 192.168.1.1 nud failed dev {WAN}")
    assert monitor.neighbour(WAN) == NeighbourState.FAILED


@pytest.mark.root
def test_other_devices_are_not_reported(monitor):
    plug()
    reach(monitor, lambda state: state.carrier)
    ip("link add nett-other type veth peer name nett-other1")
    ip("link set nett-other up")
    ip("addr add 10.9.9.1/24 dev nett-other")
    ip(f"addr add 192.168.1.100/24 dev {WAN}")
    assert [state.device for state in [next_state(monitor)]] == [WAN]
    assert monitor.watch("nett-other").exists
    assert set(monitor.devices) == {WAN, "nett-other"}
    monitor.unwatch("nett-other")
    assert monitor.devices == (WAN,)


@pytest.mark.root
@pytest.mark.usefixtures("namespace")
def test_it_runs_without_privilege():
    plug()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            code = 0 if LinkMonitor([WAN]).state(WAN).carrier else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@given(st.binary(max_size=200))
def test_no_bytes_make_the_decoder_run_away(data):
    for kind, _flags, body in rtnetlink.messages(data):
        assert len(body) <= len(data)
        assert isinstance(kind, int)
    assert sum(len(value) for value in rtnetlink.attributes(memoryview(data)).values()) <= len(data)
