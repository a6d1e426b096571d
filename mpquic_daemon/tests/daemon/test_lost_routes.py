"""What linkd asks of systemd-networkd when the default route of a lease is deleted: with virtual time."""

from __future__ import annotations

import itertools
import socket
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from mpquic.linkd.routes import FIRST_PAUSE, GRACE, LostRoutes

if TYPE_CHECKING:
    from collections.abc import Collection

FOUR, SIX = int(socket.AF_INET), int(socket.AF_INET6)
HOST = ("192.0.2.7",)


def see(
    routes: LostRoutes,
    now: float,
    *,
    route: bool,
    hosts: Collection[str] = HOST,
    carrier: bool = True,
    family: int = FOUR,
) -> None:
    routes.seen("wan5", family, hosts, carrier=carrier, route=route, now=now)


def test_a_deleted_route_is_asked_for_by_a_renewal() -> None:
    routes = LostRoutes()
    see(routes, 0.0, route=True)
    see(routes, 10.0, route=False)
    assert routes.due(10.0) == []
    assert routes.next_time() == 10.0 + GRACE
    assert routes.due(10.0 + GRACE) == [("wan5", "renew")]
    assert routes.due(10.0 + GRACE) == []


def test_a_route_that_is_back_is_not_asked_for_again() -> None:
    routes = LostRoutes()
    see(routes, 0.0, route=True)
    see(routes, 10.0, route=False)
    see(routes, 10.1, route=True)
    assert routes.next_time() is None
    assert routes.due(100.0) == []


def test_renewals_that_do_not_help_are_followed_by_a_configuration_anew() -> None:
    routes = LostRoutes()
    see(routes, 0.0, route=True)
    see(routes, 10.0, route=False)
    verbs = [routes.due(now)[0][1] for now in (11.0, 11.0 + FIRST_PAUSE, 20.0, 40.0)]
    assert verbs == ["renew", "renew", "reconfigure", "reconfigure"]


def test_the_route_of_a_router_advertisement_asks_for_a_configuration_anew_at_once() -> None:
    routes = LostRoutes()
    see(routes, 0.0, route=True, family=SIX)
    see(routes, 10.0, route=False, family=SIX)
    assert routes.due(11.0) == [("wan5", "reconfigure")]


def test_a_lease_without_a_router_has_lost_nothing() -> None:
    routes = LostRoutes()
    see(routes, 0.0, route=False, hosts=())
    see(routes, 1.0, route=False)
    see(routes, 60.0, route=False)
    assert routes.due(120.0) == []


def test_a_route_that_was_gone_before_the_start_is_asked_for_twice_and_no_more() -> None:
    routes = LostRoutes()
    see(routes, 0.0, route=False)
    found = []
    for now in range(1, 600):
        see(routes, float(now), route=False)
        found += routes.due(float(now))
    assert found == [("wan5", "renew")] * 2
    assert routes.next_time() is None


def test_a_lease_that_ends_takes_its_route_along() -> None:
    routes = LostRoutes()
    see(routes, 0.0, route=True)
    see(routes, 10.0, route=False, hosts=())
    see(routes, 20.0, route=False)
    assert routes.due(30.0) == []


def test_another_lease_owes_no_route_of_the_former() -> None:
    routes = LostRoutes()
    see(routes, 0.0, route=True)
    see(routes, 10.0, route=False, hosts=("198.51.100.4",))
    assert routes.due(30.0) == []


def test_without_carrier_nothing_is_asked_for() -> None:
    routes = LostRoutes()
    see(routes, 0.0, route=True)
    see(routes, 10.0, route=False, carrier=False)
    assert routes.due(30.0) == []


def test_a_device_that_is_no_wan_any_more_is_forgotten() -> None:
    routes = LostRoutes()
    see(routes, 0.0, route=True)
    see(routes, 10.0, route=False)
    routes.forget(["wan6"])
    assert routes.due(30.0) == []


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0.0, 40.0)), max_size=80))
def test_nothing_is_asked_more_often_than_every_second_or_so(steps: list[tuple[bool, bool, float]]) -> None:
    routes = LostRoutes()
    now, quiet_since = 0.0, 0.0
    asked: list[float] = []
    for route, carrier, pause in steps:
        see(routes, now, route=route, carrier=carrier)
        if route:
            quiet_since = now
        for _ in routes.due(now):
            assert not route
            assert now - quiet_since >= GRACE
            asked.append(now)
        now += pause
    # Between two requests there was the pause, or the route had been back for a moment.
    assert all(later - earlier >= GRACE for earlier, later in itertools.pairwise(asked))
