"""A striped session from end to end in memory: shards out and in, and the reports that tell of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from mpquic.proto.packet.frame import Frame
from mpquic.proto.stripe.config import StripeConfig
from mpquic.proto.stripe.session import StripeSession

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

pytestmark = pytest.mark.benchmark(group="striped session, four pipes")
SECRET = bytes(range(32))
PIPES = 4
STEP = 0.001
DELAY = 0.0005


class Pair:
    """Two ends; each `carry` takes a millisecond of virtual time."""

    def __init__(self) -> None:
        config = StripeConfig(pipes=PIPES)
        self.now = 100.0
        self.client, self.server = (
            StripeSession(config, 1, SECRET, self.now, client=client, entropy=os.urandom) for client in (True, False)
        )
        self.sequence = 0
        for _ in range(2000):
            # Until the controller grants what a round sends.
            self.carry(16, 1380)

    def _move(self, source: StripeSession, target: StripeSession) -> None:
        batch = [
            (b"".join(datagrams), len(datagrams[0]), None if target.client else ("192.0.2.1", 40000 + pipe))
            for pipe, _, datagrams in source.take_outgoing()
        ]
        if batch:
            target.receive(batch, self.now)

    def carry(self, count: int, size: int) -> int:
        """Send frames from the client to the server, and what the server has to say of them; return how many went."""
        frames = [Frame(b"\x45" * size, 1, self.sequence + place) for place in range(count)]
        self.sequence += count
        taken = self.client.send(frames, self.now)
        self.now += DELAY
        self._move(self.client, self.server)
        self.server.poll(self.now)
        self.now += DELAY
        self._move(self.server, self.client)
        self.client.poll(self.now)
        self.now += STEP
        return taken


@pytest.mark.parametrize(("count", "size"), [(47, 1380), (1, 120)], ids=["full", "single"])
def test_carry(benchmark: BenchmarkFixture, count: int, size: int) -> None:
    """Carry 47 full frames, or one small one, with the share of reports that goes with it."""
    pair = Pair()
    assert benchmark.pedantic(pair.carry, (count, size), rounds=3000, warmup_rounds=200) == count
    assert pair.server.receiver.shards >= 3000
