"""Superframes for tests, as runs of segments, and what a kernel makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import strategies as st
from mpquic.proto.packet.assembler import FrameAssembler
from mpquic.proto.packet.frame import Frame, decode_frames
from mpquic.proto.packet.run import SegmentRun
from mpquic.proto.packet.segment import layout
from mpquic.proto.packet.superframe import cut, parse_vnet

from . import packets as make

if TYPE_CHECKING:
    from mpquic.proto.path.path import FrameOrRun

FLAGS = [
    make.ACK | push | fin | ece for push in (0, make.PSH) for fin in (0, make.FIN) for ece in (0, make.ECE)
]  # fmt: skip


@st.composite
def superframes(draw: st.DrawFn, max_segments: int = 8, max_gso: int = 160) -> bytes:
    """A read of the TUN of 2 segments or more: TCP or UDP in IPv4 or IPv6."""
    version, gso_size = draw(st.sampled_from([4, 6])), draw(st.integers(48, max_gso))
    segments = draw(st.integers(2, max_segments))
    size = (segments - 1) * gso_size + draw(st.integers(1, gso_size))
    data = bytes(place * 7 + place // 256 & 255 for place in range(size))
    fields: dict[str, object] = {}
    if version == 4:
        fields["identification"] = draw(st.integers(65530, 65535) | st.integers(0, 65535))
        fields["fragment"] = draw(st.sampled_from([0, 0x4000]))
        fields["tos"] = draw(st.integers(0, 255))
    else:
        fields["traffic_class"] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        return make.udp_superframe(version, data, gso_size, **fields)
    sequence = draw(st.integers(2**32 - 400, 2**32 - 1) | st.integers(0, 2**32 - 1))
    options = draw(st.sampled_from([b"", make.TIMESTAMPS]))
    return make.superframe(version, sequence, data, gso_size, draw(st.sampled_from(FLAGS)), options=options, **fields)


def run_of(read: bytes, sequence: int = 0, traffic_class: int = 1) -> SegmentRun:
    """A superframe as its sender hands it over."""
    packet = parse_vnet(read)
    head, payload = bytes(packet.payload[: packet.header_size]), packet.payload[packet.header_size :]
    return SegmentRun(
        head, layout(head), [payload], 0, packet.gso_size, 0, sequence, packet.segments, traffic_class
    )  # fmt: skip


def assembled(datagrams: list[bytes]) -> SegmentRun:
    """The one run that these frames make."""
    assembler = FrameAssembler(pytest.fail)
    for datagram in datagrams:
        assembler.add(datagram)
    [run] = assembler.take()
    assert isinstance(run, SegmentRun)
    return run


def singles(carried: list[FrameOrRun]) -> list[Frame]:
    """Runs and frames as frames of whole packets, with the low 32 bits of their numbers."""
    frames = [one for some in carried for one in (some.frames() if isinstance(some, SegmentRun) else [some])]
    for frame in frames:
        frame.sequence &= 0xFFFFFFFF
    return frames


def decoded(datagrams: list[bytes]) -> list[Frame]:
    """What each datagram says by itself."""
    return [frame for datagram in datagrams for frame in decode_frames(datagram)]


def kernel_segments(read: bytes | list[bytes]) -> list[bytes]:
    """The packets that a kernel would make of a superframe, without the checksum that it would complete."""
    whole = read if isinstance(read, bytes) else b"".join(read)
    return [without_checksum(packet) for packet in cut(parse_vnet(whole))]


def without_checksum(packet: bytes | memoryview) -> bytes:
    """A packet of TCP or UDP without its transport checksum."""
    transport, protocol = (20, packet[9]) if packet[0] >> 4 == 4 else (40, packet[6])
    at = transport + (16 if protocol == 6 else 6)
    return bytes(packet[:at]) + b"\0\0" + bytes(packet[at + 2 :])
