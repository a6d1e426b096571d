"""The listener among unregistered peers: quotas, Retry, garbage, and nothing left behind."""

from __future__ import annotations

import gc
import weakref

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mpquic.proto.control.unregistered import Stage, UnregisteredLimits
from mpquic.quic import listener as quic_listener
from mpquic.quic.configuration import LinkOptions
from mpquic.quic.connection_view import LinkState
from mpquic.quic.link import QuicLink

from .conftest import CLIENT_ADDRESS, Pair

NOW = 1000.0


def initial(make_client, now: float = NOW) -> bytes:
    return make_client(now).flush(now)[0][0]


def packet_type(datagram: bytes) -> QuicPacketType:
    return pull_quic_header(Buffer(data=datagram), host_cid_length=8).packet_type


def test_many_reconnects_leave_nothing(make_listener, make_client):
    listener = make_listener()
    for _ in range(30):
        pair = Pair(listener, make_client)
        assert pair.run(lambda pair=pair: pair.server.link is not None and pair.peer.state is LinkState.ESTABLISHED)
        assert len(listener.links) == 1
        listener.admit(pair.peer, pair.now)
        assert pair.run(lambda pair=pair: pair.link.state is LinkState.ESTABLISHED)
        pair.link.close()
        assert pair.run(lambda: listener.links == (), seconds=1)
    assert not listener._links
    assert listener.unregistered == 0
    assert listener.timer() is None
    assert listener.counters["accepted"] == listener.counters["closed"] == 30
    del pair
    gc.collect()
    assert sum(isinstance(item, QuicLink) for item in gc.get_objects()) <= 2


def test_a_connection_that_has_ended_is_not_kept_until_its_idle_timeout(make_listener, make_client):
    listener = make_listener()
    # While it is there, its timer comes before those of the others.
    listener.receive([initial(make_client)], ("198.51.100.1", 5000), NOW)
    (other,) = listener.links
    ended: list[weakref.ref[QuicLink]] = []
    for _ in range(3):
        pair = Pair(listener, make_client)
        # Until everything is acknowledged: only the idle timeout is due.
        assert pair.run(lambda pair=pair: pair.server.link is not None and pair.link.state is LinkState.ESTABLISHED)
        pair.run(lambda: False, seconds=1.0)
        assert pair.peer.timer() > pair.now + 10.0
        ended.append(weakref.ref(pair.peer))
        pair.link.close()
        assert pair.run(lambda: listener.links == (other,), seconds=1.0)
        del pair
    gc.collect()
    assert listener.links == (other,)
    assert [link() for link in ended] == [None] * 3


def test_timers_that_packets_have_moved_are_not_kept_until_their_time(make_listener, make_client):
    listener = make_listener()
    pair = Pair(listener, make_client)
    assert pair.run(lambda: pair.server.link is not None and pair.link.state is LinkState.ESTABLISHED)
    listener.admit(pair.peer, pair.now)
    pair.run(lambda: False, seconds=1.0)
    # Its deadline comes before the idle timeout of the other, which each packet moves.
    listener.receive([initial(make_client, pair.now)], ("198.51.100.1", 5000), pair.now)
    for _ in range(3000):
        pair.link.send_datagrams([b"x"])
        pair.run(lambda: False, seconds=0.001)
    assert len(listener.links) == 2
    assert len(listener._timers) < 300
    assert listener.timer() == min(link.timer() for link in listener.links)


def test_a_peer_that_never_registers_is_closed(make_listener, make_client):
    listener = make_listener(limits=UnregisteredLimits(timeout=3.0))
    pair = Pair(listener, make_client)
    assert pair.run(lambda: pair.client.ended is not None, seconds=4)
    assert pair.client.ended.reason == "not registered in time"
    assert 2.9 < pair.now - NOW < 3.2
    assert listener.links == ()
    assert listener.counters["not_registered_in_time"] == 1


