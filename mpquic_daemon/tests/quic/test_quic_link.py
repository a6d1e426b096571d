"""A QUIC link in memory with virtual time: what arrives, what is bounded, what a bad network does to it."""

from __future__ import annotations

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from mpquic.proto.control.unregistered import UnregisteredLimits
from mpquic.quic import fault_log
from mpquic.quic import link as quic
from mpquic.quic.configuration import HANDSHAKE_PAUSE, WINDOW, WINDOW_BEFORE_ADMISSION, LinkOptions
from mpquic.quic.connection_view import LinkState
from mpquic.quic.events import Established, StreamAborted

from .conftest import SERVER_ADDRESS, LinkModel, Pair


def test_both_ends_are_established_and_agree_on_the_server_certificate(make_pair):
    pair = make_pair()
    assert isinstance(pair.client.events[0], Established)
    assert pair.link.server_certificate == pair.peer.server_certificate
    assert len(pair.link.server_certificate_sha256) == 32
    assert pair.link.timer() is not None


@pytest.mark.parametrize("algorithm", ["cubic", "reno"])
def test_a_stream_arrives_whole_over_a_bad_network(make_pair, algorithm):
    pair = make_pair(
        options=LinkOptions(congestion_algorithm=algorithm),
        seed=7,
        up=LinkModel(delay=0.02, loss=0.03, duplicate=0.02, jitter=0.003),
        down=LinkModel(delay=0.02, loss=0.03, duplicate=0.02, jitter=0.003),
    )
    stream = pair.link.open_stream()
    data = bytes(range(256)) * 2000
    assert pair.link.send_stream(stream, data)
    assert pair.run(lambda: len(pair.server.streams.get(stream, b"")) >= len(data), seconds=60)
    assert pair.server.streams[stream] == data
    assert pair.up.dropped > 0
    assert pair.link.meter.packets_lost > 0
    assert 0 < pair.link.estimators.loss < 0.5
    assert 0.04 <= pair.link.estimators.rtt.smoothed < 0.1


def test_datagrams_arrive_at_most_once(make_pair):
    pair = make_pair(seed=3, up=LinkModel(loss=0.1, duplicate=0.3, jitter=0.002))
    sent = []

    def pump():
        while len(sent) < 400 and pair.link.datagram_budget() > 0:
            payload = len(sent).to_bytes(4, "big") * 100
            assert pair.link.send_datagrams([payload]) == 1
            sent.append(payload)

    pair.pump = pump
    pair.run(lambda: False, seconds=5)
    received = pair.server.datagrams
    assert len(sent) == 400
    assert len(received) == len(set(received))
    assert set(received) <= set(sent)
    assert 300 < len(received) < 400


def test_a_datagram_that_cannot_fit_is_refused_and_blocks_nothing(make_pair):
    pair = make_pair()
    assert pair.run(lambda: pair.link.max_datagram_size == 1452, seconds=1)
    capacity = pair.link.datagram_capacity
    assert pair.link.send_datagrams([b"a" * (capacity + 1)]) == 0
    assert pair.link.send_datagrams([b"b" * capacity, b"c" * (capacity + 1), b"d"]) == 1
    assert pair.run(lambda: pair.server.datagrams == [b"b" * capacity], seconds=1)
    assert pair.largest == 1452


def test_what_waits_inside_is_bounded_by_the_rate(make_pair):
    pair = make_pair(up=LinkModel(delay=0.02, rate=125_000))  # 1 Mbit/s
    accepted = []

    def pump():
        while pair.link.datagram_budget() > 0:
            accepted.append(pair.link.send_datagrams([bytes(1000)]))
            assert pair.link.outgoing.pending_bytes <= 8000

    pair.pump = pump
    pair.run(lambda: False, seconds=5)
    assert 300 < sum(accepted) < 1000


