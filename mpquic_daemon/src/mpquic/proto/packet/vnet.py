"""The virtio-net header in front of every packet of a TUN with IFF_VNET_HDR (linux/virtio_net.h, 10 bytes).

Ours is little endian on every machine that we support. The header is local to one host: it is never sent to the peer,
and a peer's idea of it never reaches the kernel.
"""

from __future__ import annotations

from struct import Struct

VNET_HDR_SIZE = 10

# flags u8, gso_type u8, hdr_len u16, gso_size u16, csum_start u16, csum_offset u16
VNET_HDR = Struct("<BBHHHH")

F_NEEDS_CSUM = 1

GSO_NONE = 0
GSO_TCPV4 = 1
GSO_UDP = 3
GSO_TCPV6 = 4
GSO_UDP_L4 = 5
GSO_ECN = 0x80

# A packet that is complete as it is.
PLAIN = bytes(VNET_HDR_SIZE)


def checksum_header(csum_start: int, csum_offset: int) -> bytes:
    """Return the header that asks the kernel to complete one checksum."""
    return VNET_HDR.pack(F_NEEDS_CSUM, GSO_NONE, 0, 0, csum_start, csum_offset)


def tcp_superframe_header(version: int, header_size: int, gso_size: int, csum_start: int) -> bytes:
    """Return the header of a TCP superframe; `header_size` covers IP and TCP header."""
    gso_type = GSO_TCPV4 if version == 4 else GSO_TCPV6
    return VNET_HDR.pack(F_NEEDS_CSUM, gso_type, header_size, gso_size, csum_start, 16)


def udp_superframe_header(header_size: int, gso_size: int, csum_start: int) -> bytes:
    """Return the header of a UDP superframe (Linux 6.2); `header_size` covers IP and UDP header."""
    return VNET_HDR.pack(F_NEEDS_CSUM, GSO_UDP_L4, header_size, gso_size, csum_start, 6)
