"""A registered peer that keeps to no rule: what it makes us store and compute is bounded, and nothing raises."""

from __future__ import annotations

import gc
import os
import random
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic.proto.packet.frame import Frame
from mpquic.proto.stripe.adaptive import FecMode
from mpquic.proto.stripe.config import StripeConfig
from mpquic.proto.stripe.fec import GroupDecoder, parity
from mpquic.proto.stripe.keys import OLD_KEY_LIFETIME, REKEY_INTERVAL, EpochKey
from mpquic.proto.stripe.recovery import Recovery
from mpquic.proto.stripe.reports import MAX_RANGES, Report, ReportAllowance, encode_report
from mpquic.proto.stripe.session import StripeSession
from mpquic.proto.stripe.wire import REPAIR_PREFIX, PacketType
from mpquic.proto.tunnel.receiver import TunnelReceiver
from mpquic.proto.tunnel.reorder import MAX_WAITING_FLOWS, ReorderBuffer

from .. import packets
from .duplex import SECRET, SESSION, Duplex
from .hostile import HostilePeer, tcp_packet

if TYPE_CHECKING:
    from mpquic.proto.congestion.controller import AckSample
    from mpquic.proto.packet.run import SegmentRun

NOW = 100.0
KIB, MIB = 1 << 10, 1 << 20


def made(**settings: Any) -> tuple[StripeSession, HostilePeer]:
    """A server's session that carries, and its client."""
    session = StripeSession(StripeConfig(**settings), SESSION, SECRET, NOW, client=False, entropy=os.urandom)
    peer = HostilePeer(session, NOW)
    peer.come_up(NOW)
    assert session.ready(NOW)
    return session, peer


def footprint(*roots: object) -> int:
    """Return the bytes of everything that is reached from some objects by attributes and containers."""
    seen: set[int] = set()
    waiting = list(roots)
    total = 0
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, type) or callable(one):
            continue
        seen.add(id(one))
        total += sys.getsizeof(one)
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, (list, tuple, set, frozenset, deque)):
            waiting += one
        elif isinstance(one, memoryview):
            waiting.append(one.obj)
        waiting += [getattr(one, "__dict__", None)]
        slots = [name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ())]
        waiting += [getattr(one, name, None) for name in slots if not name.startswith("__")]
    return total


def test_a_group_that_is_open_when_the_last_pipe_dies_ends_without_parity() -> None:
    session, peer = made(fec=FecMode.ALWAYS, group_timeout=0.003)
    assert session.send([Frame(tcp_packet(1, 0, 100), 1, 0)], NOW) == 1
    session.take_outgoing()
    peer.give([peer.keepalive(NOW, pipe, PacketType.REGISTER) for pipe in range(4)], NOW)
    assert not session.ready(NOW)
    session.take_outgoing()
    for step in range(1, 100):
        session.poll(NOW + step / 10)
    assert session.sender.parity_shards == 0


@pytest.mark.parametrize("place", [(0, 0), (1, 0)], ids=["no group", "a place and no group"])
def test_a_parity_shard_without_a_group_is_refused(place: tuple[int, int]) -> None:
    session, peer = made()
    index, shards = place
    usual = [
        peer.shard(bytes(40), kind=PacketType.PARITY, index=2, data_shards=2, number=number) for number in (10, 11)
    ]
    peer.give(usual, NOW)
    # The pipe, type and key are known by these, so that the next takes the short way.
    body = Frame(tcp_packet(1, 0), 1, 7).encode()
    assert peer.give([peer.shard(body, kind=PacketType.PARITY, index=index, data_shards=shards)], NOW) == []
    assert session.receiver.refused["shard"] == 1


