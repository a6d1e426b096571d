from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.packet import superframe, vnet
from mpquic.proto.packet.frame import Frame, FrameFlag
from mpquic.proto.packet.superframe import (
    Coalescer,
    SuperframeError,
    carried_whole,
    cut,
    drop_segment,
    parse_vnet,
    split,
)

from . import packets as make

CHECKSUM = FrameFlag.CHECKSUM
WHOLE = FrameFlag.CHECKSUM | FrameFlag.SUPERFRAME
versions = st.sampled_from([4, 6])
payloads = st.integers(1, 9000).map(lambda size: bytes(i * 7 & 255 for i in range(size)))


def header_size(packet: bytes) -> int:
    transport = 20 if packet[0] >> 4 == 4 else 40
    return transport + (packet[transport + 12] >> 4) * 4


def as_frames(segments: list[bytes]) -> list[Frame]:
    return [Frame(segment, 1, number, CHECKSUM) for number, segment in enumerate(segments)]


def reference_segments(
    version: int, sequence: int, data: bytes, size: int, flags: int, identification: int
) -> list[bytes]:
    """What the kernel would send: each segment built from nothing, its own way."""
    out = []
    for number, at in enumerate(range(0, len(data), size)):
        last = at + size >= len(data)
        own = flags if last else flags & ~(make.PSH | make.FIN)
        if number:
            own &= ~make.CWR
        fields = {"identification": identification + number} if version == 4 else {}
        out.append(make.tcp(version, sequence + at, data[at : at + size], own, **fields))  # type: ignore[arg-type]
    return out


def without_tcp_checksum(packet: bytes) -> bytes:
    at = (20 if packet[0] >> 4 == 4 else 40) + 16
    return packet[:at] + b"\0\0" + packet[at + 2 :]


@given(
    versions,
    st.integers(0, 2**32 - 1),
    payloads,
    st.integers(48, 1448),
    st.sampled_from([make.ACK, make.ACK | make.PSH, make.ACK | make.FIN, make.ACK | make.CWR | make.PSH]),
    st.integers(0, 65535),
)
def test_cut_gives_the_segments_that_the_kernel_would_have_sent(
    version: int, sequence: int, data: bytes, size: int, flags: int, identification: int
) -> None:
    fields = {"identification": identification} if version == 4 else {}
    read = make.superframe(version, sequence, data, size, flags, **fields)
    expected = reference_segments(version, sequence, data, size, flags, identification)
    packet = parse_vnet(read)
    assert packet.segments == len(expected)
    assert [without_tcp_checksum(segment) for segment in cut(packet)] == [without_tcp_checksum(e) for e in expected]


@given(versions, st.integers(0, 2**32 - 1), payloads, st.integers(48, 1448), st.booleans(), st.booleans())
def test_what_was_cut_is_rebuilt_as_the_very_read(
    version: int, sequence: int, data: bytes, size: int, push: bool, options: bool
) -> None:
    flags = make.ACK | (make.PSH if push else 0)
    read = make.superframe(version, sequence, data, size, flags, options=make.TIMESTAMPS if options else b"")
    writes = Coalescer().rebuild(as_frames(cut(parse_vnet(read))))
    if len(data) > size:
        assert [b"".join(write) for write in writes] == [read]
    else:
        assert [b"".join(write)[10:] for write in writes] == [read[10:]]


@given(versions, payloads, st.integers(48, 1448), st.randoms(use_true_random=False))
def test_reordered_and_lost_segments_never_make_other_bytes(
    version: int, data: bytes, size: int, random: object
) -> None:
    segments = cut(parse_vnet(make.superframe(version, 4_294_960_000, data, size)))
    random.shuffle(segments)  # type: ignore[attr-defined]
    arrived = segments[: 1 + len(segments) * 3 // 4]
    rebuilt: list[bytes] = []
    for write in Coalescer().rebuild(as_frames(arrived)):
        rebuilt += cut(parse_vnet(b"".join(write)))
    # TCP does not see IPv4 identification, and a rebuilt run counts on from its first (RFC 6864: atomic datagrams).
    assert [_stream_bytes(p) for p in rebuilt] == [_stream_bytes(p) for p in arrived]


def _stream_bytes(packet: bytes) -> tuple[int, bytes]:
    transport = 20 if packet[0] >> 4 == 4 else 40
    return struct.unpack_from("!I", packet, transport + 4)[0], packet[header_size(packet) :]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), min_size=1, max_size=30))