def test_an_admitted_client_stays(make_pair):
    pair = make_pair(limits=UnregisteredLimits(timeout=3.0))
    assert pair.listener.unregistered == 0
    assert not pair.run(lambda: pair.client.ended is not None, seconds=6)


def test_a_half_open_connection_is_given_up(make_listener, make_client):
    listener = make_listener()
    listener.receive([initial(make_client)], CLIENT_ADDRESS, NOW)
    assert listener.unregistered == 1
    listener.flush(NOW)
    now = NOW
    while listener.links and now < NOW + 20:
        now = max(now, listener.timer())
        listener.handle_timer(now)
        listener.flush(now)
    assert 4.9 < now - NOW < 6
    assert not listener._links
    assert listener.unregistered == 0


def test_under_load_new_peers_get_a_retry_and_still_come_in(make_listener, make_client):
    listener = make_listener(limits=UnregisteredLimits(retry_threshold=3))
    for index in range(3):
        listener.receive([initial(make_client)], (f"198.51.100.{index}", 5000), NOW)
    listener.flush(NOW)
    assert listener._unregistered.must_prove_address(NOW)
    pair = Pair(listener, make_client)
    assert pair.run(lambda: pair.link.state is LinkState.ESTABLISHED, seconds=2)
    assert listener.counters["retry_sent"] == 1
    assert listener.counters["accepted"] == 4


def test_a_retry_keeps_no_state_and_is_small(make_listener, make_client):
    listener = make_listener(limits=UnregisteredLimits(retry_threshold=0))
    first = initial(make_client)
    listener.receive([first], CLIENT_ADDRESS, NOW)
    [([answer], address)] = listener.flush(NOW)
    assert address == CLIENT_ADDRESS
    assert packet_type(answer) is QuicPacketType.RETRY
    assert len(answer) < len(first) / 3
    assert listener.links == ()
    assert not listener._links


def test_a_token_is_worth_nothing_from_another_address(make_listener, make_client):
    listener = make_listener(limits=UnregisteredLimits(retry_threshold=0))
    client = make_client(NOW)
    listener.receive([client.flush(NOW)[0][0]], CLIENT_ADDRESS, NOW)
    [([retry], _)] = listener.flush(NOW)
    client.receive([retry], client.peer_address, NOW)
    [(second, _)] = client.flush(NOW)
    listener.receive([second], ("198.51.100.1", 40000), NOW)
    assert listener.counters["invalid_token"] == 1
    assert listener.links == ()
    listener.receive([second], CLIENT_ADDRESS, NOW)
    assert len(listener.links) == 1


def prove_and_come(listener, make_client, address) -> None:
    """Send a first packet and repeat it with the token that comes back."""
    client = make_client(NOW)
    listener.receive([client.flush(NOW)[0][0]], address, NOW)
    [([retry], _)] = listener.flush(NOW)
    client.receive([retry], client.peer_address, NOW)
    listener.receive([client.flush(NOW)[0][0]], address, NOW)


def test_quotas_hold(make_listener, make_client):
    limits = UnregisteredLimits(places=6, reserved=1, per_address=2, retry_threshold=100)
    listener = make_listener(limits=limits)
    for _ in range(4):
        listener.receive([initial(make_client)], ("198.51.100.1", 5000), NOW)
    assert len(listener.links) == 2
    assert listener.counters["too_many_unregistered_of_port"] == 2
    for host in range(6):
        listener.receive([initial(make_client)], (f"2001:db8:{host}::1", 5000, 0, 0), NOW)
    assert len(listener.links) == 6
    assert listener.counters["too_many_unregistered"] == 2


def test_addresses_of_one_ipv6_network_are_one_source(make_listener, make_client):
    listener = make_listener(limits=UnregisteredLimits(per_port=1))
    for host in range(3):
        listener.receive([initial(make_client)], (f"2001:db8::{host}", 5000, 0, 0), NOW)
    assert len(listener.links) == 1


