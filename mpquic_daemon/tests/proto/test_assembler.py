"""Datagrams in, runs and frames out: whatever came, and in whatever order, each segment counts as if it came alone."""

from __future__ import annotations

import struct
from itertools import groupby
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.packet.assembler import FrameAssembler
from mpquic.proto.packet.frame import Frame, FrameError, decode_frames, encode_frames
from mpquic.proto.packet.run import SegmentRun
from mpquic.proto.packet.superframe import parse_vnet

from . import packets as make
from .superframes import decoded, run_of, singles, superframes

if TYPE_CHECKING:
    from mpquic.proto.path.path import FrameOrRun


def assemble(datagrams: list[bytes]) -> tuple[list[FrameOrRun], dict[str, int]]:
    refused: dict[str, int] = {}

    def refuse(reason: str) -> None:
        refused[reason] = refused.get(reason, 0) + 1

    assembler = FrameAssembler(refuse)
    for datagram in datagrams:
        assembler.add(datagram)
    carried = assembler.take()
    assert assembler.take() == []
    return carried, refused


def assemble_by_reads(datagrams: list[bytes]) -> tuple[list[FrameOrRun], dict[str, int]]:
    """The same for datagrams that come as reads of equal sizes."""
    refused: dict[str, int] = {}

    def refuse(reason: str) -> None:
        refused[reason] = refused.get(reason, 0) + 1

    assembler = FrameAssembler(refuse)
    for size, read in groupby(datagrams, len):
        if size > 12:
            assembler.add_all([*read])
        else:
            for datagram in read:
                assembler.add(datagram)
    return assembler.take(), refused


def same(one: tuple[list[FrameOrRun], dict[str, int]], other: tuple[list[FrameOrRun], dict[str, int]]) -> bool:
    """Whether both are the same runs and frames, and the same was refused."""
    counts = [[run.count if isinstance(run, SegmentRun) else 0 for run in carried] for carried, _ in (one, other)]
    return singles(one[0]) == singles(other[0]) and counts[0] == counts[1] and one[1] == other[1]


def placed(body: bytes, sequence: int, offset: int, gso_size: int, traffic_class: int = 1) -> bytes:
    return struct.pack("!BBHIHH", 0x1C, traffic_class, len(body), sequence, offset, gso_size) + body


@given(superframes(), st.integers(0, 2**32), st.data())
def test_any_subset_in_any_order_is_what_each_says_by_itself(read: bytes, sequence: int, data: st.DataObject) -> None:
    frames = run_of(read, sequence).encode()
    chosen = data.draw(st.lists(st.sampled_from(frames), max_size=2 * len(frames)))
    carried, refused = assemble(chosen)
    assert same((carried, refused), assemble_by_reads(chosen))
    assert singles(carried) == decoded(chosen)
    assert refused == {}


@given(st.lists(superframes(max_segments=4), min_size=1, max_size=5), st.data())
def test_losses_leave_a_run_on_each_side(reads: list[bytes], data: st.DataObject) -> None:
    datagrams: list[bytes] = []
    for read in reads:
        datagrams += run_of(read, len(datagrams)).encode()
    kept = data.draw(st.lists(st.booleans(), min_size=len(datagrams), max_size=len(datagrams)))
    arrived = [datagram for datagram, keep in zip(datagrams, kept, strict=True) if keep]
    carried, refused = assemble(arrived)
    assert same((carried, refused), assemble_by_reads(arrived))
    assert singles(carried) == decoded(arrived)
    assert refused == {}
    gaps = sum(not keep for keep in kept)
    assert len(carried) <= len(reads) + gaps


@given(st.lists(superframes(max_segments=4) | st.integers(1, 300), min_size=1, max_size=8))
def test_superframes_and_other_packets_keep_their_order(pieces: list[bytes | int]) -> None:
    datagrams: list[bytes] = []
    number = 0
    for piece in pieces:
        if isinstance(piece, int):
            small = [
                Frame(make.udp(4, bytes(piece), partial=False), 1, number + place) for place in range(piece % 3 + 1)
            ]
            datagrams.append(encode_frames(small))
            number += len(small)
        else:
            run = run_of(piece, number)
            datagrams += run.encode()
            number += run.count
    carried, refused = assemble(datagrams)
    assert same((carried, refused), assemble_by_reads(datagrams))
    assert singles(carried) == decoded(datagrams)
    assert [frame.sequence for frame in singles(carried)] == list(range(number))
    assert sum(isinstance(one, SegmentRun) for one in carried) == sum(isinstance(one, bytes) for one in pieces)
    assert refused == {}


