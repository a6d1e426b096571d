from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic.proto.packet.frame import LOW_LATENCY, Frame, FrameFlag, decode_frames, encode_frames
from mpquic.proto.packet.superframe import cut, parse_vnet
from mpquic.proto.packet.vnet import PLAIN
from mpquic.proto.path.path import PathState
from mpquic.proto.tunnel.class_queue import ClassQueue
from mpquic.proto.tunnel.counters import Counters
from mpquic.proto.tunnel.dispatch import dispatch
from mpquic.proto.tunnel.receiver import TunnelReceiver
from mpquic.proto.tunnel.scheduler import FailoverScheduler
from mpquic.proto.tunnel.sender import TunnelSender

from . import packets as make
from .pair import Pair
from .recording import RecordingPath, joined, path_of, tunnel

if TYPE_CHECKING:
    from mpquic.proto.path.data_plane import DataPlane


def over_the_wire(frames: list[Frame]) -> list[Frame]:
    return [frame for one in frames for frame in decode_frames(encode_frames([one]))]


def segments_of(writes: list[bytes]) -> list[bytes]:
    return [segment for write in writes for segment in cut(parse_vnet(write))]


@pytest.mark.parametrize("reliable", [False, True])
@pytest.mark.parametrize("version", [4, 6])
def test_a_superframe_arrives_as_the_very_write(version: int, reliable: bool) -> None:
    path = RecordingPath(reliable=reliable)
    sender, receiver = tunnel(path), TunnelReceiver()
    read = make.superframe(version, 7, bytes(60000), 1328, make.ACK | make.PSH)
    sender.enqueue([read], 0.0)
    assert sender.flush(0.0) == sum(frame.size for frame in path.taken)
    assert len(path.taken) == (1 if reliable else 46)
    assert joined(receiver.receive(over_the_wire(path.taken), 0.0)) == [read]
    assert sender.counters.tx_packets == receiver.counters.rx_packets == 46
    assert sender.counters.tx_bytes == receiver.counters.rx_bytes
    assert receiver.highest(0) == len(path.taken) - 1


