"""A server sends to an address only what it has proven to receive, or three times what came from there."""

from __future__ import annotations

import os
import random
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic.proto.packet.frame import Frame
from mpquic.proto.stripe.config import StripeConfig
from mpquic.proto.stripe.pipes import Pipes
from mpquic.proto.stripe.return_path import (
    MAX_TRIES,
    RECENT,
    RECOVERY,
    REPLY_TIME,
    STILL_REACHED,
    TOLERATED,
    Obstruction,
)
from mpquic.proto.stripe.session import StripeSession
from mpquic.proto.stripe.wire import PacketType

from .duplex import SECRET, SESSION, Duplex, Host, LinkProfile
from .hostile import HOME, HostilePeer, tcp_packet

NOW = 100.0
VICTIM = ("198.51.100.7", 7)
MOVED = ("192.0.2.1", 51000)


def made() -> tuple[StripeSession, HostilePeer]:
    session = StripeSession(StripeConfig(), SESSION, SECRET, NOW, client=False, entropy=os.urandom)
    peer = HostilePeer(session, NOW)
    peer.come_up(NOW)
    assert session.ready(NOW)
    return session, peer


def sent_to(session: StripeSession) -> dict[object, int]:
    """Octets that leave now, by address."""
    found: dict[object, int] = {}
    for _, address, datagrams in session.take_outgoing():
        found[address] = found.get(address, 0) + sum(map(len, datagrams))
    return found


def push(session: StripeSession, now: float, count: int = 64) -> None:
    session.send([Frame(tcp_packet(1, place, 1200), 1, place) for place in range(count)], now)


def test_a_pipe_that_is_said_to_be_elsewhere_carries_nothing_until_its_peer_is_heard_there() -> None:
    session = StripeSession(StripeConfig(pipes=2), SESSION, SECRET, NOW, client=False, entropy=os.urandom)
    peer = HostilePeer(session, NOW)
    for pipe in range(2):
        peer.give([peer.keepalive(NOW, pipe, PacketType.REGISTER), peer.keepalive(NOW, pipe)], NOW, VICTIM)
    assert not session.ready(NOW)
    push(session, NOW)
    assert set(sent_to(session)) == {VICTIM}
    assert session.pipes.all[0].address is None


def test_a_client_that_moves_is_followed_after_a_round_trip() -> None:
    session, peer = made()
    peer.give([peer.keepalive(NOW + 1.0, 0)], NOW + 1.0, MOVED)
    assert session.pipes.all[0].address == HOME
    outgoing = session.take_outgoing()
    assert {address for _, address, _ in outgoing} == {MOVED, HOME}
    for _, address, datagrams in outgoing:
        if address == MOVED:
            peer.honest.receive([(datagram, len(datagram), None) for datagram in datagrams], NOW + 1.02)
    replies = [datagram for _, _, datagrams in peer.honest.take_outgoing() for datagram in datagrams]
    peer.give(replies, NOW + 1.04, MOVED)
    assert session.pipes.all[0].address == MOVED
    assert session.pipes.moved == 1
    push(session, NOW + 1.04)
    assert HOME not in sent_to(session)


def test_a_guess_proves_nothing_and_a_token_not_where_it_returns_from() -> None:
    session, peer = made()
    peer.give([peer.keepalive(NOW, 0)], NOW, VICTIM)
    peer.give([peer.control(PacketType.PATH_RESPONSE, bytes(8))], NOW, VICTIM)
    assert VICTIM not in [pipe.address for pipe in session.pipes.all]
    token = session.pipes.all[0].unproven.token
    peer.give([peer.control(PacketType.PATH_RESPONSE, token)], NOW, MOVED)
    assert MOVED not in [pipe.address for pipe in session.pipes.all]


