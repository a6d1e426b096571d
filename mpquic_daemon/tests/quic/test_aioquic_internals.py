"""What we touch of aioquic beyond its public interface is still there and still means what we take it for."""

from __future__ import annotations

import pytest
from aioquic.quic.connection import MAX_NETWORK_PATHS, Limit, QuicConnection, QuicNetworkPath
from aioquic.tls import CipherSuite
from mpquic.proto.congestion.pacer import Pacer
from mpquic.quic import aioquic_internals as internals
from mpquic.quic.configuration import LinkOptions, quic_configuration
from mpquic.quic.connection_view import LinkState
from mpquic.quic.pacing import LinkPacer


@pytest.fixture
def fresh() -> QuicConnection:
    return QuicConnection(configuration=quic_configuration(LinkOptions(), is_client=True))


@pytest.mark.parametrize(
    "attribute",
    [
        "_datagrams_pending",
        "_peer_cid",
        "_max_datagram_size",
        "_remote_max_datagram_frame_size",
        "_streams",
        "_state",
        "_close_event",
        "_ack_delay",
        "_loss",
        "_local_max_data",
        "_network_paths",
        "_find_network_path",
        "_add_network_path",
        "_write_path_challenge_frame",
        "_retire_peer_cid",
        "_peer_cid_available",
    ],
)
def test_a_connection_has_the_attribute(fresh, attribute):
    assert hasattr(fresh, attribute), f"aioquic changed: QuicConnection.{attribute} is gone, see aioquic_internals.py"


def test_an_address_of_the_peer_has_the_attributes_that_decide_about_it():
    names = {"addr", "is_validated", "local_challenge_sent", "peer_cid", "remote_challenges", "validation_deadline"}
    assert names <= set(vars(QuicNetworkPath(("192.0.2.1", 1)))), "aioquic changed: see aioquic_paths.py"
    assert MAX_NETWORK_PATHS == 8, "docs/protocol.md says so"


def test_the_pacer_and_the_flow_control_can_be_replaced(fresh):
    assert hasattr(fresh._loss, "_pacer"), "aioquic changed: QuicPacketRecovery._pacer is gone"
    assert type(fresh._local_max_data) is Limit
    assert {"sent", "used", "value", "name", "frame_type"} <= set(vars(fresh._local_max_data))
    pacer = LinkPacer(Pacer(1e6, 0.0), max_datagram_size=1200)
    internals.install_pacer(fresh, pacer)
    assert fresh._loss._pacer is pacer


def test_what_a_pause_changes_is_still_there(fresh):
    names = {"_rtt_initialized", "_rtt_smoothed", "_time_of_last_sent_ack_eliciting_packet", "spaces"}
    assert names <= set(vars(fresh._loss)), "aioquic changed: see forget_pause in aioquic_internals.py"


def test_what_bounds_the_pauses_of_a_handshake_is_still_there(fresh):
    assert fresh._handshake_complete is False
    assert fresh._loss._pto_count == 0
    for name in ("on_loss_detection_timeout", "get_probe_timeout"):
        assert callable(getattr(fresh._loss, name)), "aioquic changed: see bound_handshake_pauses"


def test_unknown_configuration_fields_are_errors():
    with pytest.raises(AttributeError, match=r"no QuicConfiguration\.cipher_suite"):
        internals.restrict(quic_configuration(LinkOptions(), is_client=True), cipher_suite=[])


def test_only_the_cipher_without_a_packet_limit_is_used(make_pair):
    pair = make_pair()
    for link in (pair.link, pair.peer):
        assert link._connection.tls.key_schedule.cipher_suite == CipherSuite.CHACHA20_POLY1305_SHA256


def test_the_replaced_pacer_is_the_one_that_paces(make_pair):
    pair = make_pair()
    pacer = pair.link._connection._loss._pacer
    assert isinstance(pacer, LinkPacer)
    pair.link.send_datagrams([b"x"])
    assert pair.run(lambda: len(pair.server.datagrams) == 1)
    assert pacer.next_send_time(pair.now) is None
    pair.link._control.pacer.spend(1 << 20)
    assert pacer.next_send_time(pair.now) > pair.now
    pair.link.send_datagrams([b"x"])
    assert pair.link.flush(pair.now) == []


def test_the_end_of_a_batch_is_told_after_its_losses(make_pair):
    pair = make_pair()
    control, told = pair.link._control, []
    control.controller.on_ack = lambda sample, now: told.append((sample, now))
    pair.link.send_datagrams([bytes(1000)] * 5)
    assert pair.run(lambda: len(pair.server.datagrams) == 5)
    pair.run(lambda: False, seconds=1.0)
    assert told
    assert sum(sample.bytes_acked for sample, _ in told) >= 5000
    assert control.bytes_in_flight == told[-1][0].in_flight == 0


def test_the_capacity_is_exactly_what_fits(make_pair):
    pair = make_pair()
    capacity = pair.link.datagram_capacity
    connection = pair.link._connection
    connection.send_datagram_frame(bytes(capacity + 1))
    assert pair.link.flush(pair.now) == []
    assert internals.pending_datagrams(connection) == 1, "one byte more should not fit; the capacity is too small"
    connection._datagrams_pending.clear()
    pair.link.send_datagrams([bytes(capacity)])
    assert [len(datagram) for datagram, _ in pair.link.flush(pair.now)] == [1200]
    assert internals.pending_datagrams(connection) == 0


def test_a_stream_tells_what_it_has_sent(make_pair):
    pair = make_pair()
    stream = pair.link.open_stream()
    assert pair.link.send_stream(stream, bytes(50_000))
    sender = internals.stream_sender(pair.link._connection, stream)
    assert sender.next_offset == 0
    pair.link.flush(pair.now)
    assert 0 < sender.next_offset < 50_000
    assert internals.stream_sender(pair.link._connection, stream + 4) is None


def test_a_connection_knows_whether_anything_could_be_decrypted(make_pair):
    pair = make_pair(established=False)
    assert not internals.has_decrypted(pair.link._connection)
    assert pair.run(lambda: pair.link.state is LinkState.ESTABLISHED)
    assert internals.has_decrypted(pair.link._connection)


def test_the_end_is_known_before_the_event_of_the_library(make_pair):
    pair = make_pair()
    assert not internals.is_over(pair.link._connection)
    pair.peer.close(9, "enough")
    assert pair.run(lambda: pair.client.ended is not None, seconds=0.5)
    assert internals.closed_by_peer(pair.link._connection)
    assert internals.close_event(pair.link._connection).error_code == 9
    assert pair.link._connection.next_event() is None
