from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.packet import ip
from mpquic.proto.packet.superframe import Packet, cut, parse_vnet
from mpquic.proto.tunnel.class_queue import MAX_FLOWS, MAX_PACKET, ClassQueue

from . import packets as make

NOT_ECT, ECT = 0, 2


def packet(ecn: int = NOT_ECT, size: int = 1000) -> Packet:
    return Packet(make.udp(4, bytes(size - 28), tos=ecn))


def run(
    queue: ClassQueue, seconds: float, arrivals_a_second: int, departures_a_second: int, ecn: int = NOT_ECT
) -> list[float]:
    """Drive a queue in virtual time with steady arrivals and departures; return the delay of each departure."""
    step = 1.0 / (arrivals_a_second * departures_a_second)
    delays: list[float] = []
    arrived: dict[int, float] = {}
    for tick in range(int(seconds / step)):
        now = tick * step
        if tick % departures_a_second == 0:
            one = packet(ecn)
            arrived[id(one)] = now
            queue.push(one, now)
        if tick % arrivals_a_second == 0 and (gone := queue.pop(now)) is not None:
            delays.append(now - arrived.pop(id(gone)))
    return delays


def test_packets_leave_in_the_order_in_which_they_came() -> None:
    queue, sent = ClassQueue(), [packet() for _ in range(5)]
    assert all(queue.push(one, 0.0) for one in sent)
    assert queue.bytes == 5000
    assert [queue.pop(0.001) for _ in range(6)] == [*sent, None]
    assert queue.bytes == 0


def test_the_queue_is_bounded_in_bytes() -> None:
    queue = ClassQueue(max_bytes=2500)
    assert [queue.push(packet(), 0.0) for _ in range(3)] == [True, True, True]
    assert (queue.bytes, queue.overflow_drops) == (2000, 1)
    assert not queue.push(packet(size=3000), 0.0)
    assert (queue.bytes, queue.overflow_drops) == (2000, 2)


def test_below_capacity_nothing_is_dropped_or_marked() -> None:
    queue = ClassQueue()
    delays = run(queue, 3.0, 90, 100)
    assert (queue.codel_drops, queue.codel_marks) == (0, 0)
    assert max(delays) < 0.02


def test_a_burst_shorter_than_an_interval_passes_untouched() -> None:
    queue = ClassQueue()
    for _ in range(50):
        queue.push(packet(), 0.0)
    for number in range(50):
        assert queue.pop(number * 0.0015) is not None
    assert queue.codel_drops == 0


def test_a_standing_queue_is_drained_by_drops_ever_more_often() -> None:
    free, codel = ClassQueue(target=1e9), ClassQueue()
    unmanaged = run(free, 8.0, 105, 100)
    managed = run(codel, 8.0, 105, 100)
    assert codel.codel_drops > 10
    assert unmanaged[-1] > 0.35
    assert managed[-1] < unmanaged[-1] / 2


def test_packets_that_can_be_marked_are_marked_and_none_is_lost() -> None:
    queue = ClassQueue()
    delays = run(queue, 4.0, 105, 100, ECT)
    assert queue.codel_marks > 5
    assert queue.codel_drops == 0
    assert len(delays) + len(queue) == 420


def test_a_mark_is_ce_in_a_valid_packet() -> None:
    queue = ClassQueue(target=0.005, interval=0.1)
    for _ in range(10):
        queue.push(packet(ECT), 0.0)
    assert queue.pop(0.05) is not None
    marked = queue.pop(0.2)
    assert marked is not None
    assert ip.ecn(marked.payload) is ip.Ecn.CE
    assert ip.check(marked.payload) == 4


@pytest.mark.parametrize("version", [4, 6])
def test_of_a_superframe_one_segment_is_dropped_and_not_all(version: int) -> None:
    queue = ClassQueue()
    for number in range(4):
        queue.push(parse_vnet(make.superframe(version, number * 10000, bytes(10000), 1000)), 0.0)
    first, second = queue.pop(0.05), queue.pop(0.2)
    assert first is not None
    assert second is not None
    assert (len(cut(first)), len(cut(second))) == (10, 9)
    assert queue.codel_drops == 1


def test_what_waited_out_an_outage_is_dropped_by_age() -> None:
    queue = ClassQueue()
    for number in range(5):
        queue.push(packet(), float(number))
    queue.expire(3.0)
    assert (len(queue), queue.bytes, queue.expired) == (2, 2000, 3)
    queue.clear()
    assert (len(queue), queue.bytes) == (0, 0)