def test_interleaved_flows_are_rebuilt_each_in_its_order(turns: list[tuple[int, int]]) -> None:
    sent: dict[int, bytes] = {0: b"", 1: b"", 2: b""}
    frames = []
    for flow, size in turns:
        data = bytes([65 + flow]) * (size * 100)
        frames += as_frames([make.tcp(4, len(sent[flow]), data, ports=(flow + 1, 443))])
        sent[flow] += data
    got: dict[int, bytes] = {0: b"", 1: b"", 2: b""}
    for write in Coalescer().rebuild(frames):
        whole = b"".join(write)[10:]
        flow = struct.unpack_from("!H", whole, 20)[0] - 1
        assert struct.unpack_from("!I", whole, 24)[0] == len(got[flow])
        got[flow] += whole[header_size(whole) :]
    assert got == sent


FIRST = {"sequence": 1000, "data": bytes(500)}


@pytest.mark.parametrize(
    "change",
    [
        {"ack": 100},
        {"window": 501},
        {"options": b"\1\1\x08\x0aabcdefgX"},
        {"options": b""},
        {"ports": (40001, 443)},
        {"tos": 4},
        {"ttl": 63},
        {"source": bytes([10, 200, 5, 2])},
        {"sequence": 1501},
        {"sequence": 1000},
        {"data": bytes(501)},
        {"data": b""},
        {"flags": make.ACK | make.FIN},
        {"flags": make.ACK | make.ECE},
        {"flags": make.ACK | make.SYN},
        {"flags": make.ACK | make.CWR},
    ],
    ids=str,
)
def test_segments_that_differ_are_not_joined(change: dict[str, object]) -> None:
    first = make.tcp(4, **FIRST)  # type: ignore[arg-type]
    second = make.tcp(4, **({"sequence": 1500, "data": bytes(500)} | change))  # type: ignore[arg-type]
    writes = Coalescer().rebuild(as_frames([first, second]))
    assert [b"".join(write)[10:] for write in writes] == [first, second]


def test_segments_that_do_not_differ_are_joined() -> None:
    coalescer = Coalescer()
    frames = as_frames([make.tcp(4, 1000, bytes(500)), make.tcp(4, 1500, bytes(500)), make.tcp(4, 2000, bytes(10))])
    assert len(coalescer.rebuild(frames)) == 1
    assert coalescer.coalesced == 2


def test_push_and_a_short_segment_end_a_run() -> None:
    frames = as_frames(
        [
            make.tcp(4, 0, bytes(100)),
            make.tcp(4, 100, bytes(100), make.ACK | make.PSH),
            make.tcp(4, 200, bytes(100)),
            make.tcp(4, 300, bytes(50)),
            make.tcp(4, 350, bytes(50)),
        ]
    )
    writes = [b"".join(write) for write in Coalescer().rebuild(frames)]
    assert [len(write) - 10 - 52 for write in writes] == [200, 150, 50]
    assert [write[10 + 33] for write in writes] == [make.ACK | make.PSH, make.ACK, make.ACK]


def test_without_df_the_identification_must_count_on() -> None:
    def pair(second: int) -> int:
        frames = as_frames(
            [
                make.tcp(4, 0, bytes(100), fragment=0, identification=65535),
                make.tcp(4, 100, bytes(100), fragment=0, identification=second),
            ]
        )
        return len(Coalescer().rebuild(frames))

    assert (pair(0), pair(65535), pair(1)) == (1, 2, 2)