def test_a_token_proves_the_address_that_it_went_to_wherever_it_returns_from() -> None:
    """RFC 9000 section 8.2.3. The old address goes on where the newest packet comes from there."""
    session, peer = made()
    peer.give([peer.keepalive(NOW, 0)], NOW, MOVED)
    token = session.pipes.all[0].unproven.token
    peer.give([peer.control(PacketType.PATH_RESPONSE, token)], NOW + 0.1, HOME)
    assert session.pipes.all[0].address == HOME
    peer.give([peer.keepalive(NOW + 0.2, 0)], NOW + 0.2, MOVED)
    assert session.pipes.all[0].address == MOVED


def test_where_packets_come_from_ever_other_addresses_the_last_proven_one_is_used() -> None:
    session, peer = made()
    ports = [("192.0.2.1", 52000 + number) for number in range(8)]
    for number, address in enumerate(ports):
        now = NOW + 0.1 * number
        peer.give([peer.keepalive(now, 0)], now, address)
        if number >= 3:
            token = session.pipes.unproven[ports[number - 3]].token
            peer.give([peer.control(PacketType.PATH_RESPONSE, token)], now, address)
            assert session.pipes.all[0].address == ports[number - 3]
            assert session.pipes.all[0] in session.pipes.carrying(now)
    session.take_outgoing()
    push(session, NOW + 0.75)
    assert max(sent_to(session).values()) > 300
    assert session.pipes.all[0] not in session.pipes.carrying(NOW + 0.7 + STILL_REACHED)


def test_an_address_has_to_prove_itself_again_when_it_was_left_long_ago() -> None:
    session, peer = made()
    peer.give([peer.keepalive(NOW, 0)], NOW, MOVED)
    token = session.pipes.all[0].unproven.token
    peer.give([peer.control(PacketType.PATH_RESPONSE, token)], NOW, MOVED)
    assert session.pipes.all[0].address == MOVED
    peer.give([peer.keepalive(NOW + RECENT + 1, 0)], NOW + RECENT + 1, HOME)
    assert session.pipes.all[0].address == MOVED
    assert session.pipes.all[0].unproven is not None


def test_other_ways_are_wanted_while_no_pipe_can_prove_where_it_is() -> None:
    session, peer = made()
    states, now, port = [], NOW, 52000
    for step in range(300):
        now += 0.01
        if step < 150:  # every 0.1 s another address; no token arrives
            port = 52000 + step // 10
        elif step == 150:
            for pipe in session.pipes.all:
                token = session.pipes.unproven[("192.0.2.1", port + 100 * pipe.number)].token
                peer.give([peer.control(PacketType.PATH_RESPONSE, token, pipe.number)], now, pipe.unproven.address)
        for pipe in range(4):
            peer.give([peer.keepalive(now, pipe)], now, ("192.0.2.1", port + 100 * pipe))
        session.poll(now)
        session.take_outgoing()
        states.append(session.ready(now))
    assert all(states[:50])
    assert not any(states[90:150])
    assert session.pipes.carrying(now) == session.pipes.all
    for _ in range(60):
        now += 0.1
        peer.give([peer.keepalive(now, pipe) for pipe in range(1)], now, ("192.0.2.1", port))
        session.poll(now)
        states.append(session.ready(now))
    assert states[-1]


@given(st.lists(st.tuples(st.floats(0.001, 0.4), st.booleans()), max_size=200))
def test_a_short_time_without_proof_is_no_obstruction_and_a_long_one_is(steps: list[tuple[float, bool]]) -> None:
    obstruction, now, blocked, since = Obstruction(NOW), NOW, False, NOW
    for pause, next_blocked in steps:
        now += pause
        obstruction.update(now, blocked=next_blocked)
        if blocked and now - since > TOLERATED + 0.01:
            assert obstruction.lasts
        if next_blocked is not blocked:
            blocked, since = next_blocked, now
        changes_at = obstruction.changes_at
        assert changes_at is None or changes_at >= now
        if not blocked and now - since > TOLERATED / RECOVERY:
            assert not obstruction.lasts