def test_without_acknowledgements_the_budget_ends(make_pair):
    pair = make_pair()
    pair.up.loss = 1.0
    total = 0
    for _ in range(1000):
        if pair.link.datagram_budget() <= 0:
            break
        total += pair.link.send_datagrams([bytes(1200)])
        pair.link.flush(pair.now)
    assert total < 50
    assert pair.link.bytes_in_flight <= pair.link.congestion_window


def test_the_control_stream_passes_a_pipe_full_of_datagrams(make_pair):
    pair = make_pair(up=LinkModel(delay=0.02, rate=250_000), down=LinkModel(delay=0.02))
    stream = pair.link.open_stream()

    def pump():
        while pair.link.datagram_budget() > 0:
            pair.link.send_datagrams([bytes(pair.link.datagram_capacity)])

    pair.pump = pump
    pair.run(lambda: False, seconds=3)
    assert pair.link.send_stream(stream, b"probe")
    assert pair.run(lambda: pair.server.streams.get(stream) == b"probe", seconds=0.5)


def test_a_stream_write_is_refused_when_a_megabyte_waits(make_pair):
    pair = make_pair()
    pair.up.loss = 1.0
    stream = pair.link.open_stream()
    accepted = 0
    while pair.link.send_stream(stream, bytes(100_000)):
        accepted += 1
        assert accepted < 100
    assert accepted <= 12
    assert pair.link.stream_budget(stream) <= 0


def test_a_peer_that_skips_ahead_in_a_stream_gets_no_more_window(make_pair):
    pair = make_pair(established=False)
    assert pair.run(lambda: pair.server.link is not None and pair.peer.state is LinkState.ESTABLISHED)
    window = pair.peer._connection._local_max_data
    window.used = WINDOW_BEFORE_ADMISSION  # claimed by offsets; nothing of it was delivered
    for _ in range(20):
        pair.peer._connection.send_ping(1)
        pair.peer.flush(pair.now)
        pair.now += 0.01
    assert window.value == WINDOW_BEFORE_ADMISSION
    pair.listener.admit(pair.peer, pair.now)
    assert window.value == WINDOW


def test_more_than_the_window_passes_when_it_is_consumed(make_pair):
    pair = make_pair(established=False, limits=UnregisteredLimits(max_datagrams=1000))
    assert pair.run(lambda: pair.server.link is not None and pair.peer.state is LinkState.ESTABLISHED)
    stream = pair.link.open_stream()
    size = WINDOW_BEFORE_ADMISSION * 5 // 2
    written = 0

    def pump():
        nonlocal written
        while written < size and pair.link.stream_budget(stream) > 0:
            written += 8192 if pair.link.send_stream(stream, bytes(8192)) else 0

    pair.pump = pump
    assert pair.run(lambda: len(pair.server.streams.get(stream, b"")) >= size, seconds=9)


def test_idle_traffic_does_not_inflate_the_window(make_pair):
    pair = make_pair(options=LinkOptions(congestion_algorithm="reno"))
    before = pair.link.congestion_window
    for index in range(100):
        pair.link.send_datagrams([bytes(1000)])
        assert pair.run(lambda expected=index + 1: len(pair.server.datagrams) == expected)
    assert pair.link.congestion_window <= 2 * before


def test_the_peer_learns_of_the_end_at_once(make_pair):
    pair = make_pair()
    pair.link.close(7, "bye")
    assert pair.run(lambda: pair.server.ended is not None, seconds=0.1)
    assert (pair.server.ended.code, pair.server.ended.reason, pair.server.ended.by_peer) == (7, "bye", True)
    assert pair.client.ended is not None
    assert not pair.client.ended.by_peer
    assert pair.link.timer() is None
    assert pair.link.flush(pair.now) == []
    assert pair.link.send_datagrams([b"late"]) == 0
    assert not pair.link.send_stream(0, b"late")


def test_silence_ends_the_link_after_the_idle_timeout(make_pair):
    pair = make_pair(options=LinkOptions(idle_timeout=8.0))
    pair.up.loss = pair.down.loss = 1.0
    assert not pair.run(lambda: pair.client.ended is not None, seconds=7)
    assert pair.run(lambda: pair.client.ended is not None and pair.server.ended is not None, seconds=3)
    assert pair.listener.links == ()


