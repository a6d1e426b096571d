"""What several sockets give, in the order in which it was sent: the sockets are played."""

from __future__ import annotations

import random
from collections import deque
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st
from mpquic.proto.stripe.merge import Piece, PipeMerge, in_sending_order, pieces
from mpquic.proto.stripe.wire import (
    EPOCH_SHIFT,
    HEADER_SIZE,
    MAGIC,
    TAG_SIZE,
    VERSION,
    PacketType,
    pack_header,
    shard_number,
)

SIZE = 40


def packet(number: int, kind: PacketType = PacketType.DATA, size: int = SIZE) -> bytes:
    first = MAGIC, VERSION << 4, 0 << EPOCH_SHIFT | kind, 7, number & 0xFFFFFFFF
    return pack_header(*first, 0, 0, size - HEADER_SIZE).ljust(size, b"\xaa")


def run(first: int, count: int) -> bytes:
    return b"".join(packet(number) for number in range(first, first + count))


def numbers(found: list[Piece]) -> list[int]:
    """The number of each packet of what are shards."""
    for piece in found:
        if piece.first is not None:
            assert bytes(piece.data) == b"".join(packet(piece.first + place) for place in range(piece.packets))
    return [piece.first + place for piece in found if piece.first is not None for place in range(piece.packets)]


class Sockets:
    """Kernel queues of pipes, each of reads. What one holds is read only while nothing of its pipe waits."""

    def __init__(self, pipes: int) -> None:
        self.queues: list[deque[bytes]] = [deque() for _ in range(pipes)]
        self.merge = PipeMerge(pipes)

    def read(self) -> bool:
        found = False
        for pipe, queue in enumerate(self.queues):
            if queue and self.merge.lacks(pipe):
                self.merge.add(pipe, pieces(queue.popleft(), SIZE))
                found = True
        return found

    def drain(self, due: int) -> list[int]:
        """Batches until nothing is left."""
        seen: list[int] = []
        while batch := self.merge.next_batch(due, self.read):
            assert len(batch) <= 64
            assert sum(piece.packets > 1 for piece in batch) <= 16
            seen += numbers(batch)
            due = max(seen) + 1 if seen else due
        assert not self.merge.waiting
        assert not any(self.queues)
        return seen


@st.composite
def sendings(draw: st.DrawFn) -> list[tuple[int, int, list[int]]]:
    """(pipe, first number, sizes of reads), one after the other as a sender spreads them."""
    number = draw(st.sampled_from([0, 1000, 2**32 - 50]))
    sent = []
    for _ in range(draw(st.integers(1, 40))):
        reads = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
        sent.append((draw(st.integers(0, 3)), number, reads))
        number += sum(reads)
    return sent


@given(sendings())
def test_what_lies_in_the_sockets_comes_out_as_it_was_sent(sent: list[tuple[int, int, list[int]]]) -> None:
    sockets = Sockets(4)
    for pipe, first, reads in sent:
        for count in reads:
            sockets.queues[pipe].append(run(first, count))
            first += count
    seen = sockets.drain(sent[0][1])
    begin = sent[0][1]
    expected = [number & 0xFFFFFFFF for number in range(begin, begin + sum(sum(reads) for _, _, reads in sent))]
    assert [number & 0xFFFFFFFF for number in seen] == expected


@given(sendings(), st.integers(0, 2**32))
def test_a_batch_is_ascending_and_nothing_is_lost_or_doubled_whatever_is_missing(
    sent: list[tuple[int, int, list[int]]], seed: int
) -> None:
    rng = random.Random(seed)
    sockets = Sockets(4)
    arrived: list[int] = []
    for pipe, first, reads in sent:
        for count in reads:
            if first < 2**31 and rng.random() < 0.8:
                sockets.queues[pipe].append(run(first, count))
                arrived += range(first, first + count)
            first += count
    assert sockets.drain(sent[0][1]) == arrived


def test_nothing_waits_for_what_has_not_come() -> None:
    sockets = Sockets(3)
    sockets.queues[1].append(run(40, 5))
    sockets.queues[2].append(run(50, 5))
    assert numbers(sockets.merge.next_batch(30, sockets.read)) == [*range(40, 45), *range(50, 55)]
    # The first pipe was slower.
    sockets.queues[0].append(run(30, 10))
    sockets.queues[1].append(run(55, 3))
    assert numbers(sockets.merge.next_batch(55, sockets.read)) == [*range(30, 40), 55, 56, 57]


