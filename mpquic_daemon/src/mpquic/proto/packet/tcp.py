"""What a segment, or a run of them, says of its TCP connection: which one it is, and which octets it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mpquic.proto.packet import ip

if TYPE_CHECKING:
    from mpquic.proto.packet.run import SegmentRun

_FIN = 0x01
_SYN = 0x02
_SYN_FIN = 0x03


class TcpSpan(NamedTuple):
    """What a segment says: its connection as octets, sequence number, length in sequence space, whether it opens."""

    connection: bytes
    sequence: int
    length: int
    opens: bool


def tcp_span(packet: bytes | memoryview) -> TcpSpan | None:
    """Look into a packet; None if it isn't plain TCP."""
    if len(packet) < 40:
        return None
    if packet[0] >> 4 == 4:
        start = (packet[0] & 15) * 4
        if packet[9] != ip.TCP or packet[6] & 0x3F or packet[7] or start < 20:
            return None
        end, addresses = packet[2] << 8 | packet[3], bytes(packet[12:20])
    else:
        start = 40
        if packet[0] >> 4 != 6 or packet[6] != ip.TCP:
            return None
        end, addresses = 40 + (packet[4] << 8 | packet[5]), bytes(packet[8:40])
    if len(packet) < max(start + 20, end):
        return None
    flags = packet[start + 13]
    length = end - start - (packet[start + 12] >> 4) * 4 + (flags & _SYN_FIN).bit_count()
    sequence = int.from_bytes(packet[start + 4 : start + 8], "big")
    return TcpSpan(addresses + bytes(packet[start : start + 4]), sequence, max(0, length), bool(flags & _SYN))


def run_span(run: SegmentRun) -> TcpSpan | None:
    """Look into a run, which is one long segment here; None if it isn't TCP."""
    plan, head = run.layout, run.head
    if plan.protocol != ip.TCP:
        return None
    start, size = plan.transport, run.payload_size
    ends = head[start + 13] & _FIN and run.offset + size == plan.payload
    sequence = int.from_bytes(head[start + 4 : start + 8], "big") + run.offset
    # Its headers are plain ones: the ports follow the addresses.
    connection = head[12 if plan.version == 4 else 8 : start + 4]
    return TcpSpan(connection, sequence & 0xFFFFFFFF, size + bool(ends), False)
