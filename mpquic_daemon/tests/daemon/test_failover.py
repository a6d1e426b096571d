"""A tunnel over two WANs: it goes by the better one, leaves it when it falls silent, and comes back."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import Site
from .virtual import CLIENT, SERVER, Ends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Make = Callable[..., Ends]

SECOND = "10.77.3.2"
"""The client's address on its second WAN."""
ADDRESSES = {"wan5": CLIENT, "wan6": SECOND}
TRANSPORTS = {
    "stripe": {"transport": "stripe"},
    "datagram": {"transport": "quic"},
    "reliable": {"transport": "quic", "transport_mode": "reliable"},
}


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Make]:
    """Both ends, up by both WANs; or by those alone that aren't `dead` from the beginning."""
    made: list[Ends] = []

    def make(transport: str = "stripe", dead: str | None = None, **settings: Any) -> Ends:
        paths = [
            {"name": name, "bind_ip": address, "remote_addr": SERVER, "remote_port": 45009, "priority": priority}
            for priority, (name, address) in enumerate(ADDRESSES.items(), 100)
        ]
        nothing = dict.fromkeys(("bind_ip", "remote_addr", "remote_port", "wan"))
        both = Ends(
            Site(tmp_path),
            **nothing,
            multipath_enabled=True,
            multipath_paths=paths,
            **TRANSPORTS[transport],
            **settings,
        )
        made.append(both)
        if dead is not None:
            cut(both, dead)
            both.wait(lambda: both.state == "up", 5.0, "up by the other")
            return both
        both.wait(lambda: all(state(both, end, name) == "up" for end in ("cl", "sv") for name in ADDRESSES), 5.0, "up")
        both.run(5.0)
        return both

    yield make
    for both in made:
        both.close()


def state(both: Ends, end: str, name: str) -> object:
    """What one end calls a path."""
    role = both.client if end == "cl" else both.server
    return next((row["state"] for row in role.paths() if row["path"] == name), None)


def cut(both: Ends, name: str, *, up: bool = True, down: bool = True) -> None:
    """Have a WAN lose all packets silently, in one direction or both."""
    address = ADDRESSES[name]
    both.network.lost = lambda source, destination: bool(
        (up and source[0] == address) or (down and destination[0] == address)
    )


def heal(both: Ends) -> None:
    both.network.lost = lambda _source, _destination: False


def datagrams(both: Ends, name: str) -> int:
    """How many datagrams the client has sent by a WAN with its present sockets."""
    address = ADDRESSES[name]
    return sum(sock.counters.tx_datagrams for sock in both.network.sockets.values() if sock.local_address[0] == address)


def tunnel_counters(role: Any) -> dict[str, int]:
    found: dict[str, int] = role.counters()["tunnel"]
    return found


def longest_pause(both: Ends, end: str, since: float) -> float:
    times = [since, *(moment for moment in both.arrivals(end) if moment >= since), both.now]
    return max(later - earlier for earlier, later in pairwise(times))


def repeated(both: Ends, end: str) -> int:
    """How many packets came out of a TUN more than once."""
    return sum(count - 1 for count in Counter(packet for _, packet in both.tuns[end].received).values())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_better_path_carries_while_both_are_up(ends: Make, transport: str) -> None:
    both = ends(transport)
    assert both.client.status()["state"] == "up"
    assert [row["path"] for row in both.client.paths()] == ["wan5", "wan6"]
    assert {row["path"] for row in both.server.paths()} == {"wan5", "wan6"}
    before = {name: datagrams(both, name) for name in ADDRESSES}
    both.run(20.0)
    sent = {name: datagrams(both, name) - before[name] for name in ADDRESSES}
    # Beside what keeps both alive, the packets of 20 s.
    assert sent["wan5"] - sent["wan6"] >= 150
    assert longest_pause(both, "cl", both.now - 20) < 0.2 > longest_pause(both, "sv", both.now - 20)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("direction", ["both", "up", "down"])
