"""Superframes: cut into packets and put together again, or carried as a run of segments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mpquic.proto.packet import segment
from mpquic.proto.packet.assembler import FrameAssembler
from mpquic.proto.packet.coalescer import Coalescer, Write
from mpquic.proto.packet.frame import Frame, FrameFlag
from mpquic.proto.packet.run import SegmentRun
from mpquic.proto.packet.superframe import cut, parse_vnet

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

pytestmark = pytest.mark.benchmark(group="one superframe of 64 KiB")


def _run(superframe: bytes) -> SegmentRun:
    packet = parse_vnet(superframe)
    head = bytes(packet.payload[: packet.header_size])
    payload = bytes(packet.payload[packet.header_size :])
    return SegmentRun(head, segment.layout(head), [payload], 0, packet.gso_size, 0, 0, packet.segments, 1)


def test_parse(benchmark: BenchmarkFixture, superframe: bytes) -> None:
    """Validate what the TUN handed over."""
    assert benchmark(parse_vnet, superframe).gso_size


def test_cut(benchmark: BenchmarkFixture, superframe: bytes) -> None:
    """Make IP packets of it."""
    packet = parse_vnet(superframe)
    assert len(benchmark(cut, packet)) == packet.segments


def test_rebuild_from_packets(benchmark: BenchmarkFixture, superframe: bytes) -> None:
    """Make one TUN write of its packets."""
    packets = cut(parse_vnet(superframe))
    frames = [Frame(packet, 1, number, FrameFlag.CHECKSUM) for number, packet in enumerate(packets)]
    assert len(benchmark(lambda: Coalescer().rebuild(frames))) == 1


def test_encode_run(benchmark: BenchmarkFixture, superframe: bytes) -> None:
    """Make the bodies of datagrams of it, as a run."""
    run = _run(superframe)
    assert len(benchmark(run.encode)) == run.count


def test_rebuild_from_run(benchmark: BenchmarkFixture, superframe: bytes) -> None:
    """Make one TUN write of the bodies of a run."""
    bodies = _run(superframe).encode()

    def rebuild() -> list[Write]:
        assembler = FrameAssembler(pytest.fail)
        for body in bodies:
            assembler.add(body)
        return Coalescer().rebuild(assembler.take())

    assert len(benchmark(rebuild)) == 1
