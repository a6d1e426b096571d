import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpqlab.emulator import icmp

from .packets import header_sum, ones_sum, transport_sum, udp
from .patience import PATIENT


def test_ipv4_message_names_the_mtu_and_quotes_the_packet() -> None:
    packet = udp(1400)
    message = icmp.too_big(packet, 1300)
    assert message is not None
    assert header_sum(message) == 0xFFFF
    assert ones_sum(message[20:]) == 0xFFFF
    assert message[12:16] == bytes((192, 0, 0, 8))
    assert message[16:20] == packet[12:16]
    assert struct.unpack("!BBHHH", message[20:28])[::4] == (3, 1300)
    assert message[21] == 4
    assert message[28:] == packet[: 576 - 28]
    assert int.from_bytes(message[2:4], "big") == len(message) == 576


def test_ipv6_message_names_the_mtu_and_quotes_the_packet() -> None:
    packet = udp(1400, v6=True)
    message = icmp.too_big(packet, 1300)
    assert message is not None
    assert transport_sum(message) == 0xFFFF
    assert message[6] == 58
    assert (message[8:24], message[24:40]) == (packet[24:40], packet[8:24])
    assert (message[40], message[41]) == (2, 0)
    assert int.from_bytes(message[44:48], "big") == 1300
    assert message[48:] == packet[: 1280 - 48]
    assert len(message) == 1280


def _with(packet: bytes, at: int, value: bytes) -> bytes:
    return packet[:at] + value + packet[at + len(value) :]


@pytest.mark.parametrize(
    "packet",
    [
        _with(udp(1400), 6, b"\0\x10"),  # a later fragment
        _with(_with(udp(1400), 9, b"\1"), 20, b"\3"),  # an ICMP error
        _with(udp(1400), 12, b"\xe0"),  # from a group
        _with(udp(1400), 12, bytes(4)),
        _with(_with(udp(1400, v6=True), 6, b"\x3a"), 40, b"\1"),  # an ICMPv6 error
        _with(udp(1400, v6=True), 24, b"\xff\2"),  # to a group
        _with(udp(1400, v6=True), 8, bytes(16)),
    ],
)
def test_a_router_keeps_silent(packet: bytes) -> None:
    assert icmp.too_big(packet, 1300) is None


def test_a_large_ping_is_answered() -> None:
    assert icmp.too_big(_with(_with(udp(1400), 9, b"\1"), 20, b"\x08"), 1300) is not None
    assert icmp.too_big(_with(_with(udp(1400, v6=True), 6, b"\x3a"), 40, b"\x80"), 1300) is not None


@PATIENT
@given(st.integers(100, 3000), st.integers(68, 1500))
def test_fragments_join_to_the_packet(size: int, mtu: int) -> None:
    packet = udp(size, df=False)
    fragments = icmp.fragment(packet, mtu)
    body = bytearray(size - 20)
    for index, part in enumerate(fragments):
        assert len(part) <= mtu
        assert header_sum(part) == 0xFFFF
        assert int.from_bytes(part[2:4], "big") == len(part)
        field = int.from_bytes(part[6:8], "big")
        assert bool(field & 0x2000) == (index < len(fragments) - 1)
        offset = (field & 0x1FFF) * 8
        body[offset : offset + len(part) - 20] = part[20:]
    assert bytes(body) == packet[20:]


def test_fragments_of_a_fragment_join_to_the_packet() -> None:
    packet = udp(3000, df=False)
    pieces = [small for large in icmp.fragment(packet, 1500) for small in icmp.fragment(large, 576)]
    body = bytearray(2980)
    last = []
    for part in pieces:
        field = int.from_bytes(part[6:8], "big")
        body[(field & 0x1FFF) * 8 : (field & 0x1FFF) * 8 + len(part) - 20] = part[20:]
        last.append(not field & 0x2000)
    assert bytes(body) == packet[20:]
    assert last == [False] * (len(pieces) - 1) + [True]


def test_only_ipv4_without_df_may_be_fragmented() -> None:
    assert icmp.may_fragment(udp(100, df=False))
    assert not icmp.may_fragment(udp(100))
    assert not icmp.may_fragment(udp(100, v6=True))


def test_an_mtu_without_room_is_an_error() -> None:
    with pytest.raises(ValueError, match="no room"):
        icmp.fragment(udp(100, df=False), 27)