def test_a_run_never_exceeds_an_ip_packet() -> None:
    segments = [make.tcp(4, number * 1400, bytes(1400)) for number in range(100)]
    writes = [b"".join(write) for write in Coalescer().rebuild(as_frames(segments))]
    assert all(len(write) <= 10 + 65535 for write in writes)
    assert len(writes) == 3


def test_packets_with_a_complete_checksum_pass_untouched_and_alone() -> None:
    first, second = (make.tcp(4, at, bytes(100), partial=False) for at in (0, 100))
    writes = Coalescer().rebuild([Frame(first, 1, 0), Frame(second, 1, 1)])
    assert writes == [[vnet.PLAIN, first], [vnet.PLAIN, second]]


@pytest.mark.parametrize("version", [4, 6])
def test_order_within_a_flow_is_kept_when_kinds_mix(version: int) -> None:
    one, two, three = (make.tcp(version, at, bytes(100)) for at in (0, 100, 300))
    between = make.tcp(version, 200, bytes(100), partial=False)
    frames = [
        Frame(one, 1, 0, CHECKSUM),
        Frame(two, 1, 1, CHECKSUM),
        Frame(between, 1, 2),
        Frame(three, 1, 3, CHECKSUM),
    ]
    sequences = [_stream_bytes(b"".join(write)[10:])[0] for write in Coalescer().rebuild(frames)]
    assert sequences == [0, 200, 300]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [6, 17])
def test_the_receiver_derives_the_partial_checksum_itself(version: int, protocol: int) -> None:
    right = make.udp(version, b"question") if protocol == 17 else make.tcp(version, 1, b"", make.ACK | make.SYN)
    transport = 20 if version == 4 else 40
    offset = 6 if protocol == 17 else 16
    at = transport + offset
    wrong = right[:at] + b"\xba\xad" + right[at + 2 :]
    [write] = Coalescer().rebuild([Frame(wrong, 1, 0, CHECKSUM)])
    whole = b"".join(write)
    assert vnet.VNET_HDR.unpack(whole[:10]) == (vnet.F_NEEDS_CSUM, vnet.GSO_NONE, 0, 0, transport, offset)
    assert whole[10:] == right


def test_a_packet_with_ip_options_gets_its_checksum_behind_them() -> None:
    body = make.tcp_header(1, make.ACK) + b"data"
    packet = make.ipv4(6, body, options=b"\x01\x01\x01\x00")
    [write] = Coalescer().rebuild([Frame(packet, 1, 0, CHECKSUM)])
    assert vnet.VNET_HDR.unpack(write[0][:10])[4:] == (24, 16)


def _mangled(packet: bytes, at: int, value: int) -> bytes:
    return packet[:at] + bytes([value]) + packet[at + 1 :]


TCP4, TCP6, UDP4 = make.tcp(4, 1, bytes(3000)), make.tcp(6, 1, bytes(3000)), make.udp(4, b"x" * 10)


