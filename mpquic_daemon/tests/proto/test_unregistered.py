"""Who gets a place among the unregistered: never more than there are, and a client that means it has its chance."""

from __future__ import annotations

import random
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from mpquic.proto.control.unregistered import Decision, Unregistered, UnregisteredLimits, sources

LIMITS = UnregisteredLimits(
    places=24, reserved=8, per_address=6, per_identity=3, max_known=4, max_debtors=5, max_ports=6
)
HOSTS = ["192.0.2.1", "192.0.2.2", "198.51.100.1", "203.0.113.1", "2001:db8::1", "2001:db8:0:1::1", "2001:db8:1::1"]


def enter(
    places: Unregistered[int], number: int, host: str, now: float, *, port: int | None = None, is_proven: bool = True
) -> Decision[int]:
    """Come from a port of its own, if no other is given."""
    return places.enter(number, host, number if port is None else port, now, is_proven=is_proven)


def fill(places: Unregistered[int], hosts: list[str], now: float, first: int = 0) -> None:
    for number, host in enumerate(hosts, first):
        assert enter(places, number, host, now).refusal is None


@pytest.mark.parametrize(
    ("host", "address", "network"),
    [
        ("192.0.2.7", "192.0.2.7/32", "192.0.2.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/64", "fe80::/48"),
    ],
)
def test_an_address_and_its_network(host, address, network):
    assert sources(host) == (address, network)


def test_a_site_with_many_tunnels_behind_one_address_comes_back_at_once():
    places = Unregistered[int](UnregisteredLimits())
    fill(places, ["192.0.2.1"] * 60, 0.0)
    assert len(places) == 60


def test_under_pressure_the_time_to_register_is_shorter():
    places = Unregistered[int](LIMITS)
    fill(places, [f"192.0.2.{number}" for number in range(8)], 0.0)
    assert places.next_expiry() == 10.0
    fill(places, ["198.51.100.1"], 1.0, 100)
    assert places.next_expiry() == 4.0
    assert places.pop_expired(3.9) == []
    # With the first of them gone there is no pressure any more.
    assert places.pop_expired(4.0) == [0]
    assert places.next_expiry() == 10.0


def test_the_oldest_of_the_fullest_address_of_the_fullest_network_makes_room():
    places = Unregistered[int](LIMITS)
    fill(places, ["198.51.100.1"] * 6 + ["198.51.100.2"] * 6 + ["192.0.2.1"] * 6 + ["203.0.113.1"] * 6, 0.0)
    assert enter(places, 90, "203.0.113.9", 0.5).refusal == "too_many_unregistered"
    assert enter(places, 91, "203.0.113.9", 1.5).evicted == 0
    assert enter(places, 92, "203.0.113.8", 1.5).evicted == 6
    assert len(places) == LIMITS.places


def test_an_ipv6_network_counts_as_one_whatever_addresses_it_uses():
    places = Unregistered[int](LIMITS)
    fill(places, [f"2001:db8:7:{number}::1" for number in range(22)] + ["192.0.2.1"] * 2, 0.0)
    assert enter(places, 99, "203.0.113.1", 2.0).evicted == 0


def test_places_are_left_to_addresses_that_were_admitted_lately():
    places = Unregistered[int](LIMITS)
    fill(places, ["192.0.2.1"], 0.0)
    places.admitted(0, 0.0)
    fill(places, [f"198.51.100.{number}" for number in range(24)], 10.0, 1)
    assert enter(places, 50, "203.0.113.1", 10.0).refusal == "too_many_unregistered"
    assert [enter(places, number, "192.0.2.1", 10.0).evicted for number in range(60, 66)] == list(range(24, 18, -1))
    # Nobody takes these places away.
    for number in range(100, 150):
        decision = enter(places, number, "203.0.113.1", 12.0 + number / 1000)
        assert decision.evicted is None or decision.evicted < 60 or decision.evicted >= 100


def test_one_known_address_does_not_keep_what_is_reserved_for_all():
    places = Unregistered[int](UnregisteredLimits(places=24, reserved=8, per_address=12))
    for number, host in enumerate(["192.0.2.1", "203.0.113.1"]):
        fill(places, [host], 0.0, number)
        places.admitted(number, 0.0)
    fill(places, ["192.0.2.1"] * 20, 10.0, 10)
    fill(places, [f"198.51.100.{number}" for number in range(4)], 10.0, 50)
    assert enter(places, 60, "203.0.113.1", 10.1).evicted == 29
    assert enter(places, 61, "10.0.0.1", 10.1).evicted == 28


