"""Outages and sleep in virtual time: a striped tunnel is striped again as soon as there is evidence that it can be."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from mpquic.proto.stripe.pipes import IDLE_INTERVAL, LIVELY_TIME, SELDOM_INTERVAL
from mpquic.proto.stripe.renewal import FIRST_PAUSE, LAST_PAUSE

from .conftest import Site
from .virtual import CLIENT, QUIC_PORT, STRIPE_PORT, Ends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .virtual import Endpoint

    Make = Callable[..., Ends]

WITHIN = 2.0
"""Seconds in which a tunnel is striped again once its path answers."""
OUTAGES = (1, 5, 20, 27, 29, 31, 45, 59, 61, 90, 150, 600)
SLEEPS = (5, 29, 31, 45, 89, 120, 600)


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Callable[..., Ends]]:
    """Makes two ends, by default striped ones, and ends them after the test."""
    made: list[Ends] = []

    def make(*, striped: bool = True, **settings: object) -> Ends:
        both = Ends(Site(tmp_path), **settings)
        made.append(both)
        both.wait(lambda: both.session if striped else both.state == "up", 5.0, "up")
        both.run(5.0)
        return both

    yield make
    for both in made:
        both.close()


def to_client(_source: Endpoint, destination: Endpoint) -> bool:
    return destination[0] == CLIENT


def from_client(source: Endpoint, _destination: Endpoint) -> bool:
    return source[0] == CLIENT


def pipes(source: Endpoint, destination: Endpoint) -> bool:
    return STRIPE_PORT in (source[1], destination[1])


def check_recovery(both: Ends) -> None:
    """The path works from now on: the tunnel is striped soon and stays so, and packets pass in both directions."""
    healed = both.now
    both.wait(lambda: both.session and both.state == "up", WITHIN, "striped")
    both.run(healed + WITHIN - both.now)
    session = both.session
    assert session is not None
    both.run(10.0)
    assert (both.session, both.state) == (session, "up")
    if both.probes:
        for name in ("cl", "sv"):
            later = [moment for moment in both.arrivals(name) if moment > healed + both.network.delay]
            assert later[0] <= healed + WITHIN
            # One is sent every 0.1 s: no more than two in a row are lost when it is another plane that carries.
            gaps = [b - a for a, b in itertools.pairwise(moment for moment in later if moment > healed + WITHIN)]
            assert max(gaps) < 0.35


@pytest.mark.parametrize("packets", [1, 20])
@pytest.mark.parametrize("seconds", [0.5, 2.0, 2.9])
@pytest.mark.parametrize(
    "settings", [{"transport": "stripe"}, {"transport": "quic"}, {"transport": "quic", "transport_mode": "reliable"}]
)
def test_packets_pass_at_once_after_an_outage_in_which_more_came(
    ends: Make, settings: dict[str, object], seconds: float, packets: int
) -> None:
    """Timeouts that grow with each repetition aren't waited for: so many packets come in each 0.1 s."""
    both = ends(striped=settings["transport"] == "stripe", **settings)

    def go_on(tenths: int) -> None:
        for _ in range(tenths):
            for _ in range(packets - 1):
                both._send_probes()
            both.run(0.1)

    go_on(50)
    both.network.cut()
    go_on(round(10 * seconds))
    both.network.heal()
    healed = both.now
    go_on(50)
    for name in ("cl", "sv"):
        times = [healed, *(moment for moment in both.arrivals(name) if moment > healed)]
        assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 0.25


@pytest.mark.simulation
@pytest.mark.parametrize("probes", [True, False], ids=["traffic", "idle"])
@pytest.mark.parametrize("seconds", OUTAGES)
def test_striped_within_2_s_after_an_outage(ends: Make, seconds: float, probes: bool) -> None:
    both = ends(probes=probes)
    both.network.cut()
    both.run(seconds)
    both.network.heal()
    check_recovery(both)


@pytest.mark.simulation
@pytest.mark.parametrize("direction", [to_client, from_client])
@pytest.mark.parametrize("seconds", [5, 29, 31, 61, 150])
def test_striped_within_2_s_after_an_outage_of_one_direction(
    ends: Make, seconds: float, direction: Callable[[Endpoint, Endpoint], bool]
) -> None:
    both = ends()
    both.network.lost = direction
    both.run(seconds)
    both.network.heal()
    check_recovery(both)