@given(
    st.lists(
        st.one_of(
            st.builds(
                lambda v, n: PLAIN + make.udp(v, bytes(n), partial=False), st.sampled_from([4, 6]), st.integers(0, 3000)
            ),
            st.builds(
                lambda v, q, n, g: make.superframe(v, q, bytes(n), g),
                st.sampled_from([4, 6]),
                st.integers(0, 2**32 - 1),
                st.integers(1, 9000),
                st.integers(48, 1448),
            ),
        ),
        min_size=1,
        max_size=6,
    ),
    st.integers(500, 1500),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_whatever_is_sent_arrives_once_despite_reordering_and_duplicates(
    reads: list[bytes], capacity: int, reliable: bool, rng: random.Random
) -> None:
    path = RecordingPath(reliable=reliable, capacity=capacity)
    sender, receiver = tunnel(path), TunnelReceiver()
    sender.enqueue(reads, 0.0)
    sender.flush(0.0)
    wire = over_the_wire(path.taken) + over_the_wire(path.taken)
    rng.shuffle(wire)
    got = segments_of(joined(receiver.receive(wire, 0.0)))
    sent = segments_of(reads)
    assert sorted(map(_without_volatile, got)) == sorted(map(_without_volatile, sent))


def _without_volatile(packet: bytes) -> bytes:
    """A packet without what the far kernel writes anew: IPv4 identification and checksums."""
    if packet[0] >> 4 == 4:
        transport, packet = 20, packet[:4] + b"\0\0" + packet[6:10] + b"\0\0" + packet[12:]
    else:
        transport = 40
    at = transport + (16 if packet[9 if transport == 20 else 6] == 6 else 6)
    return packet[:at] + b"\0\0" + packet[at + 2 :]


def test_what_a_path_does_not_take_is_offered_again_in_order() -> None:
    path = RecordingPath(budget=10000)
    sender = tunnel(path)
    sender.enqueue([make.superframe(4, 0, bytes(60000), 1348), PLAIN + make.udp(4, b"x", partial=False)], 0.0)
    sender.flush(0.0)
    assert len(path.taken) == 8
    assert sender.backlog > 40000
    path.left = 1 << 20
    sender.flush(0.1)
    assert [frame.sequence for frame in path.taken] == list(range(46))
    assert sender.backlog == 0


def test_frames_made_for_one_path_are_refitted_when_another_takes_over() -> None:
    wide, narrow = RecordingPath("wan4", reliable=True, budget=1), RecordingPath("wan5", capacity=700)
    sender, receiver = tunnel(wide, narrow), TunnelReceiver()
    reads = [make.superframe(4, at, bytes(9000), 1348) for at in (0, 9000)]
    sender.enqueue(reads, 0.0)
    sender.flush(0.0)
    wide.left = 1
    sender.flush(0.0)
    wide.state = PathState.DOWN
    sender.flush(0.1)
    got = joined(receiver.receive(over_the_wire(wide.taken + narrow.taken), 0.1))
    assert b"".join(segment[52:] for segment in segments_of(got)) == bytes(18000)


def test_without_a_path_packets_wait_briefly_and_are_then_given_up() -> None:
    path = RecordingPath()
    sender = tunnel(path)
    path.state = PathState.DOWN
    sender.enqueue([PLAIN + make.udp(4, b"old", partial=False)], 0.0)
    assert sender.flush(0.5) == 0
    sender.enqueue([PLAIN + make.udp(4, b"new", partial=False)], 1.4)
    sender.flush(1.5)
    path.state = PathState.UP
    sender.flush(1.6)
    assert [bytes(frame.payload[-3:]) for frame in path.taken] == [b"new"]


def test_a_suspect_path_is_used_only_while_none_is_up() -> None:
    first, second = RecordingPath("wan4"), RecordingPath("wan5")
    better, worse = path_of(first, priority=1), path_of(second, priority=2)
    scheduler = FailoverScheduler()
    scheduler.add(worse)
    scheduler.add(better)

    def chosen() -> tuple[list[DataPlane], list[DataPlane]]:
        choice = scheduler.choose(0)
        assert choice is not None
        return [*choice.planes], [*choice.silent]

    assert chosen() == ([first], [])
    first.state = PathState.SUSPECT
    assert chosen() == ([second], [first])
    second.state = PathState.DOWN
    assert chosen() == ([first], [])
    first.state = PathState.DOWN
    assert scheduler.choose(0) is None
    replacement = path_of(RecordingPath("wan4"), priority=1)
    scheduler.add(replacement)
    scheduler.remove(better)
    assert list(scheduler) == [replacement, worse]
    assert len(scheduler) == 2


def test_a_path_sends_by_its_preferred_plane_while_that_is_up() -> None:
    control, pipes = RecordingPath("wan5"), RecordingPath("wan5/stripe")
    path = path_of(control)
    path.preferred = pipes
    assert path.plane is pipes
    control.state = PathState.SUSPECT
    assert (path.plane, path.state) == (pipes, PathState.SUSPECT)
    pipes.state = PathState.DOWN
    assert path.plane is control
    path.control = None
    assert (path.plane, path.state) == (None, PathState.DOWN)


def test_who_was_given_frames_is_known_until_it_is_asked_for() -> None:
    first, second = RecordingPath("wan4"), RecordingPath("wan5")
    sender = tunnel(first, second)
    sender.flush(0.0)
    assert not sender.touched
    sender.enqueue([PLAIN + make.udp(4, b"one", partial=False)], 0.0)
    sender.flush(0.0)
    first.state = PathState.SUSPECT
    sender.enqueue([PLAIN + make.udp(4, b"two", partial=False)], 0.0)
    sender.flush(0.0)
    assert list(sender.touched) == [first, second]


def test_packets_of_low_latency_leave_first_then_those_of_lower_classes() -> None:
    path = RecordingPath(budget=1 << 20)
    scheduler = FailoverScheduler()
    scheduler.add(path_of(path))
    queues = {kind: ClassQueue() for kind in (2, 1, LOW_LATENCY | 3)}
    sender = TunnelSender(scheduler, queues=queues)
    for kind, queue in queues.items():
        queue.push(parse_vnet(PLAIN + make.udp(4, bytes([kind]), partial=False)), 0.0)
    sender.flush(0.0)
    assert [frame.traffic_class for frame in path.taken] == [LOW_LATENCY | 3, 1, 2]


def test_packets_that_would_need_too_many_fragments_are_counted_and_never_stick() -> None:
    path = RecordingPath(capacity=12)
    sender = tunnel(path)
    sender.enqueue([PLAIN + make.udp(4, bytes(1000), partial=False)], 0.0)
    sender.flush(0.0)
    assert sender.counters.refused == {"too_many_fragments": 1}
    assert sender.backlog == 0


def test_reads_without_a_place_in_the_tunnel_are_counted() -> None:
    sender = tunnel(RecordingPath())
    multicast = make.udp(6, b"x", destination=bytes.fromhex("ff02" + "00" * 13 + "02"))
    sender.enqueue([PLAIN + multicast, b"", PLAIN + bytes(60)], 0.0)
    assert sender.counters.refused == {"multicast_or_link_local_destination": 1, "short": 1, "version": 1}


def test_packets_from_a_source_that_is_not_the_peers_are_dropped_and_counted() -> None:
    receiver = TunnelReceiver(permits=lambda source: source in (make.CLIENT4, make.CLIENT6))
    mine = [make.udp(4, b"x", partial=False), make.udp(6, b"x", partial=False)]
    forged = [
        make.udp(4, b"x", source=bytes([10, 200, 5, 2]), partial=False),
        make.udp(6, b"x", source=make.HOST6, partial=False),
    ]
    frames = [Frame(packet, 1, number) for number, packet in enumerate([*mine, *forged, *mine])]
    assert joined(receiver.receive(frames, 0.0)) == [PLAIN + packet for packet in mine * 2]
    assert receiver.counters.refused == {"source": 2}


def test_every_fragmented_or_whole_forgery_meets_the_source_check_too() -> None:
    receiver = TunnelReceiver(permits=lambda source: source == make.CLIENT4)
    read = make.superframe(4, 1, bytes(5000), 1000, source=bytes([1, 1, 1, 1]))
    for reliable in (False, True):
        path = RecordingPath(reliable=reliable, capacity=400)
        sender = tunnel(path)
        sender.enqueue([read], 0.0)
        sender.flush(0.0)
        receiver.restart()
        assert receiver.receive(over_the_wire(path.taken), 0.0) == []
    assert receiver.counters.refused == {"source": 6}


@given(st.lists(st.binary(max_size=120), max_size=20))
def test_arbitrary_datagrams_never_raise_and_are_counted(datagrams: list[bytes]) -> None:
    receiver = TunnelReceiver(permits=lambda source: len(source) in (4, 16))
    writes = receiver.receive_datagrams(datagrams, 0.0)
    counters = receiver.counters
    assert len(writes) == counters.rx_writes
    assert counters.rx_frames + sum(counters.refused.values()) >= len(datagrams)


@given(
    st.lists(
        st.tuples(st.binary(min_size=1, max_size=90), st.integers(0, 7), st.integers(0, 5), st.integers(1, 2000)),
        max_size=20,
    )
)
def test_arbitrary_frames_never_raise(frames: list[tuple[bytes, int, int, int]]) -> None:
    receiver = TunnelReceiver()
    built = [Frame(payload, 1, sequence, flags, gso, 0, 2) for payload, flags, sequence, gso in frames]
    writes = receiver.receive(built, 0.0)
    for write in writes:
        parse_vnet(b"".join(write))


def test_counters_are_told_by_name() -> None:
    counters = Counters()
    counters.refuse("version")
    counters.tx_packets += 3
    snapshot = counters.snapshot()
    assert snapshot["tx_packets"] == 3
    assert snapshot["refused"] == {"version": 1}


def test_a_server_sorts_its_reads_by_the_owner_of_the_destination() -> None:
    owners = {make.HOST4: "site1", make.HOST6: "site1", make.CLIENT4: "site2"}
    reads = [
        PLAIN + make.udp(4, b"a", partial=False),
        PLAIN + make.udp(4, b"b", destination=make.CLIENT4, partial=False),
        PLAIN + make.udp(6, b"c", partial=False),
        PLAIN + make.udp(4, b"d", destination=bytes([8, 8, 8, 8]), partial=False),
    ]
    counters = Counters()
    batches = dispatch(reads, owners.get, counters)
    assert [(owner, [bytes(packet.payload[-1:]) for packet in packets]) for owner, packets in batches] == [
        ("site1", [b"a", b"c"]),
        ("site2", [b"b"]),
    ]
    assert counters.refused == {"no_route": 1}


def stream(sent: bytes, *, start: int = 0, version: int = 4, size: int = 1348) -> list[bytes]:
    """Reads of the TUN for one TCP flow: superframes of 20 segments."""
    step = 20 * size
    return [make.superframe(version, start + at, sent[at : at + step], size) for at in range(0, len(sent), step)]


@pytest.mark.parametrize("reliable", [False, True], ids=["datagram", "reliable"])
def test_two_ends_carry_traffic_both_ways_in_both_modes(reliable: bool) -> None:
    pair = Pair(1, reliable=reliable)
    pair.run_until_up()
    data = random.Random(2).randbytes(400_000)
    for read in stream(data):
        pair.client_sender.enqueue([read], pair.now)
        pair.run(0.05)
    for read in stream(data, version=6):
        pair.server_sender.enqueue([read], pair.now)
        pair.run(0.05)
    pair.run(1.0)
    assert b"".join(segment[52:] for segment in segments_of(pair.at_server)) == data
    assert b"".join(segment[72:] for segment in segments_of(pair.at_client)) == data


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.integers(400, 1420))
def test_a_bad_link_loses_packets_in_datagram_mode_but_never_makes_wrong_ones(seed: int, capacity: int) -> None:
    pair = Pair(seed, capacity=capacity)
    pair.run_until_up()
    pair.up.loss, pair.up.jitter, pair.up.duplicate = 0.05, 0.05, 0.1
    data = random.Random(seed).randbytes(200_000)
    reads = stream(data)
    for read in reads:
        pair.client_sender.enqueue([read], pair.now)
        pair.run(0.05)
    pair.run(1.5)
    sent = {_without_volatile(segment) for segment in segments_of(reads)}
    got = [_without_volatile(segment) for segment in segments_of(pair.at_server)]
    assert set(got) <= sent
    assert len(got) == len(set(got))
    assert 0.4 * len(sent) < len(got)
    assert pair.server_receiver.counters.rx_duplicates + pair.server_receiver.reassembler.duplicates > 0
    assert pair.server_receiver.counters.refused == {}


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32))
def test_a_bad_link_only_delays_in_reliable_mode(seed: int) -> None:
    pair = Pair(seed, reliable=True)
    pair.run_until_up()
    pair.up.loss, pair.up.jitter = 0.2, 0.05
    data = random.Random(seed).randbytes(200_000)
    for read in stream(data):
        pair.client_sender.enqueue([read], pair.now)
        pair.run(0.05)
    pair.run(10.0)
    assert b"".join(segment[52:] for segment in segments_of(pair.at_server)) == data