def test_an_address_is_known_for_a_day():
    places = Unregistered[int](LIMITS)
    fill(places, ["192.0.2.1"], 0.0)
    places.admitted(0, 0.0)
    fill(places, [f"198.51.100.{number}" for number in range(24)], 86401.0, 1)
    assert enter(places, 50, "192.0.2.1", 86401.0).refusal == "too_many_unregistered"


def test_what_an_address_has_beyond_its_share_makes_room_for_others_at_once():
    places = Unregistered[int](LIMITS)
    fill(places, ["192.0.2.1"] * 24, 0.0)
    assert enter(places, 50, "192.0.2.1", 0.5).refusal == "too_many_unregistered"
    assert [enter(places, number, "203.0.113.1", 0.5).evicted for number in range(60, 63)] == [23, 22, 21]
    # It makes room for its own as well, once they have had their time, and takes that of nobody else.
    assert [enter(places, number, "192.0.2.1", 1.2).evicted for number in range(70, 73)] == [0, 1, 2]


def test_from_one_port_come_two_connections_at_most():
    places = Unregistered[int](LIMITS)
    decisions = [enter(places, number, "192.0.2.1", 0.0, port=5000).refusal for number in range(3)]
    assert decisions == [None, None, "too_many_unregistered_of_port"]
    assert enter(places, 4, "192.0.2.1", 0.0, port=5001).refusal is None
    places.leave(0)
    assert enter(places, 5, "192.0.2.1", 0.0, port=5000).refusal is None


def test_a_network_that_has_cost_much_waits_while_there_is_much_to_do_and_no_other_does():
    places = Unregistered[int](UnregisteredLimits())
    now = 0.0
    for number in range(20):
        now = number * 0.05
        if enter(places, number, "198.51.100.1", now).refusal is None:
            places.count(number, 5, 0.05, 0.05, now)
            places.leave(number)
    assert places.must_prove_address(now)
    assert enter(places, 50, "198.51.100.77", now).refusal == "network_cost_exceeded"
    assert enter(places, 51, "192.0.2.1", now).refusal is None
    # Later there is less to do, and what it has cost is forgotten.
    assert enter(places, 52, "198.51.100.77", now + 10).refusal is None


def test_where_others_take_the_processor_less_of_it_is_much():
    for elapsed in (0.02, 0.4):
        places = Unregistered[int](UnregisteredLimits())
        assert enter(places, 1, "198.51.100.1", 0.0).refusal is None
        places.count(1, 5, 0.02, elapsed, 0.0)
        places.leave(1)
        assert (enter(places, 2, "198.51.100.1", 0.0, port=1).refusal is not None) is (elapsed > 0.3)


@pytest.mark.parametrize(("elapsed", "used", "fresh"), [(0.2, True, True), (0.5, False, True), (0.7, False, False)])
def test_a_port_that_was_not_used_in_vain_waits_less_than_others_of_its_network(elapsed, used, fresh):
    places = Unregistered[int](UnregisteredLimits())
    fill(places, ["192.0.2.1"] * 2, 0.0)
    places.count(0, 5, 0.05, elapsed, 0.0)
    places.leave(0)
    for number, port, admitted in ((50, 0, used), (51, 1, used), (52, 9, fresh)):
        assert (enter(places, number, "192.0.2.1", 0.0, port=port).refusal is None) is admitted


@pytest.mark.parametrize(("elapsed", "admitted"), [(0.5, True), (0.8, True), (1.0, False)])
def test_a_known_address_waits_less_than_others_and_for_its_own_cost_alone(elapsed, admitted):
    places = Unregistered[int](UnregisteredLimits())
    fill(places, ["192.0.2.1"] * 2 + ["192.0.2.2"], 0.0)
    places.admitted(0, 0.0)
    places.count(2, 5, 0.05, elapsed / 2, 0.0)
    places.leave(2)
    assert enter(places, 50, "192.0.2.1", 0.0).refusal is None
    places.count(1, 5, 0.05, elapsed / 2, 0.0)
    places.leave(1)
    assert (enter(places, 51, "192.0.2.1", 0.0).refusal is None) is admitted


def test_who_was_admitted_has_cost_nothing_in_vain():
    places = Unregistered[int](UnregisteredLimits())
    for number in range(40):
        assert enter(places, number, "192.0.2.1", number * 0.01).refusal is None
        places.count(number, 10, 0.05, 0.05, number * 0.01)
        places.admitted(number, number * 0.01)


