"""A QUIC connection finds out which packets its path carries, in each direction, and believes nobody but its peer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mpquic.quic.configuration import LinkOptions
from mpquic.quic.connection_view import LinkState
from mpquic.quic.pmtu import MIN_DATAGRAM_SIZE, SMALL, smallest_mtu

from .conftest import LinkModel, Pair

FULL = 1452
QUICKLY = 2.0
"""Seconds in which a connection follows its path."""
Make = Callable[..., Pair]


class Traffic:
    """Datagrams as large as the link takes, or a share of it, in one direction; `arrived` in virtual time."""

    def __init__(self, pair: Pair, *, down: bool = False, interval: float = 0.005, share: float = 1.0) -> None:
        self._pair, self._interval, self._share = pair, interval, share
        self._link, self._side = (pair.peer, pair.client) if down else (pair.link, pair.server)
        self._next = pair.now
        self._seen = 0
        self.arrived: list[float] = []
        pair.pump = self._pump

    def _pump(self) -> None:
        self.arrived += [self._pair.now] * (len(self._side.datagrams) - self._seen)
        self._seen = len(self._side.datagrams)
        if self._pair.now >= self._next and self._link.datagram_budget() > 0:
            self._next = self._pair.now + self._interval
            self._link.send_datagrams([bytes(int(self._link.datagram_capacity * self._share))])
        # A message on a stream now and then, as the probes of liveness are.
        if self._pair.now >= self._heartbeat:
            self._heartbeat = self._pair.now + 0.5
            self._link.send_stream(self._stream, b"alive?")

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Go on for so long, or until the condition holds; tell whether it did."""
        end = self._pair.now + seconds
        while self._pair.now < end:
            if self._pair.run(until, seconds=0.01):
                return True
        return until()

    _heartbeat = 0.0

    @property
    def _stream(self) -> int:
        if not hasattr(self, "_opened"):
            self._opened = self._link.open_stream()
        return self._opened


def sizes(pair: Pair) -> tuple[int, int]:
    """What the client sends, and what the server sends."""
    return pair.link.max_datagram_size, pair.peer.max_datagram_size


def test_the_handshake_needs_no_more_than_the_smallest_packets(make_pair: Make) -> None:
    pair = make_pair(up=LinkModel(max_size=MIN_DATAGRAM_SIZE), down=LinkModel(max_size=MIN_DATAGRAM_SIZE))
    assert pair.link.state is pair.peer.state is LinkState.ESTABLISHED
    pair.run(lambda: False, seconds=10.0)
    assert sizes(pair) == (MIN_DATAGRAM_SIZE, MIN_DATAGRAM_SIZE)
    assert not pair.link.base_fails
    assert not pair.peer.base_fails


def test_what_the_local_link_takes_is_in_use_a_moment_after_the_handshake(make_pair: Make) -> None:
    pair = make_pair(up=LinkModel(delay=0.05), down=LinkModel(delay=0.05))
    assert pair.run(lambda: sizes(pair) == (FULL, FULL), seconds=0.5)
    assert pair.link.send_datagrams([bytes(pair.link.datagram_capacity)]) == 1
    assert pair.run(lambda: bool(pair.server.datagrams), seconds=0.5)


@pytest.mark.parametrize("limit", [1201, 1252, 1300, 1372, 1432, 1451])
def test_each_direction_has_a_size_of_its_own(make_pair: Make, limit: int) -> None:
    pair = make_pair(down=LinkModel(max_size=limit))
    assert pair.run(lambda: pair.link.max_datagram_size == FULL, seconds=0.5)
    pair.run(lambda: False, seconds=10.0)
    assert limit - 8 <= pair.peer.max_datagram_size <= limit


def test_neither_end_exceeds_what_it_is_configured_for(make_pair: Make) -> None:
    options = {"options": LinkOptions(max_datagram_size=1280), "server_options": LinkOptions(max_datagram_size=1400)}
    pair = make_pair(**options)
    pair.run(lambda: False, seconds=5.0)
    assert sizes(pair) == (1280, 1400)
    assert pair.largest == 1400


@pytest.mark.parametrize("down", [False, True], ids=["up", "down"])
@pytest.mark.parametrize("loss", [0.0, 0.05])
@pytest.mark.parametrize("limit", [MIN_DATAGRAM_SIZE, 1300])
def test_a_path_that_shrinks_without_a_word_is_followed(make_pair: Make, limit: int, loss: float, down: bool) -> None:
    pair = make_pair(up=LinkModel(loss=loss), down=LinkModel(loss=loss))
    assert pair.run(lambda: sizes(pair) == (FULL, FULL), seconds=5.0)
    model = pair.down if down else pair.up
    traffic = Traffic(pair, down=down)
    traffic.run(1.0)
    model.max_size = limit
    shrunk = pair.now
    traffic.run(8.0)
    assert min(moment for moment in traffic.arrived if moment > shrunk + 0.05) < shrunk + QUICKLY
    assert sizes(pair)[down] <= limit
    assert sizes(pair)[not down] >= FULL - 200
    model.max_size = 65535
    assert traffic.run(45.0, lambda: sizes(pair)[down] > FULL - 8), "larger ones are tried again"