def test_traffic_leaves_a_path_that_falls_silent_and_comes_back(ends: Make, transport: str, direction: str) -> None:
    both = ends(transport)
    began = both.now
    cut(both, "wan5", up=direction != "down", down=direction != "up")
    both.run(30.0)
    assert longest_pause(both, "cl", began) < 2.0 > longest_pause(both, "sv", began)
    assert both.client.status()["flaps"] == 0
    healed = both.now
    heal(both)
    both.wait(lambda: all(state(both, end, "wan5") == "up" for end in ("cl", "sv")), 5.0, "back")
    both.run(max(0.0, healed + 5.0 - both.now))
    before = datagrams(both, "wan6")
    both.run(10.0)
    assert datagrams(both, "wan6") - before < 60, "probes and keepalives alone"
    assert longest_pause(both, "cl", healed) < 1.0 > longest_pause(both, "sv", healed)
    assert repeated(both, "cl") == repeated(both, "sv") == 0


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_was_in_flight_on_the_silent_path_is_sent_again_by_the_other(ends: Make, transport: str) -> None:
    """But for QUIC datagrams, of which nobody knows what became of them."""
    both = ends(transport)
    received = {end: len(both.tuns[end].received) for end in ("cl", "sv")}
    began = both.now
    cut(both, "wan5")
    both.run(20.0)
    for end, role in (("cl", both.server), ("sv", both.client)):
        resent = tunnel_counters(role)["tx_resent_packets"]
        lost = round((both.now - began) * 10) - (len(both.tuns[end].received) - received[end])
        if transport == "datagram":
            assert resent == 0
        else:
            assert resent >= 5
            # Pipes give up what is older than a second by themselves.
            assert lost <= (5 if transport == "stripe" else 2)
    assert repeated(both, "cl") == repeated(both, "sv") == 0


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_tunnel_without_any_path_is_down_and_back_by_whichever_comes_first(ends: Make, transport: str) -> None:
    both = ends(transport)
    both.network.cut()
    both.wait(lambda: both.state == "down", 6.0, "down")
    assert both.tuns["cl"].carrier is False
    both.run(20.0)
    cut(both, "wan5")
    both.wait(lambda: both.state == "up", 5.0, "up by the second path")
    healed = both.now
    both.run(5.0)
    assert longest_pause(both, "cl", healed) < 1.0 > longest_pause(both, "sv", healed)
    assert both.client.status()["flaps"] == 1


def test_the_first_path_registers_without_the_second(ends: Make) -> None:
    both = ends()
    cut(both, "wan6")
    both.run(100.0)
    assert state(both, "cl", "wan6") == "down"
    assert both.client.status()["state"] == "up"
    assert longest_pause(both, "cl", both.now - 100) < 0.2 > longest_pause(both, "sv", both.now - 100)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_server_that_crashes_has_both_paths_again(ends: Make, transport: str) -> None:
    both = ends(transport)
    both.restart_server()
    began = both.now
    both.wait(
        lambda: all(state(both, end, name) == "up" for end in ("cl", "sv") for name in ADDRESSES), 10.0, "both paths"
    )
    assert both.now - began < 10.0
    both.run(5.0)
    assert longest_pause(both, "cl", both.now - 4) < 0.3 > longest_pause(both, "sv", both.now - 4)


def test_one_path_is_replaced_without_the_other(ends: Make) -> None:
    both = ends()
    path = both.client._paths[0]
    both.processes["cl"].call(lambda: path.drop_current(None))
    both.run(10.0)
    assert [row["state"] for row in both.client.paths()] == ["up", "up"]
    assert both.client.status()["reconnects"] == 1
    assert longest_pause(both, "cl", both.now - 10) < 2.0 > longest_pause(both, "sv", both.now - 10)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_tunnel_comes_up_by_the_second_wan_when_the_first_is_dead_from_the_beginning(
    ends: Make, transport: str
) -> None:
    both = ends(transport, dead="wan5")
    began = both.now
    both.run(10.0)
    assert longest_pause(both, "cl", began + 1.0) < 0.5 > longest_pause(both, "sv", began + 1.0)
    heal(both)
    both.wait(lambda: all(state(both, end, "wan5") == "up" for end in ("cl", "sv")), 65.0, "the first as well")
    assert both.client.status()["flaps"] == 0


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_nobody_notices_that_the_wan_is_dead_that_does_not_carry(ends: Make, transport: str) -> None:
    both = ends(transport)
    began = both.now
    cut(both, "wan6")
    both.run(40.0)
    heal(both)
    both.run(20.0)
    assert longest_pause(both, "cl", began) < 0.2 > longest_pause(both, "sv", began)
    assert {state(both, end, "wan6") for end in ("cl", "sv")} == {"up"}
    assert both.client.status()["flaps"] == 0


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_wan_that_comes_and_goes_costs_two_seconds_each_time_at_most(ends: Make, transport: str) -> None:
    """Whatever the phase: what it brings back while it is well is no reason to wait for it when it isn't."""
    both = ends(transport)
    began = both.now
    for well, dead in ((4.0, 3.0), (1.0, 0.7), (0.5, 2.5), (6.0, 1.5), (2.0, 4.0), (0.3, 0.3)):
        cut(both, "wan5")
        both.run(dead)
        heal(both)
        both.run(well)
    both.run(10.0)
    assert longest_pause(both, "cl", began) < 2.0 > longest_pause(both, "sv", began)
    assert both.client.status()["flaps"] == 0
    assert repeated(both, "cl") == repeated(both, "sv") == 0
    assert {state(both, end, name) for end in ("cl", "sv") for name in ADDRESSES} == {"up"}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_errors_that_routers_report_for_one_wan_stop_neither_path(ends: Make, transport: str) -> None:
    both = ends(transport)
    began = both.now
    for _ in range(20):
        for source in list(both.network.sockets):
            if source[0] == ADDRESSES["wan5"]:
                both.network.report(source)
        both.run(0.5)
    assert longest_pause(both, "cl", began) < 0.2 > longest_pause(both, "sv", began)
    assert {state(both, end, name) for end in ("cl", "sv") for name in ADDRESSES} == {"up"}
