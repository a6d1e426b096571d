"""What a DATA shard carries: tunnel frames of one class and DSCP, back to back, then perhaps zeros.

A frame says its own length and never begins with a zero octet, so the zeros that FEC needs to make shards equal are
told from content without a length field of their own, and never travel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.proto.frame import BASE_HEADER_SIZE, FRAME_VERSION, Frame, FrameError, FrameFlag

if TYPE_CHECKING:
    from collections.abc import Sequence

_FRAGMENT = int(FrameFlag.FRAGMENT)
_HEADER_SIZES = (8, 10, 10, 12) * 2


def flow_label(frame: Frame) -> int:
    """Return what frames must share to share a group: class and DSCP, as one number.

    Of a fragment only the first has the IP header; the others count as DSCP 0.
    """
    payload = frame.payload
    label = frame.traffic_class << 8
    if len(payload) < 2 or (frame.flags & _FRAGMENT and frame.fragment_index):
        return label
    first = payload[0]
    if first >> 4 == 4:
        return label | payload[1] >> 2
    return label | (first & 0x0F) << 2 | payload[1] >> 6


def bundle(frames: Sequence[Frame], capacity: int) -> list[tuple[int, list[bytes]]]:
    """Lay frames into shards of at most `capacity` bytes; neighbours of equal label share shards.

    Returns runs of (label, bodies) in order.

    Raises:
        FrameError: a frame is larger than a shard.
    """
    runs: list[tuple[int, list[bytes]]] = []
    bodies: list[bytes] = []
    parts: list[bytes | memoryview] = []
    room = 0
    current = -1
    for frame in frames:
        label = flow_label(frame)
        size = frame.size
        if label != current or size > room:
            if size > capacity:
                raise FrameError("oversized")
            if parts:
                bodies.append(b"".join(parts))
            if label != current:
                bodies = []
                runs.append((label, bodies))
                current = label
            parts = [frame.encode_header(), frame.payload]
            room = capacity - size
        else:
            parts.append(frame.encode_header())
            parts.append(frame.payload)
            room -= size
    if parts:
        bodies.append(b"".join(parts))
    return runs


def trim(block: bytes) -> bytes:
    """Cut the zeros off a shard that FEC gave back.

    Raises:
        FrameError: it holds no whole frames.
    """
    offset, size = 0, len(block)
    while offset < size and block[offset]:
        if block[offset] >> 4 != FRAME_VERSION or size - offset < BASE_HEADER_SIZE:
            raise FrameError("repaired shard")
        length = int.from_bytes(block[offset + 2 : offset + 4], "big")
        offset += _HEADER_SIZES[block[offset] & 7] + length
    if offset == 0 or offset > size or block.count(0, offset) != size - offset:
        raise FrameError("repaired shard")
    return block[:offset]
