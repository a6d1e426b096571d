"""Reading IP headers: what the tunnel must know of the packets it carries, and nothing more.

Every function but `check` expects a packet that `check` has accepted.
"""

from __future__ import annotations

from enum import IntEnum

TCP = 6
UDP = 17
IPV4_HEADER = 20
IPV6_HEADER = 40

_HOP_BY_HOP = 0
_ROUTING = 43
_FRAGMENT = 44
_DESTINATION_OPTIONS = 60
_MAX_EXTENSION_HEADERS = 8

Buffer = bytes | bytearray | memoryview


class Ecn(IntEnum):
    """The two ECN bits (RFC 3168 section 5)."""

    NOT_ECT = 0
    ECT_1 = 1
    ECT_0 = 2
    CE = 3


class MalformedPacketError(ValueError):
    """Bytes that are no IP packet. `reason` is a short word for counters."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"malformed packet: {reason}")
        self.reason = reason


def check(packet: Buffer) -> int:
    """Validate version, header length and total length against the bytes present; return 4 or 6.

    Raises:
        MalformedPacketError: they disagree (RFC 791 section 3.1, RFC 8200 section 3).
    """
    size = len(packet)
    if size < IPV4_HEADER:
        raise MalformedPacketError("short")
    version = packet[0] >> 4
    if version == 4:
        header = (packet[0] & 15) << 2
        if header < IPV4_HEADER or header > size:
            raise MalformedPacketError("ipv4_header_length")
        if (packet[2] << 8) | packet[3] != size:
            raise MalformedPacketError("ipv4_total_length")
        return 4
    if version == 6:
        if size < IPV6_HEADER:
            raise MalformedPacketError("short")
        if ((packet[4] << 8) | packet[5]) + IPV6_HEADER != size:
            raise MalformedPacketError("ipv6_payload_length")
        return 6
    raise MalformedPacketError("version")


def version(packet: Buffer) -> int:
    """Return the version nibble."""
    return packet[0] >> 4


def source(packet: Buffer) -> bytes:
    """Return the source address, 4 or 16 bytes."""
    return bytes(packet[12:16]) if packet[0] >> 4 == 4 else bytes(packet[8:24])


def destination(packet: Buffer) -> bytes:
    """Return the destination address, 4 or 16 bytes."""
    return bytes(packet[16:20]) if packet[0] >> 4 == 4 else bytes(packet[24:40])


def traffic_class_octet(packet: Buffer) -> int:
    """Return DSCP and ECN as one octet (ToS in IPv4, traffic class in IPv6)."""
    if packet[0] >> 4 == 4:
        return packet[1]
    return ((packet[0] & 15) << 4) | (packet[1] >> 4)


def dscp(packet: Buffer) -> int:
    """Return the DSCP, 0 to 63 (RFC 2474)."""
    return traffic_class_octet(packet) >> 2


def ecn(packet: Buffer) -> Ecn:
    """Return the ECN bits."""
    return Ecn(traffic_class_octet(packet) & 3)


def is_multicast_or_link_local(address: bytes) -> bool:
    """True for destinations that have no place in a routed point-to-point tunnel (multicast, broadcast, link-local)."""
    if len(address) == 4:
        return address[0] >= 224 or (address[0] == 169 and address[1] == 254)
    return address[0] == 0xFF or (address[0] == 0xFE and address[1] & 0xC0 == 0x80)


def transport(packet: Buffer) -> tuple[int, int, bool]:
    """Return (protocol, offset of its header, direct).

    `direct` says that the offset follows from the fixed header alone: no IPv6 extension header lies between. A fragment
    has protocol -1, since its bytes are no transport header or only a part of the datagram's.
    """
    if packet[0] >> 4 == 4:
        if packet[6] & 0x3F or packet[7]:
            return -1, (packet[0] & 15) << 2, True
        return packet[9], (packet[0] & 15) << 2, True
    protocol, offset, size = packet[6], IPV6_HEADER, len(packet)
    direct = True
    for _ in range(_MAX_EXTENSION_HEADERS):
        if protocol not in (_HOP_BY_HOP, _ROUTING, _DESTINATION_OPTIONS):
            break
        if offset + 8 > size:
            return -1, min(offset, size), False
        protocol, offset, direct = packet[offset], offset + 8 + 8 * packet[offset + 1], False
    if protocol == _FRAGMENT or offset > size:
        return -1, min(offset, size), False
    return protocol, offset, direct


def flow(packet: Buffer) -> bytes:
    """Return what the packets of a connection in one direction have in common: addresses, ports and protocol.

    Of a fragment, of another protocol than TCP and UDP, and behind IPv4 options or IPv6 extension headers there are no
    ports in it.
    """
    first = packet[0]
    if first >> 4 == 4:
        protocol = packet[9]
        whole = first == 0x45 and not packet[6] & 0x3F and not packet[7] and len(packet) >= IPV4_HEADER + 4
        end = 24 if whole and protocol in (TCP, UDP) else 20
        return bytes(packet[12:end]) + protocol.to_bytes()
    protocol = packet[6]
    end = 44 if protocol in (TCP, UDP) and len(packet) >= IPV6_HEADER + 4 else 40
    return bytes(packet[8:end]) + protocol.to_bytes()


def ones_complement_sum(data: Buffer) -> int:
    """Return the ones' complement sum of 16-bit words, 0 to 65534 (65535 counts as 0), odd data padded (RFC 1071).

    The sum of 16-bit words with end-around carry is the number modulo 65535, which one big-integer division gives.
    """
    if len(data) & 1:
        return (int.from_bytes(data, "big") << 8) % 65535
    return int.from_bytes(data, "big") % 65535


def internet_checksum(data: Buffer) -> int:
    """Return the Internet checksum of `data` (RFC 1071)."""
    return -ones_complement_sum(data) % 65535


def pseudo_header_sum(packet: Buffer, protocol: int, length: int) -> int:
    """Return the folded, uninverted sum of the pseudo-header: what a partial checksum field holds.

    `length` is that of the transport header and payload in bytes.
    """
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    total = (int.from_bytes(addresses, "big") + protocol + length) % 65535
    return total or 65535


def mark_ce(packet: Buffer) -> bytes:
    """Return the packet with ECN set to CE (RFC 3168), the IPv4 header checksum made right."""
    marked = bytearray(packet)
    if marked[0] >> 4 == 4:
        marked[1] |= 3
        header = (marked[0] & 15) << 2
        marked[10:12] = b"\0\0"
        marked[10:12] = internet_checksum(marked[:header]).to_bytes(2, "big")
    else:
        marked[1] |= 0x30
    return bytes(marked)