def test_a_forged_address_costs_its_owner_nothing():
    """Neither processor time nor places nor ports are put to the account of an address that isn't proven."""
    places = Unregistered[int](UnregisteredLimits())
    for number in range(500):
        now = number * 0.02
        while places.must_prove_address(now):
            now += 0.01
        decision = enter(places, number, f"192.0.2.{number % 4}", now, port=40000, is_proven=False)
        if decision.refusal is None:
            places.count(number, 1, 0.02, 0.02, now)
            if number % 3:
                places.leave(number)
    places.count(0, 1, 0.09, 1.0, now)
    assert places.must_prove_address(now)
    assert enter(places, 1000, "192.0.2.1", now, port=40000).refusal is None


def test_a_handshake_proves_the_address():
    places = Unregistered[int](UnregisteredLimits())
    for number in range(3):
        assert enter(places, number, "192.0.2.1", 0.0, is_proven=False).refusal is None
        places.established(number, 0.1, is_proven=number != 1)
        places.count(number, 5, 0.02, 1.0, 0.1)
    places.leave(1)
    assert enter(places, 10, "192.0.2.9", 0.1).refusal is None
    places.leave(0)
    assert enter(places, 11, "192.0.2.9", 0.1).refusal == "network_cost_exceeded"


def test_known_is_only_an_address_that_is_proven():
    places = Unregistered[int](LIMITS)
    fill(places, ["192.0.2.1"], 0.0)
    places.admitted(0, 0.0)
    for number in range(1, 5):
        assert enter(places, number, "192.0.2.1", 1.0, is_proven=False).refusal is None
    assert places._known_places == 0
    places.established(1, 1.1, is_proven=True)
    assert places._known_places == 1


def test_who_has_shown_who_it_is_makes_room_for_nobody():
    places = Unregistered[int](LIMITS)
    fill(places, ["192.0.2.1"], 0.0)
    places.identified(0, "site1", 0.2)
    for number in range(1, 1000):
        assert enter(places, number, f"198.51.{number % 200}.1", number * 0.01).evicted != 0
    assert 0 in places
    assert len(places) == LIMITS.places + 1
    # It isn't there for ever, and its cost is bounded as before.
    assert 0 not in places.pop_expired(10.1)
    assert 0 in places.pop_expired(10.2)
    assert (places._identified, places._identities) == ({}, {})


def test_of_one_identity_some_have_a_place_beside_the_others():
    limits = UnregisteredLimits(per_identity=3)
    places = Unregistered[int](limits)
    fill(places, ["192.0.2.1"] * 6, 0.0)
    for number in range(5):
        places.identified(number, "site1", 0.2)
    places.identified(5, "site2", 0.2)
    assert sorted(places._identified) == [0, 1, 2, 5]
    places.admitted(0, 0.3)
    places.leave(1)
    places.identified(3, "site1", 0.4)
    assert sorted(places._identified) == [2, 3, 5]
    assert len(places) == 4
    assert places.count(2, 129, 0.0, 0.0, 0.4) == "too_many_datagrams_before_registration"


def test_the_time_of_each_stage_is_its_own():
    places = Unregistered[int](LIMITS)
    fill(places, ["192.0.2.1", "192.0.2.2"], 0.0)
    places.established(0, 3.0, is_proven=True)
    # Pressure shortens the time for a handshake, and for nothing else.
    fill(places, [f"198.51.100.{number}" for number in range(8)], 3.5, 10)
    assert places.pop_expired(4.0) == [1]
    assert places.next_expiry() == 7.5
    assert places.pop_expired(12.9) == [10]
    assert places.pop_expired(13.0) == [0]
    assert places.next_expiry() == 13.5


