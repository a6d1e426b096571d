"""Reads as the kernel gives them, some of them overtaken by others: each shard counts once, and is what was sent."""

from __future__ import annotations

import os
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic.proto.packet.frame import decode_frames
from mpquic.proto.stripe.keys import Opener, Sealer, Suite, direction_secret
from mpquic.proto.stripe.pipes import Pipes
from mpquic.proto.stripe.receiver import StripeReceiver
from mpquic.proto.stripe.reports import decode_report
from mpquic.proto.stripe.wire import PacketType

from .. import packets as make
from ..superframes import run_of, singles
from .duplex import SECRET, SESSION

SEGMENTS = 12
SECRET_UP = direction_secret(SECRET, from_client=True)


def shards(superframes: int, data_shards: int = 0) -> tuple[list[bytes], list[bytes]]:
    """The contents of shards, and the datagrams: one superframe after the other, each on the next of three pipes."""
    sealer = Sealer(Suite.AES_128_GCM, SECRET_UP, SESSION, 0.0)
    bodies: list[bytes] = []
    datagrams: list[bytes] = []
    for place in range(superframes):
        read = make.superframe(4, place * SEGMENTS * 100, bytes(SEGMENTS * 100), 100)
        contents = run_of(read, place * SEGMENTS).encode()
        bodies += contents
        datagrams += sealer.seal_shards(PacketType.DATA, place % 3, 0, data_shards, contents)
    return bodies, datagrams


def receiver() -> StripeReceiver:
    return StripeReceiver(
        SESSION, Opener(Suite.AES_128_GCM, SECRET_UP), Pipes(3, 0.0, client=False, entropy=os.urandom)
    )


@st.composite
def orders(draw: st.DrawFn, count: int) -> list[list[int]]:
    """Numbers in the order of their arrival, by reads; some come twice."""
    cuts = sorted({0, count, *draw(st.lists(st.integers(1, count - 1), max_size=12))})
    reads = [[*range(first, stop)] for first, stop in pairwise(cuts)]
    reads = draw(st.permutations(reads))
    return reads + draw(st.lists(st.sampled_from(reads), max_size=2))


@settings(deadline=None)
@given(orders(4 * SEGMENTS), st.integers(1, 5))
def test_reads_in_any_order_give_each_shard_once(order: list[list[int]], together: int) -> None:
    bodies, datagrams = shards(4)
    size = len(datagrams[0])
    end = receiver()
    got = []
    for start in range(0, len(order), together):
        batch = [
            (b"".join(datagrams[number] for number in read), size, None) for read in order[start : start + together]
        ]
        frames, control = end.receive(batch, float(start))
        assert control == []
        got += singles(frames)
    expected = {frame.sequence: frame.payload for frame in (one for body in bodies for one in decode_frames(body))}
    assert sorted(frame.sequence for frame in got) == sorted(expected)
    assert all(frame.payload == expected[frame.sequence] for frame in got)
    doubled = sum(map(len, order)) - len(datagrams)
    assert end.refused == ({"replayed": doubled} if doubled else {})
    assert end.shards == len(datagrams)
    assert [pipe.highest for pipe in end._pipes.all] == [47, 23, 35]
    report = decode_report(end.reporter.build(100.0))
    assert (report.received, report.total) == ([(0, 47)], 48)


@settings(deadline=None)
@given(orders(2 * SEGMENTS), st.integers(0, 2 * SEGMENTS - 1), st.integers(0, 150))
def test_a_changed_octet_costs_its_own_shard_alone(order: list[list[int]], which: int, octet: int) -> None:
    _, datagrams = shards(2)
    size = len(datagrams[0])
    changed = bytearray(datagrams[which])
    changed[octet % size] ^= 1
    datagrams[which] = bytes(changed)
    end = receiver()
    got = []
    for place, read in enumerate(order):
        data = b"".join(datagrams[number] for number in read)
        got += singles(end.receive([(data, size, None)], float(place))[0])
    assert sorted(frame.sequence for frame in got) == [place for place in range(2 * SEGMENTS) if place != which]
    assert end.shards == 2 * SEGMENTS - 1
    assert not end.window.holds(0, 2 * SEGMENTS)


def test_a_run_that_was_overtaken_is_reported_with_its_gap_closed() -> None:
    _, datagrams = shards(3)
    size = len(datagrams[0])
    reads = [b"".join(datagrams[first : first + SEGMENTS]) for first in (0, SEGMENTS, 2 * SEGMENTS)]
    end = receiver()
    end.receive([(reads[0], size, None)], 1.0)
    end.reporter.build(1.0)
    end.receive([(reads[2], size, None)], 2.0)
    assert decode_report(end.reporter.build(2.0)).received == [(24, 35), (0, 11)]
    end.receive([(reads[1], size, None)], 2.5)
    assert end.reporter.next_time() == 2.5
    report = decode_report(end.reporter.build(3.0))
    assert (report.received, report.highest, report.delay, report.total) == ([(0, 35)], 35, 1.0, 36)
