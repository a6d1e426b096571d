"""Forward error correction: a group of ten data shards and two parity shards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mpquic.proto.packet.frame import Frame
from mpquic.proto.stripe.fec import GroupDecoder, parity

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

pytestmark = pytest.mark.benchmark(group="FEC, a group of 10 + 2")
DATA, PARITY = 10, 2


@pytest.fixture
def group() -> list[bytes]:
    """Bodies with a frame each: a repaired shard is trimmed to its frames."""
    return [Frame(bytes([number]) * 1400, 1, number).encode() for number in range(DATA)]


def test_encode(benchmark: BenchmarkFixture, group: list[bytes]) -> None:
    """Compute the parity."""
    assert len(benchmark(parity, group, PARITY)) == PARITY


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_collect(benchmark: BenchmarkFixture, group: list[bytes], lost: int) -> None:
    """Take what arrived, and give back what didn't."""
    extra = parity(group, PARITY)

    def collect() -> list[tuple[int, bytes]]:
        decoder = GroupDecoder()
        repaired: list[tuple[int, bytes]] = []
        for index in range(lost, DATA):
            repaired += decoder.add_data(0, index, group[index], 0.0)[1]
        for number, body in enumerate(extra):
            repaired += decoder.add_parity(0, DATA + number, DATA, body, 0.0)
        return repaired

    assert benchmark(collect) == [(index, group[index]) for index in range(lost)]