@pytest.fixture
def recovered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every number that a report has called repaired and that was looked at."""
    numbers: list[int] = []
    known = Recovery._recover
    monkeypatch.setattr(Recovery, "_recover", lambda self, number: (numbers.append(number), known(self, number)))
    return numbers


def busy() -> Duplex:
    """Ends of which the server has sent a few hundred shards."""
    duplex = Duplex()
    duplex.run_until_ready()
    duplex.server.offer(400)
    duplex.run(1.0)
    return duplex


def test_a_report_of_the_widest_ranges_costs_no_more_than_what_was_sent_allows(recovered: list[int]) -> None:
    duplex = busy()
    server = duplex.server.session
    peer = HostilePeer(server)
    peer.sealer.next_control = 10_000
    highest = server._sealer.next_shard - 1
    widest = encode_report(Report(highest, 0.0, 9, [(0, highest)], [(0, highest)]))
    for _ in range(10_000):
        peer.give([peer.control(PacketType.REPORT, widest)], duplex.now)
    assert len(recovered) <= ReportAllowance.MAX_WORK
    assert server.receiver.refused["report_beyond_what_was_sent"] > 9000 - ReportAllowance.MAX_WORK // highest
    # As time goes by, and as more is sent, reports count again.
    before = server.control.reports_received
    peer.give([peer.control(PacketType.REPORT, widest)], duplex.now + 1.0)
    assert server.control.reports_received == before + 1


def test_ranges_below_what_any_receiver_remembers_are_not_looked_at(recovered: list[int]) -> None:
    duplex = busy()
    server = duplex.server.session
    server._sealer.next_shard = 2**40
    peer = HostilePeer(server)
    peer.sealer.next_control = 10_000
    top = 2**40 - 1
    ranges = [(top - 2**33 * (place + 1), top - 2**33 * place - 2) for place in range(100)]
    peer.give([peer.control(PacketType.REPORT, encode_report(Report(top, 0.0, 9, [(top, top)], ranges)))], duplex.now)
    assert server.control.reports_received > 0
    assert len(recovered) <= ReportAllowance.MAX_WORK


def test_what_a_report_calls_repaired_is_remembered_in_a_bounded_number() -> None:
    duplex = busy()
    server = duplex.server.session
    server._sealer.next_shard = 100_000
    peer = HostilePeer(server)
    peer.sealer.next_control = 10_000
    body = encode_report(Report(99_999, 0.0, 9, [(99_999, 99_999)], [(40_000, 99_998)]))
    before = server.control.reports_received
    peer.give([peer.control(PacketType.REPORT, body)], duplex.now + 1.0)
    assert server.control.reports_received == before + 1
    assert 1000 < len(server.sender.recovery._recovered) <= 8192


def test_probes_are_answered_64_times_a_second() -> None:
    session, peer = made()
    for second in range(3):
        now = NOW + second
        probes = [peer.control(PacketType.PROBE, bytes(7), place % 4) for place in range(500)]
        peer.give(probes, now)
        assert sum(len(datagrams) for _, _, datagrams in session.take_outgoing()) == 64
    assert session.receiver.refused["probe"] == 3 * (500 - 64)


def test_honest_reports_are_never_too_many() -> None:
    duplex = Duplex(up=None)
    duplex.run_until_ready()
    duplex.up.profile.loss, duplex.up.profile.jitter = 0.2, 0.02
    duplex.client.offer(6000)
    duplex.run(6.0)
    assert duplex.client.session.control.reports_received > 100
    assert not [reason for reason in duplex.client.session.receiver.refused if reason.startswith("report")]


def test_a_peer_that_reports_late_does_not_make_us_keep_more_than_a_bound() -> None:
    session, peer = made()
    now, sequence = NOW, 0
    for _ in range(400):
        now += 0.5
        peer.give([peer.keepalive(now, pipe) for pipe in range(4)], now)
        while (budget := session.budget(now)) > 0:
            frames = [Frame(bytes(1300), 1, sequence + place) for place in range(max(1, budget // 1300))]
            sequence += session.send(frames, now)
            session.take_outgoing()
        # Half of what is on its way is reported, long after it left, so the path seems ever longer and quicker.
        top = session._sealer.next_shard - 1
        flight = session.sender.recovery.inflight
        peer.give([peer.control(PacketType.REPORT, encode_report(Report(top, 0.0, 9, [(top - 2, top)], [])))], now)
        session.poll(now)
        session.take_outgoing()
        assert flight.bytes <= session.sender.max_in_flight + 100 * KIB
        assert len(flight) <= 70_000
        arq = session.sender.recovery.arq
        assert len(arq._waiting) + len(arq._ready) <= 4 * (len(arq) + 4 * KIB)


class Greedy:
    """A controller that a peer has made believe in a path without an end."""

    name = state_name = "greedy"
    pacing_rate = bandwidth = 1e12
    congestion_window = 1 << 40
    probing_down = False

    def __init__(self, datagram_size: int, now: float) -> None:
        assert datagram_size > 0 < now

    def on_sent(self, size: int, now: float) -> None:
        assert size > 0 < now

    def on_ack(self, sample: AckSample, now: float) -> None:
        assert sample.delivered >= 0 < now

    def on_persistent_congestion(self, now: float) -> None:
        assert now > 0

    def on_idle(self, now: float) -> None:
        assert now > 0


@pytest.mark.parametrize("size", [1300, 30], ids=["large", "small"])
def test_of_what_is_on_its_way_a_bounded_part_is_kept_whatever_the_controller_says(size: int) -> None:
    session = StripeSession(StripeConfig(), SESSION, SECRET, NOW, client=False, entropy=os.urandom, controller=Greedy)
    peer = HostilePeer(session, NOW)
    peer.come_up(NOW)
    # Shards of a datagram are bundled when they are small: one at a time stays one.
    count = 200 if size > 1000 else 1
    now, sequence = NOW, 0
    for _ in range(400 if size > 1000 else 90_000):
        now += 1e-5
        sequence += session.send([Frame(bytes(size), 1, sequence + place) for place in range(count)], now)
        session.take_outgoing()
    recovery = session.sender.recovery
    assert sequence > 20_000
    assert recovery.inflight.bytes <= 32 * MIB + 300 * KIB
    assert session._sealer.next_shard - recovery.inflight._firsts[0] <= 70_000
    assert footprint(recovery.inflight._batches) < 50 * MIB


def jumps(peer: HostilePeer, sequence: int, count: int = 155, jump: int = 4000) -> tuple[bytes, int]:
    """One datagram with so many frames, each far behind the one before."""
    frames = []
    for _ in range(count):
        sequence = (sequence + jump) % 2**32
        frames.append(Frame(b"x", 1, sequence))
    return peer.frames(frames), sequence


def test_frames_whose_numbers_jump_cost_no_more_memory_than_they_are_long() -> None:
    _, peer = made()
    order = ReorderBuffer()
    before = footprint(order)
    packet, sequence = jumps(peer, 0)
    assert len(order.add(peer.give([packet], NOW), NOW, 1.0)) == 155
    assert footprint(order) - before < 60 * KIB
    for _ in range(300):
        packet, sequence = jumps(peer, sequence)
        order.add(peer.give([packet], NOW), NOW, 1.0)
    assert len(order._gaps) > 1000
    assert footprint(order) < 1 * MIB


def test_many_connections_that_wait_and_tiny_segments_stay_below_the_bound_of_the_reorder_buffer() -> None:
    order = ReorderBuffer()
    passed: list[Frame | SegmentRun] = []
    sequence = 1
    for round_ in range(40):
        frames = []
        for connection in range(1500):
            frames += [Frame(tcp_packet(connection, 10 * round_ + 5), 1, sequence)]
            sequence += 2
        passed += order.add(frames, NOW, 1.0)
        assert len(order._holding) <= MAX_WAITING_FLOWS
    assert footprint(order) < 8 * MIB
    passed += order.expire(NOW + 2.0)
    assert len(passed) == 40 * 1500
    assert order.bytes == 0


def test_connections_that_come_once_while_something_is_missing_are_forgotten() -> None:
    order = ReorderBuffer()
    for connection in range(20_000):
        # Each after a gap of its own, and every fourth after one that is filled.
        order.add([Frame(tcp_packet(connection, 5), 1, 2 * connection)], NOW, 1.0)
        if connection % 4 == 0:
            order.add([Frame(b"x", 1, 2 * connection - 1)] if connection else [], NOW, 1.0)
    assert len(order._flows) <= 1024 + MAX_WAITING_FLOWS
    assert footprint(order) < 4 * MIB


def test_the_reorder_buffer_remembers_little_of_what_has_passed() -> None:
    order = ReorderBuffer()
    for place in range(64):
        frames = [Frame(tcp_packet(1, place, 60_000), 1, 16 * place + each) for each in range(16)]
        order.passed(frames, 16 * place, 16 * place + 15, 16 * 60_040)
    assert footprint(order) < 3 * MIB


@pytest.mark.parametrize("shards", [45, 3000], ids=["a piece at a time", "all at once"])
def test_the_reorder_buffer_remembers_little_of_tiny_frames_that_have_passed(shards: int) -> None:
    session, peer = made()
    tunnel = TunnelReceiver()
    payload = packets.udp(4, b"")
    for place in range(20):
        frames = [
            [Frame(payload, 1, 40 * (shards * place + each) + one) for one in range(40)] for each in range(shards)
        ]
        tunnel.receive(peer.give([peer.frames(each) for each in frames], NOW), NOW, session)
        order = tunnel._classes[1].order
        if footprint(order) > 3 * MIB or shards > 1000:
            break
    assert session.receiver.shards == shards * (place + 1)
    assert footprint(order) < 3 * MIB
    # What is kept is the latest, and it is known by its numbers.
    due, kept, _ = order._recent[-1]
    assert due & 0xFFFFFFFF == kept[0].sequence


def test_what_fec_gives_back_while_no_report_leaves_is_not_all_kept_for_the_next_one() -> None:
    session = StripeSession(StripeConfig(), SESSION, SECRET, NOW, client=False, entropy=os.urandom)
    peer = HostilePeer(session, NOW)
    # Pipes of which the peer says that it hears nothing carry nothing, no reports either.
    peer.give([peer.keepalive(NOW, pipe, PacketType.REGISTER) for pipe in range(4)], NOW)
    assert not session.ready(NOW)
    body = Frame(tcp_packet(1, 0), 1, 0).encode()
    [parity_shard] = parity([body], 1)
    for number in range(1, 20_001, 2):
        peer.give([peer.shard(parity_shard, kind=PacketType.PARITY, index=1, data_shards=1, number=number)], NOW)
    assert session.receiver.decoder.repaired == 10_000
    assert footprint(session.receiver.reporter) < 150 * KIB


def test_a_gap_that_is_filled_one_by_one_releases_nothing_twice() -> None:
    """What is looked at when a gap ends is bounded, however many connections wait."""
    order = ReorderBuffer()
    order.add([Frame(tcp_packet(9999, 0), 1, 0)], NOW, 1.0)
    order.add([Frame(tcp_packet(each, 100), 1, 1000 + 2 * each) for each in range(400)], NOW, 1.0)
    passed = [frame.sequence for each in range(1, 1000) for frame in order.add([Frame(b"x", 1, each)], NOW, 1.0)]
    passed += [frame.sequence for frame in order.expire(NOW + 1.5)]
    assert len(passed) == len(set(passed))
    assert order.bytes == 0


def test_tiny_shards_of_many_groups_stay_below_the_bound_of_the_decoder() -> None:
    decoder = GroupDecoder()
    for base in range(0, 2048 * 128, 128):
        for index in range(120):
            decoder.add_data(base, index, bytes((16, index)), NOW)
        decoder.add_parity(base, 127, 127, bytes((16, 127)), NOW)
    assert decoder.bytes <= 8 * MIB
    # What is counted is what it takes.
    assert footprint(decoder) < decoder.bytes + 64 * KIB


def test_a_group_that_is_forgotten_while_it_grows_is_not_counted_twice() -> None:
    decoder = GroupDecoder(max_bytes=4000)
    [parity_shard] = parity([bytes(100), bytes(100)], 1)
    for base in range(0, 4000, 4):
        decoder.add_data(base, 0, bytes(900), NOW)
        decoder.add_data(0, base % 100, bytes(900), NOW)
        decoder.add_parity(base, 3, 2, parity_shard, NOW)
        assert 0 <= decoder.bytes <= 4000 + 1200 + 640


def test_decoding_takes_a_bounded_share_of_the_processor() -> None:
    decoder = GroupDecoder()
    size, shards = 1400, 64
    parity_shards = parity([bytes((1,)) * size] * shards, 64)
    for group in range(1000):
        for index, body in enumerate(parity_shards):
            decoder.add_parity(128 * group, shards + index, shards, body, NOW + group * 1e-4)
    # Each takes 64 * 64 * 1464 multiplications of octets.
    assert decoder.refused > 900
    decoder = GroupDecoder()
    for group in range(100):
        for index, body in enumerate(parity_shards):
            decoder.add_parity(128 * group, shards + index, shards, body, NOW + group * 0.01)
    assert decoder.refused == 0


def test_keys_of_epochs_that_are_over_are_referred_to_by_nothing() -> None:
    def keys() -> set[int]:
        gc.collect()
        return {one.iv for one in gc.get_objects() if isinstance(one, EpochKey)}

    others = keys()
    duplex = Duplex()
    duplex.run_until_ready()
    duplex.client.offer(50)
    duplex.run(1.0)
    first = keys() - others
    for _ in range(2):
        duplex.run(REKEY_INTERVAL + 5.0)
        duplex.client.offer(50)
        duplex.server.offer(50)
        duplex.run(OLD_KEY_LIFETIME + 5.0)
    assert min(*duplex.client.session.epochs, *duplex.server.session.epochs) >= 2
    # Each end seals with one key, and opens with one and the next.
    assert len(keys() - others) == 4
    assert not first & keys()
    assert not any("secret" in name for name in vars(EpochKey) if name != "_next_secret")


KINDS = st.sampled_from([int(kind) for kind in PacketType] + [5, 15, 31])
NUMBERS = st.one_of(st.integers(0, 300), st.sampled_from([2**16, 2**31, 2**32 - 1, 2**32 + 5]))


def bodies(draw: st.DataObject, rng: random.Random) -> bytes:
    kind = draw.draw(st.integers(0, 4))
    if kind == 0:
        return rng.randbytes(rng.choice((0, 1, 4, 5, 10, 30, 1400)))
    if kind == 1:
        frames = [Frame(tcp_packet(rng.randrange(3), rng.randrange(2**32)), 1, rng.randrange(2**32)) for _ in range(5)]
        return b"".join(frame.encode() for frame in frames)
    if kind == 2:
        highest = rng.randrange(400)
        ranges = [(highest - 2 * place, highest - 2 * place) for place in range(min(MAX_RANGES, highest // 2))]
        return encode_report(Report(highest, rng.random(), 9, ranges, ranges[: rng.randrange(256)]))
    if kind == 3:
        return REPAIR_PREFIX.pack(rng.randrange(300)) + Frame(tcp_packet(1, rng.randrange(5000)), 1, 5).encode()
    return Frame(tcp_packet(1, rng.randrange(5000)), rng.randrange(256), rng.randrange(300)).encode().ljust(300, b"\0")


@settings(max_examples=150, deadline=None)
@given(st.data(), st.booleans(), st.sampled_from(list(FecMode)))
def test_no_valid_packet_raises_and_what_is_kept_stays_small(data: st.DataObject, client: bool, fec: FecMode) -> None:
    session = StripeSession(StripeConfig(fec=fec), SESSION, SECRET, NOW, client=client, entropy=os.urandom)
    peer = HostilePeer(session, NOW)
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    now = NOW
    if not client:
        peer.come_up(now)
    for _ in range(data.draw(st.integers(1, 12))):
        now += rng.choice((0.0, 0.0005, 0.004, 1.0, 4.0))
        packets = []
        for _ in range(data.draw(st.integers(1, 6))):
            kind, body = data.draw(KINDS), bodies(data, rng)
            pipe = data.draw(st.integers(0, 4))
            if kind & 8:
                peer.sealer.next_control += rng.choice((0, 0, 1, 2000))
                packets.append(peer.control(kind, body, pipe))
            else:
                shards = data.draw(st.sampled_from([0, 1, 2, 10, 64, 127, 128, 255]))
                index = data.draw(st.sampled_from([0, 1, 2, 9, 63, 64, 127]))
                packets.append(peer.shard(body, kind=kind, index=index, data_shards=shards, number=data.draw(NUMBERS)))
        run = len(set(map(len, packets))) == 1 and rng.random() < 0.5
        if run:
            session.receive([(b"".join(packets), len(packets[0]), peer.address)], now)
        else:
            peer.give(packets, now)
        if rng.random() < 0.7:
            session.send([Frame(tcp_packet(1, 0, rng.randrange(1, 1300)), 1, each) for each in range(4)], now)
        session.take_outgoing()
        session.poll(now)
        session.next_time(now)
        session.take_outgoing()
    assert footprint(session.receiver.decoder) < 2 * MIB
