"""A path over QUIC in both modes: frames arrive, small ones share datagrams, the budget bounds."""

from __future__ import annotations

import pytest
from mpquic.daemon import iteration
from mpquic.proto.control.messages import StreamType
from mpquic.proto.packet.frame import Frame, FrameFlag, FrameStreamDecoder, decode_frames
from mpquic.proto.path.budget import BudgetMember, PathBudget
from mpquic.proto.path.path import Path, PathState
from mpquic.proto.tunnel.scheduler import FailoverScheduler
from mpquic.proto.tunnel.sender import TunnelSender
from mpquic.quic.configuration import LinkOptions
from mpquic.quic.path import QuicPath

from .conftest import LinkModel

PACKET = bytes.fromhex("4500001c000040004011000001020304010203050001000200080000")
"""UDP without content over IPv4."""


def frames(count: int, size: int, traffic_class: int = 1, first: int = 0) -> list[Frame]:
    return [Frame(bytes([index % 256]) * size, traffic_class, first + index) for index in range(count)]


@pytest.fixture
def datagram_path(make_pair):
    pair = make_pair()
    return pair, QuicPath("wan5", pair.link)


@pytest.fixture
def reliable_path(make_pair):
    pair = make_pair(seed=5, up=LinkModel(delay=0.02, loss=0.02), down=LinkModel(delay=0.02, loss=0.02))
    stream = pair.link.open_stream()
    assert pair.link.send_stream(stream, bytes([StreamType.DATA]))
    return pair, QuicPath("wan5", pair.link, data_stream=stream)


def test_it_is_a_path(datagram_path):
    _, path = datagram_path
    assert path.state is PathState.DOWN
    assert not path.reliable
    assert path.rtt is not None
    assert path.loss == 0.0
    assert path.rate > 0


def test_small_frames_of_one_class_share_a_datagram(datagram_path):
    pair, path = datagram_path
    assert path.send(frames(5, 100), pair.now) == 5
    assert pair.run(lambda: pair.server.datagrams)
    assert len(pair.server.datagrams) == 1
    assert decode_frames(pair.server.datagrams[0]) == frames(5, 100)


def test_classes_are_never_mixed(datagram_path):
    pair, path = datagram_path
    mixed = [*frames(2, 50, 1), *frames(2, 50, 2), *frames(1, 50, 1)]
    assert path.send(mixed, pair.now) == 5
    assert pair.run(lambda: len(pair.server.datagrams) == 3)
    for datagram in pair.server.datagrams:
        assert len({frame.traffic_class for frame in decode_frames(datagram)}) == 1


def test_a_frame_of_full_capacity_passes_and_a_larger_one_is_dropped_and_counted(datagram_path):
    pair, path = datagram_path
    fits = Frame(bytes(path.frame_capacity - 8), 1, 0)
    large = Frame(bytes(path.frame_capacity - 7), 1, 1)
    assert path.send([large, fits, large], pair.now) == 3
    assert path.oversized == 2
    assert pair.run(lambda: pair.server.datagrams, seconds=1)
    assert [decode_frames(datagram) for datagram in pair.server.datagrams] == [[fits]]


def test_frames_beyond_the_budget_are_left(datagram_path):
    pair, path = datagram_path
    taken = path.send(frames(200, 1000), pair.now)
    assert 0 < taken < 20
    assert path.budget(pair.now) <= 0
    assert path.send(frames(1, 10), pair.now) == 0


def test_the_share_of_the_wan_bounds_the_path(make_pair):
    pair = make_pair(options=LinkOptions())
    budget = PathBudget(BudgetMember("mpq5", "wan5"))
    budget.limit(800_000)
    path = QuicPath("wan5", pair.link, budget=budget)
    sent = 0

    def pump():
        nonlocal sent
        while path.budget(pair.now) > 0:
            sent += 1000 * path.send(frames(1, 992), pair.now)

    pair.pump = pump
    pair.run(lambda: False, seconds=5)
    assert 400_000 < sent < 600_000


