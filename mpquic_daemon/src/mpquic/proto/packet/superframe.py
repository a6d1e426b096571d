"""Superframes on the way out: what the TUN hands over is validated, and cut into one IP packet a segment.

On the way in, `mpquic.proto.packet.coalescer` puts segments together again.
"""

from __future__ import annotations

from struct import Struct

from mpquic.proto.packet import ip, vnet
from mpquic.proto.packet.coalescer import MAX_SEGMENTS, MIN_GSO_SIZE, SUPERFRAME_FLAGS, Coalescer
from mpquic.proto.packet.vnet import VNET_HDR_SIZE

__all__ = [
    "MIN_GSO_SIZE",
    "VNET_HDR_SIZE",
    "Coalescer",
    "Packet",
    "SuperframeError",
    "carried_whole",
    "cut",
    "drop_segment",
    "parse_vnet",
    "split",
]

_FIN, _PSH, _CWR = 0x01, 0x08, 0x80
_U16 = Struct("!H").pack_into
_U32 = Struct("!I").pack_into


class SuperframeError(ValueError):
    """A packet of the TUN that cannot be carried. `reason` is a short word for counters."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"unusable packet from the TUN: {reason}")
        self.reason = reason


class Packet:
    """One read of the TUN, validated: an IP packet or a superframe, without its virtio header.

    `gso_size` is 0 for an ordinary packet, else the payload bytes of a segment. `needs_csum` says that the transport
    checksum is partial. For superframes, `transport` is the offset of the TCP or UDP header, `header_size` covers all
    headers, and `direct` says that no extension header lies between.
    """

    __slots__ = ("direct", "gso_size", "header_size", "needs_csum", "payload", "transport", "udp")

    def __init__(
        self,
        payload: bytes | memoryview,
        gso_size: int = 0,
        needs_csum: bool = False,
        transport: int = 0,
        header_size: int = 0,
        direct: bool = True,
        udp: bool = False,
    ) -> None:
        self.payload = payload
        self.gso_size = gso_size
        self.needs_csum = needs_csum
        self.transport = transport
        self.header_size = header_size
        self.direct = direct
        self.udp = udp

    def __len__(self) -> int:
        return len(self.payload)

    @property
    def segments(self) -> int:
        """Number of packets that this is cut into."""
        if not self.gso_size:
            return 1
        return -(-(len(self.payload) - self.header_size) // self.gso_size)


def parse_vnet(buffer: bytes | bytearray | memoryview) -> Packet:
    """Validate one read of the TUN. The buffer must not be reused, since superframes are not copied.

    A partial checksum that the receiver could not derive again (neither TCP nor UDP, an inner header, behind extension
    headers) is completed here.

    Raises:
        SuperframeError: header and packet do not fit together.
    """
    if len(buffer) < VNET_HDR_SIZE + ip.IPV4_HEADER:
        raise SuperframeError("short")
    flags, gso_type, _, gso_size, csum_start, csum_offset = vnet.VNET_HDR.unpack_from(buffer)
    payload = memoryview(buffer)[VNET_HDR_SIZE:]
    try:
        version = ip.check(payload)
    except ip.MalformedPacketError as error:
        raise SuperframeError(error.reason) from error
    partial = bool(flags & vnet.F_NEEDS_CSUM)
    kind = gso_type & ~vnet.GSO_ECN
    if kind != vnet.GSO_NONE:
        packet = _parse_superframe(payload, version, kind, gso_size, partial)
        if packet is not None:
            return packet
    if not partial:
        return Packet(bytes(payload))
    protocol, offset, direct = ip.transport(payload)
    if direct and csum_start == offset and (protocol, csum_offset) in ((ip.TCP, 16), (ip.UDP, 6)):
        return Packet(bytes(payload), needs_csum=True)
    return Packet(_complete(payload, csum_start, csum_offset, zero_means_none=csum_offset == 6))


def _parse_superframe(payload: memoryview, version: int, kind: int, gso_size: int, partial: bool) -> Packet | None:
    """Return the superframe; None when it has one segment only."""
    protocol, transport, direct = ip.transport(payload)
    if kind == vnet.GSO_UDP_L4:
        expected, minimum = ip.UDP, 8
    elif kind == (vnet.GSO_TCPV4 if version == 4 else vnet.GSO_TCPV6):
        expected, minimum = ip.TCP, 20
    else:
        raise SuperframeError("gso_type")
    if protocol != expected or transport + minimum > len(payload):
        raise SuperframeError("gso_protocol")
    header = transport + (8 if expected == ip.UDP else (payload[transport + 12] >> 4) << 2)
    if header < transport + minimum or header > len(payload):
        raise SuperframeError("transport_header")
    if gso_size == 0:
        raise SuperframeError("gso_size")
    if not partial:
        raise SuperframeError("gso_without_partial_checksum")
    if len(payload) - header <= gso_size:
        return None
    return Packet(payload, gso_size, True, transport, header, direct, expected == ip.UDP)


def carried_whole(packet: Packet) -> bool:
    """True when a reliable path may carry this superframe as one frame, since the receiver will accept it as such."""
    payload, transport = packet.payload, packet.transport
    return (
        not packet.udp
        and packet.direct
        and transport == (20 if payload[0] >> 4 == 4 else 40)
        and packet.gso_size >= MIN_GSO_SIZE
        and packet.segments <= MAX_SEGMENTS
        and payload[transport + 12] & 15 == 0
        and payload[transport + 13] & ~SUPERFRAME_FLAGS == 0x10
    )


def cut(packet: Packet) -> list[bytes]:
    """Cut a superframe into IP packets, as the kernel's tcp_gso_segment and inet_gso_segment would.

    Every packet gets its lengths, sequence number, IPv4 identification and IPv4 header checksum; FIN and PSH stay on
    the last, CWR on the first. The transport checksum stays partial, except behind extension headers: completed there
    (`packet.direct` tells), since the receiver could not derive it.
    """
    if not packet.gso_size:
        return [bytes(packet.payload)]
    payload, size = packet.payload, packet.header_size
    step, end = packet.gso_size, len(payload)
    transport = packet.transport
    head = bytearray(payload[:size])
    is_ipv4 = head[0] >> 4 == 4
    length_field, length_base = (2, 0) if is_ipv4 else (4, -ip.IPV6_HEADER)
    _U16(head, length_field, size + step + length_base)
    identification = constant = 0
    if is_ipv4:
        identification = (head[4] << 8) | head[5]
        head[4:6] = head[10:12] = b"\0\0"
        constant = ip.ones_complement_sum(head[:transport])
    if packet.udp:
        _U16(head, transport + 4, size - transport + step)
    else:
        sequence = int.from_bytes(head[transport + 4 : transport + 8], "big") - size
        at_sequence, at_flags = transport + 4, transport + 13
        last_flags = head[at_flags]
        head[at_flags] = last_flags & ~(_FIN | _PSH)
    tcp = not packet.udp
    segments: list[bytes] = []
    append, join = segments.append, b"".join
    offset = size
    while offset < end:
        stop = offset + step
        if stop >= end:
            _U16(head, length_field, size + end - offset + length_base)
            if is_ipv4:
                constant += end - offset - step
            if tcp:
                head[at_flags] = last_flags & ~_CWR
            else:
                _U16(head, transport + 4, size - transport + end - offset)
        if is_ipv4:
            _U16(head, 4, identification)
            _U16(head, 10, -(constant + identification) % 65535)
            identification = (identification + 1) & 0xFFFF
        if tcp:
            _U32(head, at_sequence, (sequence + offset) & 0xFFFFFFFF)
        append(join((head, payload[offset:stop])))
        if tcp and offset == size:
            head[at_flags] &= ~_CWR
        offset = stop
    if not packet.direct:
        return [_complete_segment(segment, packet) for segment in segments]
    return segments


def split(packet: Packet, segments: int) -> tuple[Packet, Packet]:
    """Split a superframe into one with its first `segments` segments and one with the others (at least one each).

    What the two are cut into is what the superframe would have been cut into.
    """
    size, transport = packet.header_size, packet.transport
    payload, middle = packet.payload, packet.header_size + segments * packet.gso_size
    head = bytearray(payload[:size])
    following = bytearray(head)
    if not packet.udp:
        head[transport + 13] &= ~(_FIN | _PSH)
        following[transport + 13] &= ~_CWR
        sequence = int.from_bytes(head[transport + 4 : transport + 8], "big") + middle - size
        _U32(following, transport + 4, sequence & 0xFFFFFFFF)
    if head[0] >> 4 == 4:
        identification = ((head[4] << 8) | head[5]) + segments
        _U16(following, 4, identification & 0xFFFF)
    return _part(packet, head, payload[size:middle]), _part(packet, following, payload[middle:])


def drop_segment(packet: Packet) -> Packet | None:
    """Return the superframe without its first segment, None when nothing is left.

    So a queue that must drop one packet as a signal drops one, and not all that the kernel had joined.
    """
    return split(packet, 1)[1] if packet.segments > 1 else None


def _part(packet: Packet, head: bytearray, data: bytes | memoryview) -> Packet:
    """Return a part of a superframe with these data; its header is right but for what depends on their length."""
    size, transport = packet.header_size, packet.transport
    total = size + len(data)
    if head[0] >> 4 == 4:
        _U16(head, 2, total)
        head[10:12] = b"\0\0"
        _U16(head, 10, ip.internet_checksum(head[:transport]))
    else:
        _U16(head, 4, total - ip.IPV6_HEADER)
    if packet.udp:
        _U16(head, transport + 4, total - transport)
    single = len(data) <= packet.gso_size
    if single and not packet.direct:
        return Packet(_complete_segment(b"".join((head, data)), packet))
    if single:
        return Packet(b"".join((head, data)), needs_csum=True)
    if not packet.direct:
        # The partial sum counts the length, which has changed; what is completed later must start from the right one.
        field = transport + (6 if packet.udp else 16)
        held = (head[field] << 8) | head[field + 1]
        _U16(head, field, (held - (len(packet.payload) - total)) % 65535)
    payload = memoryview(b"".join((head, data)))
    return Packet(payload, packet.gso_size, True, transport, size, packet.direct, packet.udp)


def _complete(payload: memoryview, start: int, offset: int, *, zero_means_none: bool) -> bytes:
    """Finish a partial checksum (RFC 1071): the field holds the sum of what precedes, the data are summed over it."""
    field = start + offset
    if start < ip.IPV4_HEADER or field + 2 > len(payload):
        raise SuperframeError("checksum_offset")
    value = ip.internet_checksum(payload[start:])
    if value == 0 and zero_means_none:
        value = 0xFFFF  # In UDP an all-zero field says "no checksum" (RFC 768).
    return b"".join((payload[:field], value.to_bytes(2, "big"), payload[field + 2 :]))


def _complete_segment(segment: bytes, packet: Packet) -> bytes:
    """Finish the checksum of a segment whose field still holds the pseudo-header sum of the whole superframe."""
    transport = packet.transport
    field = transport + (6 if packet.udp else 16)
    held = (segment[field] << 8) | segment[field + 1]
    partial = (held - (len(packet.payload) - len(segment))) % 65535
    patched = b"".join((segment[:field], partial.to_bytes(2, "big"), segment[field + 2 :]))
    return _complete(memoryview(patched), transport, field - transport, zero_means_none=packet.udp)