@pytest.mark.parametrize("arrived", [False, True], ids=["nothing read", "acknowledgements wait to be read"])
def test_time_in_which_both_ends_stood_still_is_not_the_paths(make_pair, arrived):
    pair = make_pair(up=LinkModel(delay=0.05), down=LinkModel(delay=0.05))
    assert pair.run(lambda: (pair.link.estimators.rtt.smoothed or 0.0) > 0.1)
    for _ in range(20):
        assert pair.link.send_datagrams([bytes(500)])
        pair.run(lambda: False, 0.01)
    before = [(link.estimators.rtt.smoothed, link.estimators.rtt.minimum) for link in (pair.link, pair.peer)]
    lost = [link.meter.packets_lost for link in (pair.link, pair.peer)]
    if arrived:
        pair.peer.send_datagrams([bytes(500)] * 3)
    for link in (pair.link, pair.peer):
        link.timer()
    pair.now += 20.0
    for _ in range(20):
        pair.link.send_datagrams([bytes(500)])
        pair.run(lambda: False, 0.02)
    for link, (smoothed, shortest), losses in zip((pair.link, pair.peer), before, lost, strict=True):
        assert link.estimators.rtt.smoothed < 2 * smoothed
        assert link.estimators.rtt.minimum == pytest.approx(shortest, rel=0.1)
        assert link.meter.packets_lost == losses


def test_an_unanswered_handshake_ends_in_time(make_pair):
    pair = make_pair(established=False, up=LinkModel(loss=1.0))
    assert pair.run(lambda: pair.client.ended is not None, seconds=6)
    assert pair.client.ended.reason == "handshake timed out"
    assert pair.now - 1000.0 <= 5.1


@pytest.mark.parametrize("seconds", [0.1 + step / 4 for step in range(19)])
@pytest.mark.parametrize("cut", ["up", "down"])
def test_a_handshake_goes_on_within_a_second_of_an_outage_of_one_direction(make_pair, cut, seconds):
    pair = make_pair(established=False)
    getattr(pair, cut).loss = 1.0
    pair.run(lambda: False, seconds)
    getattr(pair, cut).loss = 0.0
    assert pair.run(lambda: pair.link.state is LinkState.ESTABLISHED, HANDSHAKE_PAUSE + 0.2)


@pytest.mark.parametrize("round_trip", [0.5, 1.0, 2.0])
def test_repetitions_of_a_handshake_do_not_harm_it_where_its_round_trip_is_longer(make_pair, round_trip):
    way = LinkModel(delay=round_trip / 2)
    pair = make_pair(established=False, up=way, down=way)
    assert pair.run(lambda: pair.link.state is LinkState.ESTABLISHED, 2 * round_trip + 0.1)


def test_a_stream_that_is_aborted_is_told(make_pair):
    pair = make_pair()
    stream = pair.link.open_stream()
    pair.link.send_stream(stream, b"begun")
    assert pair.run(lambda: pair.server.streams.get(stream) == b"begun")
    pair.peer.reset_stream(stream, 3)
    assert pair.run(lambda: StreamAborted(stream) in pair.client.events)
    assert not pair.link.send_stream(stream, b"more")


def test_the_server_follows_a_client_whose_address_changes(make_pair):
    pair = make_pair()
    pair.client_address = ("198.51.100.9", 50123)
    pair.link.send_datagrams([b"from elsewhere"])
    assert pair.run(lambda: b"from elsewhere" in pair.server.datagrams)
    assert pair.run(lambda: pair.peer.peer_address == pair.client_address, seconds=1)
    pair.peer.send_datagrams([b"answer"])
    assert pair.run(lambda: b"answer" in pair.client.datagrams, seconds=2)


