import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpqlab.emulator import frame
from mpqlab.emulator.frame import Frame, FrameError

from .packets import PLAIN, VNET, header_sum, tcp_superframe, transport_sum, udp
from .patience import PATIENT

superframes = st.builds(
    tcp_superframe,
    st.binary(min_size=1, max_size=4000),
    st.integers(1, 900),
    v6=st.booleans(),
    options=st.sampled_from([0, 12, 40]),
    flags=st.sampled_from([0x10, 0x18, 0x19, 0x90]),
)


def header_size(data: bytes) -> int:
    start = 20 if data[10] >> 4 == 4 else 40
    return start + (data[10 + start + 12] >> 4) * 4


@PATIENT
@given(superframes)
def test_packets_of_a_superframe_are_right_and_hold_its_bytes_in_order(data: bytes) -> None:
    whole = frame.parse(data)
    head = header_size(data)
    start = head - (data[10 + (20 if data[10] >> 4 == 4 else 40) + 12] >> 4) * 4
    packets = frame.cut(whole, 1)
    assert len(packets) == whole.segments
    assert sum(packet.size for packet in packets) == whole.size
    assert max(packet.size for packet in packets) == whole.packet_size
    offset = 0
    for index, part in enumerate(packets):
        packet = frame.complete_checksum(part).data[10:]
        assert transport_sum(packet) == 0xFFFF
        if packet[0] >> 4 == 4:
            assert header_sum(packet) == 0xFFFF
            assert int.from_bytes(packet[2:4], "big") == len(packet)
            assert int.from_bytes(packet[4:6], "big") == (0xFFFE + index) & 0xFFFF
        else:
            assert int.from_bytes(packet[4:6], "big") == len(packet) - 40
        assert int.from_bytes(packet[start + 4 : start + 8], "big") == (0xFFFFFF00 + offset) & 0xFFFFFFFF
        is_last = index == len(packets) - 1
        flags, original = packet[start + 13], data[10 + start + 13]
        assert flags & 0x09 == (original & 0x09 if is_last else 0)
        assert flags & 0x80 == (original & 0x80 if index == 0 else 0)
        assert packet[head:] == data[10 + head + offset : 10 + head + offset + len(packet) - head]
        offset += len(packet) - head
    assert offset == len(data) - 10 - head


@PATIENT
@given(superframes, st.integers(1, 50))
def test_cutting_in_two_steps_gives_the_same_packets(data: bytes, most: int) -> None:
    whole = frame.parse(data)
    parts = frame.cut(whole, most)
    assert all(part.segments <= most for part in parts)
    assert sum(part.segments for part in parts) == whole.segments
    assert sum(part.size for part in parts) == whole.size
    # What the parts say of themselves is what a reader of their bytes finds.
    for part in parts:
        again = frame.parse(part.data)
        assert (again.size, again.segments, again.packet_size) == (part.size, part.segments, part.packet_size)
    twice = [packet.data for part in parts for packet in frame.cut(part, 1)]
    assert twice == [packet.data for packet in frame.cut(whole, 1)]


def test_a_superframe_that_fits_is_carried_unchanged() -> None:
    whole = frame.parse(tcp_superframe(bytes(3000), 1000))
    assert frame.cut(whole, 3) == [whole]


@PATIENT
@given(st.integers(29, 200), st.booleans())
def test_a_complete_packet_keeps_its_checksum(size: int, v6: bool) -> None:
    packet = udp(size + 20 * v6, v6=v6)
    assert frame.complete_checksum(frame.parse(PLAIN + packet)).data == PLAIN + packet


def test_wire_bytes_count_the_headers_of_every_segment() -> None:
    whole = frame.parse(tcp_superframe(bytes(2500), 1000))
    assert (whole.segments, whole.size, whole.packet_size) == (3, 2500 + 3 * 52, 1052)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PLAIN + bytes(19),
        PLAIN + bytes(60),
        PLAIN + b"\x4f" + bytes(30),
        PLAIN + b"\x60" + bytes(38),
        VNET.pack(1, 0, 0, 0, 60000, 16) + udp(100),
        VNET.pack(1, 1, 40, 0, 20, 16) + udp(100),
        VNET.pack(1, 4, 40, 10, 20, 16) + udp(100),
        VNET.pack(0, 1, 40, 10, 20, 16) + udp(100),
        VNET.pack(1, 3, 40, 10, 20, 6) + udp(100),
        VNET.pack(1, 1, 40, 10, 90, 16) + udp(100),
    ],
)
def test_what_the_kernel_would_not_give_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        frame.parse(data)


@PATIENT
@given(st.binary(max_size=200), st.binary(min_size=0, max_size=10))
def test_no_bytes_break_the_parser(body: bytes, vnet: bytes) -> None:
    data = vnet.ljust(10, b"\0") + body
    try:
        parsed = frame.parse(data)
    except FrameError:
        return
    assert isinstance(parsed, Frame)
    assert sum(packet.size for packet in frame.cut(parsed, 1)) == parsed.size
    assert frame.flow_key(parsed)
    for packet in frame.cut(parsed, 1):
        assert frame.complete_checksum(packet).size == packet.size


def test_flows_differ_by_port_and_fragments_have_none() -> None:
    def key(packet: bytes) -> bytes:
        return frame.flow_key(frame.parse(PLAIN + packet))

    assert key(udp(100, ports=(1, 2))) == key(udp(200, ports=(1, 2)))
    assert key(udp(100, ports=(1, 2))) != key(udp(100, ports=(1, 3)))
    assert key(udp(100, ports=(1, 2), v6=True)) != key(udp(100, ports=(2, 2), v6=True))
    later = bytearray(udp(100, ports=(1, 2)))
    struct.pack_into("!H", later, 6, 10)
    other = bytearray(udp(100, ports=(3, 4)))
    struct.pack_into("!H", other, 6, 0x2000)
    assert key(bytes(later)) == key(bytes(other))