def test_admission_makes_room(make_listener, make_client):
    listener = make_listener(limits=UnregisteredLimits(places=1, reserved=0))
    pair = Pair(listener, make_client)
    assert pair.run(lambda: pair.server.link is not None and pair.peer.state is LinkState.ESTABLISHED)
    listener.receive([initial(make_client, pair.now)], CLIENT_ADDRESS, pair.now)
    assert len(listener.links) == 1
    listener.admit(pair.peer, pair.now)
    listener.receive([initial(make_client, pair.now)], CLIENT_ADDRESS, pair.now)
    assert len(listener.links) == 2


def test_an_initial_that_nobody_can_decrypt_takes_no_place(make_listener, make_client):
    listener = make_listener()
    datagram = bytearray(initial(make_client))
    datagram[100] ^= 1
    listener.receive([bytes(datagram)], CLIENT_ADDRESS, NOW)
    assert (listener.unregistered, listener.links, listener._links) == (0, (), {})
    assert listener.flush(NOW) == []
    assert listener.counters["undecryptable"] == 1


def test_a_full_house_makes_room_for_another_network(make_listener, make_client):
    limits = UnregisteredLimits(places=4, reserved=0, retry_threshold=100, grace=0.5)
    listener = make_listener(limits=limits)
    for port in range(4):
        listener.receive([initial(make_client)], ("198.51.100.1", 5000 + port), NOW)
    first = listener.links[0]
    listener.receive([initial(make_client)], CLIENT_ADDRESS, NOW + 0.1)
    assert listener.counters["too_many_unregistered"] == 1
    listener.receive([initial(make_client)], CLIENT_ADDRESS, NOW + 1)
    assert listener.unregistered == len(listener.links) == 4
    assert first.state is LinkState.CLOSED
    assert listener.links[-1].peer_address == CLIENT_ADDRESS
    assert listener.counters["evicted_before_registration"] == 1


def test_who_sends_much_before_registration_is_dropped(make_listener, make_client):
    listener = make_listener(limits=UnregisteredLimits(max_datagrams=20))
    pair = Pair(listener, make_client)
    assert pair.run(lambda: pair.server.link is not None and pair.peer.state is LinkState.ESTABLISHED)
    noise = b"\x40" + pair.peer.connection_id + bytes(60)
    listener.receive([noise] * 21, CLIENT_ADDRESS, pair.now)
    assert pair.peer.state is LinkState.CLOSED
    assert listener.links == ()
    assert listener.counters["too_many_datagrams_before_registration"] == 1


def test_an_admitted_client_sends_what_it_likes(make_pair):
    pair = make_pair(limits=UnregisteredLimits(max_datagrams=20))
    noise = b"\x40" + pair.peer.connection_id + bytes(60)
    pair.listener.receive([noise] * 100, CLIENT_ADDRESS, pair.now)
    assert pair.peer.state is LinkState.ESTABLISHED


def test_who_costs_much_before_registration_is_dropped_and_its_network_waits(make_listener, make_client):
    ticks = iter(range(1_000_000))
    listener = make_listener(
        limits=UnregisteredLimits(max_work=0.3, share=0.1, retry_threshold=0), processor_time=lambda: next(ticks) * 0.2
    )
    prove_and_come(listener, make_client, ("198.51.100.1", 5000))
    assert listener.links == ()
    assert listener.counters["too_much_processor_time_before_registration"] == 1
    prove_and_come(listener, make_client, ("198.51.100.2", 5000))
    assert listener.counters["network_cost_exceeded"] == 1


def test_first_packets_with_a_forged_address_cost_its_owner_nothing(make_listener, make_client):
    ticks = iter(range(1_000_000))
    listener = make_listener(
        limits=UnregisteredLimits(max_work=0.3, share=0.1), processor_time=lambda: next(ticks) * 0.2
    )
    listener.receive([initial(make_client)], ("198.51.100.1", 5000), NOW)
    assert listener.counters["too_much_processor_time_before_registration"] == 1
    prove_and_come(listener, make_client, ("198.51.100.1", 5000))
    assert listener.counters["retry_sent"] == 1
    assert listener.counters["accepted"] == 2
    assert listener.counters["network_cost_exceeded"] == 0