@pytest.mark.parametrize("pause", [0.5, 1.5, 30.0])
def test_drops_that_were_due_while_nothing_could_leave_are_not_made_up_for(pause: float) -> None:
    """A path that fell silent, or whose window was full, is no standing queue."""
    queue = ClassQueue(max_bytes=1 << 24)
    now = 0.0
    for step in range(2000):
        queue.push(packet(), now)
        if step % 2:
            queue.pop(now)
        now += 0.001
    steady = queue.codel_drops
    assert steady > 4
    for _ in range(100):
        queue.pop(now + pause)
        now += 0.0005
    # In the 50 ms since, one each 10 ms was due.
    assert queue.codel_drops - steady <= 6


def test_an_excess_is_signalled_after_half_an_interval() -> None:
    def first_drop(excess: float) -> float:
        queue = ClassQueue()
        queue.excess = excess
        for tick in range(1000):
            now = tick * 0.001
            for _ in range(2):
                queue.push(packet(), now)
            queue.pop(now)
            if queue.codel_drops:
                return now
        return 1.0

    usual, early = first_drop(float("inf")), first_drop(0.03)
    assert usual == pytest.approx(0.11, abs=0.005)
    assert early == pytest.approx(0.061, abs=0.005)


def of(flow: int, size: int = 1000) -> Packet:
    """A packet of a connection."""
    return Packet(make.udp(4, bytes(size - 28), source=bytes([10, 0, flow >> 8, flow & 255])))


def flow_of(packet: Packet) -> int:
    return int.from_bytes(ip.source(packet.payload)[2:], "big")


def superframe(flow: int, segments: int = 40, sequence: int = 0) -> Packet:
    """A superframe of full segments of a connection."""
    data = bytes(1448) * segments
    return parse_vnet(make.superframe(4, sequence, data, 1448, source=bytes([10, 0, flow >> 8, flow & 255])))


def let_wait(queue: ClassQueue, packets: list[Packet]) -> None:
    """Have these packets wait in a queue, so that they don't leave as they came."""
    for one in packets:
        queue.push(one, 0.0)


def served(queue: ClassQueue, count: int, now: float = 0.001) -> list[Packet]:
    found = [queue.pop(now) for _ in range(count)]
    return [packet for packet in found if packet is not None]


def test_flows_are_served_by_turns() -> None:
    queue = ClassQueue()
    let_wait(queue, [of(1) for _ in range(100)] + [of(2) for _ in range(100)])
    counts = Counter(flow_of(packet) for packet in served(queue, 100))
    assert abs(counts[1] - counts[2]) <= 5


def test_large_and_small_packets_get_the_same_bytes() -> None:
    queue = ClassQueue()
    let_wait(queue, [of(1, 1400) for _ in range(200)] + [of(2, 100) for _ in range(2000)])
    sizes: Counter[int] = Counter()
    for packet in served(queue, 1200):
        sizes[flow_of(packet)] += len(packet.payload)
    assert abs(sizes[1] - sizes[2]) <= queue.quantum + MAX_PACKET


def test_who_begins_to_wait_goes_before_those_that_do() -> None:
    queue = ClassQueue()
    queue.unit = 20_000
    let_wait(queue, [of(flow) for flow in range(30) for _ in range(20)])
    assert len(served(queue, 70)) == 70
    queue.push(of(99), 0.001)
    assert flow_of(served(queue, 1, 0.002)[0]) == 99


def test_who_sends_again_as_soon_as_it_is_served_does_not_keep_others_waiting() -> None:
    queue = ClassQueue()
    let_wait(queue, [of(1) for _ in range(50)])
    counts: Counter[int] = Counter()
    for tick in range(40):
        now = 0.001 * (tick + 1)
        queue.push(of(2, 1500), now - 0.0005)
        counts[flow_of(served(queue, 1, now)[0])] += 1
    assert counts[1] >= 15


def test_of_a_superframe_so_much_leaves_as_takes_five_milliseconds() -> None:
    queue = ClassQueue()
    queue.unit = 6250
    let_wait(queue, [superframe(1), of(2, 100)])
    first, second, third = served(queue, 3)
    assert (flow_of(first), len(first.payload)) == (1, 52 + 4 * 1448)
    assert flow_of(second) == 2
    assert (flow_of(third), len(third.payload)) == (1, 52 + 4 * 1448)


