"""One segment by itself: what the receiver derives is what the sending kernel would have sent."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.packet import ip, segment, vnet
from mpquic.proto.packet.assembler import FrameAssembler
from mpquic.proto.packet.frame import FrameError, FrameFlag, decode_frames
from mpquic.proto.packet.run import SEGMENT_HEADER
from mpquic.proto.packet.superframe import cut, parse_vnet

from . import packets as make
from .superframes import kernel_segments, run_of, superframes, without_checksum

SEGMENT = 0x1C


def encoded(body: bytes, offset: int, gso_size: int, first: int = SEGMENT) -> bytes:
    return struct.pack("!BBHIHH", first, 1, len(body), 7, offset, gso_size) + body


def mangled(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes([value]) + data[at + 1 :]


@given(superframes(), st.integers(0, 2**40), st.randoms(use_true_random=False))
def test_any_segments_in_any_order_are_the_packets_that_the_kernel_would_have_sent(
    read: bytes, sequence: int, rng: object
) -> None:
    expected = [*enumerate(kernel_segments(read))]
    frames = run_of(read, sequence).encode()
    rng.shuffle(expected)  # type: ignore[attr-defined]
    for place, packet in expected[: 1 + len(expected) // 2]:
        [frame] = decode_frames(frames[place])
        assert without_checksum(frame.payload) == packet
        assert frame.sequence == sequence + place & 0xFFFFFFFF
        assert (frame.traffic_class, frame.flags) == (1, FrameFlag.CHECKSUM)


@given(superframes())
def test_the_derived_packet_is_right_in_itself(read: bytes) -> None:
    for frame in run_of(read).encode():
        packet = bytes(decode_frames(frame)[0].payload)
        ip.check(packet)
        transport, protocol = (20, packet[9]) if packet[0] >> 4 == 4 else (40, packet[6])
        if transport == 20:
            assert make.words_sum(packet[:20]) == 0xFFFF
        at = transport + (16 if protocol == 6 else 6)
        assert struct.unpack_from("!H", packet, at)[0] == make.pseudo_sum(packet, protocol, len(packet) - transport)
        if protocol == 17:
            assert struct.unpack_from("!H", packet, transport + 4)[0] == len(packet) - transport


@pytest.mark.parametrize("gso_size", [48, 1348, 8948, 32000])
def test_a_superframe_of_full_size_is_no_exception(gso_size: int) -> None:
    for read in (
        make.superframe(4, 2**32 - 30000, bytes(65535 - 52), gso_size, identification=65500),
        make.superframe(6, 2**32 - 30000, bytes(65535 - 72), gso_size),
        make.udp_superframe(4, bytes(65535 - 28), gso_size),
    ):
        frames = run_of(read).encode()
        packets = [without_checksum(decode_frames(frame)[0].payload) for frame in frames]
        assert packets == kernel_segments(read)


def test_several_segments_in_one_datagram_are_decoded_like_any_frames() -> None:
    read = make.superframe(4, 1, bytes(300), 100)
    assert [without_checksum(f.payload) for f in decode_frames(b"".join(run_of(read).encode()))] == kernel_segments(
        read
    )


TCP = bytes(parse_vnet(make.superframe(4, 1, bytes(3000), 1000)).payload)
TCP6 = bytes(parse_vnet(make.superframe(6, 1, bytes(3000), 1000)).payload)
UDP = bytes(parse_vnet(make.udp_superframe(4, bytes(3000), 1000)).payload)


@pytest.mark.parametrize(
    ("head", "header", "reason"),
    [
        (mangled(TCP, 6, 0x20), 52, "segment_of_a_fragment"),
        (mangled(TCP, 6, 0x60), 52, "segment_of_a_fragment"),
        (mangled(TCP, 7, 1), 52, "segment_of_a_fragment"),
        (make.ipv4(6, make.tcp_header(1, make.ACK) + bytes(3000), options=b"\1\1\1\0"), 56, "segment_header"),
        (make.ipv6(60, b"\6\0\1\4\0\0\0\0" + make.tcp_header(1, make.ACK) + bytes(3000)), 80, "segment_protocol"),
        (make.ipv6(44, b"\6\0\0\1\0\0\0\0" + make.tcp_header(1, make.ACK) + bytes(3000)), 80, "segment_protocol"),
        (make.ipv4(1, bytes(3008)), 28, "segment_protocol"),
        (make.ipv6(58, bytes(3008)), 48, "segment_protocol"),
        (mangled(TCP, 0, 0x55), 52, "segment_header"),
        (mangled(TCP, 0, 0x44), 52, "segment_header"),
        (mangled(TCP, 32, 0x40), 52, "segment_header"),
        (mangled(TCP, 32, 0x81), 52, "segment_header"),
        (mangled(TCP6, 52, 0x40), 72, "segment_header"),
        *(
            (mangled(TCP, 33, make.ACK | flag), 52, "segment_header")
            for flag in (make.SYN, 0x04, 0x20, make.CWR, make.SYN | make.PSH)
        ),
        (mangled(mangled(TCP, 2, 0), 3, 52), 52, "segment_length"),
        (mangled(mangled(TCP, 2, 0), 3, 20), 52, "segment_length"),
        (mangled(mangled(UDP, 2, 0), 3, 28), 28, "segment_length"),
    ],
)
def test_headers_that_no_segment_has_are_refused_and_counted(head: bytes, header: int, reason: str) -> None:
    frame = encoded(head[: header + 1000], 0, 1000)
    with pytest.raises(FrameError) as caught:
        decode_frames(frame)
    assert caught.value.reason == reason
    assert refused_by_an_assembler([frame]) == {f"frame_{reason}": 1}


@pytest.mark.parametrize(
    ("offset", "gso_size", "size"),
    [
        (0, 1000, 999),
        (0, 1000, 1001),
        (0, 1000, 3000),
        (2000, 1000, 999),
        (1, 1000, 1000),
        (1500, 1000, 1000),
        (3000, 1000, 1000),
        (3000, 1000, 1),
        (4000, 1000, 1000),
        (65000, 1000, 1000),
        (0, 47, 47),
        (0, 1, 1),
        (0, 0, 1000),
        (0, 0, 3000),
    ],
)
def test_a_slice_out_of_its_place_is_refused_and_counted(offset: int, gso_size: int, size: int) -> None:
    for head, header in ((TCP, 52), (UDP, 28)):
        frame = encoded(head[:header] + bytes(size), offset, gso_size)
        with pytest.raises(FrameError, match="segment_place"):
            decode_frames(frame)
        assert refused_by_an_assembler([frame]) == {"frame_segment_place": 1}


@pytest.mark.parametrize("size", [*range(54), 71, 72])
def test_a_segment_that_ends_in_its_headers_is_refused(size: int) -> None:
    body = (TCP6 if size > 60 else TCP)[:size]
    frame = encoded(body, 0, 1000)
    with pytest.raises(FrameError):
        decode_frames(frame)
    refused = refused_by_an_assembler([frame])
    assert sum(refused.values()) == 1


@given(superframes(), st.integers(0, 400))
def test_a_truncated_frame_is_refused_and_counted(read: bytes, left: int) -> None:
    frame = run_of(read).encode()[0]
    part = frame[: min(left, len(frame) - 1)]
    with pytest.raises(FrameError):
        decode_frames(part)
    assert sum(refused_by_an_assembler([part]).values()) == 1


@pytest.mark.parametrize("flags", [8, 9, 10, 11, 13, 14, 15])
def test_segment_goes_with_checksum_and_nothing_else(flags: int) -> None:
    frame = encoded(TCP[:1052], 0, 1000, 0x10 | flags)
    with pytest.raises(FrameError, match="flags"):
        decode_frames(frame)
    assert refused_by_an_assembler([frame]) == {"frame_flags": 1}


@given(st.binary(max_size=120), st.integers(0, 65535), st.integers(0, 65535))
def test_arbitrary_octets_are_a_segment_or_refused(body: bytes, offset: int, gso_size: int) -> None:
    frame = SEGMENT_HEADER.pack(SEGMENT, 1, len(body), 7, offset, gso_size) + body
    try:
        [made] = decode_frames(frame)
    except FrameError as error:
        assert error.reason  # noqa: PT017
        assert sum(refused_by_an_assembler([frame]).values()) == 1
    else:
        ip.check(made.payload)
        assert refused_by_an_assembler([frame]) == {}


def refused_by_an_assembler(datagrams: list[bytes]) -> dict[str, int]:
    refused: dict[str, int] = {}

    def refuse(reason: str) -> None:
        refused[reason] = refused.get(reason, 0) + 1

    assembler = FrameAssembler(refuse)
    for datagram in datagrams:
        assembler.add(datagram)
    assembler.take()
    return refused


def test_the_virtio_header_says_whether_there_is_something_to_cut() -> None:
    tcp, udp = segment.layout(TCP), segment.layout(UDP)
    assert segment.virtio_header(tcp, segment=1000, several=False) == vnet.checksum_header(20, 16)
    assert segment.virtio_header(udp, segment=1000, several=False) == vnet.checksum_header(20, 6)
    several = vnet.VNET_HDR.unpack(segment.virtio_header(segment.layout(TCP6), segment=1000, several=True))
    assert several == (vnet.F_NEEDS_CSUM, vnet.GSO_TCPV6, 72, 1000, 40, 16)
    assert len(cut(parse_vnet(segment.virtio_header(udp, segment=1000, several=True) + UDP))) == 3
