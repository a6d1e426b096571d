"""Two ends with discovery over a path that gets another MTU and tells nobody: what becomes of the transfer."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic.proto.path.pmtu import FIRST_RAISE, MAX_REPLIES, STEP, PathMtuState, Probe, encode_probe, encode_probe_ack
from mpquic.proto.stripe.config import MIN_DATAGRAM, StripeConfig
from mpquic.proto.stripe.keys import Sealer, direction_secret
from mpquic.proto.stripe.wire import OVERHEAD, PacketType

from .duplex import SECRET, SESSION, UDP_OVERHEAD, Duplex, LinkProfile

CEILING = 1472
SHRUNK = 1280 - UDP_OVERHEAD
DISCOVERY = StripeConfig(datagram_size=CEILING, initial_datagram_size=MIN_DATAGRAM)


def made(*, seed: int = 1, mtu: int | None = 1500, **profile: float) -> Duplex:
    """A pair that has found its sizes."""
    up, down = (LinkProfile(rate=0.6e6, mtu=mtu, **profile) for _ in range(2))  # type: ignore[arg-type]
    duplex = Duplex(seed, config=DISCOVERY, up=up, down=down)
    duplex.run_until_ready(30.0)
    duplex.run(2.0)
    return duplex


def longest_pause(duplex: Duplex, since: float) -> float:
    """The longest time without a new frame at the server."""
    arrivals = [at for at in duplex.server.received.values() if at > since]
    return max(after - before for before, after in pairwise([since, *sorted(arrivals), duplex.now]))


def test_both_ends_find_what_the_path_carries_each_way() -> None:
    duplex = Duplex(config=DISCOVERY, up=LinkProfile(mtu=1500), down=LinkProfile(mtu=1420))
    assert duplex.client.session.frame_capacity == MIN_DATAGRAM - OVERHEAD - 4
    duplex.run_until_ready()
    duplex.run(6.0)
    client, server = duplex.client.session, duplex.server.session
    assert (client.pmtu.size, server.pmtu.size) == (1472, 1392)
    assert (client.frame_capacity, server.frame_capacity) == (1472 - 36, 1392 - 36)
    assert client.pmtu.state is server.pmtu.state is PathMtuState.SEARCH_COMPLETE
    assert client.receiver.refused == server.receiver.refused == {}


def test_probes_go_over_all_pipes_and_a_dead_one_stops_nothing() -> None:
    duplex = Duplex(config=DISCOVERY, up=LinkProfile(mtu=1300, dead_pipes={1}), down=LinkProfile(mtu=1500))
    duplex.run_until_ready()
    duplex.run(8.0)
    assert 1272 - STEP < duplex.client.session.pmtu.size <= 1272
    probed = {pipe for pipe, datagram in duplex.up.captured if datagram[3] & 31 == PacketType.PROBE}
    assert probed == {0, 2, 3}


def test_without_discovery_nothing_is_probed() -> None:
    duplex = Duplex(up=LinkProfile(mtu=1480))
    duplex.run_until_ready()
    duplex.client.offer(100)
    duplex.run(30.0)
    assert duplex.client.session.pmtu.state is PathMtuState.DISABLED
    assert len(duplex.server.received) == 100
    for host in (duplex.client, duplex.server):
        host.session.on_too_large(1400, duplex.now)
        assert (host.session.control.probes_sent, host.session.sender.datagram_size) == (0, 1452)


@pytest.mark.simulation
@pytest.mark.parametrize("loss", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("delay", [0.015, 0.3], ids=["near", "far"])
def test_a_transfer_soon_goes_on_when_the_path_shrinks_silently(loss: float, delay: float) -> None:
    # By far the most of it is luck: whether the few probes that matter are lost.
    pauses = sorted(pause_of_a_shrinking_path(loss, delay, seed) for seed in range(1, 6 if loss else 2))
    print(f"loss {loss}, delay {delay}: nothing arrived for {pauses} s")
    assert pauses[len(pauses) // 2] < (1.5 if delay < 0.1 else 3.0)
    assert pauses[-1] < 5.0


def pause_of_a_shrinking_path(loss: float, delay: float, seed: int) -> float:
    """Return the seconds in which nothing arrived."""
    duplex = made(seed=seed, loss=loss, delay=delay)
    duplex.client.frame_size = 1400
    duplex.client.offer(10**9)
    duplex.run(2.0 + 4 * delay)
    assert duplex.client.session.pmtu.size == CEILING
    duplex.up.profile.mtu = duplex.down.profile.mtu = SHRUNK + UDP_OVERHEAD
    shrunk = duplex.now
    duplex.run(8.0)
    pause = longest_pause(duplex, shrunk)
    if seed == 1:
        before = duplex.server.received_bytes
        duplex.run(2.0)
        assert (duplex.server.received_bytes - before) / 2.0 > 0.75 * duplex.up.profile.rate * (1 - loss)
    assert duplex.client.session.pmtu.black_holes == 1
    assert MIN_DATAGRAM <= duplex.client.session.pmtu.size <= SHRUNK
    return pause


def test_a_path_that_grows_back_is_used_again() -> None:
    duplex = made()
    duplex.client.frame_size = 1400
    duplex.client.offer(10**9)
    duplex.run(1.0)
    duplex.up.profile.mtu = SHRUNK + UDP_OVERHEAD
    duplex.run(6.0)
    assert duplex.client.session.pmtu.size == SHRUNK
    duplex.client.backlog = 0
    duplex.run(FIRST_RAISE)
    duplex.up.profile.mtu = 1500
    duplex.run(2 * FIRST_RAISE + 5.0)
    assert duplex.client.session.pmtu.size == CEILING
    arrived, lost = len(duplex.server.received), duplex.up.too_large
    duplex.client.offer(100)
    duplex.run(2.0)
    assert len(duplex.server.received) - arrived == 100
    assert duplex.up.too_large == lost


def test_a_connection_that_sends_one_segment_at_a_time_goes_on_too() -> None:
    duplex = made()
    duplex.client.frame_size = 1400
    duplex.up.profile.mtu = SHRUNK + UDP_OVERHEAD
    shrunk, wait = duplex.now, 0.2
    while not duplex.server.received:
        duplex.client.offer(1)
        duplex.run(wait)
        wait *= 2
    assert duplex.now - shrunk < 3.1
    assert duplex.client.session.pmtu.black_holes == 1


def test_large_segments_among_small_packets_go_on_too() -> None:
    duplex = made(loss=0.02)
    duplex.up.profile.mtu = SHRUNK + UDP_OVERHEAD
    shrunk = duplex.now
    while duplex.client.session.pmtu.size > SHRUNK:
        assert duplex.now - shrunk < 2.0
        for size in (100, 1400, 100, 100):
            duplex.client.frame_size = size
            duplex.client.offer(1)
            duplex.run(0.005)
    assert max(duplex.server.sizes.values(), default=0) <= SHRUNK


def test_the_server_notices_by_itself_that_its_direction_has_shrunk() -> None:
    duplex = made()
    duplex.server.frame_size = 1400
    duplex.server.offer(10**9)
    duplex.run(1.0)
    duplex.down.profile.mtu = SHRUNK + UDP_OVERHEAD
    duplex.run(6.0)
    assert duplex.server.session.pmtu.size == SHRUNK
    assert duplex.client.session.pmtu.size == CEILING


@pytest.mark.parametrize("outage", [0.1, 1.0, 3.0, 8.0])
def test_an_outage_changes_no_size(outage: float) -> None:
    duplex = made()
    duplex.client.offer(10**9)
    duplex.run(1.0)
    for link in (duplex.up, duplex.down):
        link.profile.loss = 1.0
    duplex.run(outage)
    for link in (duplex.up, duplex.down):
        link.profile.loss = 0.0
    duplex.run(3.0)
    for host in (duplex.client, duplex.server):
        assert (host.session.pmtu.size, host.session.pmtu.black_holes) == (CEILING, 0)


def test_a_lossy_transfer_raises_no_doubt() -> None:
    duplex = made(loss=0.2)
    duplex.run(10.0)
    duplex.client.offer(10**9)
    duplex.run(1.0)
    size, probes = duplex.client.session.pmtu.size, duplex.client.session.control.probes_sent
    duplex.run(8.0)
    assert (duplex.client.session.pmtu.size, duplex.client.session.pmtu.black_holes) == (size, 0)
    assert duplex.client.session.control.probes_sent == probes


def test_a_link_that_the_kernel_knows_to_be_smaller_is_believed_at_once() -> None:
    duplex = made()
    session = duplex.client.session
    session.on_too_large(CEILING, duplex.now)
    assert session.frame_capacity == MIN_DATAGRAM - OVERHEAD - 4
    duplex.run(4.0)
    assert CEILING - STEP <= session.pmtu.size < CEILING


def test_an_attacker_makes_no_answers_and_a_flooding_peer_few() -> None:
    duplex = made()
    server = duplex.server.session
    server.take_outgoing()
    for pipe, datagram in list(duplex.up.captured):
        server.receive([(datagram, len(datagram), ("192.0.2.1", 40000 + pipe))], duplex.now)
    assert server.take_outgoing() == []
    flood = Sealer(DISCOVERY.suite, direction_secret(SECRET, from_client=True), SESSION, 0.0)
    flood.next_control = 10_000
    for number in range(200):
        packet = flood.seal_control(PacketType.PROBE, 0, encode_probe(Probe(number, 100)))
        server.receive([(packet, len(packet), ("192.0.2.1", 40000))], duplex.now + 2.0)
    [*answers] = server.take_outgoing()
    assert len(answers) == MAX_REPLIES
    assert all(len(datagram) < 100 for _, _, [datagram] in answers)
    assert server.receiver.refused["probe"] == 200 - MAX_REPLIES


def test_a_peer_that_answers_what_was_not_asked_is_not_believed() -> None:
    duplex = made(mtu=1300)
    client = duplex.client.session
    size = client.pmtu.size
    evil = Sealer(DISCOVERY.suite, direction_secret(SECRET, from_client=False), SESSION, 0.0)
    evil.next_control = 10_000
    for body in (encode_probe_ack(Probe(2**32 - 1, CEILING)), encode_probe_ack(Probe(1, CEILING))[:-1], b""):
        packet = evil.seal_control(PacketType.PROBE_ACK, 0, body)
        client.receive([(packet, len(packet), None)], duplex.now)
    for body in (b"", b"\1" + bytes(20), bytes(6)):
        packet = evil.seal_control(PacketType.PROBE, 0, body)
        client.receive([(packet, len(packet), None)], duplex.now)
    assert client.receiver.refused == {"probe_reply": 3, "probe": 3}
    assert client.pmtu.size == size
    assert client.take_outgoing() == []


@pytest.mark.simulation
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), mtu=st.integers(MIN_DATAGRAM + UDP_OVERHEAD, 1499), loss=st.floats(0, 0.2))
def test_whatever_the_path_becomes_nothing_stalls_for_five_seconds(seed: int, mtu: int, loss: float) -> None:
    duplex = made(seed=seed, loss=loss)
    duplex.client.frame_size = 1460
    duplex.client.offer(10**9)
    duplex.run(1.0)
    duplex.up.profile.mtu = mtu
    shrunk = duplex.now
    duplex.run(6.0)
    assert longest_pause(duplex, shrunk) < 5.0
