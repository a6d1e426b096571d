"""Runs through both halves of a tunnel: who gets them, and what of them counts once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.packet.assembler import FrameAssembler
from mpquic.proto.packet.frame import Frame
from mpquic.proto.packet.run import SegmentRun
from mpquic.proto.packet.superframe import cut, parse_vnet
from mpquic.proto.packet.vnet import PLAIN
from mpquic.proto.path.path import FrameOrRun, PathState
from mpquic.proto.tunnel.receiver import TunnelReceiver

from . import packets as make
from .recording import RecordingPath, joined, tunnel
from .superframes import kernel_segments, run_of, singles, superframes, without_checksum

if TYPE_CHECKING:
    from mpquic.proto.tunnel.sender import TunnelSender

READ = make.superframe(4, 2**32 - 2000, bytes(range(250)) * 20, 1000, make.ACK | make.PSH)


def on_the_wire(carried: list[FrameOrRun]) -> list[bytes]:
    """One datagram for each segment and each frame."""
    return [data for one in carried for data in (one.encode() if isinstance(one, SegmentRun) else [one.encode()])]


def arrived(datagrams: list[bytes]) -> list[FrameOrRun]:
    assembler = FrameAssembler(pytest.fail)
    for datagram in datagrams:
        assembler.add(datagram)
    return assembler.take()


def packets_of(writes: list[list[bytes]]) -> list[bytes]:
    return [packet for write in writes for packet in kernel_segments(write)]


# The sender


@given(st.lists(superframes(), min_size=1, max_size=4))
def test_a_path_that_takes_runs_gets_superframes_as_runs(reads: list[bytes]) -> None:
    path = RecordingPath(runs=True)
    sender = tunnel(path)
    sender.enqueue(reads, 0.0)
    datagrams = []
    assert sender.flush(0.0) == sum(run.size for run in path.taken)
    assert all(isinstance(one, SegmentRun) for one in path.taken)
    datagrams = on_the_wire(path.taken)
    receiver = TunnelReceiver()
    assert joined(receiver.receive(arrived(datagrams), 0.0)) == reads
    tx, rx = sender.counters, receiver.counters
    assert tx.tx_packets == tx.tx_frames == rx.rx_packets == rx.rx_frames == len(datagrams)
    assert tx.tx_bytes == rx.rx_bytes == sum(len(p) for read in reads for p in cut(parse_vnet(read)))
    assert (tx.tx_superframes, rx.rx_writes) == (len(reads), len(reads))
    assert receiver.highest(0) == len(datagrams) - 1


@pytest.mark.parametrize("reliable", [False, True])
def test_a_path_that_takes_none_gets_frames(reliable: bool) -> None:
    path = RecordingPath(reliable=reliable)
    sender = tunnel(path)
    sender.enqueue([READ], 0.0)
    sender.flush(0.0)
    assert all(isinstance(one, Frame) for one in path.taken)
    assert len(path.taken) == (1 if reliable else 5)


EXTENDED = make.ipv6(60, bytes([6, 0, 1, 4, 0, 0, 0, 0]) + make.tcp(6, 7, bytes(3000))[40:])


@pytest.mark.parametrize(
    "read",
    [
        make.superframe(4, 1, bytes(3000), 1000, make.ACK | make.CWR),
        make.superframe(4, 1, bytes(3000), 1000, make.ACK | 0x20),
        make.superframe(4, 1, bytes(300), 47),
        make.superframe(4, 1, bytes(3000), 1000)[:10] + make.ipv4(
            6, make.tcp_header(1, make.ACK) + bytes(3000), options=b"\1\1\1\0"
        ),
        make.superframe(6, 1, bytes(3000), 1000)[:6] + b"\x30\0" + b"\x10\0" + EXTENDED,
        make.superframe(4, 1, bytes(3000), 1389),
    ],
    ids=["CWR", "URG", "gso_size", "options", "extension", "too long for a datagram"],
)  # fmt: skip
def test_what_no_segment_stands_for_is_cut_for_every_path(read: bytes) -> None:
    sent: list[list[bytes]] = []
    for runs in (True, False):
        path = RecordingPath(runs=runs, capacity=1452)
        sender = tunnel(path)
        sender.enqueue([read], 0.0)
        sender.flush(0.0)
        assert all(isinstance(one, Frame) for one in path.taken)
        sent.append(on_the_wire(path.taken))
    assert sent[0] == sent[1]
    assert len(sent[0]) > 1


def test_a_segment_that_fills_the_datagram_to_the_last_octet_is_in_a_run() -> None:
    path = RecordingPath(runs=True, capacity=1452)
    sender = tunnel(path)
    sender.enqueue([make.superframe(4, 1, bytes(3000), 1388)], 0.0)
    sender.flush(0.0)
    [run] = path.taken
    assert run.largest_frame == 1452


def test_runs_that_a_path_does_not_take_are_offered_again_in_order() -> None:
    path = RecordingPath(runs=True, budget=6000)
    sender = tunnel(path)
    reads = [make.superframe(4, at, bytes(5000), 1000) for at in range(0, 25000, 5000)]
    sender.enqueue(reads, 0.0)
    sender.flush(0.0)
    assert len(path.taken) == 2
    assert sender.backlog > 10_000
    assert sender.waiting
    path.left = 1 << 20
    sender.flush(0.1)
    assert [run.sequence for run in path.taken] == [0, 5, 10, 15, 20]
    assert not sender.waiting
    assert joined(TunnelReceiver().receive(arrived(on_the_wire(path.taken)), 0.0)) == reads


def handed_back(*paths: RecordingPath) -> tuple[TunnelSender, list[bytes]]:
    """A sender whose first path has taken one of three superframes, and has been handed the others."""
    sender = tunnel(*paths)
    reads = [make.superframe(4, at, bytes(range(250)) * 20, 1000) for at in (0, 5000, 10000)]
    sender.enqueue(reads, 0.0)
    paths[0].most = 1
    sender.flush(0.0)
    assert len(paths[0].taken) == 1
    assert sender.backlog > 10_000
    paths[0].most = None
    return sender, [_content(packet) for read in reads for packet in kernel_segments(read)]


@pytest.mark.parametrize(
    "other",
    [
        RecordingPath("wan5", capacity=1420),
        RecordingPath("wan5", capacity=700),
        RecordingPath("wan5", reliable=True),
        RecordingPath("wan5", runs=True, capacity=1420),
        RecordingPath("wan5", runs=True, capacity=700),
    ],
    ids=["datagrams", "narrow", "stream", "runs", "narrow runs"],
)
def test_runs_that_wait_are_refitted_when_another_path_takes_over(other: RecordingPath) -> None:
    first = RecordingPath("wan4", runs=True)
    sender, expected = handed_back(first, other)
    first.state = PathState.DOWN
    sender.flush(0.1)
    assert sender.counters.refused == {}
    if other.takes_runs and other.frame_capacity == 1420:
        assert [run.count for run in other.taken] == [5, 5]
    writes = TunnelReceiver().receive(arrived(on_the_wire(first.taken + other.taken)), 0.1)
    assert [*map(_content, packets_of(writes))] == expected


@pytest.mark.parametrize("runs", [False, True])
def test_what_waits_for_a_path_follows_the_path_when_it_carries_less(runs: bool) -> None:
    path = RecordingPath(runs=runs)
    sender, expected = handed_back(path)
    path.frame_capacity = 700
    sender.flush(0.1)
    assert not sender.waiting
    assert sender.counters.refused == {}
    writes = TunnelReceiver().receive(arrived(on_the_wire(path.taken)), 0.1)
    assert [*map(_content, packets_of(writes))] == expected


@pytest.mark.parametrize("runs", [False, True])
def test_what_waits_for_a_path_stays_as_it_is_when_it_carries_more(runs: bool) -> None:
    path = RecordingPath(runs=runs)
    sender, _ = handed_back(path)
    path.frame_capacity = 8000
    sender.flush(0.1)
    assert [run.sequence for run in path.taken] == ([0, 5, 10] if runs else [*range(15)])


def test_runs_wait_no_longer_than_others_without_a_path_and_not_across_sessions() -> None:
    path = RecordingPath(runs=True)
    sender, _ = handed_back(path)
    path.state = PathState.DOWN
    sender.flush(0.5)
    assert sender.waiting
    sender.flush(1.1)
    assert not sender.waiting
    assert sender.counters.refused == {"no_path": 10}
    path = RecordingPath(runs=True)
    sender, _ = handed_back(path)
    sender.restart()
    assert not sender.waiting


# The receiver


def test_a_run_that_comes_twice_counts_once() -> None:
    receiver, run = TunnelReceiver(), arrived(run_of(READ).encode())
    assert joined(receiver.receive(run, 0.0)) == [READ]
    assert receiver.receive(arrived(run_of(READ).encode()), 0.1) == []
    assert (receiver.counters.rx_duplicates, receiver.counters.rx_packets) == (5, 5)
    assert receiver.counters.rx_frames == 10


def test_what_of_a_run_was_there_is_left_out() -> None:
    receiver, frames = TunnelReceiver(), run_of(READ).encode()
    first = receiver.receive(arrived([frames[0], frames[2]]), 0.0)
    rest = receiver.receive(arrived(frames), 0.1)
    expected = kernel_segments(READ)
    assert packets_of(first) == [expected[0], expected[2]]
    assert packets_of(rest) == [expected[1], *expected[3:]]
    assert receiver.counters.rx_duplicates == 2


def test_a_gap_inside_a_superframe_leaves_a_write_on_each_side() -> None:
    receiver, frames = TunnelReceiver(), run_of(READ).encode()
    writes = receiver.receive(arrived(frames[:2] + frames[3:]), 0.0)
    expected = kernel_segments(READ)
    assert packets_of(writes) == [*expected[:2], *expected[3:]]
    assert len(writes) == 2
    assert packets_of(receiver.receive(arrived([frames[2]]), 0.1)) == [expected[2]]


def test_a_run_behind_the_window_is_late() -> None:
    receiver = TunnelReceiver(window=16)
    run = arrived(run_of(READ, 0).encode())
    receiver.receive([Frame(make.udp(4, b"x", partial=False), 1, 100)], 0.0)
    assert receiver.receive(run, 0.1) == []
    assert receiver.counters.rx_late == 5


def test_the_numbers_of_runs_go_over_the_wrap() -> None:
    receiver = TunnelReceiver()
    space = receiver._space(1)
    assert space is not None
    window = space.window
    start = 2**32 - 7
    for number in (start - 2**31 + 1, start - 1):
        window.add(number)
    reads = [make.superframe(4, at, bytes(5000), 1000) for at in (0, 5000, 10000)]
    runs = [run_of(read, start + 5 * place) for place, read in enumerate(reads)]
    writes = receiver.receive(arrived(on_the_wire([*runs])), 0.0)
    assert packets_of(writes) == [packet for read in reads for packet in kernel_segments(read)]
    assert receiver.highest(1) == start + 14
    assert receiver.receive(arrived(on_the_wire([*runs])), 0.1) == []
    assert receiver.counters.rx_duplicates == 15
    # A run that is handed on in one piece, over the wrap: its frames one by one, as behind a gap.
    receiver.restart()
    space = receiver._space(1)
    assert space is not None
    space.window.add(start - 3)
    assert packets_of(receiver.receive([runs[0], runs[1]], 0.2)) == packets_of(writes[:-1])


def test_runs_from_a_source_that_is_not_the_peers_are_dropped_and_counted() -> None:
    for number in (0, 3):  # as a run, and one by one behind a gap
        receiver = TunnelReceiver(permits=lambda source: source in (make.CLIENT4, make.CLIENT6))
        reads = [
            READ,
            make.superframe(4, 1, bytes(5000), 1000, source=bytes([10, 200, 5, 2])),
            make.superframe(6, 1, bytes(5000), 1000, source=make.HOST6),
            make.udp_superframe(6, bytes(5000), 1000),
            make.udp_superframe(4, bytes(5000), 1000, source=bytes([1, 1, 1, 1])),
        ]
        runs = [run_of(read, number + 5 * place) for place, read in enumerate(reads)]
        writes = receiver.receive(arrived(on_the_wire([*runs])), 0.0)
        assert packets_of(writes) == [*kernel_segments(reads[0]), *kernel_segments(reads[3])]
        assert receiver.counters.refused == {"source": 15}
        assert receiver.counters.rx_packets == 10
        # Refused, and seen all the same.
        assert receiver.receive(arrived(on_the_wire([*runs])), 0.1) == []
        assert receiver.counters.rx_duplicates == 25


@given(
    st.lists(
        st.one_of(
            superframes(max_segments=5),
            st.builds(lambda size: PLAIN + make.udp(4, bytes(size), partial=False), st.integers(0, 200)),
        ),
        min_size=1,
        max_size=5,
    ),
    st.data(),
)
def test_runs_are_received_as_their_frames_would_be(reads: list[bytes], data: st.DataObject) -> None:
    path = RecordingPath(runs=True)
    sender = tunnel(path)
    sender.enqueue(reads, 0.0)
    sender.flush(0.0)
    datagrams = on_the_wire(path.taken)
    order = data.draw(st.lists(st.integers(0, len(datagrams) - 1), max_size=2 * len(datagrams)))
    # Stretches in order are what makes runs.
    stretches = [datagrams[at : at + data.draw(st.integers(1, 4))] for at in order]
    batch = arrived([datagram for stretch in stretches for datagram in stretch])
    by_run, one_by_one = TunnelReceiver(), TunnelReceiver()
    got = by_run.receive(batch, 0.0)
    expected = one_by_one.receive(singles(batch), 0.0)
    assert sorted(map(_content, packets_of(got))) == sorted(map(_content, packets_of(expected)))
    seen, reference = by_run.counters.snapshot(), one_by_one.counters.snapshot()
    del seen["rx_writes"], reference["rx_writes"]
    assert seen == reference


def _content(packet: bytes) -> bytes:
    """A packet without what the coalescer may write anew: IPv4 identification, header checksum."""
    if packet[0] >> 4 == 4:
        packet = packet[:4] + b"\0\0" + packet[6:10] + b"\0\0" + packet[12:]
    return without_checksum(packet)