class TestTheServersCertificate:
    """A client accepts nobody but a server of its own authority with the right name."""

    @staticmethod
    def refused(pair: Pair) -> str:
        assert pair.run(lambda: pair.client.ended is not None, seconds=5)
        assert not any(isinstance(event, Established) for event in pair.client.events)
        assert pair.link.server_certificate is None
        assert pair.run(lambda: pair.listener.links == (), seconds=5)
        return pair.client.ended.reason

    def test_of_a_foreign_authority_is_refused(self, tmp_path, make_listener, make_client):
        from .conftest import Authority

        foreign = Authority(tmp_path, "foreign")
        pair = Pair(make_listener(), lambda now: make_client(now, ca_file=foreign.ca_file))
        assert "certificate" in self.refused(pair)

    def test_with_another_name_is_refused(self, make_listener, make_client):
        pair = Pair(make_listener(), lambda now: make_client(now, server_name="vps2.example.net"))
        assert "vps2.example.net" in self.refused(pair)

    def test_that_is_a_clients_is_refused(self, authority, make_listener, make_client):
        files = authority.issue("client-as-server", usage=ExtendedKeyUsageOID.CLIENT_AUTH)
        assert "extended key usage" in self.refused(Pair(make_listener(files=files), make_client))

    def test_without_a_usage_is_refused(self, authority, make_listener, make_client):
        files = authority.issue("any-use", usage=None)
        assert "extended key usage" in self.refused(Pair(make_listener(files=files), make_client))

    def test_that_has_expired_is_refused_with_both_times(self, authority, make_listener, make_client):
        files = authority.issue("expired", days=-1)
        assert "has ended at" in self.refused(Pair(make_listener(files=files), make_client))


def test_a_defect_of_the_library_in_a_timer_costs_one_connection(make_pair, monkeypatch, caplog):
    pair = make_pair()

    def broken(*_arguments, **_words):
        raise IndexError("a defect in loss detection")

    for link in (pair.link, pair.peer):
        monkeypatch.setattr(link._connection, "handle_timer", broken)
        monkeypatch.setattr(link._connection, "get_timer", lambda: pair.now)
    monkeypatch.setattr(quic, "faults", fault_log.FaultLog())
    pair.link.handle_timer(pair.now)
    pair.listener._after(pair.peer)
    pair.listener.handle_timer(pair.now)
    assert (pair.link.state, pair.peer.state) == (LinkState.CLOSED, LinkState.CLOSED)
    assert pair.link.pop_events()[-1].reason == "internal error"
    assert pair.listener.links == ()
    assert caplog.text.count("failed on a timer") == 1, "one traceback a minute"


@pytest.mark.parametrize(("stream", "stops", "resets"), [(0, 1, 1), (1, 1, 1), (3, 1, 0), (2, 0, 1)])
def test_a_stream_is_aborted_in_the_directions_that_it_has(make_pair, monkeypatch, stream, stops, resets):
    pair = make_pair()
    own = stream & 1 == 0
    (pair.link if own else pair.peer)._connection.send_stream_data(stream, b"x")
    assert pair.run(lambda: stream in (pair.server.streams if own else pair.client.streams), seconds=1)
    calls: list[str] = []
    for name in ("reset_stream", "stop_stream"):
        real = getattr(pair.link._connection, name)
        monkeypatch.setattr(
            pair.link._connection, name, lambda *given, name=name, real=real: (real(*given), calls.append(name))
        )
    pair.link.reset_stream(stream, 3)
    assert (calls.count("stop_stream"), calls.count("reset_stream")) == (stops, resets)


def test_a_defect_of_the_library_costs_one_connection(make_pair, monkeypatch):
    pair = make_pair()

    def broken(*_arguments):
        raise IndexError("a parser's defect")

    monkeypatch.setattr(pair.link._connection, "receive_datagram", broken)
    pair.link.receive([b"x"], SERVER_ADDRESS, pair.now)
    assert pair.link.state is LinkState.CLOSED
    assert pair.link.pop_events()[-1].reason == "internal error"
