"""Plain packets are written and taken beside aioquic, and nobody can tell the difference but by the time it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.tls import Epoch
from hypothesis import given
from hypothesis import strategies as st
from mpquic.quic.aioquic_receive import PlainTaker, _varint
from mpquic.quic.aioquic_send import PlainPacket, PlainWriter
from mpquic.quic.configuration import LinkOptions, quic_configuration

from .conftest import SERVER_ADDRESS, LinkModel, Pair

if TYPE_CHECKING:
    from mpquic.quic.link import QuicLink


@pytest.fixture(params=["both plain", "aioquic writes", "aioquic takes"])
def who(request, monkeypatch):
    """Each half alone must understand what aioquic writes, and write what aioquic understands."""
    if request.param == "aioquic writes":
        monkeypatch.setattr(PlainWriter, "write", lambda _self, _now: None)
    elif request.param == "aioquic takes":
        monkeypatch.setattr(PlainTaker, "take", lambda _self, _datagrams, start, *_: start)


def run_until_idle(pair: Pair) -> None:
    """Let everything pass that follows the handshake: connection IDs, limits, acknowledgements."""
    pair.run(lambda: False, seconds=0.5)


def flushed(pair: Pair, link: QuicLink, count: int) -> list[bytes]:
    """Datagrams that leave within a while, as the pacer lets them."""
    out: list[bytes] = []
    for _ in range(100):
        out += [datagram for datagram, _ in link.flush(pair.now)]
        if len(out) >= count:
            break
        pair.now += 0.005
        link.handle_timer(pair.now)
    assert len(out) == count
    return out


def refuse(*_: object) -> None:
    raise AssertionError("this is aioquic's slow way")


@pytest.mark.usefixtures("who")
def test_datagrams_pass_in_both_directions(make_pair):
    pair = make_pair()
    sent = [bytes([index % 251]) * (1 + 37 * index % 1400) for index in range(500)]
    rest = {pair.link: list(sent), pair.peer: list(sent)}

    def pump():
        for link, waiting in rest.items():
            if waiting and link.datagram_budget() > 0:
                del waiting[: link.send_datagrams(waiting[:8])]

    pair.pump = pump
    assert pair.run(lambda: len(pair.server.datagrams) == len(pair.client.datagrams) == 500, seconds=5)
    assert pair.server.datagrams == pair.client.datagrams == sent


@pytest.mark.usefixtures("who")
def test_a_stream_passes_over_loss_reordering_and_duplicates(make_pair):
    pair = make_pair(seed=5, up=LinkModel(delay=0.01, loss=0.02, duplicate=0.02, jitter=0.004))
    stream = pair.link.open_stream()
    data = bytes(range(256)) * 4000
    position = 0

    def pump():
        nonlocal position
        while position < len(data) and pair.link.stream_budget(stream) > 0:
            assert pair.link.send_stream(stream, data[position : position + 5000])
            position += 5000

    pair.pump = pump
    assert pair.run(lambda: len(pair.server.streams.get(stream, b"")) >= len(data), seconds=60)
    assert pair.server.streams[stream] == data
    assert pair.link.meter.packets_lost > 0


def test_on_an_idle_connection_both_kinds_of_data_are_plain(make_pair, monkeypatch):
    pair = make_pair()
    stream = pair.link.open_stream()
    pair.link.send_stream(stream, b"first")
    run_until_idle(pair)
    for link in (pair.link, pair.peer):
        monkeypatch.setattr(link._connection, "datagrams_to_send", refuse)
        monkeypatch.setattr(link._connection, "receive_datagram", refuse)
    pair.link.send_datagrams([bytes(1000), b"short"])
    assert pair.run(lambda: pair.server.datagrams == [bytes(1000), b"short"], seconds=1)
    pair.link.send_stream(stream, bytes(20_000))
    assert pair.run(lambda: len(pair.server.streams[stream]) == 20_005, seconds=1)
    run_until_idle(pair)
    assert pair.link.bytes_in_flight == 0, "an acknowledgement is plain too"


def test_packet_numbers_pass_the_end_of_their_two_bytes(make_pair):
    pair = make_pair()
    run_until_idle(pair)
    pair.link._connection._packet_number = 0xFFF0
    for index in range(64):
        pair.link.send_datagrams([bytes([index])])
        assert pair.run(lambda index=index: len(pair.server.datagrams) == index + 1, seconds=1)
    assert pair.peer._connection._spaces[Epoch.ONE_RTT].largest_received_packet >= 0x10000
    run_until_idle(pair)
    assert pair.link.bytes_in_flight == 0


def test_a_packet_that_comes_twice_is_delivered_once(make_pair):
    pair = make_pair()
    run_until_idle(pair)
    pair.link.send_datagrams([bytes([index]) * 1200 for index in range(6)])
    flight = flushed(pair, pair.link, 6)
    address = pair.client_address
    pair.peer.receive([flight[0], flight[3], flight[1]], address, pair.now)
    pair.peer.receive([flight[1], flight[0], flight[2], flight[3], flight[5], flight[4], flight[5]], address, pair.now)
    (event,) = pair.peer.pop_events()
    assert [payload[0] for payload in event.payloads] == [0, 3, 1, 2, 5, 4]
    run_until_idle(pair)
    assert pair.link.bytes_in_flight == 0, "all six were acknowledged"
    assert pair.link.meter.packets_lost == 0


def test_changed_bytes_are_dropped(make_pair):
    pair = make_pair()
    run_until_idle(pair)
    pair.link.send_datagrams([bytes(1200)])
    ((datagram, _),) = pair.link.flush(pair.now)
    for index in (0, 4, 10, 20, len(datagram) - 1):
        changed = bytearray(datagram)
        changed[index] ^= 0x40
        pair.peer.receive([bytes(changed), datagram[:30]], pair.client_address, pair.now)
        assert pair.peer.pop_events() == []
    pair.peer.receive([datagram], pair.client_address, pair.now)
    assert len(pair.peer.pop_events()) == 1


def test_a_key_update_is_followed_and_plain_packets_go_on(make_pair, monkeypatch):
    pair = make_pair()
    run_until_idle(pair)
    pair.link._connection.request_key_update()
    pair.link.send_datagrams([b"new key"])
    assert pair.run(lambda: pair.server.datagrams == [b"new key"], seconds=1)
    run_until_idle(pair)
    monkeypatch.setattr(pair.peer._connection, "receive_datagram", refuse)
    pair.link.send_datagrams([b"the same key"])
    assert pair.run(lambda: len(pair.server.datagrams) == 2, seconds=1)


def test_an_acknowledgement_does_not_break_a_run_of_equal_sizes(make_pair):
    pair = make_pair()
    run_until_idle(pair)
    pair.link.send_datagrams([bytes(100)])
    for datagram, _ in pair.link.flush(pair.now):
        pair.peer.receive([datagram], pair.client_address, pair.now)
    pair.now += 0.01
    full = pair.peer.datagram_capacity
    pair.peer.send_datagrams([bytes(full)] * 2)
    sizes = [len(datagram) for datagram, _ in pair.peer.flush(pair.now)]
    assert sizes[:-1] == [1452, 1452]
    assert sizes[-1] < 100, "it is the last, and short"


def test_an_acknowledgement_rides_along_with_an_answer(make_pair):
    pair = make_pair()
    run_until_idle(pair)
    pair.link.send_datagrams([b"question"])
    pair.peer.receive(flushed(pair, pair.link, 1), pair.client_address, pair.now)
    pair.peer.send_datagrams([b"answer"])
    pair.link.receive(flushed(pair, pair.peer, 1), SERVER_ADDRESS, pair.now)
    (event,) = pair.link.pop_events()
    assert event.payloads == [b"answer"]
    assert pair.link.flush(pair.now) == []
    assert pair.link.bytes_in_flight == 0
    # The next one within its delay doesn't: there are no more of them than without answers.
    pair.link.send_datagrams([b"again"])
    pair.peer.receive(flushed(pair, pair.link, 1), pair.client_address, pair.now)
    pair.peer.send_datagrams([b"answer"])
    pair.link.receive(flushed(pair, pair.peer, 1), SERVER_ADDRESS, pair.now)
    pair.link.flush(pair.now)
    assert pair.link.bytes_in_flight > 0


def test_a_link_tells_when_its_timer_is_due(make_pair):
    pair = make_pair()
    run_until_idle(pair)
    assert not pair.link.is_due(pair.now)
    pair.link.send_datagrams([b"x"])
    pair.link.flush(pair.now)
    probe = pair.link.timer()
    assert pair.now < probe < pair.now + 1
    assert not pair.link.is_due(probe - 0.001)
    assert pair.link.is_due(probe)


def test_flow_control_and_the_window_hold_plain_packets_back(make_pair):
    pair = make_pair()
    stream = pair.link.open_stream()
    run_until_idle(pair)
    pair.link.send_stream(stream, bytes(1_000_000))
    link, connection = pair.link, pair.link._connection

    def wait_and_flush():
        pair.now += 0.005
        link._request_flush()
        link.flush(pair.now)

    for _ in range(6):
        wait_and_flush()
    assert link.congestion_window - 1452 < link.bytes_in_flight <= link.congestion_window
    link._control.controller.congestion_window *= 10
    connection._remote_max_data = connection._remote_max_data_used + 700
    before = connection._remote_max_data_used
    wait_and_flush()
    assert connection._remote_max_data_used - before == 700


def test_before_the_handshake_is_complete_nothing_is_plain(make_client):
    link = make_client(1000.0)
    assert link._writer.write(1000.0) is None
    assert link._taker.take([bytes(1200)], 0, SERVER_ADDRESS, 1000.0) == 0


@given(st.integers(0, (1 << 62) - 1), st.binary(max_size=4), st.booleans())
def test_variable_length_integers(value, rest, widest):
    shortest = next(size for size, bits in ((1, 6), (2, 14), (4, 30), (8, 62)) if value < 1 << bits)
    size = 8 if widest else shortest
    encoded = (value | {1: 0, 2: 1, 4: 2, 8: 3}[size] << (8 * size - 2)).to_bytes(size, "big")
    assert _varint(b"x" + encoded + rest, 1) == (value, 1 + size)
    with pytest.raises(IndexError):
        _varint(encoded[:-1], 0)


@pytest.mark.parametrize(
    "attribute",
    [
        "_ack_delay", "_ack_eliciting_sent_since_receipt", "_close_at", "_close_pending", "_crypto_streams", "_cryptos",
        "_datagrams_pending", "_handshake_confirmed", "_handshake_done_pending", "_host_cids", "_idle_timeout",
        "_is_client", "_local_ack_delay_exponent", "_local_max_data", "_local_max_streams_bidi",
        "_local_max_streams_uni", "_loss", "_max_datagram_size", "_network_paths", "_on_ack_delivery", "_pacing_at",
        "_packet_number", "_peer_cid", "_ping_pending", "_probe_pending", "_quic_logger",
        "_remote_ack_delay_exponent", "_remote_max_data",
        "_remote_max_data_used", "_remote_preferred_address", "_retire_connection_ids", "_spaces", "_spin_bit",
        "_spin_highest_pn", "_state", "_streams", "_streams_blocked_pending", "_streams_queue",
    ],
)  # fmt: skip
def test_a_connection_has_the_attribute(attribute):
    connection = QuicConnection(configuration=quic_configuration(LinkOptions(), is_client=True))
    assert hasattr(connection, attribute), f"aioquic changed: QuicConnection.{attribute} is gone, see aioquic_send.py"


def test_what_aioquic_keeps_of_a_connection_is_as_expected(make_pair):
    pair = make_pair()
    stream = pair.link.open_stream()
    pair.link.send_stream(stream, b"x")
    run_until_idle(pair)
    connection = pair.link._connection
    pair_of_keys, space = connection._cryptos[Epoch.ONE_RTT], connection._spaces[Epoch.ONE_RTT]
    expected = {
        "the keys of a direction": (pair_of_keys.send, {"aead", "hp", "key_phase"}),
        "both keys": (pair_of_keys, {"send", "recv", "_update_key_requested"}),
        "a cipher": (pair_of_keys.send.aead, {"_aead", "_iv"}),
        "header protection": (pair_of_keys.send.hp, {"_encryptor", "_is_chacha20"}),
        "a packet space": (
            space,
            {
                "ack_at", "ack_queue", "received_packets", "largest_received_packet", "largest_received_time",
                "expected_packet_number", "sent_packets", "ack_eliciting_in_flight",
            },
        ),
        "the window of duplicates": (space.received_packets, {"_received"}),
        "recovery": (
            connection._loss,
            {"peer_completed_address_validation", "_time_of_last_sent_ack_eliciting_packet"},
        ),
        "a stream": (connection._streams[stream], {"is_blocked", "max_stream_data_local", "max_stream_data_remote"}),
        "a receiver": (
            connection._streams[stream].receiver,
            {"_buffer", "_buffer_start", "_final_size", "highest_offset", "is_finished", "stop_pending"},
        ),
        "a sender": (
            connection._streams[stream].sender,
            {"_buffer_fin", "_pending", "buffer_is_empty", "highest_offset", "reset_pending"},
        ),
        "a network path": (connection._network_paths[0], {"addr", "is_validated", "bytes_sent", "remote_challenges"}),
    }  # fmt: skip
    for what, (thing, names) in expected.items():
        missing = names - set(vars(thing))
        assert not missing, f"aioquic changed: {what} has no {missing}, see aioquic_send.py and aioquic_receive.py"


def test_the_record_of_a_sent_packet_has_all_that_aioquic_reads():
    packet = PlainPacket(7, 1.0, 1200, [])
    missing = [name for name in QuicSentPacket.__dataclass_fields__ if not hasattr(packet, name)]
    assert missing == ["quic_logger_frames"], "aioquic changed: QuicSentPacket has new fields, see PlainPacket"


def test_lost_pieces_of_a_stream_leave_together(make_pair):
    """Every second packet of a flight was lost: what is sent again is as many ranges, and one flush sends them all."""
    pair = make_pair()
    pair.run(lambda: False, seconds=2.0)
    stream_id = pair.link.open_stream()
    connection = pair.link._connection
    pair.link._control.controller.congestion_window = 1 << 20
    pair.link._control.pacer.set_rate(1e12, pair.now)
    pair.now += 0.001
    pair.link.send_stream(stream_id, bytes(40_000))
    pair.link.flush(pair.now)
    sent = list(connection._spaces[Epoch.ONE_RTT].sent_packets.values())
    lost = [packet for packet in sent if packet.sent_bytes > 1000][::2]
    assert len(lost) > 10
    connection._loss._on_packets_lost(
        congestion_event=False, now=pair.now, packets=lost, space=connection._spaces[Epoch.ONE_RTT]
    )
    pair.link._control.controller.congestion_window = 1 << 20
    sender = connection._streams[stream_id].sender
    assert len(sender._pending) == len(lost)
    pair.link._mark_dirty()
    pair.link.flush(pair.now)
    assert len(sender._pending) == 0
