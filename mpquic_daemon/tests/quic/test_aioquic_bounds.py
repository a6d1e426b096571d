"""What a peer can make a connection store is bounded by count and by size, in every epoch and before it is admitted."""

from __future__ import annotations

import pytest
from aioquic.quic.packet import QuicErrorCode
from aioquic.quic.rangeset import RangeSet
from aioquic.tls import Epoch
from hostile.packets import crypto, packet, stream
from hypothesis import given
from hypothesis import strategies as st
from mpquic.quic.aioquic_bounds import (
    MAX_CRYPTO_BUFFER,
    MAX_STREAMS,
    MAX_UNACKNOWLEDGED,
    BoundedConnection,
    SortedRanges,
)
from mpquic.quic.aioquic_send import PlainWriter
from mpquic.quic.configuration import WINDOW_BEFORE_ADMISSION
from mpquic.quic.connection_view import LinkState

from .conftest import CLIENT_ADDRESS, SERVER_ADDRESS, Pair

PING = b"\x01"


@pytest.fixture
def unregistered(make_listener, make_client) -> Pair:
    """A pair whose handshake is complete and whose client isn't admitted."""
    pair = Pair(make_listener(), make_client)
    assert pair.run(lambda: pair.server.link is not None and pair.link.state is LinkState.ESTABLISHED)
    assert pair.run(lambda: pair.peer.state is LinkState.ESTABLISHED)
    return pair


def send(pair: Pair, epoch: Epoch, *frames: bytes) -> None:
    """Let the server receive packets with one frame each."""
    datagrams = [packet(pair.link._connection, epoch, frame) for frame in frames]
    pair.listener.receive(datagrams, CLIENT_ADDRESS, pair.now)


def error_code(pair: Pair) -> int | None:
    """The code with which the server closes the connection, if it does."""
    event = pair.peer._connection._close_event
    return None if event is None else event.error_code


def at_server_hello(make_listener, make_client) -> Pair:
    """A pair whose client has the server's first flight and has sent nothing since: its Handshake keys are there."""
    pair = Pair(make_listener(), make_client)
    for datagram, _ in pair.link.flush(pair.now):
        pair.listener.receive([datagram], CLIENT_ADDRESS, pair.now)
    for datagrams, _ in pair.listener.flush(pair.now):
        pair.link.receive(datagrams, SERVER_ADDRESS, pair.now)
    [pair.server.link] = pair.listener.links
    return pair


@pytest.mark.parametrize("epoch", [Epoch.INITIAL, Epoch.HANDSHAKE])
def test_a_gap_in_the_handshake_is_held_open_for_16_kib_and_no_more(make_listener, make_client, epoch):
    pair = at_server_hello(make_listener, make_client)
    # An epoch's first bytes have arrived already, if it is the first.
    begin = pair.peer._connection._crypto_streams[epoch].receiver.starting_offset()
    send(pair, epoch, crypto(begin + MAX_CRYPTO_BUFFER - 10, bytes(10)))
    assert error_code(pair) is None
    send(pair, epoch, crypto(begin + MAX_CRYPTO_BUFFER - 9, bytes(10)))
    assert error_code(pair) == QuicErrorCode.CRYPTO_BUFFER_EXCEEDED


def test_a_gap_after_the_handshake_is_no_wider(unregistered):
    send(unregistered, Epoch.ONE_RTT, crypto(MAX_CRYPTO_BUFFER - 9, bytes(10)))
    assert error_code(unregistered) == QuicErrorCode.CRYPTO_BUFFER_EXCEEDED


def test_a_message_of_tls_that_never_ends_is_not_kept(unregistered):
    endless = b"\x18\xff\xff\xff" + bytes(MAX_CRYPTO_BUFFER)
    send(
        unregistered, Epoch.ONE_RTT, *(crypto(start, endless[start : start + 1000]) for start in range(0, 16000, 1000))
    )
    assert error_code(unregistered) is None
    send(unregistered, Epoch.ONE_RTT, crypto(16000, endless[16000:]))
    assert error_code(unregistered) == QuicErrorCode.CRYPTO_BUFFER_EXCEEDED


def test_many_small_gaps_in_the_handshake_end_it(unregistered):
    send(unregistered, Epoch.ONE_RTT, *(crypto(2 * number + 1, b"x") for number in range(50)))
    assert error_code(unregistered) == QuicErrorCode.CRYPTO_BUFFER_EXCEEDED


def test_an_epoch_that_is_over_leaves_no_buffers(unregistered):
    connection = unregistered.peer._connection
    for epoch in (Epoch.INITIAL, Epoch.HANDSHAKE):
        found = connection._crypto_streams[epoch]
        assert (len(found.receiver._buffer), len(found.sender._buffer)) == (0, 0)
        assert connection._crypto_buffers[epoch].capacity == 0


