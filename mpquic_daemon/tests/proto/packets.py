"""IP packets for tests, made by hand so that they do not lean on the code under test."""

from __future__ import annotations

import struct

from mpquic.proto.packet import vnet

CLIENT4, HOST4 = bytes([10, 200, 5, 1]), bytes([192, 0, 2, 80])
CLIENT6 = bytes.fromhex("fd000000000000000000000000000001")
HOST6 = bytes.fromhex("20010db8000000000000000000000080")
ACK, PSH, FIN, ECE, CWR, SYN = 0x10, 0x08, 0x01, 0x40, 0x80, 0x02
TIMESTAMPS = bytes([1, 1, 8, 10]) + b"abcdefgh"


def words_sum(data: bytes) -> int:
    """Fold the 16-bit words of data with end-around carry, step by step as RFC 1071 says it."""
    if len(data) % 2:
        data += b"\0"
    total = 0
    for (word,) in struct.iter_unpack("!H", data):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


def ipv4(
    protocol: int,
    body: bytes,
    *,
    source: bytes = CLIENT4,
    destination: bytes = HOST4,
    tos: int = 0,
    identification: int = 7,
    fragment: int = 0x4000,
    ttl: int = 64,
    options: bytes = b"",
) -> bytes:
    size = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | size // 4,
        tos,
        size + len(body),
        identification & 0xFFFF,
        fragment,
        ttl,
        protocol,
        0,
        source,
        destination,
    )
    head += options
    checksum = words_sum(head) ^ 0xFFFF
    return head[:10] + checksum.to_bytes(2, "big") + head[12:] + body


def ipv6(
    next_header: int,
    body: bytes,
    *,
    source: bytes = CLIENT6,
    destination: bytes = HOST6,
    traffic_class: int = 0,
    hop_limit: int = 64,
) -> bytes:
    first = 6 << 28 | traffic_class << 20 | 0x12345
    return struct.pack("!IHBB16s16s", first, len(body), next_header, hop_limit, source, destination) + body


def pseudo_sum(packet: bytes, protocol: int, length: int) -> int:
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    return words_sum(addresses + struct.pack("!IBBH", length, 0, 0, protocol))


def tcp_header(
    sequence: int,
    flags: int,
    options: bytes = TIMESTAMPS,
    *,
    ack: int = 99,
    window: int = 500,
    ports: tuple[int, int] = (40000, 443),
) -> bytes:
    offset = (20 + len(options)) // 4 << 4
    return struct.pack("!HHIIBBHHH", *ports, sequence & 0xFFFFFFFF, ack, offset, flags, window, 0, 0) + options


def tcp(
    version: int,
    sequence: int,
    data: bytes,
    flags: int = ACK,
    *,
    options: bytes = TIMESTAMPS,
    ack: int = 99,
    window: int = 500,
    ports: tuple[int, int] = (40000, 443),
    partial: bool = True,
    **ip_fields: int | bytes,
) -> bytes:
    """A TCP packet. Its checksum holds the pseudo-header sum when `partial`, else the whole sum."""
    body = tcp_header(sequence, flags, options, ack=ack, window=window, ports=ports) + data
    return _with_checksum(version, 6, body, 16, partial, ip_fields)


def udp(
    version: int, data: bytes, *, ports: tuple[int, int] = (5000, 53), partial: bool = True, **ip_fields: int | bytes
) -> bytes:
    body = struct.pack("!HHHH", *ports, 8 + len(data), 0) + data
    return _with_checksum(version, 17, body, 6, partial, ip_fields)


def _with_checksum(
    version: int, protocol: int, body: bytes, offset: int, partial: bool, ip_fields: dict[str, int | bytes]
) -> bytes:
    packet = (ipv4 if version == 4 else ipv6)(protocol, body, **ip_fields)  # type: ignore[arg-type]
    transport = len(packet) - len(body)
    value = pseudo_sum(packet, protocol, len(body))
    if not partial:
        value = words_sum(value.to_bytes(2, "big") + body) ^ 0xFFFF
    at = transport + offset
    return packet[:at] + value.to_bytes(2, "big") + packet[at + 2 :]


def checksum_is_right(packet: bytes, transport: int, protocol: int) -> bool:
    length = len(packet) - transport
    total = pseudo_sum(packet, protocol, length).to_bytes(2, "big") + packet[transport:]
    return words_sum(total) == 0xFFFF


def superframe(version: int, sequence: int, data: bytes, gso_size: int, flags: int = ACK, **fields: object) -> bytes:
    """A read of the TUN: virtio header and TCP superframe."""
    packet = tcp(version, sequence, data, flags, **fields)  # type: ignore[arg-type]
    transport = 20 if version == 4 else 40
    header = transport + (packet[transport + 12] >> 4) * 4
    kind = vnet.GSO_TCPV4 if version == 4 else vnet.GSO_TCPV6
    return vnet.VNET_HDR.pack(vnet.F_NEEDS_CSUM, kind, header, gso_size, transport, 16) + packet


def udp_superframe(version: int, data: bytes, gso_size: int, **fields: object) -> bytes:
    """A read of the TUN: virtio header and UDP superframe."""
    packet = udp(version, data, **fields)  # type: ignore[arg-type]
    transport = 20 if version == 4 else 40
    return vnet.VNET_HDR.pack(vnet.F_NEEDS_CSUM, vnet.GSO_UDP_L4, transport + 8, gso_size, transport, 6) + packet
