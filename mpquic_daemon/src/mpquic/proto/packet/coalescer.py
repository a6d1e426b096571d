"""Packets on the way in: what came from the peer is validated and becomes as few TUN writes as possible.

A peer's virtio header would be kernel attack surface, so none is sent: the one that is written here is derived from the
packet itself. Runs of TCP segments become one superframe when the kernel would have built the same from them
(net/ipv4/tcp_offload.c, tcp_gro_receive): same addresses, ports, acknowledgement, window, options, ToS and TTL, flags
ACK or ACK|PSH only, adjacent sequence numbers, only the last segment short, nothing after PSH.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from mpquic.proto.packet import ip, vnet
from mpquic.proto.packet.frame import FrameFlag
from mpquic.proto.packet.run import SegmentRun

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mpquic.proto.path.path import FrameOrRun

MAX_TOTAL = 65535
# One writev takes 1024 buffers, and no real MSS is below the 48 bytes that Linux sends at least (TCP_MIN_SND_MSS).
MAX_SEGMENTS = 1000
MAX_UDP_SEGMENTS = 64
"""UDP_MAX_SEGMENTS of older kernels (include/linux/udp.h; newer ones have 128): more in one write are EINVAL."""
MIN_GSO_SIZE = 48
# What may be set beside ACK in a superframe that is carried whole: PSH, FIN, ECE. (CWR is for the first segment only.)
SUPERFRAME_FLAGS = 0x08 | 0x01 | 0x40

_ACK, _PSH = 0x10, 0x08
_SUPERFRAME = int(FrameFlag.SUPERFRAME)
_CHECKSUM = int(FrameFlag.CHECKSUM)

# version/IHL and ToS | identification | fragment, TTL, protocol | addresses and ports | sequence | ack..window | urgent
_unpack4 = Struct("!H2xHI2x12sI8s2x2s").unpack_from
# version, class, flow label | next header, hop limit | addresses and ports | sequence | ack..window | urgent
_unpack6 = Struct("!I2xH36sI8s2x2s").unpack_from

Write = list[bytes | memoryview]


class _Run:
    """Segments of one flow that will be one write, and what the next segment must look like to join."""

    __slots__ = (
        "any_id",
        "buffers",
        "first",
        "fixed",
        "gso",
        "header",
        "hops",
        "next_id",
        "next_sequence",
        "options",
        "psh",
        "tail",
        "tail_psh",
        "total",
        "transport",
        "urgent",
    )

    def __init__(self, first: bytes, transport: int, header: int) -> None:
        self.first = first
        self.transport = transport
        self.header = header
        self.gso = len(first) - header
        self.total = len(first)
        self.psh = False
        self.options = first[transport + 20 : header]
        self.buffers: Write = [b"", first[header:]]
        self.fixed = self.hops = self.next_id = self.next_sequence = 0
        self.any_id = True
        self.tail = self.tail_psh = self.urgent = b""

    def finish(self) -> Write:
        """Write the headers of the whole: lengths, IPv4 checksum, partial TCP checksum, virtio header."""
        header, transport = self.header, self.transport
        head = bytearray(self.first[:header])
        if self.psh:
            head[transport + 13] |= _PSH
        version = _write_lengths(head, self.total, transport)
        _write_partial_sum(head, transport, ip.TCP, self.total, 16)
        if len(self.buffers) > 2:
            front = vnet.tcp_superframe_header(version, header, self.gso, transport)
        else:
            front = vnet.checksum_header(transport, 16)
        self.buffers[0] = front + head
        return self.buffers


class _UdpRun:
    """UDP datagrams of one flow and size that will be one write, which needs Linux 6.2 (USO)."""

    __slots__ = ("buffers", "first", "fixed", "gso", "header", "next_id", "total")

    def __init__(self, first: bytes, header: int, fixed: bytes, identification: int) -> None:
        self.first = first
        self.header = header
        self.fixed = fixed
        self.next_id = identification
        self.gso = len(first) - header
        self.total = header
        self.buffers: Write = [b""]

    def add(self, payload: bytes) -> None:
        """Append the payload of a datagram."""
        self.buffers.append(payload)
        self.total += len(payload)
        self.next_id = (self.next_id + 1) & 0xFFFF

    def finish(self) -> Write:
        """Write the headers of the whole: lengths, IPv4 checksum, partial UDP checksum, virtio header."""
        if len(self.buffers) == 2:
            return _partial(self.first)
        header, transport = self.header, self.header - 8
        head = bytearray(self.first[:header])
        _write_lengths(head, self.total, transport)
        head[transport + 4 : transport + 6] = (self.total - transport).to_bytes(2, "big")
        _write_partial_sum(head, transport, ip.UDP, self.total, 6)
        self.buffers[0] = vnet.udp_superframe_header(header, self.gso, transport) + head
        return self.buffers


def _write_lengths(head: bytearray, total: int, header_size: int) -> int:
    """Set the length of an IP packet and, in IPv4, its header checksum; return the version."""
    if head[0] >> 4 == 4:
        head[2:4] = total.to_bytes(2, "big")
        head[10:12] = b"\0\0"
        head[10:12] = ip.internet_checksum(head[:header_size]).to_bytes(2, "big")
        return 4
    head[4:6] = (total - ip.IPV6_HEADER).to_bytes(2, "big")
    return 6


def _write_partial_sum(head: bytearray, transport: int, protocol: int, total: int, offset: int) -> None:
    value = ip.pseudo_header_sum(head, protocol, total - transport)
    head[transport + offset : transport + offset + 2] = value.to_bytes(2, "big")


class Coalescer:
    """Turns accepted packets into TUN writes, a batch at a time; no packet waits for a later batch.

    The packets have passed `ip.check`. Refused ones are counted by reason in `refused`.
    """

    def __init__(self, refused: dict[str, int] | None = None) -> None:
        self.refused: dict[str, int] = {} if refused is None else refused
        self.coalesced = 0
        self.uso = False
        """Whether the device takes UDP superframes (Linux 6.2)."""

    def rebuild(self, frames: Iterable[FrameOrRun]) -> list[Write]:
        """Return the TUN writes of a batch, each a list of buffers of which the first begins with a virtio header.

        The order of packets within a flow is kept.
        """
        writes: list[_Run | _UdpRun | Write] = []
        runs: dict[bytes, _Run] = {}
        datagrams: dict[bytes, _UdpRun] = {}
        joined = 0
        for frame in frames:
            if isinstance(frame, SegmentRun):
                if runs:
                    _close_flow(runs, frame.head)
                if datagrams:
                    _close_flow(datagrams, frame.head)
                if frame.count > MAX_UDP_SEGMENTS and frame.layout.protocol == ip.UDP:
                    writes += [_partial(bytes(single.payload)) for single in frame.frames()]
                    continue
                joined += frame.count - 1
                write = frame.write()
                writes.append(write if len(write) <= MAX_SEGMENTS else [write[0], b"".join(write[1:])])
                continue
            flags = frame.flags
            packet: bytes = frame.payload  # type: ignore[assignment]
            if flags != _CHECKSUM:
                if flags & _SUPERFRAME:
                    # Rare beside segments (no path mixes them), so the simplest way to keep the order will do.
                    runs.clear()
                    datagrams.clear()
                    try:
                        writes.append(_whole(packet, frame.gso_size))
                    except ip.MalformedPacketError as error:
                        self._refuse(error.reason)
                else:
                    # A complete checksum is carried end to end: joining would replace it by one that hides corruption.
                    if runs:
                        _close_flow(runs, packet)
                    if datagrams:
                        _close_flow(datagrams, packet)
                    writes.append([vnet.PLAIN, packet])
                continue
            size = len(packet)
            if packet[0] == 0x45 and packet[9] == 6 and size >= 40:
                fixed, identification, hops, flow, sequence, tail, urgent = _unpack4(packet)
                if hops & 0x3FFF0000:
                    self._refuse("partial_checksum_in_a_fragment")
                    continue
                transport, any_id = 20, hops & 0x40000000
            elif packet[0] >> 4 == 6 and packet[6] == 6 and size >= 60:
                fixed, hops, flow, sequence, tail, urgent = _unpack6(packet)
                transport, any_id, identification = 40, 1, 0
            else:
                if runs:
                    _close_flow(runs, packet)
                try:
                    if self.uso and (plain := _plain_udp(packet)) is not None:
                        joined += _join(datagrams, packet, plain, writes)
                        continue
                    if datagrams:
                        _close_flow(datagrams, packet)
                    writes.append(_partial(packet))
                except ip.MalformedPacketError as error:
                    self._refuse(error.reason)
                continue
            header = transport + ((tail[4] >> 4) << 2)
            data = size - header
            run = runs.get(flow)
            if run is not None:
                if (
                    sequence == run.next_sequence
                    and 0 < data <= run.gso
                    and (tail == run.tail or tail == run.tail_psh)
                    and fixed == run.fixed
                    and hops == run.hops
                    and (any_id or identification == run.next_id)
                    and urgent == run.urgent
                    and packet[transport + 20 : header] == run.options
                    and run.total + data <= MAX_TOTAL
                    and len(run.buffers) <= MAX_SEGMENTS
                ):
                    run.buffers.append(packet[header:])
                    run.total += data
                    run.next_sequence = (sequence + data) & 0xFFFFFFFF
                    run.next_id = (identification + 1) & 0xFFFF
                    joined += 1
                    if tail != run.tail:
                        run.psh = True
                        del runs[flow]
                    elif data < run.gso:
                        del runs[flow]
                    continue
                del runs[flow]
            if header < transport + 20 or data < 0:
                self._refuse("tcp_header_length")
                continue
            run = _Run(packet, transport, header)
            writes.append(run)
            if tail[5] == _ACK and data > 0:
                run.fixed, run.hops, run.tail, run.urgent = fixed, hops, tail, urgent
                run.tail_psh = tail[:5] + b"\x18" + tail[6:]
                run.next_sequence = (sequence + data) & 0xFFFFFFFF
                run.next_id = (identification + 1) & 0xFFFF
                runs[flow] = run
        self.coalesced += joined
        return [write if isinstance(write, list) else write.finish() for write in writes]

    def _refuse(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1


def _plain_udp(packet: bytes) -> tuple[bytes, bytes, int, int] | None:
    """Return flow, fields that a run shares, identification (-1: any) and header size; None for other packets.

    Raises:
        MalformedPacketError: the UDP length is wrong.
    """
    if packet[0] == 0x45 and packet[9] == ip.UDP and len(packet) > 28 and not (packet[6] & 0x3F or packet[7]):
        any_id = packet[6] & 0x40
        number = -1 if any_id else (packet[4] << 8) | packet[5]
        flow, fixed, header = packet[12:24], packet[1:2] + packet[6:10], 28
    elif packet[0] >> 4 == 6 and packet[6] == ip.UDP and len(packet) > 48:
        number, flow, fixed, header = -1, packet[8:44], packet[:4] + packet[6:8], 48
    else:
        return None
    if (packet[header - 4] << 8) | packet[header - 3] != len(packet) - header + 8:
        raise ip.MalformedPacketError("udp_length")
    return flow, fixed, number, header


def _join(
    runs: dict[bytes, _UdpRun],
    packet: bytes,
    plain: tuple[bytes, bytes, int, int],
    writes: list[_Run | _UdpRun | Write],
) -> int:
    """Add a datagram to the run of its flow, or begin another; return how many were joined: 1 or 0."""
    flow, fixed, number, header = plain
    size = len(packet) - header
    run = runs.get(flow)
    if (
        run is not None
        and size <= run.gso
        and fixed == run.fixed
        and (number < 0 or number == run.next_id)
        and len(run.buffers) <= MAX_UDP_SEGMENTS
        and run.total + size <= MAX_TOTAL
    ):
        run.add(packet[header:])
        if size < run.gso:
            del runs[flow]
        return 1
    run = runs[flow] = _UdpRun(packet, header, fixed, number)
    run.add(packet[header:])
    writes.append(run)
    return 0


def _partial(packet: bytes) -> Write:
    """Return the write of one packet whose checksum the kernel is to complete."""
    protocol, transport, direct = ip.transport(packet)
    size = len(packet)
    if protocol == -1:
        raise ip.MalformedPacketError("partial_checksum_in_a_fragment")
    if not direct:
        raise ip.MalformedPacketError("partial_checksum_behind_extension_headers")
    if protocol == ip.UDP:
        if size < transport + 8 or (packet[transport + 4] << 8) | packet[transport + 5] != size - transport:
            raise ip.MalformedPacketError("udp_length")
        offset = 6
    elif protocol == ip.TCP:
        if size < transport + 20 or not 20 <= (packet[transport + 12] >> 4) << 2 <= size - transport:
            raise ip.MalformedPacketError("tcp_header_length")
        offset = 16
    else:
        raise ip.MalformedPacketError("partial_checksum_of_another_protocol")
    end = transport + offset + 2
    head = bytearray(packet[:end])
    _write_partial_sum(head, transport, protocol, size, offset)
    return [vnet.checksum_header(transport, offset) + head, packet[end:]]


def _whole(packet: bytes, gso_size: int) -> Write:
    """Return the write of a superframe that was carried whole."""
    size = len(packet)
    transport = 20 if packet[0] >> 4 == 4 else ip.IPV6_HEADER
    if transport == 20:
        if packet[0] != 0x45 or packet[9] != ip.TCP or packet[6] & 0x3F or packet[7]:
            raise ip.MalformedPacketError("superframe_is_no_plain_tcp")
    elif packet[6] != ip.TCP:
        raise ip.MalformedPacketError("superframe_is_no_plain_tcp")
    if size < transport + 20:
        raise ip.MalformedPacketError("tcp_header_length")
    header = transport + ((packet[transport + 12] >> 4) << 2)
    if header < transport + 20 or header > size:
        raise ip.MalformedPacketError("tcp_header_length")
    data = size - header
    if gso_size < MIN_GSO_SIZE or data <= gso_size or data > gso_size * MAX_SEGMENTS:
        raise ip.MalformedPacketError("gso_size")
    if packet[transport + 12] & 15 or packet[transport + 13] & ~SUPERFRAME_FLAGS != _ACK:
        raise ip.MalformedPacketError("superframe_flags")
    head = bytearray(packet[:header])
    version = _write_lengths(head, size, transport)
    _write_partial_sum(head, transport, ip.TCP, size, 16)
    return [vnet.tcp_superframe_header(version, header, gso_size, transport) + head, packet[header:]]


def _close_flow(runs: dict[bytes, _Run] | dict[bytes, _UdpRun], packet: bytes) -> None:
    """Let nothing more join the run of this packet's flow, so that the order stays."""
    if packet[0] == 0x45:
        runs.pop(packet[12:24], None)
    elif packet[0] >> 4 == 6 and packet[6] == ip.TCP:
        runs.pop(packet[8:44], None)
    else:
        # IP options or extension headers may hide the flow's ports.
        runs.clear()