def test_a_superframe_is_not_cut_where_a_unit_takes_all_of_it() -> None:
    queue = ClassQueue()
    one = superframe(1)
    let_wait(queue, [one])
    assert served(queue, 1) == [one]
    assert (len(queue), queue.bytes) == (0, 0)


def test_what_was_read_together_and_leaves_at_once_is_cut_too() -> None:
    queue = ClassQueue()
    queue.unit = 1
    one = superframe(1, 3)
    queue.push(one, 0.5)
    parts = served(queue, 4, 0.5)
    assert [segment for part in parts for segment in cut(part)] == cut(one)
    assert (len(queue), queue.bytes) == (0, 0)


def test_the_longest_queue_loses_when_there_is_no_room() -> None:
    queue = ClassQueue(max_bytes=50_000)
    let_wait(queue, [of(1) for _ in range(45)] + [of(2) for _ in range(5)])
    assert queue.push(of(3), 0.001)
    left = Counter(flow_of(packet) for packet in served(queue, 60))
    assert (left[2], left[3]) == (5, 1)
    assert queue.overflow_drops == 45 - left[1] > 0


def test_codel_drops_of_the_flow_whose_queue_stands_alone() -> None:
    queue = ClassQueue()
    lost: Counter[int] = Counter()
    sent: Counter[int] = Counter()
    for tick in range(4000):
        now = 0.001 * tick
        for flow in (1, 1) if tick % 20 else (1, 1, 2):
            queue.push(of(flow), now)
            sent[flow] += 1
        found = queue.pop(now + 0.0005)
        if found is not None:
            lost[flow_of(found)] -= 1
    lost.update(sent)
    assert queue.codel_drops > 50
    lost.subtract(flow_of(packet) for packet in served(queue, len(queue), 4.0))
    assert lost[2] == 0
    assert lost[1] >= 50


def test_a_scan_of_ports_takes_no_more_than_bounded_memory_and_all_is_served() -> None:
    queue = ClassQueue(max_bytes=1 << 30)
    let_wait(queue, [of(flow, 100) for flow in range(3 * MAX_FLOWS)])
    assert len(served(queue, 4 * MAX_FLOWS)) == 3 * MAX_FLOWS
    assert len(queue._flows) <= MAX_FLOWS + 1
    # Those that wait no longer make room for others.
    let_wait(queue, [of(5000), of(5001), of(5000)])
    assert [flow_of(packet) for packet in served(queue, 3)] == [5000, 5000, 5001]


@st.composite
def arrivals(draw: st.DrawFn) -> list[tuple[float, int, int, int]]:
    """Steps of time with a flow, a number of segments (0: an ordinary packet), and how often it is popped then."""
    step = st.tuples(
        st.sampled_from([0.0, 0.0005, 0.02, 0.2]), st.integers(0, 5), st.integers(0, 20), st.integers(0, 3)
    )
    return draw(st.lists(step, max_size=60))


@given(arrivals(), st.sampled_from([1, 3000, 20_000, 1 << 16]), st.sampled_from([20_000, 1 << 20]))
def test_what_comes_out_is_what_came_in_but_for_what_is_counted_and_each_flow_keeps_its_order(
    steps: list[tuple[float, int, int, int]], unit: int, room: int
) -> None:
    queue = ClassQueue(max_bytes=room)
    queue.unit = unit
    now, came = 0.0, 0
    sent: dict[int, list[bytes]] = {}
    got: dict[int, list[bytes]] = {}

    def take(packet: Packet | None) -> None:
        if packet is not None:
            got.setdefault(flow_of(packet), []).extend(cut(packet))

    for wait, flow, segments, pops in steps:
        now += wait
        flow += 10 * (segments > 1)
        sequence = 100_000 * len(sent.get(flow, ()))
        one = superframe(flow, segments, sequence) if segments > 1 else of(flow, 500 + len(sent.get(flow, ())))
        came += one.segments
        sent.setdefault(flow, []).extend(cut(one))
        queue.push(one, now)
        for _ in range(pops):
            take(queue.pop(now))
        assert 0 <= queue.bytes <= room
    while queue:
        take(queue.pop(now))
    assert queue.bytes == 0
    assert sum(map(len, got.values())) + queue.codel_drops + queue.overflow_drops == came
    for flow, packets in got.items():
        positions = iter(sent[flow])
        assert all(any(packet == other for other in positions) for packet in packets), "out of order, or changed"
