"""Someone on the way, or elsewhere, who has no key: nothing is accepted, nothing moves, the counters tell."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic.proto.packet.frame import Frame
from mpquic.proto.stripe.config import StripeConfig
from mpquic.proto.stripe.keepalive import Keepalive, encode_keepalive
from mpquic.proto.stripe.keys import Sealer, Suite, direction_secret
from mpquic.proto.stripe.reports import Report, encode_report
from mpquic.proto.stripe.session import StripeSession
from mpquic.proto.stripe.table import SessionTable
from mpquic.proto.stripe.wire import Header, PacketType

from .duplex import SECRET, SESSION, Duplex

ATTACKER = ("198.51.100.66", 6666)


@pytest.fixture
def duplex() -> Duplex:
    pair = Duplex()
    pair.run_until_ready()
    pair.client.offer(400)
    pair.run(1.0)
    assert len(pair.server.received) == 400
    return pair


def state(session: StripeSession) -> tuple[object, ...]:
    receiver = session.receiver
    return (
        [pipe.address for pipe in session.pipes.all],
        [pipe.confirmed_at for pipe in session.pipes.all],
        receiver.window.highest,
        receiver.control_window.highest,
        receiver.shards,
        session.epochs,
        session.heard_at,
        session.sender.recovery.inflight.bytes,
        session.sender.next_time(1e9),
        len(receiver.decoder),
    )


def test_a_replay_of_all_that_was_sent_changes_nothing(duplex: Duplex) -> None:
    server = duplex.server.session
    before = state(server)
    captured = list(duplex.up.captured) * (10_000 // len(duplex.up.captured) + 1)
    for _, datagram in captured:
        assert server.receive([(datagram, len(datagram), ATTACKER)], duplex.now) == []
    assert state(server) == before
    assert sum(server.receiver.refused.values()) == len(captured)
    assert set(server.receiver.refused) == {"replayed"}
    assert server.pipes.moved == 0


def test_reflected_packets_are_no_packets_of_the_peer(duplex: Duplex) -> None:
    server = duplex.server.session
    duplex.client.session.send([Frame(b"\x45" + bytes(99), 1, 1)], duplex.now)
    [(_, _, [fresh])] = duplex.client.session.take_outgoing()
    before = state(duplex.client.session)
    assert duplex.client.session.receive([(fresh, len(fresh), None)], duplex.now) == []
    assert state(duplex.client.session) == before
    assert server.receive([(fresh, len(fresh), ("192.0.2.1", 40000))], duplex.now) != []


def test_a_forged_register_moves_no_return_path(duplex: Duplex) -> None:
    server = duplex.server.session
    before = state(server)
    guess = Sealer(Suite.AES_128_GCM, direction_secret(bytes(32), from_client=True), SESSION, 0.0)
    guess.next_control = 1000
    for pipe in range(4):
        forged = guess.seal_control(PacketType.REGISTER, pipe, encode_keepalive(Keepalive.REQUEST, 0, duplex.now))
        assert server.receive([(forged, len(forged), ATTACKER)], duplex.now) == []
    assert state(server) == before
    assert server.receiver.refused == {"forged": 4}
    assert server.take_outgoing() == []


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_changed_and_truncated_packets_are_refused(data: st.DataObject) -> None:
    client = StripeSession(StripeConfig(), SESSION, SECRET, 0.0, client=True, entropy=os.urandom)
    server = StripeSession(StripeConfig(), SESSION, SECRET, 0.0, client=False, entropy=os.urandom)
    client.poll(0.0)
    packet = bytearray(client.take_outgoing()[0].datagrams[0])
    if data.draw(st.booleans()):
        packet[data.draw(st.integers(0, len(packet) - 1))] ^= data.draw(st.integers(1, 255))
    else:
        del packet[data.draw(st.integers(1, len(packet) - 1)) :]
    before = state(server)
    assert server.receive([(packet, len(packet), ATTACKER)], 0.0) == []
    assert state(server) == before
    assert sum(server.receiver.refused.values()) == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=100), max_size=10), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_arbitrary_octets_never_raise(tails: list[bytes], segment: int, session: int) -> None:
    server = StripeSession(StripeConfig(), SESSION, SECRET, 0.0, client=False, entropy=os.urandom)
    before = state(server)
    rng = random.Random(session)
    for tail in tails:
        head = Header(rng.randrange(32), rng.choice((SESSION, session)), rng.randrange(2**32), 0, 0, 0, 0, len(tail))
        data = (head.encode() + tail) * 3
        assert server.receive([(data, rng.choice((segment, len(tail) + 16)), ATTACKER)], 0.0) == []
    assert state(server) == before


def test_a_peer_that_reports_what_was_never_sent_is_not_believed(duplex: Duplex) -> None:
    client = duplex.client.session
    evil = Sealer(Suite.AES_128_GCM, direction_secret(SECRET, from_client=False), SESSION, 0.0)
    evil.next_control = 10_000
    in_flight = client.sender.recovery.inflight.sampler.delivered
    bodies = [
        encode_report(Report(2**40, 0.0, 9, [(2**40 - 5, 2**40)], [])),
        encode_report(Report(5, 0.0, 9, [(0, 5)], [(0, 5)])),
        b"\xff" * 40,
        b"",
    ]
    for body in bodies:
        packet = evil.seal_control(PacketType.REPORT, 0, body)
        client.receive([(packet, len(packet), None)], duplex.now)
    assert client.sender.recovery.inflight.sampler.delivered == in_flight
    assert client.receiver.refused == {"report_of_what_was_not_sent": 1, "report_ranges": 1, "report_truncated": 1}
    for packet in (
        evil.seal_control(PacketType.KEEPALIVE, 0, b"short"),
        evil.seal_control(PacketType.KEEPALIVE, 0, encode_keepalive(Keepalive.REQUEST, 0, 1.0)),
    ):
        client.receive([(packet, len(packet), None)], duplex.now)
    assert client.receiver.refused["keepalive"] == 2


def test_the_return_path_follows_the_newest_authentic_packet_of_its_pipe(duplex: Duplex) -> None:
    server, client = duplex.server.session, duplex.client.session
    moved = ("203.0.113.77", 5555)
    client.send([Frame(b"\x45" + bytes(99), 1, 1)], duplex.now)
    [(pipe, _, [first])] = client.take_outgoing()
    spread = client.pipes.all[pipe].charged_bytes
    client.pipes.all[pipe].charged_bytes = 0
    client.send([Frame(b"\x45" + bytes(99), 1, 2)], duplex.now)
    [(again, _, [second])] = client.take_outgoing()
    assert pipe == again
    assert spread > 0
    home = server.pipes.all[pipe].address
    server.receive([(second, len(second), moved)], duplex.now)
    assert server.pipes.all[pipe].unproven is not None
    token = server.pipes.all[pipe].unproven.token
    # One that was overtaken, and comes from where the client was before, says nothing.
    server.receive([(first, len(first), home)], duplex.now)
    assert server.pipes.all[pipe].unproven is not None
    reply = client._sealer.seal_control(PacketType.PATH_RESPONSE, pipe, token)
    server.receive([(reply, len(reply), moved)], duplex.now)
    assert server.pipes.all[pipe].address == moved
    assert server.pipes.moved == 1


def test_sessions_are_found_by_id_and_collected_when_idle() -> None:
    rng = random.Random(5)
    table: SessionTable[str] = SessionTable(rng.randbytes, max_sessions=3)
    sessions = []
    for name in ("a", "b", "c"):
        allotted = table.allocate()
        assert allotted is not None
        sessions.append(StripeSession(StripeConfig(), *allotted, 0.0, client=False, entropy=os.urandom))
        table.add(sessions[-1], name)
    assert table.allocate() is None
    client = StripeSession(StripeConfig(), sessions[1].session, SECRET, 0.0, client=True, entropy=os.urandom)
    client.poll(0.0)
    [packet, *_] = client.take_outgoing()[0].datagrams
    assert table.find(packet) == (sessions[1], "b")
    assert table.find(b"rubbish") is None
    assert table.find(packet[:4] + bytes(28)) is None
    assert table.refused == {"foreign": 1, "session": 1}
    sessions[2].heard_at = 20.0
    assert [owner for _, owner in table.collect_idle(31.0)] == ["a", "b"]
    assert len(table) == 1
    with pytest.raises(ValueError, match="taken"):
        table.add(sessions[2], "again")
    table.remove(sessions[2])
    table.remove(sessions[2])
    assert len(table) == 0
