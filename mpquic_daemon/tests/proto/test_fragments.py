from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.packet.frame import Frame, FrameError, FrameFlag
from mpquic.proto.tunnel.fragments import Reassembler, split

from .frame_strategies import frames


@given(
    frames(max_payload=4000).filter(lambda frame: not frame.flags & FrameFlag.FRAGMENT),
    st.integers(40, 1500),
    st.randoms(),
)
def test_fragments_fit_and_reassemble_in_any_order_with_duplicates(frame: Frame, capacity: int, random: object) -> None:
    pieces = split(frame, capacity)
    assert all(piece.size <= capacity for piece in pieces)
    assert {piece.sequence for piece in pieces} == {frame.sequence}
    arriving = pieces[:-1] * 2
    random.shuffle(arriving)  # type: ignore[attr-defined]
    reassembler = Reassembler()
    for piece in arriving:
        assert reassembler.add(piece, 0.0) is None or len(pieces) == 1
    assert reassembler.add(pieces[-1], 0.0) == frame
    assert len(reassembler) == 0
    assert reassembler.memory == 0
    assert reassembler.duplicates == len(pieces) - 1


def test_a_frame_that_fits_is_not_fragmented() -> None:
    frame = Frame(bytes(100), 1, 1)
    assert split(frame, 108) == [frame]
    assert len(split(frame, 107)) == 2


def test_what_would_need_more_than_255_fragments_is_refused() -> None:
    with pytest.raises(FrameError, match="too_many_fragments"):
        split(Frame(bytes(65535), 1, 1), 100)
    with pytest.raises(FrameError, match="too_many_fragments"):
        split(Frame(bytes(65535), 1, 1), 5)


def test_an_incomplete_packet_is_given_up_after_its_time() -> None:
    reassembler = Reassembler(timeout=1.0)
    first, second = split(Frame(bytes(1000), 1, 5), 600)
    assert reassembler.add(first, 10.0) is None
    assert reassembler.add(second, 11.0) is None
    assert (reassembler.expired, len(reassembler)) == (1, 1)
    assert reassembler.add(first, 11.5) == Frame(bytes(1000), 1, 5)


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(2, 255), st.integers(0, 254), st.integers(1, 2000)), max_size=200
    )
)
def test_memory_for_fragments_is_bounded_whatever_arrives(arrivals: list[tuple[int, int, int, int]]) -> None:
    limit = 8192
    reassembler = Reassembler(max_bytes=limit)
    for sequence, count, index, size in arrivals:
        reassembler.add(Frame(bytes(size), 1, sequence, FrameFlag.FRAGMENT, 0, index % count, count), 0.0)
        assert reassembler.memory <= limit
        held = sum(len(piece) for part in reassembler._partials.values() for piece in part.pieces if piece is not None)
        assert held <= reassembler.memory


def test_fragments_that_add_up_to_more_than_a_packet_are_dropped() -> None:
    reassembler = Reassembler()
    reassembler.add(Frame(bytes(65000), 1, 1, FrameFlag.FRAGMENT, 0, 0, 3), 0.0)
    assert reassembler.add(Frame(bytes(65000), 1, 1, FrameFlag.FRAGMENT, 0, 1, 3), 0.0) is None
    assert (reassembler.oversized, reassembler.memory) == (1, 0)


def test_a_packet_split_again_for_another_path_does_not_mix_with_its_first_copy() -> None:
    frame, reassembler = Frame(bytes(range(200)) * 10, 1, 9), Reassembler()
    wide, narrow = split(frame, 1500), split(frame, 700)
    assert reassembler.add(wide[0], 0.0) is None
    assert [reassembler.add(piece, 0.0) for piece in narrow][-1] == frame