@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_a_silent_cut_is_noticed_in_time_and_healed_with_one_connection_left(direction: str) -> None:
    pair = Pair(3)
    pair.run_until_up()
    pair.run(10.0)
    cut_at = pair.now
    pair.up.cut, pair.down.cut = direction != "down", direction != "up"
    pair.run(60.0)
    down_at = next(at for at, state in pair.client_state if at > cut_at and state is PathState.DOWN)
    assert down_at - cut_at < 5.0
    pair.up.cut = pair.down.cut = False
    pair.run_until_up(15.0)
    pair.run(20.0)
    assert pair.groups.connection_count == len(pair.connections) == 1
    pair.client_sender.enqueue([PLAIN + make.udp(4, b"after", partial=False)], pair.now)
    pair.run(0.2)
    assert pair.at_server[-1].endswith(b"after")


def test_an_hour_of_outages_ends_with_a_working_tunnel_and_no_leftovers() -> None:
    pair = Pair(5)
    outages = 0
    while pair.now < 3600.0:
        pair.run(pair.rng.uniform(1.0, 90.0))
        pair.up.cut, pair.down.cut = pair.rng.choice([(True, True), (True, False), (False, True)])
        pair.run(pair.rng.uniform(0.1, 40.0))
        pair.up.cut = pair.down.cut = False
        outages += 1
        assert len(pair.connections) < 6
        assert pair.groups.connection_count <= 1
    pair.run_until_up()
    pair.run(30.0)
    assert outages > 30
    assert pair.state is PathState.UP
    assert pair.groups.connection_count == len(pair.connections) == 1
    pair.at_client.clear()
    pair.server_sender.enqueue([PLAIN + make.udp(4, b"still here", partial=False)], pair.now)
    pair.run(0.2)
    assert [read[-10:] for read in pair.at_client] == [b"still here"]