def test_a_run_goes_over_the_wrap_of_its_numbers_and_is_two() -> None:
    read = make.superframe(4, 2**32 - 150, bytes(600), 100)
    frames = run_of(read, 2**32 - 3).encode()
    carried, _ = assemble(frames)
    assert [(run.sequence, run.count) for run in carried if isinstance(run, SegmentRun)] == [(2**32 - 3, 3), (0, 3)]
    assert singles(carried) == decoded(frames)


def test_equal_superframes_of_one_flow_are_not_taken_for_one() -> None:
    reads = [make.superframe(4, at, bytes(400), 100) for at in (0, 400)]
    frames = [frame for place, read in enumerate(reads) for frame in run_of(read, 4 * place).encode()]
    carried, _ = assemble(frames)
    assert [one.count for one in carried if isinstance(one, SegmentRun)] == [4, 4]
    # The first end is lost, and the second begins with the number that was due.
    carried, _ = assemble([*frames[:2], frames[4][:4] + (2).to_bytes(4, "big") + frames[4][8:]])
    assert [one.count for one in carried if isinstance(one, SegmentRun)] == [2, 1]


TCP = bytes(parse_vnet(make.superframe(4, 1, bytes(2500), 1000)).payload)
HEAD = TCP[:52]


def full(sequence: int, offset: int) -> bytes:
    return placed(HEAD + bytes(1000), sequence, offset, 1000)


@pytest.mark.parametrize(
    "following",
    [
        placed(HEAD + bytes(1000), 1, 1000, 500),
        placed(HEAD + bytes(1000), 1, 1000, 999),
        placed(HEAD + bytes(1000), 1, 1000, 1001),
        placed(HEAD + bytes(1000), 1, 1000, 0),
        placed(HEAD + bytes(1500), 1, 1000, 1000),
        placed(HEAD + bytes(999), 1, 1000, 1000),
        placed(HEAD, 1, 1000, 1000),
        placed(HEAD[:40], 1, 1000, 1000),
        placed(b"", 1, 1000, 1000),
        placed(HEAD + bytes(1000), 1, 1500, 1000),
        placed(HEAD + bytes(500), 1, 1000, 1000),
    ],
    ids=lambda frame: f"{len(frame) - 64} at {frame[8:10].hex()} of {frame[10:12].hex()}",
)
def test_what_does_not_follow_is_refused_and_leaves_the_run_as_it_is(following: bytes) -> None:
    with pytest.raises(FrameError):
        decode_frames(following)
    carried, refused = assemble([full(0, 0), following])
    assert singles(carried) == decoded([full(0, 0)])
    assert sum(refused.values()) == 1


@pytest.mark.parametrize("size", [2, 8, 11, 12, 13, 40, 64, 65, 1063])
def test_a_segment_that_is_cut_off_is_refused_though_it_is_the_one_that_was_due(size: int) -> None:
    carried, refused = assemble([full(0, 0), full(1, 1000)[:size], full(1, 1000)])
    assert singles(carried) == decoded([full(0, 0), full(1, 1000)])
    assert sum(refused.values()) == 1


def test_other_frames_behind_a_segment_in_its_datagram_are_frames_and_no_payload() -> None:
    packet = Frame(make.udp(4, b"x", partial=False), 1, 2)
    datagrams = [full(0, 0), full(1, 1000) + packet.encode()]
    carried, refused = assemble(datagrams)
    assert singles(carried) == decoded(datagrams)
    assert singles(carried)[-1] == packet
    assert refused == {}


