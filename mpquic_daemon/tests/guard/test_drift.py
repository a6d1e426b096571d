"""What is missing of what is wanted, and for how long it may be."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from mpquic.guard.drift import REPAIR_DELAY, SETUP_DELAY, Device, Drift, Present, route_key, rule_key
from mpquic.guard.wanted import Address, Parameter, Route, Rule, Tun, TunState, Wanted

if TYPE_CHECKING:
    from mpquic.guard.wanted import Thing

LAN_RULE = Rule(family=4, priority=2005, table=205, incoming="lan5", device="lan5")
WAN_RULE = Rule(family=4, priority=1005, table=105, outgoing="wan5", device="wan5", carrier=True)
TUN_ROUTE = Route(family=6, destination="::/0", table=205, metric=100, device="mpq5")
FLOOR = Route(
    family=4, destination="0.0.0.0/0", table=105, type="blackhole", metric=1000000, device="wan5", carrier=True
)
LAN_ADDRESS = Address(device="lan5", address="172.16.5.1/30")
TUN = Tun(name="mpq5", mtu=1400)
FORWARD, FILTER = "net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter"
WANTED = Wanted(
    rules=[LAN_RULE, WAN_RULE],
    routes=[TUN_ROUTE, FLOOR],
    addresses=[LAN_ADDRESS],
    tuns=[TUN],
    parameters={FILTER: 0},
    forwarding={FORWARD: 1},
)
WHOLE = Present(
    devices={
        "lan5": Device(2, up=True, carrier=True, mtu=1500),
        "wan5": Device(3, up=True, carrier=True, mtu=1500),
        "mpq5": Device(4, up=True, carrier=False, mtu=1400, kind="tun"),
    },
    rules=frozenset(map(rule_key, (LAN_RULE, WAN_RULE))),
    routes=frozenset(map(route_key, (TUN_ROUTE, FLOOR))),
    addresses=frozenset({("lan5", "172.16.5.1/30")}),
    parameters={FORWARD: "1", FILTER: "0"},
)


def with_device(present: Present, name: str, device: Device | None) -> Present:
    devices = {known: each for known, each in present.devices.items() if known != name}
    return replace(present, devices=devices if device is None else {**devices, name: device})


def seen() -> Drift:
    drift = Drift()
    assert drift.missing(WANTED, WHOLE) == {}
    return drift


def test_nothing_is_missing_of_a_whole_host() -> None:
    seen()


def test_what_has_been_there_is_put_back_soon() -> None:
    assert seen().missing(WANTED, replace(WHOLE, rules=frozenset())) == {
        LAN_RULE: REPAIR_DELAY,
        WAN_RULE: REPAIR_DELAY,
    }


def test_what_has_not_been_there_yet_is_left_to_networkd_for_a_while() -> None:
    assert Drift().missing(WANTED, replace(WHOLE, rules=frozenset())) == {LAN_RULE: SETUP_DELAY, WAN_RULE: SETUP_DELAY}


def test_what_is_on_a_device_that_was_made_anew_is_left_to_networkd_for_a_while() -> None:
    present = with_device(
        replace(WHOLE, routes=frozenset({route_key(FLOOR)})), "mpq5", replace(WHOLE.devices["mpq5"], index=9)
    )
    assert seen().missing(WANTED, present) == {TUN_ROUTE: SETUP_DELAY}


def test_a_wan_without_carrier_owes_nothing_and_starts_anew() -> None:
    drift = seen()
    bare = replace(WHOLE, rules=frozenset({rule_key(LAN_RULE)}), routes=frozenset({route_key(TUN_ROUTE)}))
    cut = with_device(bare, "wan5", replace(WHOLE.devices["wan5"], carrier=False))
    assert drift.missing(WANTED, cut) == {}
    assert drift.missing(WANTED, bare) == {WAN_RULE: SETUP_DELAY, FLOOR: SETUP_DELAY}


def test_nothing_is_wanted_of_a_device_that_is_not_there() -> None:
    present = with_device(replace(WHOLE, rules=frozenset({rule_key(WAN_RULE)}), addresses=frozenset()), "lan5", None)
    assert seen().missing(WANTED, present) == {}


def test_a_tun_that_is_not_there_is_made() -> None:
    assert seen().missing(WANTED, with_device(WHOLE, "mpq5", None)) == {TUN: REPAIR_DELAY}


def test_a_tun_is_up_and_has_its_mtu() -> None:
    device = WHOLE.devices["mpq5"]
    state = TunState(name="mpq5", mtu=1400)
    assert seen().missing(WANTED, with_device(WHOLE, "mpq5", replace(device, mtu=1300))) == {state: REPAIR_DELAY}
    down = with_device(replace(WHOLE, routes=frozenset({route_key(FLOOR)})), "mpq5", replace(device, up=False))
    assert seen().missing(WANTED, down) == {state: REPAIR_DELAY}  # its routes come after it is up


def test_a_foreign_device_of_the_name_of_a_tun_is_left_alone() -> None:
    foreign = Device(9, up=False, carrier=False, mtu=1500, kind="bridge")
    assert TUN not in seen().missing(WANTED, with_device(WHOLE, "mpq5", foreign))
    assert TunState(name="mpq5", mtu=1400) not in seen().missing(WANTED, with_device(WHOLE, "mpq5", foreign))


def test_a_lan_that_is_set_down_is_left_down() -> None:
    down = with_device(replace(WHOLE, addresses=frozenset()), "lan5", Device(2, up=False, carrier=False, mtu=1500))
    assert seen().missing(WANTED, down) == {}


def test_forwarding_is_wanted_with_the_packet_filter_alone() -> None:
    off = replace(WHOLE, parameters={FORWARD: "0", FILTER: "0"})
    assert seen().missing(WANTED, off) == {Parameter(name=FORWARD, value="1"): REPAIR_DELAY}
    assert seen().missing(WANTED, off, forward=False) == {}
    assert seen().missing(WANTED, WHOLE, forward=False) == {Parameter(name=FORWARD, value="0"): REPAIR_DELAY}


def test_a_parameter_that_the_host_has_not_got_is_not_missing() -> None:
    assert seen().missing(WANTED, replace(WHOLE, parameters={FILTER: "0"})) == {}


@given(st.data())
def test_what_is_missing_is_always_wanted_and_never_there(data: st.DataObject) -> None:
    drift = Drift()
    for _ in range(data.draw(st.integers(1, 6))):
        wanted = Wanted(
            rules=data.draw(st.lists(st.sampled_from(WANTED.rules), unique=True)),
            routes=data.draw(st.lists(st.sampled_from(WANTED.routes), unique=True)),
            addresses=data.draw(st.lists(st.sampled_from(WANTED.addresses), unique=True)),
            tuns=data.draw(st.lists(st.sampled_from(WANTED.tuns), unique=True)),
        )
        names = data.draw(st.sets(st.sampled_from(sorted(WHOLE.devices))))
        present = Present(
            devices={
                name: Device(
                    data.draw(st.integers(1, 3)), data.draw(st.booleans()), data.draw(st.booleans()), 1400, "tun"
                )
                for name in names
            },
            rules=frozenset(data.draw(st.sets(st.sampled_from(sorted(WHOLE.rules, key=str))))),
            routes=frozenset(data.draw(st.sets(st.sampled_from(sorted(WHOLE.routes, key=str))))),
        )
        missing = drift.missing(wanted, present)
        things: list[Thing] = [*wanted.rules, *wanted.routes, *wanted.addresses, *wanted.tuns]
        for thing in missing:
            assert thing in things or isinstance(thing, TunState)
            if isinstance(thing, Rule):
                assert rule_key(thing) not in present.rules
                assert thing.device in present.devices
            elif isinstance(thing, Route):
                assert route_key(thing) not in present.routes
            elif isinstance(thing, Tun):
                assert thing.name not in present.devices