@pytest.mark.parametrize("strays", [False, True])
def test_a_handshake_proves_an_address_if_all_of_it_comes_from_there(make_listener, make_client, strays):
    listener = make_listener()
    pair = Pair(listener, make_client)
    assert pair.run(lambda: listener.links)
    (place,) = listener._unregistered._places.values()
    assert not place.is_proven
    if strays:
        noise = b"\xc0" + bytes([0, 0, 0, 1, 8]) + listener.links[0].connection_id + bytes(60)
        listener.receive([noise], ("198.51.100.1", 5000), pair.now)
    assert pair.run(lambda: listener.links[0].state is LinkState.ESTABLISHED)
    assert place.is_proven is not strays
    assert place.stage is Stage.REGISTRATION


def test_an_unknown_version_is_answered_with_ours(make_listener, make_client):
    listener = make_listener()
    datagram = bytearray(initial(make_client))
    datagram[1:5] = b"\x1a\x2a\x3a\x4a"
    listener.receive([bytes(datagram)], CLIENT_ADDRESS, NOW)
    [([answer], _)] = listener.flush(NOW)
    header = pull_quic_header(Buffer(data=answer), host_cid_length=8)
    assert header.packet_type is QuicPacketType.VERSION_NEGOTIATION
    assert header.supported_versions == [1]
    assert listener.links == ()
    listener.receive([answer], CLIENT_ADDRESS, NOW)
    assert listener.flush(NOW) == []


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "malformed"),
        (b"\x00" * 50, "malformed"),
        (b"\x40" * 20, "unknown_connection"),
        (b"\x40" * 1400, "unknown_connection"),
        (b"\xff" * 1400, "malformed"),
    ],
)
def test_garbage_is_counted_by_reason(make_listener, datagram, reason):
    listener = make_listener()
    listener.receive([datagram], CLIENT_ADDRESS, NOW)
    assert listener.counters == {reason: 1}
    assert listener.flush(NOW) == []


def test_replies_to_garbage_wait_in_a_bounded_number(make_listener):
    listener = make_listener()
    unknown = bytes([0xC0]) + b"\x1a\x2a\x3a\x4a" + b"\x08" + bytes(8) + b"\x08" + bytes(8)
    for port in range(1000):
        listener.receive([unknown.ljust(1200, b"\0")], ("192.0.2.9", 1024 + port), NOW)
    assert listener.counters["unsupported_version"] == 1000
    assert len(listener.flush(NOW)) == 256
    assert listener.flush(NOW) == []


def test_there_are_never_more_connections_than_a_server_may_have(make_listener, make_client, monkeypatch):
    monkeypatch.setattr(quic_listener, "MAX_CONNECTIONS", 3)
    listener = make_listener()
    for number in range(5):
        listener.receive([initial(make_client)], (f"192.0.2.{number}", 5000), NOW)
    assert len(listener.links) == 3
    assert listener.counters["too_many_connections"] == 2


