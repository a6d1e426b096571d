"""Runs: from a superframe to frames, and from frames to one write."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.packet import vnet
from mpquic.proto.packet.run import SEGMENT_HEADER, SegmentRun, joined
from mpquic.proto.packet.superframe import Coalescer, parse_vnet

from . import packets as make
from .superframes import assembled, decoded, kernel_segments, run_of, singles, superframes


@given(superframes(), st.integers(2**32 - 5, 2**32 + 5) | st.integers(0, 2**64 - 100), st.integers(0, 255))
def test_a_run_knows_its_sizes_and_its_frames(read: bytes, sequence: int, traffic_class: int) -> None:
    run = run_of(read, sequence, traffic_class)
    frames = run.encode()
    assert len(frames) == run.count == len(kernel_segments(read))
    assert sum(map(len, frames)) == run.size
    assert max(map(len, frames)) == run.largest_frame
    fields = [SEGMENT_HEADER.unpack_from(frame) for frame in frames]
    assert [values[1:3] for values in fields] == [(traffic_class, len(frame) - 12) for frame in frames]
    assert [values[3] for values in fields] == [sequence + place & 0xFFFFFFFF for place in range(run.count)]
    assert [values[4:] for values in fields] == [(place * run.gso_size, run.gso_size) for place in range(run.count)]


@given(superframes(), st.integers(2**32 - 5, 2**32) | st.integers(0, 2**32))
def test_its_frames_one_by_one_are_what_a_receiver_decodes(read: bytes, sequence: int) -> None:
    run = run_of(read, sequence)
    frames = run.frames()
    assert [frame.sequence for frame in frames] == [sequence + place for place in range(run.count)]
    assert singles([*frames]) == decoded(run.encode())


@given(superframes(), st.integers(0, 2**32 - 20))
def test_a_complete_run_is_the_very_write_that_was_read(read: bytes, sequence: int) -> None:
    run = assembled(run_of(read, sequence).encode())
    assert (run.sequence, run.offset) == (sequence, 0)
    assert run.payload_size == run.layout.payload
    assert b"".join(run.write()) == read


@pytest.mark.parametrize("version", [4, 6])
def test_a_run_of_full_size_is_the_very_write_that_was_read(version: int) -> None:
    header = {4: 52, 6: 72}[version]
    read = make.superframe(version, 2**32 - 5, bytes(range(251)) * 260 + bytes(65535 - header - 65260), 1348)
    assert b"".join(assembled(run_of(read).encode()).write()) == read


@given(superframes(), st.data())
def test_a_run_that_is_cut_off_at_both_ends_is_a_write_of_what_is_left(read: bytes, data: st.DataObject) -> None:
    whole = run_of(read, 1000)
    first = data.draw(st.integers(0, whole.count - 1))
    last = data.draw(st.integers(first, whole.count - 1))
    run = assembled(whole.encode()[first : last + 1])
    assert (run.count, run.sequence, run.offset) == (last - first + 1, 1000 + first, first * run.gso_size)
    write = b"".join(run.write())
    assert kernel_segments(write) == kernel_segments(read)[first : last + 1]
    assert singles([run]) == decoded(whole.encode()[first : last + 1])
    gso_type = vnet.VNET_HDR.unpack_from(write)[1]
    assert (gso_type == vnet.GSO_NONE) is (run.count == 1)
    assert parse_vnet(write).segments == run.count


def test_a_run_of_more_segments_than_one_write_has_buffers_is_one_write_all_the_same() -> None:
    read = make.superframe(4, 1, bytes(range(256)) * 250, 48)
    [write] = Coalescer().rebuild([assembled(run_of(read).encode())])
    assert len(write) <= 1024  # IOV_MAX
    assert b"".join(write) == read


def test_a_udp_run_of_more_segments_than_a_kernel_takes_is_written_packet_by_packet() -> None:
    reads = [make.udp_superframe(6, bytes(range(100)) * count, 100) for count in (64, 65)]
    small, large = (Coalescer().rebuild([assembled(run_of(read).encode())]) for read in reads)
    assert [b"".join(write) for write in small] == [reads[0]]
    assert [b"".join(write)[10:] for write in large] == [bytes(frame.payload) for frame in run_of(reads[1]).frames()]
    assert {vnet.VNET_HDR.unpack_from(write[0])[1] for write in large} == {vnet.GSO_NONE}


def test_runs_keep_their_place_among_the_segments_of_their_connection() -> None:
    coalescer = Coalescer()
    before = run_of(make.superframe(4, 0, bytes(300), 100)).frames()
    between = assembled(run_of(make.superframe(4, 300, bytes(300), 100)).encode())
    after = run_of(make.superframe(4, 600, bytes(300), 100)).frames()
    writes = [b"".join(write) for write in coalescer.rebuild([*before, between, *after])]
    assert writes == [make.superframe(4, at, bytes(300), 100) for at in (0, 300, 600)]
    assert coalescer.coalesced == 6


def cut_run(run: SegmentRun, cuts: list[int]) -> list[SegmentRun]:
    """The runs that one makes that is cut before these segments."""
    made = []
    for first, stop in pairwise([0, *sorted(cuts), run.count]):
        if first < stop:
            offset = run.offset + first * run.gso_size
            made.append(
                SegmentRun(
                    run.head, run.layout, run.parts[first:stop], run.skip, run.gso_size, offset,
                    run.sequence + first, stop - first, run.traffic_class,
                )
            )  # fmt: skip
    return made


@given(st.lists(superframes(), min_size=1, max_size=4), st.integers(0, 2**32 - 40), st.data())
def test_parts_of_superframes_join_again_and_what_came_in_stays_as_it_was(
    reads: list[bytes], sequence: int, data: st.DataObject
) -> None:
    parts: list[SegmentRun] = []
    for read in reads:
        run = assembled(run_of(read, sequence).encode())
        parts += cut_run(run, data.draw(st.lists(st.integers(1, run.count), max_size=4)))
        sequence += run.count
    counts = [(part.count, len(part.parts)) for part in parts]
    found = joined(parts)
    assert [b"".join(run.write()) for run in found if isinstance(run, SegmentRun)] == reads
    assert singles([*found]) == singles([*parts])
    assert [(part.count, len(part.parts)) for part in parts] == counts


def test_neither_a_gap_nor_a_frame_between_is_joined() -> None:
    read = make.superframe(4, 5, bytes(600), 100)
    parts = cut_run(assembled(run_of(read).encode()), [2, 3])
    assert joined([parts[0], parts[2]]) == [parts[0], parts[2]]
    assert joined([parts[1], parts[0]]) == [parts[1], parts[0]]
    frame = parts[1].frames()[0]
    assert joined([parts[0], frame, parts[2]]) == [parts[0], frame, parts[2]]
    other = cut_run(assembled(run_of(make.superframe(4, 5, bytes(600), 100, make.ACK | make.PSH)).encode()), [2])[1]
    assert joined([parts[0], other]) == [parts[0], other]