def test_few_large_packets_are_enough_to_notice(make_pair: Make) -> None:
    pair = make_pair()
    assert pair.run(lambda: sizes(pair) == (FULL, FULL), seconds=1.0)
    traffic = Traffic(pair, interval=0.25)
    pair.up.max_size = 1300
    shrunk = pair.now
    traffic.run(4.0)
    assert min(traffic.arrived) < shrunk + QUICKLY


@pytest.mark.parametrize("mtu", [0, 68, 552, 1227, 1228, 1279, 1280, 1300, 1479, 1480, 9000, 65535])
def test_a_forged_path_mtu_changes_nothing(make_pair: Make, mtu: int) -> None:
    pair = make_pair()
    traffic = Traffic(pair)
    assert traffic.run(1.0, lambda: sizes(pair) == (FULL, FULL))
    for _ in range(40):
        pair.link.on_path_mtu(mtu, 4)
        traffic.run(0.05, lambda: sizes(pair) != (FULL, FULL))
        assert sizes(pair) == (FULL, FULL)
    assert max(b - a for a, b in zip(traffic.arrived, traffic.arrived[1:], strict=False)) < 0.1
    assert pair.link.black_holes == 0


@pytest.mark.parametrize("mtu", [0, 552, 1227, 1280, 1400])
def test_a_forged_path_mtu_before_the_search_is_no_obstacle(make_pair: Make, mtu: int) -> None:
    pair = make_pair(established=False)
    pair.link.on_path_mtu(mtu, 4)
    assert pair.run(lambda: pair.link.state is LinkState.ESTABLISHED)
    pair.link.on_path_mtu(mtu, 4)
    assert pair.run(lambda: pair.link.max_datagram_size == FULL, seconds=0.5)


def test_an_honest_path_mtu_is_followed_and_used_to_the_byte(make_pair: Make) -> None:
    pair = make_pair()
    assert pair.run(lambda: sizes(pair) == (FULL, FULL), seconds=1.0)
    pair.up.max_size = 1333
    pair.link.on_path_mtu(1361, 4)
    assert pair.run(lambda: pair.link.max_datagram_size == 1333, seconds=QUICKLY), "nothing else was sent"


def test_an_honest_path_mtu_costs_no_search_where_nothing_is_sent(make_pair: Make) -> None:
    pair = make_pair()
    pair.run(lambda: False, seconds=3.0)
    sent = pair.link.meter.packets_sent
    pair.run(lambda: False, seconds=20.0)
    assert pair.link.meter.packets_sent == sent


def test_a_device_that_refuses_a_size_is_obeyed_at_once(make_pair: Make) -> None:
    pair = make_pair()
    assert pair.run(lambda: sizes(pair) == (FULL, FULL), seconds=1.0)
    capacity = pair.link.datagram_capacity
    pair.link.send_datagrams([bytes(capacity), b"small"])
    pair.link.on_too_large(FULL, pair.now)
    assert pair.link.max_datagram_size == MIN_DATAGRAM_SIZE
    assert pair.run(lambda: pair.server.datagrams == [b"small"], seconds=1.0), "what can't leave blocks nothing"


def test_neither_loss_nor_an_outage_is_taken_for_a_small_mtu(make_pair: Make) -> None:
    pair = make_pair(up=LinkModel(loss=0.1), down=LinkModel(loss=0.1), seed=4)
    traffic = Traffic(pair)
    assert traffic.run(5.0, lambda: pair.link.max_datagram_size == FULL)
    traffic.run(20.0)
    assert (pair.link.max_datagram_size, pair.link.black_holes) == (FULL, 0)
    pair.up.loss = pair.down.loss = 1.0
    traffic.run(3.0)
    pair.up.loss = pair.down.loss = 0.0
    healed = pair.now
    assert traffic.run(5.0, lambda: bool(traffic.arrived) and traffic.arrived[-1] > healed)
    traffic.run(3.0)
    assert (pair.link.max_datagram_size, pair.link.black_holes) == (FULL, 0)
    assert not pair.link.base_fails


@pytest.mark.parametrize("told", [True, False], ids=["told", "silent"])
@pytest.mark.parametrize("share", [1.0, 0.95])
def test_a_path_too_small_for_quic_is_found_out(make_pair: Make, share: float, told: bool) -> None:
    pair = make_pair()
    assert pair.run(lambda: sizes(pair) == (FULL, FULL), seconds=1.0)
    traffic = Traffic(pair, share=share)
    traffic.run(1.0)
    pair.up.max_size = SMALL
    if told:
        pair.link.on_path_mtu(SMALL + 28, 4)
    assert traffic.run(12.0, lambda: pair.link.base_fails)


def test_a_path_too_small_for_quic_is_found_out_where_the_smallest_packets_are_in_use(make_pair: Make) -> None:
    pair = make_pair(options=LinkOptions(max_datagram_size=MIN_DATAGRAM_SIZE))
    traffic = Traffic(pair, share=0.95)
    traffic.run(1.0)
    pair.up.max_size = SMALL
    assert traffic.run(12.0, lambda: pair.link.base_fails)
    pair.up.max_size = 65535
    assert traffic.run(QUICKLY, lambda: not pair.link.base_fails)


def test_the_smallest_mtu_is_that_of_rfc_9000() -> None:
    assert (smallest_mtu(4), smallest_mtu(6)) == (1228, 1248)