def test_the_share_pays_for_what_was_sent_and_tells_when_it_allows_more(make_pair):
    pair = make_pair()
    budget = PathBudget(BudgetMember("mpq5", "wan5"))
    budget.limit(800_000)
    path = QuicPath("wan5", pair.link, budget=budget)
    full = path.budget(pair.now)
    large = Frame(bytes(path.frame_capacity), 1, 0)
    assert path.send([large, *frames(1, 992)], pair.now) == 2
    assert path.oversized == 1
    assert budget._tokens == PathBudget.MIN_BURST - 1000, "what no datagram takes costs nothing"
    assert full > 0
    assert path.next_allowance(pair.now) is None
    budget.spend(PathBudget.MIN_BURST)
    assert path.next_allowance(pair.now) == pytest.approx(pair.now + 0.01, abs=1e-3)
    monkey = pair.link.send_datagrams
    pair.link.send_datagrams = lambda _payloads: 0
    budget._tokens = 5000.0
    assert path.send(frames(1, 992), pair.now) == 0
    assert budget._tokens == 5000.0, "what the link refused costs nothing"
    pair.link.send_datagrams = monkey


def test_a_packet_does_not_stay_behind_a_probe(datagram_path):
    pair, path = datagram_path
    control = pair.link.open_stream()
    path.state = PathState.UP
    scheduler = FailoverScheduler()
    wan = Path(path.name)
    wan.control = path
    scheduler.add(wan)
    sender = TunnelSender(scheduler)
    pair.link.send_stream(control, b"a probe")
    sender.enqueue([bytes(10) + PACKET], pair.now)
    iteration.send(pair.put_on_the_wire, lambda: sender.flush(pair.now))
    assert sender.backlog == 0
    assert pair.run(lambda: pair.server.datagrams, seconds=1)


def test_an_iteration_is_bounded_and_asks_for_nothing_when_nothing_moves(datagram_path, monkeypatch):
    pair, _ = datagram_path
    asked: list[int] = []
    send = pair.link._connection.datagrams_to_send
    monkeypatch.setattr(pair.link._connection, "datagrams_to_send", lambda now: asked.append(1) or send(now))
    pair.put_on_the_wire()
    asked.clear()
    assert not iteration.send(pair.put_on_the_wire, lambda: 0)
    assert asked == [], "there is nothing to send, and to find that out costs time"
    given = []
    assert iteration.send(lambda: None, lambda: given.append(65536) or 65536)
    assert sum(given) == iteration.ITERATION_BYTES
    given.clear()
    assert iteration.send(lambda: None, lambda: given.append(1) or 1)
    assert len(given) == iteration.MAX_ROUNDS


def test_superframes_arrive_whole_and_in_order_over_a_lossy_network(reliable_path):
    pair, path = reliable_path
    assert path.reliable
    expected = [
        Frame(bytes([index]) * 40_000, 1, index, FrameFlag.SUPERFRAME, gso_size=1360)
        if index % 2
        else Frame(bytes([index]) * 60, 1, index)
        for index in range(60)
    ]
    waiting = list(expected)

    def pump():
        while waiting and path.budget(pair.now) > 0:
            del waiting[: path.send(waiting[:4], pair.now)]

    pair.pump = pump
    total = 1 + sum(frame.size for frame in expected)
    stream = path.data_stream
    assert pair.run(lambda: len(pair.server.streams.get(stream, b"")) == total, seconds=60)
    data = bytes(pair.server.streams[stream])
    assert data[0] == StreamType.DATA
    assert FrameStreamDecoder().feed(data[1:]) == expected
    assert pair.up.dropped > 0


@pytest.mark.parametrize("keeps", [False, True])
def test_a_stream_keeps_what_is_unacknowledged_where_another_path_may_send_it_again(reliable_path, keeps):
    pair, path = reliable_path
    path.keeps_sent = keeps
    given = frames(4, 500)
    assert path.send(given, pair.now) == 4
    assert path.unacknowledged(pair.now) == (given if keeps else [])
    assert pair.run(lambda: path.unacknowledged(0.0) == [], seconds=5)


def test_in_reliable_mode_little_waits_unsent(reliable_path):
    pair, path = reliable_path
    path.send([Frame(bytes(60_000), 1, 0)], pair.now)
    assert path.budget(pair.now) <= 0
    assert path.send(frames(1, 10), pair.now) == 0


def test_a_closed_link_takes_nothing(datagram_path):
    pair, path = datagram_path
    pair.link.close()
    assert pair.run(lambda: pair.client.ended is not None)
    assert path.budget(pair.now) == 0
    assert path.send(frames(1, 10), pair.now) == 0
    assert path.frame_capacity == 0
