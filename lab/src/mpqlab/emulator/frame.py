"""One unit of traffic between two TUN devices: a packet, or a TCP superframe with its virtio header.

The kernel hands over up to 64 KiB of TCP as one packet (struct virtio_net_hdr, include/uapi/linux/virtio_net.h). It is
carried as it is where all its packets share one fate, and cut into what a wire would carry where they don't.
"""

import struct

VNET_HDR_SIZE = 10
_VNET_HDR = struct.Struct("<BBHHHH")  # flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
_NO_OFFLOAD = bytes(VNET_HDR_SIZE)
_NEEDS_CSUM = 1
_GSO_TCPV4 = 1
_GSO_TCPV6 = 4
_TCP_CHECKSUM = 16  # offset of the field in the TCP header
_FIN_PSH = 0x09
_CWR = 0x80
TCP = 6
UDP = 17


class FrameError(ValueError):
    """Not a packet that the kernel should have handed over."""


class Frame:
    """A packet or superframe.

    `data` begins with the virtio header; `size` is the number of bytes that all its IP packets have on the wire,
    `segments` their number, `packet_size` the size of the largest.
    """

    __slots__ = ("data", "packet_size", "segments", "size")

    def __init__(self, data: bytes, size: int, segments: int, packet_size: int) -> None:
        self.data = data
        self.size = size
        self.segments = segments
        self.packet_size = packet_size