def test_a_buffer_that_an_epoch_has_filled_goes_with_it(make_listener, make_client):
    pair = at_server_hello(make_listener, make_client)
    connection = pair.peer._connection
    begin = connection._crypto_streams[Epoch.INITIAL].receiver.starting_offset()
    send(pair, Epoch.INITIAL, crypto(begin + 10_000, bytes(1000)))
    assert len(connection._crypto_streams[Epoch.INITIAL].receiver._buffer) == 11_000
    assert pair.run(lambda: pair.peer.state is LinkState.ESTABLISHED)
    assert len(connection._crypto_streams[Epoch.INITIAL].receiver._buffer) == 0


def test_streams_take_64_kib_before_admission(unregistered):
    assert WINDOW_BEFORE_ADMISSION == 65536
    send(unregistered, Epoch.ONE_RTT, stream(0, 60_000, bytes(1000)))
    assert error_code(unregistered) is None
    send(unregistered, Epoch.ONE_RTT, stream(4, 4000, bytes(1000)))
    assert error_code(unregistered) == QuicErrorCode.FLOW_CONTROL_ERROR


def test_few_gaps_are_kept_before_admission_and_many_after_it(unregistered):
    pair = unregistered
    send(pair, Epoch.ONE_RTT, *(stream(0, 2 * number + 1, b"x") for number in range(30)))
    assert error_code(pair) is None
    pair.listener.admit(pair.peer, pair.now)
    send(pair, Epoch.ONE_RTT, *(stream(0, 2 * number + 1, b"x") for number in range(30, 2000)))
    assert error_code(pair) is None
    assert pair.peer.state is LinkState.ESTABLISHED


def test_many_gaps_before_admission_end_the_connection(unregistered):
    send(unregistered, Epoch.ONE_RTT, *(stream(0, 2 * number + 1, b"x") for number in range(40)))
    assert error_code(unregistered) == QuicErrorCode.INTERNAL_ERROR


@pytest.mark.parametrize("direction", [0, 2])
def test_a_peer_opens_few_streams(unregistered, direction):
    send(unregistered, Epoch.ONE_RTT, stream(4 * (MAX_STREAMS - 1) + direction, 0, b"x"))
    assert error_code(unregistered) is None
    send(unregistered, Epoch.ONE_RTT, stream(4 * MAX_STREAMS + direction, 0, b"x"))
    assert error_code(unregistered) == QuicErrorCode.STREAM_LIMIT_ERROR


def test_datagrams_for_a_peer_that_takes_none_wait_in_a_bounded_number(make_pair):
    pair = make_pair()
    size = pair.peer.datagram_capacity
    taken = sum(pair.peer.send_datagrams([bytes(size)] * 100) for _ in range(10))
    assert taken * size <= (256 << 10) + size


def test_a_client_is_bounded_as_well(make_pair):
    pair = make_pair()
    assert isinstance(pair.link._connection, BoundedConnection)
    stream_id = pair.link.open_stream()
    pair.link.send_stream(stream_id, b"question")
    assert pair.run(lambda: stream_id in pair.server.streams)
    pair.peer.send_stream(stream_id, bytes(200_000))
    own = pair.peer.open_stream()
    pair.peer.send_stream(own, b"of the server")
    assert pair.run(lambda: len(pair.client.streams.get(stream_id, b"")) == 200_000)
    assert pair.client.streams[own] == b"of the server"


@pytest.mark.parametrize("plain", [True, False], ids=["plain packets", "aioquic's packets"])
def test_what_is_sent_to_a_peer_that_acknowledges_nothing_is_not_all_kept(make_pair, monkeypatch, plain):
    pair = make_pair()
    pair.run(lambda: False, seconds=1.0)
    if not plain:
        monkeypatch.setattr(PlainWriter, "write", lambda _self, _now: None)
    sender, receiver = pair.link._connection, pair.peer._connection
    space = receiver._spaces[Epoch.ONE_RTT]
    for _ in range(2 * MAX_UNACKNOWLEDGED):
        pair.now += 0.006
        # With a gap, so that some acknowledgements ask for one in turn.
        sender._packet_number += 1
        pair.listener.receive([packet(sender, Epoch.ONE_RTT, PING)], CLIENT_ADDRESS, pair.now)
        pair.listener.flush(pair.now)
        pair.now += 0.006
        pair.listener.handle_timer(pair.now)
        pair.listener.flush(pair.now)
    assert pair.peer.state is LinkState.ESTABLISHED
    assert receiver._packet_number > 1.5 * MAX_UNACKNOWLEDGED
    assert len(space.sent_packets) <= MAX_UNACKNOWLEDGED + 200
    assert pair.peer.bytes_in_flight <= pair.peer.congestion_window + 1500


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=40))
def test_ranges_found_by_bisection_are_those_of_aioquic(pieces):
    ours, theirs = SortedRanges(), RangeSet()
    for start, size in pieces:
        ours.add(start, start + size)
        theirs.add(start, start + size)
        assert list(ours) == list(theirs)