@pytest.mark.parametrize("more", [1, 2, 5])
def test_what_lies_behind_the_end_is_refused_and_the_rest_is_kept(more: int) -> None:
    frames = [full(number, 1000 * number) for number in range(2 + more)]
    carried, refused = assemble(frames)
    assert singles(carried) == decoded(frames[:2])
    assert refused == {"frame_segment_place": more}
    [run] = carried
    assert isinstance(run, SegmentRun)
    assert run.payload_size == 2000
    assert parse_vnet(b"".join(run.write())).segments == 2


@pytest.mark.parametrize("size", [0, 1, 500])
def test_an_end_that_comes_twice_is_taken_once(size: int) -> None:
    head = make.superframe(4, 1, bytes(2000 + size), 1000)[10:62]
    frames = [placed(head + bytes(1000), number, 1000 * number, 1000) for number in range(2)]
    tail = placed(head + bytes(size), 2, 2000, 1000)
    carried, refused = assemble([*frames, tail, placed(head + bytes(size), 3, 2000 + size, 1000)])
    assert singles(carried) == decoded([*frames, tail] if size else frames)
    assert sum(refused.values()) == (1 if size else 2)


def test_a_class_of_its_own_begins_a_run_of_its_own() -> None:
    carried, _ = assemble([full(0, 0), placed(HEAD + bytes(1000), 1, 1000, 1000, 2)])
    assert [(one.traffic_class, one.count) for one in carried if isinstance(one, SegmentRun)] == [(1, 1), (2, 1)]
    carried, _ = assemble([full(0, 0), full(1, 1000), placed(HEAD + bytes(500), 2, 2000, 1000, 2)])
    assert [(one.traffic_class, one.count) for one in carried if isinstance(one, SegmentRun)] == [(1, 2), (2, 1)]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 0, 0, 0, 1, -1]),
            st.sampled_from([0, 0, 0, 0, 100, -100, 50, -1]),
            st.sampled_from([100, 100, 100, 100, 50, 200, 47, 0]),
            st.sampled_from([100, 100, 100, 50, 99, 0, -10, 150, 250]),
        ),
        max_size=8,
    )
)
def test_places_that_a_peer_made_up_count_as_if_each_came_alone(steps: list[tuple[int, int, int, int]]) -> None:
    """The headers agree, as those of an honest peer do; nothing else needs to."""
    head = make.superframe(4, 7, bytes(350), 100)[10:62]
    datagrams = []
    sequence = offset = 0
    for skip, jump, gso_size, size in steps:
        sequence, offset = max(0, sequence + skip), max(0, offset + jump)
        datagrams.append(placed(head[: 52 + min(0, size)] + bytes(max(0, size)), sequence, offset, gso_size))
        sequence, offset = sequence + 1, offset + 100
    alone, wrong = [], 0
    for datagram in datagrams:
        try:
            alone += decode_frames(datagram)
        except FrameError:
            wrong += 1
    carried, refused = assemble(datagrams)
    assert same((carried, refused), assemble_by_reads(datagrams))
    assert singles(carried) == alone
    assert sum(refused.values()) == wrong
    for one in carried:
        if isinstance(one, SegmentRun):
            assert parse_vnet(b"".join(one.write())).segments == one.count


@given(st.lists(superframes(max_segments=3), min_size=1, max_size=3), st.data())
def test_spoilt_octets_never_raise_and_never_make_a_write_that_contradicts_itself(
    reads: list[bytes], data: st.DataObject
) -> None:
    datagrams: list[bytes] = []
    for read in reads:
        datagrams += run_of(read, len(datagrams)).encode()
    for _ in range(data.draw(st.integers(1, 6))):
        victim = data.draw(st.integers(0, len(datagrams) - 1))
        spoilt = bytearray(datagrams[victim])
        at = data.draw(st.integers(0, min(len(spoilt), 90) - 1))
        spoilt[at] = data.draw(st.integers(0, 255))
        datagrams[victim] = bytes(
            spoilt[: data.draw(st.integers(1, len(spoilt))) if data.draw(st.booleans()) else None]
        )
    carried, refused = assemble(datagrams)
    assert same((carried, refused), assemble_by_reads(datagrams))
    for one in carried:
        if isinstance(one, SegmentRun):
            assert parse_vnet(b"".join(one.write())).segments == one.count
            assert len(one.frames()) == one.count
