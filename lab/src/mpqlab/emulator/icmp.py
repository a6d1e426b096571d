"""What a router says of a packet that is too large for its next link, and how it fragments one that allows it."""

import struct

from mpqlab.emulator.frame import sum_words, write_ipv4_checksum

_DONT_FRAGMENT = 0x4000
_MORE_FRAGMENTS = 0x2000
_ICMP = 1
_ICMPV6 = 58
_ICMP_QUERIES = frozenset({0, 8, 13, 14})  # the ICMP types that aren't errors and appear in practice
_IPV4_QUOTE = 576 - 28  # RFC 1812 4.3.2.3: the whole message within 576 bytes
_IPV6_QUOTE = 1280 - 48  # RFC 4443 2.4 (c): the whole message within the minimum MTU

DUMMY_ADDRESS = bytes((192, 0, 0, 8))
"""The source of ICMP messages of a router without an IPv4 address of its own (RFC 7600 section 4.8)."""


def may_fragment(packet: bytes) -> bool:
    """Whether a router may fragment `packet`: IPv4 without DF."""
    return packet[0] >> 4 == 4 and not int.from_bytes(packet[6:8], "big") & _DONT_FRAGMENT


def fragment(packet: bytes, mtu: int) -> list[bytes]:
    """Cut an IPv4 packet into fragments of at most `mtu` bytes (RFC 791). Options are repeated in every fragment.

    `packet` may be a fragment itself. `mtu` must leave room for 8 bytes behind the header.
    """
    header_size = (packet[0] & 15) * 4
    step = (mtu - header_size) // 8 * 8
    if step <= 0:
        raise ValueError(f"MTU {mtu} has no room behind a header of {header_size} bytes")
    field = int.from_bytes(packet[6:8], "big")
    payload = packet[header_size:]
    fragments = []
    for offset in range(0, len(payload), step):
        piece = payload[offset : offset + step]
        is_last = offset + step >= len(payload)
        more = field & _MORE_FRAGMENTS if is_last else _MORE_FRAGMENTS
        header = bytearray(packet[:header_size])
        struct.pack_into("!H", header, 2, header_size + len(piece))
        struct.pack_into("!H", header, 6, more | ((field & 0x1FFF) + offset // 8))
        write_ipv4_checksum(header, header_size)
        fragments.append(bytes(header) + piece)
    return fragments


def too_big(packet: bytes, mtu: int) -> bytes | None:
    """Return the 'fragmentation needed' (RFC 1191) or 'packet too big' (RFC 4443) that answers `packet`.

    None where a router must keep silent: an ICMP error, a later fragment, a multicast or unspecified source. The source
    of an IPv6 message is the packet's own destination, since no address stands for a router without one.
    """
    return _too_big_v4(packet, mtu) if packet[0] >> 4 == 4 else _too_big_v6(packet, mtu)


def _too_big_v4(packet: bytes, mtu: int) -> bytes | None:
    header_size = (packet[0] & 15) * 4
    if int.from_bytes(packet[6:8], "big") & 0x1FFF or packet[12] >= 224 or packet[12:16] == bytes(4):
        return None
    if packet[9] == _ICMP and packet[header_size] not in _ICMP_QUERIES:
        return None
    quote = packet[:_IPV4_QUOTE]
    message = bytearray(struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quote)
    struct.pack_into("!H", message, 2, 0xFFFF ^ sum_words(message))
    # ToS 0xc0: internetwork control, RFC 1812 4.3.2.5
    header = bytearray(struct.pack("!BBHHHBBH", 0x45, 0xC0, 20 + len(message), 0, 0, 64, _ICMP, 0))
    header += DUMMY_ADDRESS + packet[12:16]
    write_ipv4_checksum(header, 20)
    return bytes(header + message)


def _too_big_v6(packet: bytes, mtu: int) -> bytes | None:
    source, destination = packet[8:24], packet[24:40]
    if source[0] == 0xFF or destination[0] == 0xFF or source == bytes(16):
        return None
    if packet[6] == _ICMPV6 and len(packet) > 40 and packet[40] < 128:  # below 128 are the errors
        return None
    # RFC 8200 section 5: no link has less than 1280, and a host ignores a smaller value.
    message = bytearray(struct.pack("!BBHI", 2, 0, 0, max(mtu, 1280)) + packet[:_IPV6_QUOTE])
    pseudo = destination + source + struct.pack("!II", len(message), _ICMPV6)
    struct.pack_into("!H", message, 2, 0xFFFF ^ sum_words(pseudo + bytes(message)))
    header = struct.pack("!IHBB", 6 << 28, len(message), _ICMPV6, 64) + destination + source
    return header + bytes(message)