def parse(data: bytes) -> Frame:
    """Take one read of a TUN device with IFF_VNET_HDR.

    Raises:
        FrameError: too short, neither IPv4 nor IPv6, or offload fields that contradict the packet.
    """
    size = len(data) - VNET_HDR_SIZE
    if size < 20:
        raise FrameError("shorter than an IP header")
    version = data[VNET_HDR_SIZE] >> 4
    if version == 4:
        if not 20 <= (data[VNET_HDR_SIZE] & 15) * 4 <= size:
            raise FrameError("IPv4 header length")
    elif version != 6 or size < 40:
        raise FrameError("neither IPv4 nor IPv6")
    if data[1] == 0:
        if data[0] & _NEEDS_CSUM:
            _, _, _, _, start, offset = _VNET_HDR.unpack_from(data)
            if start + offset + 2 > size:
                raise FrameError("checksum outside of the packet")
        return Frame(data, size, 1, size)
    header, gso_size = _superframe_fields(data)
    payload = size - header
    segments = -(-payload // gso_size)
    return Frame(data, payload + segments * header, segments, header + min(gso_size, payload))


def from_packet(packet: bytes) -> Frame:
    """Wrap one complete IP packet, checksums included."""
    return Frame(_NO_OFFLOAD + packet, len(packet), 1, len(packet))


def _superframe_fields(data: bytes) -> tuple[int, int]:
    """Return the length of the IP and TCP headers together, and the gso_size."""
    flags, gso_type, _, gso_size, csum_start, csum_offset = _VNET_HDR.unpack_from(data)
    # hdr_len is a hint that the kernel doesn't keep exact; csum_start is where TCP begins.
    tcp = VNET_HDR_SIZE + csum_start
    version = data[VNET_HDR_SIZE] >> 4
    if (
        gso_type != (_GSO_TCPV4 if version == 4 else _GSO_TCPV6)
        or not flags & _NEEDS_CSUM
        or csum_offset != _TCP_CHECKSUM
    ):
        raise FrameError("offload that was not offered")
    if csum_start < (20 if version == 4 else 40) or tcp + 20 > len(data):
        raise FrameError("TCP header outside of the packet")
    header = csum_start + (data[tcp + 12] >> 4) * 4
    if header < csum_start + 20 or gso_size == 0 or VNET_HDR_SIZE + header >= len(data):
        raise FrameError("TCP header length or segment size")
    return header, gso_size


def cut(frame: Frame, max_segments: int) -> list[Frame]:
    """Cut a superframe into frames of at most `max_segments` packets, as the kernel's segmentation would.

    Sequence numbers, lengths, IPv4 identification and header checksum are made right; FIN and PSH stay on the last
    packet, CWR on the first. TCP checksums stay partial: the kernel that receives the frame completes them.
    """
    if frame.segments <= max_segments:
        return [frame]
    data = frame.data
    header, gso_size = _superframe_fields(data)
    _, gso_type, _, _, tcp, _ = _VNET_HDR.unpack_from(data)
    packet = memoryview(data)[VNET_HDR_SIZE:]
    total = len(packet) - header
    is_v4 = gso_type == _GSO_TCPV4
    sequence = int.from_bytes(packet[tcp + 4 : tcp + 8], "big")
    tcp_flags = packet[tcp + 13]
    addresses = packet[12:20] if is_v4 else packet[8:40]
    pseudo = sum_words(addresses) + TCP
    identification = int.from_bytes(packet[4:6], "big")
    step = gso_size * max_segments
    frames = []
    for offset in range(0, total, step):
        piece = packet[header + offset : header + offset + step]
        length = len(piece)
        head = bytearray(packet[:header])
        if is_v4:
            struct.pack_into("!HH", head, 2, header + length, (identification + offset // gso_size) & 0xFFFF)
            write_ipv4_checksum(head, tcp)
        else:
            struct.pack_into("!H", head, 4, header + length - 40)
        flags = tcp_flags
        if offset + length < total:
            flags &= ~_FIN_PSH
        if offset:
            flags &= ~_CWR
        head[tcp + 13] = flags
        struct.pack_into("!I", head, tcp + 4, (sequence + offset) & 0xFFFFFFFF)
        struct.pack_into("!H", head, tcp + _TCP_CHECKSUM, _fold(pseudo + header - tcp + length))
        if length > gso_size:
            vnet = _VNET_HDR.pack(_NEEDS_CSUM, gso_type, header, gso_size, tcp, _TCP_CHECKSUM)
        else:
            vnet = _VNET_HDR.pack(_NEEDS_CSUM, 0, 0, 0, tcp, _TCP_CHECKSUM)
        segments = -(-length // gso_size)
        size = length + segments * header
        frames.append(Frame(b"".join((vnet, head, piece)), size, segments, header + min(gso_size, length)))
    return frames


def complete_checksum(frame: Frame) -> Frame:
    """Return the single packet `frame` with the checksum that the kernel left to hardware, and no offload asked for."""
    flags, _, _, _, start, offset = _VNET_HDR.unpack_from(frame.data)
    packet = bytearray(frame.data[VNET_HDR_SIZE:])
    if flags & _NEEDS_CSUM:
        # The field already holds the sum of the pseudo header. RFC 768: a UDP checksum of 0 is sent as 0xffff.
        value = 0xFFFF ^ sum_words(memoryview(packet)[start:])
        struct.pack_into("!H", packet, start + offset, value or 0xFFFF)
    return from_packet(bytes(packet))


def flow_key(frame: Frame) -> bytes:
    """Return bytes that are equal for packets of one flow: addresses, protocol and ports (RFC 6146's 5-tuple).

    A fragment, and a protocol without ports, is known by addresses and protocol alone.
    """
    data = frame.data
    if data[VNET_HDR_SIZE] >> 4 == 4:
        protocol = data[VNET_HDR_SIZE + 9]
        key = data[VNET_HDR_SIZE + 12 : VNET_HDR_SIZE + 20]
        transport = VNET_HDR_SIZE + (data[VNET_HDR_SIZE] & 15) * 4
        if (data[VNET_HDR_SIZE + 6] & 0x3F) | data[VNET_HDR_SIZE + 7]:
            return b"%c%b" % (protocol, key)
    else:
        protocol = data[VNET_HDR_SIZE + 6]
        key = data[VNET_HDR_SIZE + 8 : VNET_HDR_SIZE + 40]
        transport = VNET_HDR_SIZE + 40
    if protocol in (TCP, UDP):
        return b"%c%b%b" % (protocol, key, data[transport : transport + 4])
    return b"%c%b" % (protocol, key)


def transport_offset(packet: bytes | bytearray) -> int:
    """Return where the payload of the IP header begins (IPv6 extension headers count as payload)."""
    return (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40


def sum_words(data: bytes | bytearray | memoryview) -> int:
    """Return the one's complement sum of 16-bit words (RFC 1071), not inverted; an odd last byte is a high one."""
    number = int.from_bytes(data, "big")
    if len(data) & 1:
        number <<= 8
    # 2^16 is 1 modulo 2^16 - 1, so the remainder is the folded sum; only an all-zero input sums to 0.
    return number % 0xFFFF or (0xFFFF if number else 0)


def write_ipv4_checksum(header: bytearray, length: int) -> None:
    """Set the checksum of the IPv4 header in the first `length` bytes."""
    header[10:12] = b"\0\0"
    struct.pack_into("!H", header, 10, 0xFFFF ^ sum_words(memoryview(header)[:length]))


def _fold(number: int) -> int:
    return number % 0xFFFF or (0xFFFF if number else 0)
