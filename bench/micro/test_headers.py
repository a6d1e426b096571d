"""Headers: the tunnel's frames and the stripe's packets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mpquic.proto.packet.frame import Frame, decode_frames, encode_frames
from mpquic.proto.stripe.wire import TAG_SIZE, Header, PacketType, decode_header

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

pytestmark = pytest.mark.benchmark(group="headers")
HEADER = Header(PacketType.DATA, 0x5EC0DE01, 12345, 3, 1, 4, 10, TAG_SIZE + 1420)


def test_encode_frame(benchmark: BenchmarkFixture, bodies: list[bytes]) -> None:
    """Encode one frame of a full packet."""
    frame = Frame(bodies[0], 1, 12345)
    assert benchmark(frame.encode)


def test_decode_frame(benchmark: BenchmarkFixture, bodies: list[bytes]) -> None:
    """Decode a datagram with one frame."""
    encoded = Frame(bodies[0], 1, 12345).encode()
    assert len(benchmark(decode_frames, encoded)) == 1


def test_encode_small_frames(benchmark: BenchmarkFixture) -> None:
    """Encode ten frames of 120 octets back to back."""
    frames = [Frame(bytes([0x45]) * 120, 1, number) for number in range(10)]
    assert benchmark(encode_frames, frames)


def test_decode_small_frames(benchmark: BenchmarkFixture) -> None:
    """Decode a datagram with ten frames of 120 octets."""
    encoded = encode_frames(Frame(bytes([0x45]) * 120, 1, number) for number in range(10))
    assert len(benchmark(decode_frames, encoded)) == 10


def test_encode_stripe_header(benchmark: BenchmarkFixture) -> None:
    """Encode one header."""
    assert len(benchmark(HEADER.encode)) == 16


def test_decode_stripe_header(benchmark: BenchmarkFixture) -> None:
    """Decode and check the header of one datagram."""
    datagram = HEADER.encode() + bytes(HEADER.length)
    assert benchmark(decode_header, datagram).number == HEADER.number
