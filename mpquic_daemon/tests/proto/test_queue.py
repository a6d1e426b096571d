from __future__ import annotations

import pytest
from mpquic.proto import ip
from mpquic.proto.queue import ClassQueue
from mpquic.proto.superframe import Packet, cut, parse_vnet

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
    assert [queue.push(packet(), 0.0) for _ in range(3)] == [True, True, False]
    assert (queue.bytes, queue.overflow_drops) == (2000, 1)


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
