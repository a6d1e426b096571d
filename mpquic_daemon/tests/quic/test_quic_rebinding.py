"""A client whose NAT gives it other addresses, and somebody on the way who sends its packets on from elsewhere."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from aioquic.quic.connection import MAX_NETWORK_PATHS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mpquic.quic import aioquic_receive, aioquic_send
from mpquic.quic.aioquic_paths import RECENT
from mpquic.quic.configuration import LinkOptions
from mpquic.quic.connection_view import LinkState

from .conftest import LinkModel, Pair
from .test_quic_pmtu import FULL, QUICKLY, Make, Traffic, sizes

if TYPE_CHECKING:
    from collections.abc import Callable

NAT = "192.0.2.7"
ATTACKER = ("198.51.100.66", 6666)
ROUND_TRIP = 0.3


def is_plain(pair: Pair) -> bool:
    """Whether the server uses its quick ways in both directions."""
    connection = pair.peer._connection
    address = pair.peer.peer_address
    assert address is not None
    return aioquic_receive._is_plain(connection, address) and aioquic_send._is_plain(connection)


def rebind(pair: Pair, port: int) -> None:
    """The NAT forgets its binding; what is on its way to the old port is lost."""
    pair.client_address = (NAT, port)


@pytest.mark.parametrize("delay", [0.01, 0.15])
def test_after_each_of_100_rebindings_the_server_is_as_quick_as_before(make_pair: Make, delay: float) -> None:
    pair = make_pair(up=LinkModel(delay=delay), down=LinkModel(delay=delay))
    pair.run(lambda: is_plain(pair) and sizes(pair) == (FULL, FULL), seconds=5.0)
    traffic = Traffic(pair, down=True)
    for port in range(50_000, 50_100):
        rebind(pair, port)
        pair.link.send_datagrams([b"from elsewhere"])
        assert traffic.run(1.0, lambda: pair.peer.peer_address == pair.client_address and is_plain(pair))
        assert len(pair.peer._connection._network_paths) <= MAX_NETWORK_PATHS
    assert sizes(pair) == (FULL, FULL)
    assert pair.link.state is pair.peer.state is LinkState.ESTABLISHED


def test_the_path_mtu_is_followed_after_a_rebinding(make_pair: Make) -> None:
    pair = make_pair()
    assert pair.run(lambda: sizes(pair) == (FULL, FULL), seconds=5.0)
    traffic = Traffic(pair, down=True)
    rebind(pair, 50_001)
    pair.link.send_datagrams([b"from elsewhere"])
    traffic.run(1.0)
    pair.down.max_size = 1300
    shrunk = pair.now
    traffic.run(8.0)
    assert min(moment for moment in traffic.arrived if moment > shrunk + 0.05) < shrunk + QUICKLY
    assert sizes(pair)[1] <= 1300


def test_an_address_that_was_left_long_ago_has_to_prove_itself_again(make_pair: Make) -> None:
    pair = make_pair(options=LinkOptions(idle_timeout=90.0))
    old = pair.client_address
    for port in (50_001, 50_002):
        rebind(pair, port)
        pair.link.send_datagrams([b"from elsewhere"])
        assert pair.run(lambda: pair.peer.peer_address == pair.client_address and is_plain(pair), seconds=1.0)
        pair.run(lambda: False, seconds=RECENT + 1.0)
    pair.client_address = old
    pair.link.send_datagrams([b"back"])
    assert pair.run(lambda: pair.peer.peer_address == old, seconds=1.0)
    assert not pair.peer._connection._network_paths[0].is_validated
    assert pair.run(lambda: is_plain(pair), seconds=1.0)


def test_an_address_that_was_left_a_moment_ago_has_not(make_pair: Make) -> None:
    pair = make_pair()
    old = pair.client_address
    rebind(pair, 50_001)
    pair.link.send_datagrams([b"from elsewhere"])
    assert pair.run(lambda: pair.peer.peer_address == pair.client_address and is_plain(pair), seconds=1.0)
    pair.client_address = old
    pair.link.send_datagrams([b"back"])
    assert pair.run(lambda: pair.peer.peer_address == old, seconds=1.0)
    assert is_plain(pair)


@pytest.mark.parametrize("addresses", [1, 50])
def test_copies_from_elsewhere_hold_a_connection_up_until_the_next_packet(make_pair: Make, addresses: int) -> None:
    """RFC 9000 section 9.3.3: the copy is there first, and counts as the client until a packet of its own comes."""
    pair = make_pair()
    pair.run(lambda: is_plain(pair), seconds=5.0)
    home = pair.client_address
    for number in range(200):
        pair.link.send_datagrams([b"packet %d" % number])
        attacker = (ATTACKER[0], ATTACKER[1] + number % addresses)
        for datagram, _ in pair.link.flush(pair.now):
            pair.listener.receive([datagram], attacker, pair.now)
            pair._put("up", pair.up, datagram, home)
        assert pair.peer.peer_address == attacker
        pair.run(lambda: False, seconds=0.012)
        pair.link.send_datagrams([b"another"])
        assert pair.run(lambda: pair.peer.peer_address == home, seconds=0.02)
        pair.peer.send_datagrams([b"reply %d" % number])
        seen = b"reply %d" % number
        assert pair.run(lambda seen=seen: seen in pair.client.datagrams, seconds=0.05)
        assert len(pair.peer._connection._network_paths) <= MAX_NETWORK_PATHS
    assert pair.run(lambda: is_plain(pair), seconds=1.0)


def test_a_copy_that_nothing_follows_is_left_by_itself(make_pair: Make) -> None:
    pair = make_pair()
    pair.run(lambda: is_plain(pair), seconds=5.0)
    home = pair.client_address
    pair.link.send_datagrams([b"the last one for now"])
    ((datagram, _),) = pair.link.flush(pair.now)
    pair.listener.receive([datagram], ATTACKER, pair.now)
    pair.peer.send_datagrams([bytes(1000)] * 3)
    assert pair.run(lambda: pair.peer.peer_address == home, seconds=QUICKLY)
    pair.peer.send_datagrams([b"reply"])
    assert pair.run(lambda: b"reply" in pair.client.datagrams, seconds=QUICKLY)


PORTS: dict[str, Callable[[int, float], int]] = {
    "each packet from another port": lambda packet, _now: packet,
    "two ports by turns": lambda packet, _now: packet % 2,
    "sixteen ports by turns": lambda packet, _now: packet % 16,
    "another port every 0.2 s": lambda _packet, now: int(now / 0.2),
}
"""Number of the port by the number of the packet and the time."""


@pytest.mark.parametrize("down", [False, True], ids=["up", "down"])
@pytest.mark.parametrize("ports", PORTS)
def test_traffic_passes_a_nat_that_changes_ports_all_the_time(make_pair: Make, ports: str, down: bool) -> None:
    """ZeroTierOne issue 619: the ports that it gave before still reach the client."""
    pair = make_pair(up=LinkModel(delay=ROUND_TRIP / 2), down=LinkModel(delay=ROUND_TRIP / 2))
    pair.run(lambda: sizes(pair) == (FULL, FULL), seconds=5.0)
    packets = itertools.count()
    pair.source = lambda: (NAT, 10_000 + PORTS[ports](next(packets), pair.now))
    pair.reaches = lambda address: address[0] == NAT
    began = pair.now
    traffic = Traffic(pair, down=down)
    traffic.run(20.0)
    moments = [began, *(moment for moment in traffic.arrived if moment > began), pair.now]
    assert max(later - earlier for earlier, later in itertools.pairwise(moments)) < 2.0
    assert len(traffic.arrived) > 200
    assert len(pair.peer._connection._network_paths) <= MAX_NETWORK_PATHS
    pair.source = lambda: pair.client_address
    assert traffic.run(3.0, lambda: is_plain(pair)), "and is quick again when it stops"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from([0.0, 0.001, 0.05, 0.4, 4.0, 31.0])), max_size=60))
def test_no_address_gets_more_than_three_times_what_came_from_it(
    make_pair: Make, steps: list[tuple[int, float]]
) -> None:
    """RFC 9000 section 8: whatever addresses a client has its packets come from."""
    pair = make_pair(options=LinkOptions(idle_timeout=90.0))
    pair.run(lambda: is_plain(pair), seconds=5.0)
    came: Counter[object] = Counter()
    went: Counter[object] = Counter()
    put = pair._put

    def count(where: str, model: LinkModel, datagram: bytes, address: tuple[str, int]) -> None:
        (came if where == "up" else went)[address] += len(datagram)
        put(where, model, datagram, address)

    pair._put = count  # type: ignore[method-assign]
    home = pair.client_address
    for victim, pause in steps:
        pair.source = lambda victim=victim: ("203.0.113.9", victim) if victim else home
        pair.link.send_datagrams([bytes(30)])
        pair.peer.send_datagrams([bytes(1000)])
        pair.put_on_the_wire()
        pair.source = lambda: home
        pair.run(lambda: False, seconds=pause + 0.011)
        assert all(octets <= 3 * came[address] for address, octets in went.items() if address != home)
        assert len(pair.peer._connection._network_paths) <= MAX_NETWORK_PATHS