@pytest.mark.parametrize("seconds", [28.0 + step / 2 for step in range(13)])
def test_striped_within_2_s_whichever_end_has_forgotten_the_session_first(ends: Make, seconds: float) -> None:
    both = ends(probes=False)
    both.network.cut()
    both.run(seconds)
    both.network.heal()
    check_recovery(both)


def test_striped_again_after_each_of_many_outages(ends: Make) -> None:
    both = ends()
    for seconds in (4, 33, 2, 61, 29, 95, 30, 3, 31, 12):
        both.network.cut()
        both.run(seconds)
        both.network.heal()
        check_recovery(both)
    tables = both.server.counters()["tables"]
    assert (tables["stripe_sessions"], tables["registered"], tables["groups"]) == (1, 1, 1)


@pytest.mark.simulation
@pytest.mark.parametrize("sleepers", [("cl",), ("sv",), ("cl", "sv")], ids=["client", "server", "both"])
@pytest.mark.parametrize("seconds", SLEEPS)
def test_striped_within_2_s_after_sleep(ends: Make, seconds: float, sleepers: tuple[str, ...]) -> None:
    both = ends()
    for name in sleepers:
        both.sleep(name, seconds)
    both.run(seconds)
    check_recovery(both)


def test_striped_within_2_s_after_an_outage_in_which_a_client_slept(ends: Make) -> None:
    both = ends()
    both.network.cut()
    both.run(20.0)
    both.sleep("cl", 45.0)
    both.run(50.0)
    both.network.heal()
    check_recovery(both)


def test_a_lease_is_not_asked_for_because_this_process_slept(ends: Make) -> None:
    both = ends(bind_ip="iface:wan0")
    both.sleep("cl", 45.0)
    both.run(46.0)
    assert both.client._paths[0].wan.lease._asked is False


@pytest.mark.parametrize("outage", [0.0, 1.0, 40.0, 120.0])
def test_striped_within_2_s_on_a_wan_with_another_address(ends: Make, outage: float) -> None:
    both = ends(bind_ip="iface:wan0")
    both.network.cut()
    both.run(outage)
    both.network.heal()
    both.processes["cl"].call(lambda: both.monitors[0].change("10.77.1.3"))
    check_recovery(both)


def test_striped_within_2_s_on_a_wan_that_returns(ends: Make) -> None:
    both = ends(bind_ip="iface:wan0")
    both.processes["cl"].call(lambda: both.monitors[0].change(None))
    both.run(100.0)
    assert (both.state, both.session) == ("inactive", None)
    both.processes["cl"].call(lambda: both.monitors[0].change("10.77.1.2"))
    check_recovery(both)


@pytest.mark.simulation
def test_a_path_that_lets_quic_through_and_no_pipe_is_asked_with_growing_pauses(ends: Make) -> None:
    both = ends()
    both.network.lost = pipes
    requests: list[float] = []
    sessions: set[int] = set()
    end = both.now + 400.0
    while both.now < end:
        both.run(0.25)
        known = set(both.server._stripe.table._sessions)
        if known - sessions:
            requests.append(both.now)
            sessions |= known
    pauses = [later - earlier for earlier, later in itertools.pairwise(requests[1:])]
    assert pauses[0] == pytest.approx(FIRST_PAUSE, abs=0.6)
    assert max(pauses) == pytest.approx(LAST_PAUSE, abs=0.6)
    assert all(after >= before - 0.6 for before, after in itertools.pairwise(pauses))
    assert len(requests) <= 13
    assert both.state == "up"
    assert both.client.status()["reconnects"] == 0, "QUIC carries, and its connection stays"
    # What is tried next finds the port open: nobody needs to wait for longer than the longest pause.
    both.network.heal()
    both.wait(lambda: both.session, LAST_PAUSE + WITHIN, "striped")


def test_pipes_that_are_let_through_again_soon_carry_at_once(ends: Make) -> None:
    both = ends()
    for seconds in (4.0, 6.0, 15.0):
        both.network.lost = pipes
        both.run(seconds)
        assert both.session is None
        both.network.heal()
        check_recovery(both)


def test_packets_pass_by_quic_while_no_pipe_carries(ends: Make) -> None:
    both = ends()
    both.network.lost = pipes
    both.run(60.0)
    for name in ("cl", "sv"):
        lately = [moment for moment in both.arrivals(name) if moment > both.now - 50.0]
        # A packet may be lost each time that another session is tried: it takes a moment to find it silent.
        assert len(lately) > 480


