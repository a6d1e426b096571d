"""Who gets a place among the unregistered: never more than there are, and a client that means it has its chance."""

from __future__ import annotations

import random
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from mpquic.proto.unregistered import Unregistered, UnregisteredLimits, sources

LIMITS = UnregisteredLimits(places=24, reserved=8, per_address=6, retry_threshold=5, max_known=4, max_debtors=5)
HOSTS = ["192.0.2.1", "192.0.2.2", "198.51.100.1", "203.0.113.1", "2001:db8::1", "2001:db8:0:1::1", "2001:db8:1::1"]


def fill(places: Unregistered[int], hosts: list[str], now: float, first: int = 0) -> None:
    for number, host in enumerate(hosts, first):
        assert places.enter(number, host, now).refusal is None


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
    fill(places, ["198.51.100.1"] * 5 + ["198.51.100.2"] * 4 + ["192.0.2.1"] * 6 + ["203.0.113.1"], 0.0)
    assert places.enter(90, "203.0.113.9", 0.5).refusal == "too many unregistered"
    assert places.enter(91, "203.0.113.9", 1.5).evicted == 0
    assert places.enter(92, "203.0.113.8", 1.5).evicted == 1
    assert len(places) == 16


def test_an_ipv6_network_counts_as_one_whatever_addresses_it_uses():
    places = Unregistered[int](LIMITS)
    fill(places, [f"2001:db8:7:{number}::1" for number in range(14)] + ["192.0.2.1"] * 2, 0.0)
    assert places.enter(99, "203.0.113.1", 2.0).evicted == 0


def test_places_are_kept_for_addresses_that_were_admitted_lately():
    places = Unregistered[int](LIMITS)
    fill(places, ["192.0.2.1"], 0.0)
    places.admitted(0, 0.0)
    fill(places, [f"198.51.100.{number}" for number in range(16)], 10.0, 1)
    assert places.enter(50, "203.0.113.1", 10.0).refusal == "too many unregistered"
    fill(places, ["192.0.2.1"] * 6, 10.0, 60)
    # Nobody takes these places away.
    for number in range(100, 150):
        decision = places.enter(number, "203.0.113.1", 12.0 + number / 1000)
        assert decision.evicted is None or decision.evicted < 60 or decision.evicted >= 100


def test_an_address_is_known_for_a_day():
    places = Unregistered[int](LIMITS)
    fill(places, ["192.0.2.1"], 0.0)
    places.admitted(0, 0.0)
    fill(places, [f"198.51.100.{number}" for number in range(16)], 86401.0, 1)
    assert places.enter(50, "192.0.2.1", 86401.0).refusal == "too many unregistered"


def test_a_network_that_has_cost_much_waits_while_there_is_much_to_do_and_no_other_does():
    places = Unregistered[int](UnregisteredLimits())
    now = 0.0
    for number in range(20):
        now = number * 0.05
        if places.enter(number, "198.51.100.1", now).refusal is None:
            places.count(number, 5, 0.05, 0.05, now)
            places.leave(number)
    assert places.must_prove_address(now)
    assert "cost too much" in (places.enter(50, "198.51.100.77", now).refusal or "")
    assert places.enter(51, "192.0.2.1", now).refusal is None
    # Later there is less to do, and what it has cost is forgotten.
    assert places.enter(52, "198.51.100.77", now + 10).refusal is None


def test_where_others_take_the_processor_less_of_it_is_much():
    for elapsed in (0.02, 0.4):
        places = Unregistered[int](UnregisteredLimits())
        assert places.enter(1, "198.51.100.1", 0.0).refusal is None
        places.count(1, 5, 0.02, elapsed, 0.0)
        places.leave(1)
        assert (places.enter(2, "198.51.100.1", 0.0).refusal is not None) is (elapsed > 0.3)


def test_who_was_admitted_has_cost_nothing_in_vain():
    places = Unregistered[int](UnregisteredLimits())
    for number in range(40):
        assert places.enter(number, "192.0.2.1", number * 0.01).refusal is None
        places.count(number, 10, 0.05, 0.05, number * 0.01)
        places.admitted(number, number * 0.01)


def test_one_connection_is_bounded_by_count_and_by_cost():
    places = Unregistered[int](UnregisteredLimits())
    fill(places, ["192.0.2.1", "192.0.2.1"], 0.0)
    assert places.count(0, 128, 0.01, 0.01, 0.0) is None
    assert places.count(0, 1, 0.0, 0.0, 0.0) == "too many datagrams before the registration"
    assert places.count(1, 1, 0.11, 0.11, 0.0) == "too much processor time before the registration"
    assert places.count(7, 1000, 1.0, 1.0, 0.0) is None


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens, tables stay within their limits and consistent."""

    def __init__(self) -> None:
        super().__init__()
        self.places = Unregistered[int](LIMITS)
        self.numbers = count()
        self.now = 0.0
        self.inside: dict[int, float] = {}

    @rule(host=st.sampled_from(HOSTS), times=st.integers(1, 8))
    def come(self, host: str, times: int) -> None:
        for _ in range(times):
            number = next(self.numbers)
            decision = self.places.enter(number, host, self.now)
            if decision.refusal is not None:
                assert decision.evicted is None
                continue
            if decision.evicted is not None:
                assert self.now - self.inside.pop(decision.evicted) >= LIMITS.grace
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
        assert len(places) == len(self.inside) <= LIMITS.places
        assert all(number in places for number in self.inside)
        assert sum(map(len, places._networks.values())) == len(places)
        assert places._unknown <= LIMITS.places - LIMITS.reserved
        assert len(places._known) <= LIMITS.max_known
        assert len(places._debts) <= LIMITS.max_debtors


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
        decision = places.enter(number, host, now)
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
            if places.enter(client, "192.0.2.1", now).refusal is None:
                entered = now
    raise AssertionError("the client got no place in 5 s")