def test_the_same_seed_gives_the_same_run() -> None:
    def history(seed: int) -> list[bytes]:
        pair = Pair(seed)
        pair.run_until_up()
        pair.up.loss = 0.3
        pair.client_sender.enqueue(stream(bytes(100_000)), pair.now)
        pair.run(1.0)
        return pair.at_server

    assert history(4) == history(4)
    assert history(4) != history(6)


def test_flags_of_a_segment_say_that_its_checksum_is_partial() -> None:
    path = RecordingPath()
    sender = tunnel(path)
    sender.enqueue([make.superframe(4, 0, bytes(3000), 1000), PLAIN + make.udp(4, b"x", partial=False)], 0.0)
    sender.flush(0.0)
    assert [frame.flags for frame in path.taken] == [FrameFlag.CHECKSUM] * 3 + [0]


def target_of(rtt: float, loss: float, rate: float = 5e6) -> float:
    """CoDel's target for a path when more than a packet waits."""
    path = RecordingPath()
    path.rtt, path.loss, path.rate = rtt, loss, rate
    sender = tunnel(path)
    sender.enqueue([PLAIN + make.udp(4, bytes(1000), partial=False)] * 2, 0.0)
    sender.flush(0.0)
    (queue,) = sender.queues.values()
    return queue.target


def test_for_a_packet_that_comes_alone_no_queue_is_set_to_a_path() -> None:
    path = RecordingPath()
    path.rtt, path.loss, path.rate = 0.03, 0.3, 5e6
    sender = tunnel(path)
    (queue,) = sender.queues.values()
    before = queue.target
    sender.enqueue([PLAIN + make.udp(4, bytes(1000), partial=False)], 0.0)
    sender.flush(0.0)
    assert len(path.taken) == 1
    assert queue.target == before


def test_the_queue_holds_what_comes_in_while_a_path_repairs() -> None:
    # Of 107 packets in a round trip one is still missing after 4 transmissions at 30 %, after 2 at 10 %.
    assert target_of(0.03, 0.0) == 0.005
    assert target_of(0.03, 0.3) == pytest.approx(0.005 + 0.03 * 3.88, rel=0.01)
    assert target_of(0.03, 0.1) == pytest.approx(0.005 + 0.03 * 2.03, rel=0.01)
    # Never less than one round trip where something always waits, and not several long ones.
    assert target_of(0.03, 0.02, rate=1e5) == pytest.approx(0.035)
    assert target_of(0.6, 0.3) == pytest.approx(0.605)
    assert target_of(0.1, 0.3) == pytest.approx(0.255)
