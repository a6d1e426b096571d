from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.stripe import wire
from mpquic.proto.stripe.wire import Header, PacketType, WireError, decode_header

BODY = bytes(20)


def datagram(**changes: int) -> bytes:
    fields = {"kind": 0, "session": 7, "number": 9, "pipe": 1, "epoch": 0, "index": 0, "data_shards": 0, "length": 20}
    return Header(**(fields | changes)).encode() + BODY


@given(
    kind=st.sampled_from(list(PacketType)),
    session=st.integers(0, 2**32 - 1),
    number=st.integers(0, 2**64 - 1),
    pipe=st.integers(0, 15),
    epoch=st.integers(0, 100),
    data_shards=st.integers(1, 64),
    place=st.integers(0, 63),
)
def test_headers_round_trip(
    kind: PacketType, session: int, number: int, pipe: int, epoch: int, data_shards: int, place: int
) -> None:
    if kind == PacketType.PARITY:
        index = data_shards + place
    elif kind in wire.CONTROL_TYPES:
        index = data_shards = 0
    else:
        index = place % data_shards
    header = decode_header(Header(kind, session, number, pipe, epoch, index, data_shards, 20).encode() + BODY)
    assert (header.kind, header.session, header.number) == (kind, session, number % 2**32)
    assert (header.pipe, header.epoch, header.index, header.data_shards) == (pipe, epoch % 8, index, data_shards)
    assert header.length == 20


@given(st.binary(max_size=80))
def test_arbitrary_octets_are_decoded_or_refused(data: bytes) -> None:
    try:
        header = decode_header(data)
    except WireError:
        return
    assert header.encode() == data[:16]


@given(st.data())
def test_octets_behind_a_true_beginning_are_decoded_or_refused(data: st.DataObject) -> None:
    tail = data.draw(st.binary(min_size=13, max_size=13))
    packet = b"mq" + bytes((0x10,)) + tail + BODY
    try:
        header = decode_header(packet)
    except WireError:
        return
    assert header.encode() == packet[:16]


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "truncated"),
        (datagram()[:31], "truncated"),
        (b"x" + datagram()[1:], "magic"),
        (datagram()[:2] + b"\x21" + datagram()[3:], "version"),
        (datagram(kind=5), "type"),
        (datagram(kind=31), "type"),
        (datagram(index=1), "shard"),
        (datagram(index=10, data_shards=10), "shard"),
        (datagram(data_shards=129), "shard"),
        (datagram(kind=1, index=3, data_shards=0), "shard"),
        (datagram(kind=1, index=9, data_shards=10), "shard"),
        (datagram(kind=1, index=128, data_shards=10), "shard"),
        (datagram(kind=9, data_shards=1), "shard"),
        (datagram(length=19), "length"),
        (datagram() + b"\0", "length"),
    ],
)
def test_what_is_no_packet_is_refused_with_its_reason(packet: bytes, reason: str) -> None:
    with pytest.raises(WireError) as error:
        decode_header(packet)
    assert error.value.reason == reason


def test_the_session_of_a_datagram_is_found_without_a_key() -> None:
    assert wire.session_of(datagram(session=0xDEADBEEF)) == 0xDEADBEEF
    assert wire.session_of(datagram()[:20]) is None
    assert wire.session_of(bytes(40)) is None
