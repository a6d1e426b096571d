"""AEAD: sealing and opening a batch of full shards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mpquic.proto.stripe.keys import Opener, Sealer, Suite, direction_secret
from mpquic.proto.stripe.wire import HEADER_SIZE, PacketType

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

pytestmark = [
    pytest.mark.benchmark(group="AEAD, 40 shards of 1420 octets"),
    pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.name),
]
SECRET = direction_secret(bytes(range(32)), from_client=True)


def test_seal(benchmark: BenchmarkFixture, suite: Suite, bodies: list[bytes]) -> None:
    """Number and seal them."""
    sealer = Sealer(suite, SECRET, 0x5EC0DE01, 0.0)
    assert len(benchmark(sealer.seal_shards, PacketType.DATA, 0, 0, 0, bodies)) == len(bodies)


def test_open(benchmark: BenchmarkFixture, suite: Suite, bodies: list[bytes]) -> None:
    """Find the key once and open them."""
    datagrams = Sealer(suite, SECRET, 0x5EC0DE01, 0.0).seal_shards(PacketType.DATA, 0, 0, 0, bodies)
    opener = Opener(suite, SECRET)

    def unseal() -> list[bytes]:
        key = opener.key_for(0, 0.0)
        assert key is not None
        decrypt, iv = key.aead.decrypt, key.iv
        return [
            decrypt((iv ^ number).to_bytes(12, "big"), datagram[HEADER_SIZE:], datagram[:HEADER_SIZE])
            for number, datagram in enumerate(datagrams)
        ]

    assert benchmark(unseal) == bodies
