"""Sizes that follow from the MTU of a WAN, in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

UDP_HEADER: Final = 8
OUTER_HEADER: Final = {"ipv4": 20, "ipv6": 40}
QUIC_OVERHEAD: Final = 30
"""Worst case of a QUIC datagram: short header with a connection ID of 8 and a packet number of 2, type and
length of the frame, tag of 16 (RFC 9000 section 17.3, RFC 9221 section 4, RFC 9001 section 5.3)."""
STRIPE_OVERHEAD: Final = 36
"""Worst case of a stripe datagram: header of 16, tag of 16, and 4 of a copy, which names the packet that it repeats."""
TRANSPORT_OVERHEAD: Final = {"quic": QUIC_OVERHEAD, "stripe": STRIPE_OVERHEAD}
FRAME_OVERHEAD: Final = 14
"""The tunnel's own frame around a packet."""
LARGEST_TUN: Final = 1400
SMALLEST_TUN: Final = 1280
"""IPv6 asks this of every link (RFC 8200 section 5); what a datagram can't hold, the tunnel fragments."""
TCP_IPV4_HEADERS: Final = 40
TCP_IPV6_HEADERS: Final = 60


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a tunnel: UDP payload of a datagram, MTU of the TUN, MSS to clamp TCP to."""

    max_datagram_size: int
    tun_mtu: int
    mss4: int
    mss6: int


def sizes(wan_mtu: int, outer: str, transport: str, transport_mode: str, tun_mtu: int | None = None) -> Sizes:
    """Return the sizes of a tunnel over a WAN of this MTU; a stated `tun_mtu` replaces the derived one."""
    datagram = wan_mtu - OUTER_HEADER[outer] - UDP_HEADER
    packet = datagram - TRANSPORT_OVERHEAD[transport] - FRAME_OVERHEAD
    mtu = tun_mtu if tun_mtu is not None else max(SMALLEST_TUN, min(LARGEST_TUN, packet))
    # A TCP segment that fits into one datagram costs no fragment; a stream has no such border.
    segment = min(mtu, packet) if transport_mode == "datagram" else mtu
    return Sizes(datagram, mtu, segment - TCP_IPV4_HEADERS, segment - TCP_IPV6_HEADERS)