def test_the_old_address_goes_on_where_a_packet_was_only_sent_on_from_elsewhere() -> None:
    session, peer = made()
    peer.give([peer.keepalive(NOW, 0)], NOW, VICTIM)
    [to_home] = [datagrams for _, address, datagrams in session.take_outgoing() if address == HOME]
    peer.honest.receive([(datagram, len(datagram), None) for datagram in to_home], NOW)
    replies = [datagram for _, _, datagrams in peer.honest.take_outgoing() for datagram in datagrams]
    peer.give(replies, NOW, HOME)
    assert session.pipes.all[0].unproven is None
    assert session.pipes.carrying(NOW) == session.pipes.all
    now = session.next_time(NOW + REPLY_TIME)
    assert now is not None
    session.poll(now)
    assert session.pipes.unproven == {}


def test_an_address_that_never_replies_is_given_up_and_the_old_one_used_again() -> None:
    session, peer = made()
    peer.give([peer.keepalive(NOW, 0)], NOW, VICTIM)
    assert session.pipes.all[0] not in session.pipes.carrying(NOW)
    now, got = NOW, sent_to(session).get(VICTIM, 0)
    while session.pipes.unproven:
        due = session.next_time(now)
        assert due is not None
        now = max(due, now + 0.001)
        session.poll(now)
        got += sent_to(session).get(VICTIM, 0)
        assert now < NOW + 10.0
    assert got <= 3 * len(peer.keepalive(NOW, 0))
    assert session.pipes.given_up == 1
    assert MAX_TRIES > 1
    peer.give([peer.keepalive(now, pipe) for pipe in range(1, 4)], now)
    peer.give([peer.keepalive(now, 0)], now, HOME)
    assert session.pipes.all[0] in session.pipes.carrying(now)


def test_a_search_for_the_path_mtu_waits_for_the_proof_of_an_address() -> None:
    session = StripeSession(
        StripeConfig(pipes=2, initial_datagram_size=1200), SESSION, SECRET, NOW, client=False, entropy=os.urandom
    )
    peer = HostilePeer(session, NOW)
    peer.come_up(NOW)
    now = NOW + 1.0
    peer.give([peer.keepalive(now, pipe) for pipe in range(2)], now, VICTIM)
    polls = 0
    while now < NOW + 3.0:
        assert session.pipes.alive(now)
        assert not session.pipes.carrying(now)
        session.poll(now)
        session.take_outgoing()
        polls += 1
        due = session.next_time(now)
        assert due is not None
        now = max(due, now + 0.001)
    assert polls < 50


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_no_address_gets_more_than_three_times_what_came_from_it_before_it_proves_itself(seed: int) -> None:
    rng = random.Random(seed)
    session, peer = made()
    victims = [("198.51.100.7", port) for port in range(3)]
    came, went = dict.fromkeys(victims, 0), dict.fromkeys(victims, 0)
    now = NOW
    for step in range(60):
        now += rng.choice((0.0, 0.001, 0.05, 0.4))
        source = rng.choice((*victims, HOME))
        pipe = rng.randrange(4)
        kind = rng.randrange(3)
        if kind == 0:
            packet = peer.keepalive(now, pipe, rng.choice((PacketType.KEEPALIVE, PacketType.REGISTER)))
        elif kind == 1:
            packet = peer.control(PacketType.PROBE, bytes(rng.choice((7, 1000))), pipe)
        else:
            packet = peer.shard(Frame(tcp_packet(1, step, rng.choice((1, 1300))), 1, step).encode())
        if source in came:
            came[source] += len(packet)
        peer.give([packet], now, source)
        push(session, now, 20)
        session.poll(now)
        for address, octets in sent_to(session).items():
            if address in went:
                went[address] += octets
        assert all(went[each] <= 3 * came[each] for each in victims)
    assert len(session.pipes.unproven) <= 64


