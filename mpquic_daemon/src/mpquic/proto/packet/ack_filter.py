"""Acknowledgements of TCP that a later one of the same read makes superfluous (RFC 3449 section 5.2.1, ACK filtering).

A receiver of a long transfer acknowledges each superframe, and an acknowledgement costs a tunnel as much as that.
Of those that wait together, and would share a datagram, the last says all: acknowledgements are cumulative. None waits
for another here, and none is left out that says anything else: duplicates (which count), new windows without progress,
SACK, ECN echoes, and whatever carries data stay.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from mpquic.proto.packet import ip

if TYPE_CHECKING:
    from mpquic.proto.packet.superframe import Packet

# IPv4 without options: ToS | fragment | protocol | addresses and ports | sequence | acknowledgement | offset, flags
_unpack4 = Struct("!xB4xHxB2x12sIIH").unpack_from
# IPv6: traffic class | next header | addresses and ports | sequence | acknowledgement | offset, flags
_unpack6 = Struct("!H4xBx36sIIH").unpack_from
_BARE = 0x5010
"""Offset and flags of an acknowledgement without options."""
_STAMPED = 0x8010
"""The same with 12 octets of options, which have to be timestamps."""
_TIMESTAMPS = b"\1\1\x08\x0a"
_SIZES = frozenset((40, 52, 60, 72))

Said = tuple[bytes, int, int]
"""Whose acknowledgement it is (connection, ToS, kind), its sequence number and what it acknowledges."""


def _pure(packet: bytes | memoryview) -> Said | None:
    """Return what a packet says that is an acknowledgement and nothing else, None for any other."""
    size = len(packet)
    if packet[0] == 0x45:
        tos, fragment, protocol, flow, sequence, number, kind = _unpack4(packet)
        start = ip.IPV4_HEADER
        if fragment & 0x3FFF:
            return None
    elif packet[0] >> 4 == 6 and size >= 60:
        tos, protocol, flow, sequence, number, kind = _unpack6(packet)
        start = ip.IPV6_HEADER
    else:
        return None
    if protocol != ip.TCP:
        return None
    if kind == _STAMPED:
        if size != start + 32 or packet[start + 20 : start + 24] != _TIMESTAMPS:
            return None
    elif kind != _BARE or size != start + 20:
        return None
    return flow + tos.to_bytes(2, "big") + kind.to_bytes(2, "big"), sequence, number


def filter_acks(packets: list[Packet]) -> list[Packet]:
    """Return packets that were read together without the acknowledgements that a later one of them covers."""
    if len(packets) < 2:
        return packets
    last: dict[bytes, tuple[int, int, int]] = {}
    covered: list[int] = []
    for place, packet in enumerate(packets):
        if len(packet.payload) not in _SIZES:
            continue
        said = _pure(packet.payload)
        if said is None:
            continue
        flow, sequence, number = said
        before = last.get(flow)
        if before is not None and before[1] == sequence and 0 < number - before[2] & 0xFFFFFFFF < 0x80000000:
            covered.append(before[0])
        last[flow] = (place, sequence, number)
    if not covered:
        return packets
    gone = set(covered)
    return [packet for place, packet in enumerate(packets) if place not in gone]
