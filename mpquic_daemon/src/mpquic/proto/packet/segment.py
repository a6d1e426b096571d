"""A segment of a superframe: the headers of the whole superframe, then the segment's own slice of the payload.

The sender doesn't rewrite headers for each segment: all of a superframe carry the same octets, and offset and segment
size say which slice it is. The receiver derives what the sending kernel's tcp_gso_segment or __udp_gso_segment would
have written (net/ipv4/tcp_offload.c, udp_offload.c): lengths, IPv4 identification, sequence number, flags. So each
segment is whole by itself when its neighbours are lost, and neighbours join again without a look into each.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from mpquic.proto.packet import ip, vnet
from mpquic.proto.packet.ip import MalformedPacketError

MIN_SIZE = 48
"""No real MSS is smaller (Linux: TCP_MIN_SND_MSS), and smaller ones would make many packets of few octets."""
_FIN, _PSH = 0x01, 0x08
_TCP_FLAGS = 0x10 | 0x08 | 0x01 | 0x40
"""What may be set in a superframe: ACK, PSH, FIN, ECE. CWR is for the first segment only and comes by itself."""
_U16 = Struct("!H").pack_into
_U32 = Struct("!I").pack_into


class Layout(NamedTuple):
    """Where the headers of a superframe end, and how many octets of payload it has."""

    version: int
    protocol: int
    transport: int
    header: int
    payload: int


def layout(head: bytes | bytearray | memoryview) -> Layout:
    """Look into the headers of a superframe; what follows them doesn't matter.

    Raises:
        MalformedPacketError: they are not those of plain TCP or UDP (no options of IP, extension headers, fragments).
    """
    size = len(head)
    if size < 28:
        raise MalformedPacketError("short")
    if head[0] == 0x45:
        version, protocol, transport = 4, head[9], ip.IPV4_HEADER
        total = (head[2] << 8) | head[3]
        if head[6] & 0x3F or head[7]:
            raise MalformedPacketError("segment_of_a_fragment")
    elif head[0] >> 4 == 6 and size >= 48:
        version, protocol, transport = 6, head[6], ip.IPV6_HEADER
        total = ((head[4] << 8) | head[5]) + ip.IPV6_HEADER
    else:
        raise MalformedPacketError("segment_header")
    if protocol == ip.TCP:
        if size < transport + 20:
            raise MalformedPacketError("short")
        header = transport + ((head[transport + 12] >> 4) << 2)
        if header < transport + 20 or head[transport + 12] & 15 or head[transport + 13] & ~_TCP_FLAGS:
            raise MalformedPacketError("segment_header")
    elif protocol == ip.UDP:
        header = transport + 8
    else:
        raise MalformedPacketError("segment_protocol")
    if header > size or total <= header:
        raise MalformedPacketError("segment_length")
    return Layout(version, protocol, transport, header, total - header)


def check_place(plan: Layout, offset: int, size: int, segment: int) -> None:
    """Refuse `size` octets at `offset` that are no segment of a superframe cut at `segment` octets.

    Raises:
        MalformedPacketError: so it is.
    """
    if segment < MIN_SIZE or offset % segment or size != min(segment, plan.payload - offset) or size <= 0:
        raise MalformedPacketError("segment_place")


def headers(head: bytes | bytearray | memoryview, plan: Layout, offset: int, size: int, segment: int) -> bytearray:
    """Return the headers for `size` octets of payload at `offset`, the checksum of the transport partial."""
    made = bytearray(head[: plan.header])
    transport = plan.transport
    length = plan.header + size
    if plan.version == 4:
        _U16(made, 2, length)
        if offset:
            _U16(made, 4, (((made[4] << 8) | made[5]) + offset // segment) & 0xFFFF)
        made[10] = made[11] = 0
        _U16(made, 10, ip.internet_checksum(made[:transport]))
    else:
        _U16(made, 4, length - ip.IPV6_HEADER)
    if plan.protocol == ip.TCP:
        if offset:
            _U32(
                made, transport + 4, (int.from_bytes(made[transport + 4 : transport + 8], "big") + offset) & 0xFFFFFFFF
            )
        if offset + size != plan.payload:
            made[transport + 13] &= ~(_FIN | _PSH)
        field = transport + 16
    else:
        _U16(made, transport + 4, length - transport)
        field = transport + 6
    _U16(made, field, ip.pseudo_header_sum(made, plan.protocol, length - transport))
    return made


def restore(body: bytes, offset: int, segment: int) -> bytes:
    """Return the IP packet that one segment stands for, its transport checksum partial.

    Raises:
        MalformedPacketError: it is none.
    """
    plan = layout(body)
    size = len(body) - plan.header
    check_place(plan, offset, size, segment)
    return bytes(headers(body, plan, offset, size, segment)) + body[plan.header :]


def virtio_header(plan: Layout, *, segment: int, several: bool) -> bytes:
    """Return the virtio header for a write of one segment or of several."""
    offset = 16 if plan.protocol == ip.TCP else 6
    if not several:
        return vnet.checksum_header(plan.transport, offset)
    if plan.protocol == ip.TCP:
        return vnet.tcp_superframe_header(plan.version, plan.header, segment, plan.transport)
    return vnet.udp_superframe_header(plan.header, segment, plan.transport)