def test_one_connection_is_bounded_by_count_and_by_cost():
    places = Unregistered[int](UnregisteredLimits())
    fill(places, ["192.0.2.1", "192.0.2.1"], 0.0)
    assert places.count(0, 128, 0.01, 0.01, 0.0) is None
    assert places.count(0, 1, 0.0, 0.0, 0.0) == "too_many_datagrams_before_registration"
    assert places.count(1, 1, 0.11, 0.11, 0.0) == "too_much_processor_time_before_registration"
    assert places.count(7, 1000, 1.0, 1.0, 0.0) is None


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens, tables stay within their limits and consistent."""

    def __init__(self) -> None:
        super().__init__()
        self.places = Unregistered[int](LIMITS)
        self.numbers = count()
        self.now = 0.0
        self.inside: dict[int, float] = {}

    @rule(host=st.sampled_from(HOSTS), times=st.integers(1, 8), is_proven=st.booleans())
    def come(self, host: str, times: int, is_proven: bool) -> None:
        for _ in range(times):
            number = next(self.numbers)
            address, network = sources(host)
            known = is_proven and self.places._is_known(address, self.now)
            has_share = self.places._addresses[network, address] >= LIMITS.per_address
            has_room = known and not has_share and self.places._known_places < LIMITS.reserved
            identified = set(self.places._identified)
            decision = enter(self.places, number, host, self.now, is_proven=is_proven)
            if decision.refusal is not None:
                assert decision.evicted is None
                assert not has_room or decision.refusal == "network_cost_exceeded"
                continue
            if decision.evicted is not None:
                assert decision.evicted not in identified
                del self.inside[decision.evicted]
            self.inside[number] = self.now

    @rule(seconds=st.floats(0.0, 6.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for number in self.places.pop_expired(self.now):
            assert self.now - self.inside.pop(number) >= LIMITS.short_timeout

    @rule(data=st.data(), work=st.floats(0, 0.2), datagrams=st.integers(0, 50))
    def work(self, data: st.DataObject, work: float, datagrams: int) -> None:
        if self.inside:
            number = data.draw(st.sampled_from(sorted(self.inside)))
            if self.places.count(number, datagrams, work, 2 * work, self.now) is not None:
                self.places.leave(number)
                del self.inside[number]

    @rule(data=st.data(), is_proven=st.booleans())
    def establish(self, data: st.DataObject, is_proven: bool) -> None:
        if self.inside:
            self.places.established(data.draw(st.sampled_from(sorted(self.inside))), self.now, is_proven=is_proven)

    @rule(data=st.data(), identity=st.sampled_from(["site1", "site2"]))
    def identify(self, data: st.DataObject, identity: str) -> None:
        if self.inside:
            number = data.draw(st.sampled_from(sorted(self.inside)))
            self.places.identified(number, identity, self.now)

    @rule(data=st.data())
    def admit(self, data: st.DataObject) -> None:
        if self.inside:
            number = data.draw(st.sampled_from(sorted(self.inside)))
            self.places.admitted(number, self.now)
            self.places.leave(number)
            del self.inside[number]

    @invariant()
    def within_limits(self) -> None:
        places = self.places
        assert len(places) == len(self.inside)
        assert len(places._places) <= LIMITS.places
        assert all(number in places for number in self.inside)
        assert sum(places._networks.values()) == sum(places._addresses.values()) == len(places._places)
        assert all(0 < number <= LIMITS.per_port for number in places._ports.values())
        assert all(0 < number <= LIMITS.per_identity for number in places._identities.values())
        assert sum(map(len, places._since.values())) == len(places)
        assert places._known_places == sum(place.known for place in places._places.values())
        assert len(places._known) <= LIMITS.max_known
        assert len(places._debts) <= LIMITS.max_debtors
        assert len(places._used_ports) <= LIMITS.max_ports


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), networks=st.integers(1, 90), rate=st.integers(20, 400), cost=st.floats(0, 0.05))
def test_an_honest_client_gets_a_place_and_keeps_it_until_it_has_registered(seed, networks, rate, cost):
    """Attackers of many networks come as fast as they can and stay; the client needs a second, and tries for four."""
    dice = random.Random(seed)
    places = Unregistered[int](UnregisteredLimits())
    numbers = count(1)
    client = 0
    entered: float | None = None
    now, next_try = 0.0, 3.0
    while now < 8.0:
        now += dice.expovariate(rate)
        places.pop_expired(now)
        number = next(numbers)
        host = f"10.{dice.randrange(2)}.{dice.randrange(networks)}.{dice.randrange(256)}"
        decision = enter(places, number, host, now)
        if decision.refusal is None:
            places.count(number, 3, cost, cost, now)
        if decision.evicted == client and entered is not None:
            assert now - entered >= 1.0
            entered = None
        if entered is not None and now - entered >= 1.0:
            places.admitted(client, now)
            return
        if entered is None and now >= next_try:
            next_try = now + 0.9
            if enter(places, client, "192.0.2.1", now).refusal is None:
                entered = now
    raise AssertionError("the client got no place in 5 s")