@pytest.mark.parametrize(
    ("packet", "flags", "gso_size", "reason"),
    [
        (make.ipv4(1, bytes(8)), CHECKSUM, 0, "partial_checksum_of_another_protocol"),
        (make.ipv6(58, bytes(8)), CHECKSUM, 0, "partial_checksum_of_another_protocol"),
        (make.tcp(4, 1, b"x", fragment=0x2000), CHECKSUM, 0, "partial_checksum_in_a_fragment"),
        (make.udp(4, b"x", fragment=0x0001), CHECKSUM, 0, "partial_checksum_in_a_fragment"),
        (make.ipv6(44, bytes(16)), CHECKSUM, 0, "partial_checksum_in_a_fragment"),
        (make.ipv6(60, b"\x06\0" + bytes(30)), CHECKSUM, 0, "partial_checksum_behind_extension_headers"),
        (_mangled(UDP4, 25, 99), CHECKSUM, 0, "udp_length"),
        (make.ipv4(17, b"short"), CHECKSUM, 0, "udp_length"),
        (make.ipv4(6, b"short"), CHECKSUM, 0, "tcp_header_length"),
        (_mangled(TCP4, 32, 0x40), CHECKSUM, 0, "tcp_header_length"),
        (_mangled(make.tcp(4, 1, b""), 32, 0xF0), CHECKSUM, 0, "tcp_header_length"),
        (_mangled(TCP6, 52, 0x40), CHECKSUM, 0, "tcp_header_length"),
        (UDP4, WHOLE, 100, "superframe_is_no_plain_tcp"),
        (make.ipv4(6, bytes(3000), options=b"\x01\x01\x01\x00"), WHOLE, 1000, "superframe_is_no_plain_tcp"),
        (make.tcp(4, 1, bytes(3000), fragment=0x2000), WHOLE, 1000, "superframe_is_no_plain_tcp"),
        (make.ipv6(60, b"\x06\0" + bytes(3000)), WHOLE, 1000, "superframe_is_no_plain_tcp"),
        (make.ipv4(6, b"short"), WHOLE, 1000, "tcp_header_length"),
        (_mangled(TCP4, 32, 0x40), WHOLE, 1000, "tcp_header_length"),
        (_mangled(make.tcp(4, 1, b""), 32, 0xF0), WHOLE, 1000, "tcp_header_length"),
        (TCP4, WHOLE, 47, "gso_size"),
        (TCP4, WHOLE, 3000, "gso_size"),
        (TCP4, WHOLE, 65535, "gso_size"),
        (make.tcp(4, 1, bytes(3000), make.ACK | make.SYN), WHOLE, 1000, "superframe_flags"),
        (make.tcp(4, 1, bytes(3000), make.ACK | make.CWR), WHOLE, 1000, "superframe_flags"),
        (make.tcp(4, 1, bytes(3000), make.PSH), WHOLE, 1000, "superframe_flags"),
    ],
)
def test_what_the_kernel_must_not_see_is_refused_by_reason(
    packet: bytes, flags: int, gso_size: int, reason: str
) -> None:
    coalescer = Coalescer()
    assert coalescer.rebuild([Frame(packet, 1, 0, flags, gso_size)]) == []
    assert coalescer.refused == {reason: 1}


@given(
    versions,
    st.binary(max_size=80),
    st.sampled_from([0, 6, 17, 43, 44, 58, 60]),
    st.integers(0, 6),
    st.integers(1, 65535),
)
def test_whatever_the_peer_sends_the_virtio_header_fits_the_packet(
    version: int, body: bytes, protocol: int, flags: int, gso_size: int
) -> None:
    packet = (make.ipv4 if version == 4 else make.ipv6)(protocol, body)
    for write in Coalescer().rebuild([Frame(packet, 1, 0, flags, gso_size)]):
        whole = b"".join(write)
        parsed = parse_vnet(whole)
        assert len(whole) == 10 + len(packet)
        vflags, kind, header, size, start, offset = vnet.VNET_HDR.unpack_from(whole)
        if vflags:
            assert parsed.needs_csum
            assert start + offset + 2 <= len(packet)
        if kind:
            assert header <= len(packet)
            assert 48 <= size < len(packet) - header


@pytest.mark.parametrize("version", [4, 6])
def test_a_whole_superframe_is_rebuilt_as_the_very_read(version: int) -> None:
    read = make.superframe(version, 5, bytes(60000), 1348, make.ACK | make.PSH | make.FIN)
    packet = parse_vnet(read)
    assert carried_whole(packet)
    [write] = Coalescer().rebuild([Frame(bytes(packet.payload), 1, 0, WHOLE, packet.gso_size)])
    assert b"".join(write) == read


@pytest.mark.parametrize(
    "read",
    [
        make.superframe(4, 5, bytes(6000), 1348, make.ACK | make.CWR),
        make.superframe(4, 5, bytes(6000), 40),
        make.superframe(4, 5, bytes(60000), 59),
    ],
)
def test_a_superframe_that_the_receiver_would_refuse_is_not_carried_whole(read: bytes) -> None:
    packet = parse_vnet(read)
    assert not carried_whole(packet)
    assert Coalescer().rebuild(as_frames(cut(packet)))


