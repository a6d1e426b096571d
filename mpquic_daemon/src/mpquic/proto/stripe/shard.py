"""What a DATA shard carries: tunnel frames of one class and DSCP, back to back, then perhaps zeros.

A frame says its own length and never begins with a zero octet, so the zeros that FEC needs to make shards equal are
told from content without a length field of their own, and never travel.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from mpquic.proto.packet.frame import BASE_HEADER_SIZE, FRAME_VERSION, HEADER_SIZES, Frame, FrameError, FrameFlag

if TYPE_CHECKING:
    from collections.abc import Sequence

_FRAGMENT = int(FrameFlag.FRAGMENT)
_BASE = Struct("!BBHI")
_VERSION_BITS = FRAME_VERSION << 4


def flow_label(packet: bytes | memoryview, traffic_class: int) -> int:
    """Return what frames must share to share a group, class and DSCP, as one number. `packet` has its header."""
    label = traffic_class << 8
    if len(packet) < 2:
        return label
    first = packet[0]
    if first >> 4 == 4:
        return label | packet[1] >> 2
    return label | (first & 0x0F) << 2 | packet[1] >> 6


def _frame_label(frame: Frame) -> int:
    # Of a fragment only the first has the IP header; the others count as DSCP 0.
    hidden = frame.flags & _FRAGMENT and frame.fragment_index
    return flow_label(b"" if hidden else frame.payload, frame.traffic_class)


class Bundles(NamedTuple):
    """Frames laid into shards: (label, bodies) in order; `taken` frames went in, or were `oversized`."""

    stretches: list[tuple[int, list[bytes]]]
    taken: int
    oversized: int


def bundle(frames: Sequence[Frame], capacity: int, room: int) -> Bundles:
    """Lay frames into shards of at most `capacity` bytes, until `room` bytes are used; neighbours of equal label share.

    The last frame may overshoot `room`. Frames that no shard takes are left out and counted.
    """
    stretches: list[tuple[int, list[bytes]]] = []
    bodies: list[bytes] = []
    parts: list[bytes | memoryview] = []
    left = 0
    label, start, current_class = -1, b"", -1
    taken = oversized = 0
    pack, join = _BASE.pack, b"".join
    for frame in frames:
        if room <= 0:
            break
        taken += 1
        payload, flags = frame.payload, frame.flags
        if flags & 3:
            header = frame.encode_header()
        else:
            header = pack(_VERSION_BITS | flags, frame.traffic_class, len(payload), frame.sequence & 0xFFFFFFFF)
        size = len(header) + len(payload)
        if size > capacity:
            oversized += 1
            continue
        room -= size
        # Neighbours mostly begin alike; only when they don't, the label is looked up.
        if payload[:2] != start or frame.traffic_class != current_class or flags & _FRAGMENT:
            start, current_class = bytes(payload[:2]), frame.traffic_class
            new = _frame_label(frame)
            if new != label:
                if parts:
                    bodies.append(join(parts))
                    parts = []
                bodies, label = [], new
                stretches.append((label, bodies))
        if parts and size > left:
            bodies.append(join(parts))
            parts = []
        if parts:
            parts += (header, payload)
            left -= size
        else:
            parts = [header, payload]
            left = capacity - size
    if parts:
        bodies.append(join(parts))
    return Bundles(stretches, taken, oversized)


def trim(block: bytes) -> bytes:
    """Cut the zeros off a shard that FEC gave back.

    Raises:
        FrameError: it holds no whole frames.
    """
    offset, size = 0, len(block)
    while offset < size and block[offset]:
        if block[offset] >> 4 != FRAME_VERSION or size - offset < BASE_HEADER_SIZE:
            raise FrameError("repaired_shard")
        length = int.from_bytes(block[offset + 2 : offset + 4], "big")
        offset += HEADER_SIZES[block[offset] & 15] + length
    if offset == 0 or offset > size or block.count(0, offset) != size - offset:
        raise FrameError("repaired_shard")
    return block[:offset]
