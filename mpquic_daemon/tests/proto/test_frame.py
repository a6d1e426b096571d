from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.packet.frame import (
    Frame,
    FrameError,
    FrameFlag,
    FrameStreamDecoder,
    Reassembler,
    SequenceCounter,
    decode_frames,
    encode_frames,
    expand_sequence,
    split,
)


@st.composite
def frames(draw: st.DrawFn, max_payload: int = 300) -> Frame:
    flags = draw(st.integers(0, 7))
    count = draw(st.integers(2, 255)) if flags & FrameFlag.FRAGMENT else 1
    return Frame(
        draw(st.binary(min_size=1, max_size=max_payload)),
        draw(st.integers(0, 255)),
        draw(st.integers(0, 2**32 - 1)),
        flags,
        draw(st.integers(1, 65535)) if flags & FrameFlag.SUPERFRAME else 0,
        draw(st.integers(0, count - 1)) if flags & FrameFlag.FRAGMENT else 0,
        count,
    )


@given(st.lists(frames(), min_size=1, max_size=8))
def test_frames_in_one_datagram_come_back_as_they_were(sent: list[Frame]) -> None:
    data = encode_frames(sent)
    assert decode_frames(data) == sent
    assert len(data) == sum(frame.size for frame in sent)


@given(st.lists(frames(), min_size=1, max_size=8), st.lists(st.integers(1, 400), min_size=1))
def test_a_stream_gives_the_same_frames_however_it_is_cut(sent: list[Frame], pieces: list[int]) -> None:
    data, decoder = encode_frames(sent), FrameStreamDecoder()
    got: list[Frame] = []
    sizes = itertools.cycle(pieces)
    while data:
        size = next(sizes)
        got += decoder.feed(data[:size])
        data = data[size:]
    assert got == sent
    assert decoder.buffered == 0


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_frames_or_a_frame_error(data: bytes) -> None:
    try:
        decoded = decode_frames(data)
    except FrameError as error:
        assert error.reason  # noqa: PT017
    else:
        assert encode_frames(decoded) == data


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_a_stream_decoder_holds_at_most_one_frame(chunks: list[bytes]) -> None:
    decoder = FrameStreamDecoder()
    for chunk in chunks:
        try:
            decoder.feed(chunk)
        except FrameError:
            with pytest.raises(FrameError):
                decoder.feed(b"")
            break
        assert decoder.buffered < 12 + 65535


def test_frames_before_a_fault_in_the_stream_are_delivered_and_nothing_after_it() -> None:
    decoder = FrameStreamDecoder()
    good = Frame(b"x", 1, 1)
    assert decoder.feed(good.encode() + b"\xff" * 20) == [good]
    with pytest.raises(FrameError, match="version"):
        decoder.feed(good.encode())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\x10\x01\x00", "truncated"),
        (b"\x20\x01\x00\x01\x00\x00\x00\x00x", "version"),
        (b"\x18\x01\x00\x01\x00\x00\x00\x00x", "flags"),
        (b"\x10\x01\x00\x00\x00\x00\x00\x00", "empty"),
        (b"\x10\x01\x00\x02\x00\x00\x00\x00x", "truncated"),
        (b"\x12\x01\x00\x01\x00\x00\x00\x00\x00\x00x", "gso_size"),
        (b"\x11\x01\x00\x01\x00\x00\x00\x00\x00\x01x", "fragment"),
        (b"\x11\x01\x00\x01\x00\x00\x00\x00\x02\x02x", "fragment"),
        (b"\x12\x01\x00\x01\x00\x00\x00\x00\x05", "truncated"),
    ],
)
def test_malformed_frames_are_named(data: bytes, reason: str) -> None:
    with pytest.raises(FrameError) as caught:
        decode_frames(data)
    assert caught.value.reason == reason


@given(st.integers(0, 2**64 - 1), st.integers(-(2**31) + 1, 2**31))
def test_sequence_numbers_expand_to_the_nearest(highest: int, distance: int) -> None:
    true = highest + 1 + distance
    if 0 <= true < 2**64:
        assert expand_sequence(true & 0xFFFFFFFF, highest) == true


def test_the_first_sequence_number_is_taken_as_it_is() -> None:
    assert expand_sequence(0, -1) == 0
    assert expand_sequence(5, -1) == 5


def test_sequence_numbers_are_handed_out_once() -> None:
    counter = SequenceCounter()
    assert [counter.take(), counter.take(3), counter.take()] == [0, 1, 4]


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
    with pytest.raises(FrameError, match="too many"):
        split(Frame(bytes(65535), 1, 1), 100)
    with pytest.raises(FrameError, match="too many"):
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
