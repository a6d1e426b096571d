"""What a scheduler's choice can express: one path, the next when it is full, copies, and sending again elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic.proto.packet.frame import Frame, class_octet
from mpquic.proto.packet.run import SegmentRun
from mpquic.proto.packet.vnet import PLAIN
from mpquic.proto.path.path import PathState
from mpquic.proto.tunnel.class_queue import ClassQueue
from mpquic.proto.tunnel.receiver import TunnelReceiver
from mpquic.proto.tunnel.scheduler import Choice, FailoverScheduler
from mpquic.proto.tunnel.sender import TunnelSender

from .. import packets as make
from ..recording import RecordingPath, joined, path_of, tunnel

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = 5.0


class Fixed:
    """Chooses what it was told to."""

    def __init__(self, *planes: RecordingPath, copies: int = 1) -> None:
        self.choice = Choice(planes, copies)

    def choose(self, traffic_class: int) -> Choice:
        del traffic_class
        return self.choice


def packet(number: int, size: int = 1000) -> bytes:
    return PLAIN + make.udp(4, number.to_bytes(4, "big") + bytes(size - 4), partial=False)


def numbers(path: RecordingPath) -> list[int]:
    return [frame.sequence & 0xFFFFFFFF for frame in path.taken]


def wire(frames: Sequence[Frame | SegmentRun]) -> list[Frame]:
    """The frames as they arrive."""
    singles = [each for one in frames for each in (one.frames() if isinstance(one, SegmentRun) else [one])]
    return [
        Frame(
            bytes(each.payload),
            each.traffic_class,
            each.sequence & 0xFFFFFFFF,
            each.flags,
            each.gso_size,
            each.fragment_index,
            each.fragment_count,
        )
        for each in singles
    ]


def test_a_class_is_pinned_to_the_one_plane_that_is_chosen() -> None:
    first, second = RecordingPath("a", budget=3000), RecordingPath("b")
    sender = TunnelSender(Fixed(first))
    sender.enqueue([packet(each) for each in range(10)], NOW)
    sender.flush(NOW)
    assert numbers(first) == [0, 1, 2]
    assert second.taken == []
    first.left = 1 << 20
    sender.flush(NOW)
    assert numbers(first) == list(range(10))


def test_what_one_path_has_no_room_for_spills_over_to_the_next() -> None:
    first, second = RecordingPath("a", budget=3000), RecordingPath("b", capacity=600)
    sender = TunnelSender(Fixed(first, second))
    sender.enqueue([packet(each) for each in range(10)], NOW)
    sender.flush(NOW)
    assert numbers(first) == [0, 1, 2]
    assert numbers(second) == [number for number in range(3, 10) for _ in range(2)]  # fragments, as it needs them
    assert not sender.waiting


def test_copies_leave_on_as_many_paths_and_arrive_once() -> None:
    paths = [RecordingPath("a"), RecordingPath("b", capacity=700), RecordingPath("c")]
    sender = TunnelSender(Fixed(*paths, copies=2))
    sent = [packet(each) for each in range(6)]
    sender.enqueue(sent, NOW)
    sender.flush(NOW)
    assert numbers(paths[0]) == numbers(paths[1])
    assert paths[2].taken == []
    assert sender.counters.tx_packets == 6
    receiver = TunnelReceiver()
    writes = receiver.receive(_fragments(paths[1].taken), NOW) + receiver.receive(_fragments(paths[0].taken), NOW)
    assert joined(writes) == sent


def _fragments(frames: list[Frame]) -> list[Frame]:
    return [
        Frame(
            bytes(each.payload),
            each.traffic_class,
            each.sequence,
            each.flags,
            each.gso_size,
            each.fragment_index,
            each.fragment_count,
        )
        for each in frames
    ]


def test_a_copy_has_no_room_and_the_others_go_on() -> None:
    full, free = RecordingPath("a", budget=0), RecordingPath("b")
    sender = TunnelSender(Fixed(full, free, copies=2))
    sender.enqueue([packet(1)], NOW)
    sender.flush(NOW)
    assert (full.taken, numbers(free)) == ([], [0])


def test_what_one_copy_did_not_take_is_not_offered_to_it_again() -> None:
    few, all_ = RecordingPath("a"), RecordingPath("b")
    few.most = 1
    sender = TunnelSender(Fixed(few, all_, copies=2))
    sender.enqueue([packet(each) for each in range(4)], NOW)
    sender.flush(NOW)
    assert numbers(all_) == [0, 1, 2, 3]
    assert numbers(few) == [0]
    assert not sender.waiting


@pytest.mark.parametrize("runs", [False, True])
def test_what_was_in_flight_on_a_path_that_went_silent_is_sent_again_first(runs: bool) -> None:
    first, second = RecordingPath("a", runs=runs), RecordingPath("b")
    sender = tunnel(first, second)
    read = make.superframe(4, 7, bytes(9000), 1000)
    sender.enqueue([read, packet(1)], NOW)
    sender.flush(NOW)
    assert second.taken == []
    first.in_flight = [*first.taken]
    first.state = PathState.SUSPECT
    sender.enqueue([packet(2)], NOW)
    sender.flush(NOW)
    again = wire(first.in_flight)
    assert numbers(second) == [*(frame.sequence for frame in again), 10]
    assert sender.counters.tx_resent_packets == 10
    # Once: what is in flight there isn't looked at anew before more has been sent there.
    sender.enqueue([packet(3)], NOW)
    sender.flush(NOW)
    assert numbers(second)[-1] == 11
    assert len(second.taken) == 12


@pytest.mark.parametrize("capacity", [700, 1300])
def test_fragments_are_sent_again_as_the_other_path_takes_them(capacity: int) -> None:
    """But for those of a packet of which a fragment has been acknowledged."""
    first, second = RecordingPath("a", capacity=1400), RecordingPath("b", capacity=capacity)
    sender = tunnel(first, second)
    sender.enqueue([packet(each, 5000) for each in range(2)], NOW)
    sender.flush(NOW)
    assert len(first.taken) == 8
    first.in_flight = list(first.taken)[1:]
    first.state = PathState.SUSPECT
    sender.flush(NOW)
    receiver = TunnelReceiver()
    arrived = [write for frame in wire(second.taken) for write in receiver.receive([frame], NOW)]
    assert [data[-4996 - 4 : -4996] for data in joined(arrived)] == [(1).to_bytes(4, "big")]


def test_it_is_sent_again_though_nothing_else_waits() -> None:
    first, second = RecordingPath("a"), RecordingPath("b")
    sender = tunnel(first, second)
    sender.enqueue([packet(1)], NOW)
    sender.flush(NOW)
    first.in_flight = [*first.taken]
    first.state = PathState.DOWN
    assert not sender.waiting
    sender.flush(NOW)
    assert numbers(second) == [0]


def test_what_was_in_flight_on_a_plane_that_has_ended_is_sent_again_by_what_replaces_it() -> None:
    first, second = RecordingPath("a"), RecordingPath("b")
    scheduler = Fixed(first)
    sender = TunnelSender(scheduler)
    sender.enqueue([packet(1)], NOW)
    sender.flush(NOW)
    first.in_flight = [*first.taken]
    scheduler.choice = Choice([second])
    sender.flush(NOW)
    assert second.taken == []
    first.state = PathState.DOWN
    sender.flush(NOW)
    assert numbers(second) == [0]


def test_what_comes_late_to_no_avail_is_not_sent_again() -> None:
    first, second = RecordingPath("a"), RecordingPath("b")
    scheduler = FailoverScheduler()
    scheduler.add(path_of(first, priority=1))
    scheduler.add(path_of(second, priority=2))
    octet = class_octet(1, low_latency=True)
    sender = TunnelSender(scheduler, traffic_class=octet)
    sender.enqueue([packet(1)], NOW)
    sender.flush(NOW)
    first.in_flight = [*first.taken]
    first.state = PathState.SUSPECT
    sender.flush(NOW)
    assert second.taken == []


def test_going_back_to_a_better_path_sends_nothing_again() -> None:
    first, second = RecordingPath("a"), RecordingPath("b")
    sender = tunnel(first, second)
    first.state = PathState.DOWN
    sender.enqueue([packet(1)], NOW)
    sender.flush(NOW)
    second.in_flight = [*second.taken]
    first.state = PathState.UP
    sender.enqueue([packet(2)], NOW)
    sender.flush(NOW)
    assert (numbers(first), numbers(second)) == ([1], [0])


def test_each_class_has_its_numbers_at_both_ends() -> None:
    path = RecordingPath("a")
    sender = TunnelSender(Fixed(path), queues={1: ClassQueue(), 2: ClassQueue()})
    reads = {each: packet(each) for each in range(4)}
    for number, read in reads.items():
        sender._traffic_class = 1 + number % 2
        sender.enqueue([read], NOW)
    sender.flush(NOW)
    assert [(frame.traffic_class, frame.sequence) for frame in path.taken] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    receiver = TunnelReceiver()
    mixed = [path.taken[each] for each in (0, 2, 1, 3)]
    assert joined(receiver.receive(wire(mixed), NOW)) == [reads[each] for each in (0, 1, 2, 3)]
    assert (receiver.highest(1), receiver.highest(2)) == (1, 1)
    assert receiver.receive(wire(mixed), NOW) == []
    assert receiver.counters.rx_duplicates == 4


def test_a_peer_has_no_more_classes_than_eight() -> None:
    receiver = TunnelReceiver()
    frames = [Frame(make.udp(4, b"x", partial=False), each, 0) for each in range(200)]
    assert len(receiver.receive(frames, NOW)) == 8
    assert receiver.counters.refused == {"class": 192}


@settings(deadline=None)
@given(st.data())
def test_whatever_paths_do_each_packet_arrives_once_and_none_is_lost(
    data: st.DataObject,
) -> None:
    """Budgets come and go, paths go silent with what they were given; the receiver has each packet once."""
    paths = [RecordingPath(name, runs=name == "a", capacity=data.draw(st.integers(700, 1420))) for name in "abc"]
    sender, receiver = tunnel(*paths), TunnelReceiver()
    arrived: list[bytes] = []
    done = {path.name: 0 for path in paths}
    dead: set[str] = set()
    reads = [packet(number) for number in range(30)]
    for number, read in enumerate(reads):
        sender.enqueue([read], NOW)
        for path in paths:
            path.left = data.draw(st.sampled_from([0, 1000, 5000]), label="budget")
            lost = path.name in dead
            path.in_flight = path.taken[done[path.name] :] if lost else []
            path.state = PathState.SUSPECT if lost else PathState.UP
        sender.flush(NOW)
        for path in paths:
            if path.name not in dead:
                arrived += joined(receiver.receive(_fragments(path.taken[done[path.name] :]), NOW))
                done[path.name] = len(path.taken)
        if number in (8, 16):
            # It goes silent with what it is given next.
            dead.add("ab"[number // 8 - 1])
    for path in paths:
        path.left = 1 << 20
    sender.flush(NOW)
    for path in paths:
        if path.name not in dead:
            arrived += joined(receiver.receive(_fragments(path.taken[done[path.name] :]), NOW))
    assert sorted(arrived) == sorted(reads)
