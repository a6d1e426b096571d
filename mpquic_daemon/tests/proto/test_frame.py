from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.packet.frame import (
    Frame,
    FrameError,
    FrameStreamDecoder,
    SequenceCounter,
    decode_frames,
    encode_frames,
    expand_sequence,
)

from .frame_strategies import frames


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