def test_udp_superframes_are_cut() -> None:
    data = bytes(range(250)) * 10
    body = make.udp(4, data)
    packet = parse_vnet(vnet.VNET_HDR.pack(1, vnet.GSO_UDP_L4, 28, 1000, 20, 6) + body)
    segments = cut(packet)
    assert [segment[28:] for segment in segments] == [data[:1000], data[1000:2000], data[2000:]]
    assert [struct.unpack_from("!H", segment, 24)[0] for segment in segments] == [1008, 1008, 508]
    assert not carried_whole(packet)
    writes = Coalescer().rebuild(as_frames(segments))
    assert [make.words_sum(b"".join(write)[10:30]) for write in writes] == [0xFFFF] * 3


@pytest.mark.parametrize("protocol", [6, 17])
def test_behind_extension_headers_checksums_are_completed(protocol: int) -> None:
    data = bytes(range(250)) * 10
    if protocol == 6:
        inner, offset, kind = make.tcp(6, 7, data, make.ACK | make.PSH)[40:], 16, vnet.GSO_TCPV6
    else:
        inner, offset, kind = make.udp(6, data)[40:], 6, vnet.GSO_UDP_L4
    extension = bytes([protocol, 0, 1, 4, 0, 0, 0, 0])
    packet = make.ipv6(60, extension + inner)
    packet_read = vnet.VNET_HDR.pack(1, kind, 0, 1000, 48, offset) + packet
    parsed = parse_vnet(packet_read)
    segments = cut(parsed)
    assert not parsed.direct
    assert len(segments) == 3
    assert all(make.checksum_is_right(segment, 48, protocol) for segment in segments)
    single = make.ipv6(60, extension + inner)
    completed = parse_vnet(vnet.checksum_header(48, offset) + single)
    assert not completed.needs_csum
    assert make.checksum_is_right(bytes(completed.payload), 48, protocol)


@given(versions, payloads, st.integers(48, 1448), st.integers(1, 200), st.booleans())
def test_the_parts_of_a_superframe_are_cut_into_what_it_would_have_been(
    version: int, data: bytes, size: int, segments: int, udp: bool
) -> None:
    if udp:
        packet = parse_vnet(make.udp_superframe(version, data, size))
    else:
        flags = make.ACK | make.PSH | make.FIN | make.CWR
        packet = parse_vnet(make.superframe(version, 2**32 - 500, data, size, flags))
    if segments >= packet.segments:
        return
    head, rest = split(packet, segments)
    assert (head.segments, rest.segments) == (segments, packet.segments - segments)
    assert cut(head) + cut(rest) == cut(packet)


@given(versions, payloads, st.integers(48, 1448))
def test_dropping_a_segment_leaves_exactly_the_others(version: int, data: bytes, size: int) -> None:
    packet = parse_vnet(make.superframe(version, 2**32 - 500, data, size, make.ACK | make.PSH))
    expected = [without_tcp_checksum(segment) for segment in cut(packet)][1:]
    rest = drop_segment(packet)
    got = [] if rest is None else [without_tcp_checksum(segment) for segment in cut(rest)]
    assert got == expected


@pytest.mark.parametrize("segments", [1, 2, 3])
@pytest.mark.parametrize("protocol", [6, 17])
def test_the_parts_of_a_superframe_behind_extension_headers_are_cut_into_the_same(protocol: int, segments: int) -> None:
    data = bytes(range(250)) * 14
    if protocol == 6:
        inner, offset, kind = make.tcp(6, 7, data, make.ACK | make.PSH)[40:], 16, vnet.GSO_TCPV6
    else:
        inner, offset, kind = make.udp(6, data)[40:], 6, vnet.GSO_UDP_L4
    packet = make.ipv6(60, bytes([protocol, 0, 1, 4, 0, 0, 0, 0]) + inner)
    whole = parse_vnet(vnet.VNET_HDR.pack(1, kind, 0, 1000, 48, offset) + packet)
    assert (whole.segments, whole.direct) == (4, False)
    head, rest = split(whole, segments)
    got = cut(head) + cut(rest)
    assert got == cut(whole)
    assert all(make.checksum_is_right(segment, 48, protocol) for segment in got)