def test_a_session_that_has_used_up_its_keys_is_replaced_at_once(ends: Make) -> None:
    both = ends()
    before = both.session
    both.processes["cl"].call(lambda: setattr(both.client._paths[0].current.plane.session, "exhausted", True))
    both.wait(lambda: both.session not in (None, before), WITHIN, "another session")
    assert both.client.status()["reconnects"] == 0


def test_requests_that_come_too_fast_change_nothing(ends: Make) -> None:
    both = ends()
    before = both.session

    def ask_often() -> None:
        for _ in range(50):
            both.client._paths[0].current.stripe_requests.send(both.now)
        both.client._iterate()

    both.processes["cl"].call(ask_often)
    both.run(0.5)
    granted = both.session
    assert granted != before, "the first of them is granted"
    both.run(30.0)
    assert both.server.counters()["tables"]["stripe_sessions"] == 1
    assert both.session is not None


def test_a_server_without_striping_is_asked_seldom_and_told_of_once(
    ends: Make, caplog: pytest.LogCaptureFixture
) -> None:
    both = ends(striped=False, server={"stripe_enabled": False})
    requests, asked = both.client._paths[0].current.stripe_requests, []
    send = requests.send
    requests.send = lambda now: (asked.append(now), send(now))
    both.run(250.0)
    assert 6 <= len(asked) <= 9
    assert both.state == "up"
    assert caplog.text.count("path.no_stripe") == 1
    assert both.client.status()["reconnects"] == 0


def test_the_ends_speak_by_the_ports_that_the_tests_block(ends: Make) -> None:
    both = ends()
    assert {port for _, port in both.network.sockets} >= {QUIC_PORT, STRIPE_PORT}


def requests(both: Ends, seconds: float) -> float:
    """How many datagrams a second a client has sent by pipes for so long."""
    sent = 0
    send = both.network.send

    def count(source: Endpoint, destination: Endpoint, data: bytes) -> None:
        nonlocal sent
        sent += destination[1] == STRIPE_PORT
        send(source, destination, data)

    both.network.send = count  # type: ignore[method-assign]
    both.run(seconds)
    both.network.send = send  # type: ignore[method-assign]
    return sent / seconds


def test_an_idle_path_is_probed_less_often_while_nobody_looks(ends: Make) -> None:
    both = ends(probes=False)
    both.run(LIVELY_TIME / 2)
    assert requests(both, 20.0) == pytest.approx(1 / IDLE_INTERVAL, rel=0.1)
    both.run(LIVELY_TIME)
    states = both.states()
    assert requests(both, 40.0) == pytest.approx(1 / SELDOM_INTERVAL, rel=0.1)
    both.client.paths()
    assert requests(both, 40.0) == pytest.approx(1 / IDLE_INTERVAL, rel=0.1)
    both.run(LIVELY_TIME)
    # The first packet after the rest: neither end takes the other for late.
    both.probes, both._next_probe = True, both.now
    both.run(20.0)
    assert states == []
    assert both.session is not None


def test_a_server_learns_from_requests_how_often_they_come(ends: Make) -> None:
    both = ends(probes=False)
    [(session, _)] = both.server._stripe.table._sessions.values()

    def interval_after(seconds: float) -> float:
        both.run(seconds)
        return session.pipes.rest_interval(both.now)

    assert interval_after(LIVELY_TIME + 20.0) == SELDOM_INTERVAL
    both.client.paths()
    assert interval_after(2 * SELDOM_INTERVAL) == IDLE_INTERVAL
    assert interval_after(LIVELY_TIME) == SELDOM_INTERVAL


def test_a_path_at_which_nobody_has_looked_is_probed_seldom_from_the_beginning(tmp_path: Path) -> None:
    both = Ends(Site(tmp_path), probes=False)
    try:
        both.run(30.0)
        assert requests(both, 40.0) == pytest.approx(1 / SELDOM_INTERVAL, rel=0.1)
        assert both.session is not None
    finally:
        both.close()


def test_a_path_that_rests_is_called_down_as_soon_and_its_round_trip_is_right(ends: Make) -> None:
    both = ends(probes=False)
    both.run(LIVELY_TIME + 20.0)
    both.network.delay = 0.15
    both.run(3.0)
    assert both.client.paths()[0]["rtt_seconds"] == pytest.approx(0.3, rel=0.2)
    both.run(LIVELY_TIME + 20.0)
    both.network.cut()
    assert both.wait(lambda: both.state == "down", 6.0, "down") < 5.5
