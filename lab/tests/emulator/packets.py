"""IP packets and superframes made by hand, and a check of their checksums that doesn't use the code under test."""

import struct
from ipaddress import ip_address

VNET = struct.Struct("<BBHHHH")
PLAIN = bytes(10)


def ones_sum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _ipv4(source: str, destination: str, protocol: int, payload: bytes, *, df: bool, identification: int) -> bytes:
    addresses = ip_address(source).packed + ip_address(destination).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), identification, 0x4000 if df else 0, 64, protocol, 0)
    checksum = 0xFFFF ^ ones_sum(head + addresses)
    return head[:10] + struct.pack("!H", checksum) + addresses + payload


def _ipv6(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64)
    return head + ip_address(source).packed + ip_address(destination).packed + payload


def pseudo_sum(packet: bytes, protocol: int, length: int) -> int:
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    return ones_sum(addresses + struct.pack("!II", protocol, length))


def udp(size: int, *, ports: tuple[int, int] = (1000, 2000), df: bool = True, v6: bool = False) -> bytes:
    """A complete UDP packet of `size` bytes; the payload is a pattern."""
    header = 40 if v6 else 20
    length = size - header
    payload = bytes(i & 0xFF for i in range(length - 8))
    segment = struct.pack("!HHHH", *ports, length, 0) + payload
    if v6:
        packet = _ipv6("2001:db8::1", "2001:db8::2", 17, segment)
    else:
        packet = _ipv4("192.0.2.1", "192.0.2.2", 17, segment, df=df, identification=7)
    checksum = 0xFFFF ^ ones_sum(struct.pack("!H", pseudo_sum(packet, 17, length)) + segment)
    return packet[: header + 6] + struct.pack("!H", checksum or 0xFFFF) + packet[header + 8 :]


def tcp_superframe(
    payload: bytes, gso_size: int, *, v6: bool = False, options: int = 12, flags: int = 0x18, sequence: int = 0xFFFFFF00
) -> bytes:
    """What a TUN device with TSO gives: virtio header, IP and TCP headers with a partial checksum, payload."""
    segment = struct.pack("!HHIIBBHHH", 1000, 2000, sequence, 99, (20 + options) // 4 << 4, flags, 500, 0, 0)
    segment += b"\1" * options + payload
    if v6:
        packet = _ipv6("2001:db8::1", "2001:db8::2", 6, segment)
        start, kind = 40, 4
    else:
        packet = _ipv4("192.0.2.1", "192.0.2.2", 6, segment, df=True, identification=0xFFFE)
        start, kind = 20, 1
    partial = pseudo_sum(packet, 6, len(segment))
    packet = packet[: start + 16] + struct.pack("!H", partial) + packet[start + 18 :]
    if len(payload) <= gso_size:
        return VNET.pack(1, 0, 0, 0, start, 16) + packet
    return VNET.pack(1, kind, start + 20 + options, gso_size, start, 16) + packet


def transport_sum(packet: bytes) -> int:
    """0xffff if the TCP, UDP or ICMPv6 checksum of a whole packet is right."""
    if packet[0] >> 4 == 4:
        protocol, start = packet[9], (packet[0] & 15) * 4
    else:
        protocol, start = packet[6], 40
    body = packet[start:]
    return ones_sum(struct.pack("!H", pseudo_sum(packet, protocol, len(body))) + body)


def header_sum(packet: bytes) -> int:
    """0xffff if the checksum of the IPv4 header is right."""
    return ones_sum(packet[: (packet[0] & 15) * 4])