def test_a_short_initial_gets_nothing(make_listener, make_client):
    listener = make_listener()
    listener.receive([initial(make_client)[:1199]], CLIENT_ADDRESS, NOW)
    assert listener.links == ()
    assert listener.flush(NOW) == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    datagrams=st.lists(
        st.one_of(
            st.binary(max_size=1500),
            st.tuples(st.integers(0xC0, 0xFF), st.binary(min_size=1200, max_size=1400)).map(
                lambda pair: bytes([pair[0]]) + b"\0\0\0\1\x08" + pair[1]
            ),
        ),
        max_size=4,
    ),
    flips=st.lists(st.tuples(st.integers(0, 1199), st.integers(1, 255)), min_size=1, max_size=4),
)
def test_no_datagram_makes_the_listener_raise(make_listener, make_client, datagrams, flips):
    listener = make_listener()
    broken = bytearray(initial(make_client))
    for position, mask in flips:
        broken[position] ^= mask
    listener.receive([*datagrams, bytes(broken)], CLIENT_ADDRESS, NOW)
    listener.pop_ready()
    listener.flush(NOW)
    listener.receive(datagrams, CLIENT_ADDRESS, NOW + 0.1)
    now = NOW
    while (timer := listener.timer()) is not None and now < NOW + 60:
        now = max(now, timer)
        listener.handle_timer(now)
        listener.flush(now)
    assert listener.links == ()
    assert not listener._links
    assert listener.unregistered == 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.binary(min_size=1, max_size=400))
def test_an_initial_with_any_frames_does_no_harm(make_listener, make_client, payload):
    """Initial keys are no secret: anyone can put arbitrary frames into a packet that decrypts."""
    from aioquic.quic.crypto import CryptoPair

    listener = make_listener()
    header = pull_quic_header(Buffer(data=initial(make_client)), host_cid_length=8)
    crypto = CryptoPair()
    crypto.setup_initial(cid=header.destination_cid, is_client=True, version=1)
    plain = payload.ljust(1200, b"\0")
    long_header = (
        b"\xc1\0\0\0\1\x08"
        + header.destination_cid
        + b"\x08"
        + header.source_cid
        + b"\0"
        + (0x4000 | (2 + len(plain) + 16)).to_bytes(2, "big")
        + b"\0\0"
    )
    datagram = crypto.encrypt_packet(long_header, plain, 0)
    listener.receive([datagram], CLIENT_ADDRESS, NOW)
    listener.flush(NOW)
    assert len(listener.links) <= 1
    now = NOW
    while (timer := listener.timer()) is not None and now < NOW + 60:
        now = max(now, timer)
        listener.handle_timer(now)
        listener.flush(now)
    assert listener.links == ()


def test_a_closing_server_tells_its_clients(make_pair):
    pair = make_pair(options=LinkOptions())
    for datagrams, _address in pair.listener.close(pair.now, "shutting down"):
        pair.link.receive(datagrams, pair.link.peer_address, pair.now)
    assert pair.link.pop_events()[-1].reason == "shutting down"
    assert pair.listener.links == ()


def test_connections_send_in_the_order_in_which_they_came_to_have_something(make_listener, make_client):
    listener = make_listener()
    addresses = [("192.0.2.1", 1000 + number) for number in range(4)]
    for address in addresses:
        listener.receive([initial(make_client)], address, NOW)
    assert [address for _, address in listener.flush(NOW)] == addresses


def test_what_a_fault_kept_from_being_sent_is_sent_later(make_listener, make_client):
    listener = make_listener()
    addresses = [("192.0.2.1", 1000 + number) for number in range(3)]
    for address in addresses:
        listener.receive([initial(make_client)], address, NOW)
    for _, groups in listener.flush_each(NOW):
        assert groups[0][1] == addresses[0]
        break
    assert [address for _, address in listener.flush(NOW)] == addresses[1:]


def test_whose_a_datagram_claims_to_be_is_told_by_its_destination(make_listener, make_client):
    listener = make_listener()
    pair = Pair(listener, make_client)
    assert pair.run(lambda: pair.server.link is not None and pair.link.state is LinkState.ESTABLISHED)
    short = bytes([0x40]) + pair.peer.connection_id + bytes(30)
    assert listener.claimant(memoryview(short)) is pair.peer
    first = initial(make_client)
    listener.receive([first], ("192.0.2.9", 9), NOW)
    other = listener.claimant(memoryview(first))
    assert other is not None
    assert other is not pair.peer
    for data in (b"", b"\x40", b"\xc0", first[:6], first[:6] + bytes(8)):
        assert listener.claimant(memoryview(data)) is None