def test_a_batch_leaves_the_rest_to_the_next_and_does_not_read_what_it_does_not_need() -> None:
    sockets = Sockets(2)
    for place in range(40):
        sockets.queues[0].append(run(10 * place, 10))
    sockets.queues[1].append(run(400, 10))
    sockets.queues[1].append(run(410, 10))
    seen = numbers(sockets.merge.next_batch(0, sockets.read))
    assert seen == [*range(160)]
    assert [len(queue) for queue in sockets.queues] == [24, 1]
    assert sockets.drain(160) == [*range(160, 420)]


def test_packets_of_control_are_in_the_next_batch() -> None:
    sockets = Sockets(2)
    report = packet(7, PacketType.REPORT)
    sockets.queues[0].append(run(20, 2))
    sockets.queues[1] += [report, b"short", run(18, 2)]
    batch = sockets.merge.next_batch(18, sockets.read)
    assert [piece.first for piece in batch] == [None, None, 18, 20]
    assert batch[0].data == report


def cut_one_by_one(datagrams: list[bytes]) -> list[tuple[int | None, int]]:
    """What `pieces` finds, by looking at each datagram."""
    found: list[tuple[int | None, int]] = []
    for datagram in datagrams:
        number = shard_number(datagram)
        if found and number is not None:
            first, count = found[-1]
            if first is not None and (number - first) % 2**32 == count:
                found[-1] = first, count + 1
                continue
        found.append((number, 1))
    return found


@given(
    st.lists(st.tuples(st.integers(0, 2**32 + 99), st.integers(1, 5)), min_size=1, max_size=6),
    st.lists(st.integers(0, 30), max_size=3),
)
@example([(0, 1), (0, 1), (2, 1)], [])
@example([(0, 1), (9, 1), (2, 1)], [])
@example([(0, 3)], [1])
@example([(2**32 - 2, 4)], [])
def test_a_read_is_cut_where_its_numbers_do_not_go_on(runs: list[tuple[int, int]], controls: list[int]) -> None:
    datagrams = [packet(first + place) for first, count in runs for place in range(count)]
    for place in controls:
        datagrams.insert(place, packet(5, PacketType.KEEPALIVE))
    read = memoryview(bytearray(b"".join(datagrams)))
    found = pieces(read, SIZE)
    assert b"".join(bytes(piece.data) for piece in found) == bytes(read)
    assert [(piece.first, piece.packets) for piece in found] == cut_one_by_one(datagrams)
    for one, other in pairwise(found):
        if one.first is not None:
            assert other.first is None or (one.first + one.packets - other.first) & 0xFFFFFFFF
    # Only what was left in one piece keeps the buffer occupied.
    assert [piece.buffer is read.obj for piece in found] == [len(found) == 1] * len(found)


def test_the_last_datagram_of_a_read_may_be_short() -> None:
    read = run(3, 2) + packet(5, size=HEADER_SIZE + TAG_SIZE + 1)
    assert pieces(read, SIZE) == [Piece(3, 3, read, SIZE)]


@given(st.permutations(range(12)), st.sampled_from([5, 2**32 - 4, 2**32 + 2]))
def test_reads_of_one_socket_are_put_in_order_across_the_wrap(order: list[int], due: int) -> None:
    reads = [(packet(due - 3 + place), SIZE, None) for place in order]
    found = in_sending_order(reads, due)
    assert [one[0] for one in found] == [packet(due - 3 + place) for place in range(12)]


@given(st.permutations(range(12)), st.integers(0, 11))
def test_a_packet_of_a_control_type_stays_behind_what_came_before_it_by_its_pipe(order: list[int], after: int) -> None:
    sources = (("192.0.2.1", 40000), ("192.0.2.1", 40001))
    reads = [(packet(5 + place), SIZE, sources[place % 2]) for place in order]
    question = (packet(1, PacketType.KEEPALIVE), SIZE, sources[0])
    found = in_sending_order([*reads[:after], question, *reads[after:]], 5)
    earlier = [read for read in reads[:after] if read[2] == sources[0]]
    assert found.index(question) == (found.index(earlier[-1]) + 1 if earlier else 0)
    found.remove(question)
    assert found == sorted(reads)
