from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mpquic.proto.packet import ip
from mpquic.proto.packet.ip import Ecn, MalformedPacketError

from . import packets as make


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_a_packet_or_malformed_and_every_reader_copes(data: bytes) -> None:
    try:
        version = ip.check(data)
    except MalformedPacketError as error:
        assert error.reason  # noqa: PT017
        return
    assert len(ip.source(data)) == len(ip.destination(data)) == (4 if version == 4 else 16)
    assert ip.transport(data)[1] <= len(data)


@given(st.sampled_from([0, 43, 44, 60, 6]), st.binary(min_size=0, max_size=200))
@example(0, b"\0\1" + bytes(6))
def test_chains_of_extension_headers_never_lead_outside(first: int, body: bytes) -> None:
    protocol, offset, direct = ip.transport(make.ipv6(first, body))
    assert 40 <= offset <= 40 + len(body)
    assert direct == (offset == 40 and protocol != -1)


def test_addresses_class_and_ports_are_read_where_they_lie() -> None:
    four = make.udp(4, b"x", tos=0xB9)
    six = make.udp(6, b"x", traffic_class=0xB9)
    assert (ip.source(four), ip.destination(four)) == (make.CLIENT4, make.HOST4)
    assert (ip.source(six), ip.destination(six)) == (make.CLIENT6, make.HOST6)
    assert [(ip.dscp(p), ip.ecn(p), ip.version(p)) for p in (four, six)] == [(46, Ecn.ECT_1, 4), (46, Ecn.ECT_1, 6)]
    assert ip.transport(four) == (17, 20, True)
    assert ip.transport(six) == (17, 40, True)


@pytest.mark.parametrize("packet", [make.udp(4, b"abc", tos=2), make.udp(6, b"abc", traffic_class=1)])
def test_marking_sets_ce_and_keeps_the_packet_valid(packet: bytes) -> None:
    marked = ip.mark_ce(packet)
    assert ip.check(marked) == ip.version(packet)
    assert ip.ecn(marked) is Ecn.CE
    if ip.version(packet) == 4:
        assert make.words_sum(marked[:20]) == 0xFFFF
        assert marked[20:] == packet[20:]
    else:
        assert marked[2:] == packet[2:]


@given(st.binary(max_size=100))
def test_the_checksum_is_that_of_rfc_1071(data: bytes) -> None:
    assert ip.internet_checksum(data) % 65535 == (make.words_sum(data) ^ 0xFFFF) % 65535


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (bytes([224, 0, 0, 1]), True),
        (bytes([255] * 4), True),
        (bytes([169, 254, 1, 1]), True),
        (bytes([10, 0, 0, 1]), False),
        (bytes.fromhex("ff02" + "00" * 13 + "01"), True),
        (bytes.fromhex("fe80" + "00" * 13 + "01"), True),
        (make.HOST6, False),
        (make.CLIENT6, False),
    ],
)
def test_multicast_and_link_local_are_told_apart(address: bytes, expected: bool) -> None:
    assert ip.is_multicast_or_link_local(address) is expected