@given(
    st.lists(st.tuples(st.sampled_from(("shard", "control", "reply", "time")), st.integers(0, 3), st.integers(1, 5)))
)
def test_a_source_is_an_address_that_a_pipe_has_or_was_heard_from_last(steps: list[tuple[str, int, int]]) -> None:
    fresh = count(1)
    pipes = Pipes(4, NOW, client=False, entropy=lambda size: next(fresh).to_bytes(size, "big"))
    now, heard = NOW, set()
    for number, (kind, pipe, value) in enumerate(steps):
        address = ("192.0.2.1", value)
        if kind == "shard":
            pipes.on_shards(pipe, 1, 100, number, address)
            heard.add(address)
        elif kind == "control":
            pipes.on_control(pipe, 100, number, address)
            heard.add(address)
        elif kind == "reply":
            pipes.on_response(value.to_bytes(8, "big"), now)
        else:
            now += value
            pipes.challenges(now, 0.0)
        last = {each.unproven.address for each in pipes.all if each.unproven is not None}
        assert pipes.sources == last | {each.address for each in pipes.all if each.address is not None}
        assert pipes.sources <= heard


def test_a_client_sends_back_no_more_tokens_than_a_server_has_reason_to_send() -> None:
    session = StripeSession(StripeConfig(), SESSION, SECRET, NOW, client=True, entropy=os.urandom)
    peer = HostilePeer(session, NOW)
    peer.give([peer.control(PacketType.PATH_CHALLENGE, bytes(8)) for _ in range(1000)], NOW)
    assert len(session.take_outgoing()) <= 64
    assert session.receiver.refused["path_challenge"] > 900
    # Only servers prove addresses.
    peer.give([peer.control(PacketType.PATH_RESPONSE, bytes(8)), peer.control(PacketType.PATH_CHALLENGE, b"")], NOW)
    assert session.receiver.refused["path"] == 2


class Forgetful:
    """A NAT that forgets all bindings every so often: the public ports are others from then on, the old ones dead."""

    def __init__(self, duplex: Duplex) -> None:
        self.duplex = duplex
        self.generation = 0
        duplex.server.hear = self.hear  # type: ignore[method-assign]
        duplex.server.transmit = self.transmit  # type: ignore[method-assign]
        self.server: Host = duplex.server

    def hear(self, now: float, peer: Host) -> None:
        for pipe, datagram in self.server.incoming.receive(now):
            address = ("192.0.2.1", 40000 + pipe + 100 * self.generation)
            self.server.take(self.server.session.receive([(datagram, len(datagram), address)], now), now, peer)

    def transmit(self, now: float) -> None:
        for pipe, address, datagrams in self.server.session.take_outgoing():
            for datagram in datagrams:
                if address is not None and (address[1] - 40000) // 100 == self.generation:
                    self.server.out.send(pipe, datagram, now)


@pytest.mark.simulation
@pytest.mark.parametrize(("direction", "least"), [("up", 0.97), ("down", 0.93)])
def test_goodput_hardly_suffers_when_a_nat_forgets_all_bindings_every_3_seconds(direction: str, least: float) -> None:
    goodput = []
    for forgets in (False, True):
        duplex = Duplex(up=LinkProfile(rate=2.5e6, delay=0.017))
        nat = Forgetful(duplex)
        duplex.run_until_ready()
        sender, receiver = (duplex.client, duplex.server) if direction == "up" else (duplex.server, duplex.client)
        sender.offer(10**9)
        duplex.run(3.0)
        before = receiver.received_bytes
        for _ in range(5):
            nat.generation += forgets
            duplex.run(3.0)
        goodput.append(receiver.received_bytes - before)
        assert duplex.server.session.pipes.given_up == 0
    print(f"{direction}: {goodput[1] / goodput[0]:.3f} of what a NAT that forgets nothing lets through")
    assert goodput[1] >= least * goodput[0]