def test_dropping_a_segment_behind_extension_headers_keeps_checksums_right() -> None:
    inner = make.tcp(6, 7, bytes(range(250)) * 10)[40:]
    packet = make.ipv6(60, bytes([6, 0, 1, 4, 0, 0, 0, 0]) + inner)
    for gso_size in (1000, 2000):
        rest = drop_segment(parse_vnet(vnet.VNET_HDR.pack(1, vnet.GSO_TCPV6, 0, gso_size, 48, 16) + packet))
        assert rest is not None
        assert all(make.checksum_is_right(segment, 48, 6) for segment in cut(rest))


@given(st.binary(max_size=120))
def test_arbitrary_reads_are_packets_or_a_superframe_error(read: bytes) -> None:
    try:
        packet = parse_vnet(read)
    except SuperframeError as error:
        assert error.reason  # noqa: PT017
    else:
        assert sum(map(len, cut(packet))) >= len(packet)


@given(
    versions,
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 65535),
    st.integers(0, 65535),
    st.integers(0, 65535),
    st.sampled_from([0, 6, 17, 43, 60]),
    st.binary(max_size=200),
)
def test_arbitrary_virtio_headers_are_handled_or_refused(
    version: int, flags: int, kind: int, gso: int, start: int, offset: int, protocol: int, body: bytes
) -> None:
    packet = (make.ipv4 if version == 4 else make.ipv6)(protocol, body)
    try:
        parsed = parse_vnet(vnet.VNET_HDR.pack(flags, kind, 0, gso, start, offset) + packet)
    except SuperframeError as error:
        assert error.reason  # noqa: PT017
    else:
        assert len(cut(parsed)) == parsed.segments


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (b"", "short"),
        (vnet.PLAIN + b"\x45" + bytes(10), "short"),
        (vnet.PLAIN + bytes(40), "version"),
        (vnet.PLAIN + make.tcp(4, 1, b"x")[:-1], "ipv4_total_length"),
        (vnet.PLAIN + make.tcp(6, 1, b"x") + b"x", "ipv6_payload_length"),
        (vnet.VNET_HDR.pack(1, vnet.GSO_UDP, 0, 1000, 20, 6) + UDP4, "gso_type"),
        (vnet.VNET_HDR.pack(1, vnet.GSO_TCPV6, 0, 1000, 20, 16) + TCP4, "gso_type"),
        (vnet.VNET_HDR.pack(1, vnet.GSO_TCPV4, 0, 1000, 20, 16) + UDP4, "gso_protocol"),
        (vnet.VNET_HDR.pack(1, vnet.GSO_TCPV4, 0, 0, 20, 16) + TCP4, "gso_size"),
        (vnet.VNET_HDR.pack(0, vnet.GSO_TCPV4, 0, 1000, 20, 16) + TCP4, "gso_without_partial_checksum"),
        (vnet.VNET_HDR.pack(1, vnet.GSO_TCPV4, 0, 1000, 20, 16) + _mangled(TCP4, 32, 0x40), "transport_header"),
        (vnet.checksum_header(60, 60) + UDP4, "checksum_offset"),
    ],
)
def test_unusable_reads_are_named(read: bytes, reason: str) -> None:
    with pytest.raises(SuperframeError) as caught:
        parse_vnet(read)
    assert caught.value.reason == reason


def test_the_module_gives_everything_that_the_tunnel_uses_under_one_name() -> None:
    assert superframe.VNET_HDR_SIZE == vnet.VNET_HDR.size == 10
