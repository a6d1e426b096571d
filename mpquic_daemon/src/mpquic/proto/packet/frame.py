"""The tunnel frame: one IP packet, superframe or fragment, the same in every data plane.

Layout (big endian)::

    0               1               2               3
    | version|flags |     class     |            length             |
    |              tunnel sequence number, low 32 bits              |
    [ gso_size, with SUPERFRAME     ] [ index | count, with FRAGMENT ]
    [ offset | gso_size, with SEGMENT                                ]
    payload of `length` bytes

A sequence number names one packet: its fragments share it, and so do copies of it on several paths. A SEGMENT carries
the headers of a superframe and one slice of its payload (`mpquic.proto.packet.segment`); decoding gives the packet.
"""

from __future__ import annotations

from enum import IntFlag
from struct import Struct
from typing import TYPE_CHECKING

from mpquic.proto.packet import segment
from mpquic.proto.packet.ip import MalformedPacketError

if TYPE_CHECKING:
    from collections.abc import Iterable

FRAME_VERSION = 1
BASE_HEADER_SIZE = 8
MAX_HEADER_SIZE = 12
MAX_PAYLOAD = 65535

_SEQUENCE_BITS = 32
_SEQUENCE_WINDOW = 1 << _SEQUENCE_BITS
_SEQUENCE_MASK = _SEQUENCE_WINDOW - 1
_SEQUENCE_LIMIT = 1 << 64

_BASE = Struct("!BBHI")
_BASE_GSO = Struct("!BBHIH")
_BASE_FRAGMENT = Struct("!BBHIBB")
_BASE_GSO_FRAGMENT = Struct("!BBHIHBB")
_PLACE = Struct("!HH")
_GSO = Struct("!H")
_unpack_base = _BASE.unpack_from
_VERSION_BITS = FRAME_VERSION << 4


LOW_LATENCY = 0x80
"""Bit of the class octet: a packet of this class that comes late is as good as lost."""
MAX_CLASS = 0x7F


def class_octet(number: int, *, low_latency: bool = False) -> int:
    """Return the class octet of frames of a class; 0 is the number of what belongs to none."""
    if not 0 <= number <= MAX_CLASS:
        raise ValueError(f"a class has a number from 0 to {MAX_CLASS}")
    return number | LOW_LATENCY if low_latency else number


class FrameFlag(IntFlag):
    """Flags of a frame.

    CHECKSUM means that the transport checksum of the packet is partial, as the sending kernel left it: the receiver
    writes the sum of the pseudo-header and lets its own kernel complete it. SEGMENT comes
    with CHECKSUM and no other.
    """

    FRAGMENT = 1
    SUPERFRAME = 2
    CHECKSUM = 4
    SEGMENT = 8


_FRAGMENT = int(FrameFlag.FRAGMENT)
_SUPERFRAME = int(FrameFlag.SUPERFRAME)
_CHECKSUM = int(FrameFlag.CHECKSUM)
SEGMENT_FLAGS = int(FrameFlag.SEGMENT | FrameFlag.CHECKSUM)
"""Flags of a segment: no others go with it, and its checksum is always partial."""
_KNOWN_FLAGS = _FRAGMENT | _SUPERFRAME | _CHECKSUM
HEADER_SIZES = ((8, 10, 10, 12) * 2) + (12,) * 8
"""Bytes of an encoded header by its flags."""


class FrameError(ValueError):
    """Bytes that are no frame. `reason` is a short word for counters."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"malformed frame: {reason}")
        self.reason = reason


class Frame:
    """One frame. `sequence` is the full 64-bit number at the sender and the low 32 bits just after decoding."""

    __slots__ = ("flags", "fragment_count", "fragment_index", "gso_size", "payload", "sequence", "traffic_class")

    def __init__(
        self,
        payload: bytes | memoryview,
        traffic_class: int,
        sequence: int,
        flags: int = 0,
        gso_size: int = 0,
        fragment_index: int = 0,
        fragment_count: int = 1,
    ) -> None:
        self.payload = payload
        self.traffic_class = traffic_class
        self.sequence = sequence
        self.flags = flags
        self.gso_size = gso_size
        self.fragment_index = fragment_index
        self.fragment_count = fragment_count

    @property
    def header_size(self) -> int:
        """Bytes of the encoded header."""
        return HEADER_SIZES[self.flags & _KNOWN_FLAGS]

    @property
    def size(self) -> int:
        """Bytes of the encoded frame, header included."""
        return HEADER_SIZES[self.flags & _KNOWN_FLAGS] + len(self.payload)

    def encode_header(self) -> bytes:
        """Return the header; the payload follows it on the wire."""
        flags = self.flags & _KNOWN_FLAGS
        shape = flags & 3
        first = _VERSION_BITS | flags
        low = self.sequence & _SEQUENCE_MASK
        if shape == 0:
            return _BASE.pack(first, self.traffic_class, len(self.payload), low)
        if shape == _SUPERFRAME:
            return _BASE_GSO.pack(first, self.traffic_class, len(self.payload), low, self.gso_size)
        index, count = self.fragment_index, self.fragment_count
        if shape == _FRAGMENT:
            return _BASE_FRAGMENT.pack(first, self.traffic_class, len(self.payload), low, index, count)
        return _BASE_GSO_FRAGMENT.pack(first, self.traffic_class, len(self.payload), low, self.gso_size, index, count)

    def encode(self) -> bytes:
        """Return header and payload in one piece."""
        return b"".join((self.encode_header(), self.payload))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frame):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return (
            f"Frame({len(self.payload)} bytes, class={self.traffic_class}, sequence={self.sequence}, "
            f"flags={FrameFlag(self.flags)!r}, gso_size={self.gso_size}, "
            f"fragment={self.fragment_index}/{self.fragment_count})"
        )

    def _key(self) -> tuple[bytes, int, int, int, int, int, int]:
        return (
            bytes(self.payload),
            self.traffic_class,
            self.sequence,
            self.flags,
            self.gso_size,
            self.fragment_index,
            self.fragment_count,
        )


def encode_frames(frames: Iterable[Frame]) -> bytes:
    """Join frames back to back, as in one datagram or a stretch of a stream."""
    parts: list[bytes | memoryview] = []
    for frame in frames:
        parts.append(frame.encode_header())
        parts.append(frame.payload)
    return b"".join(parts)


def _decode_one(data: bytes | bytearray, offset: int, available: int) -> tuple[Frame | None, int]:
    """Decode the frame at `offset`; (None, offset) when bytes are missing. Raises FrameError."""
    if available - offset < BASE_HEADER_SIZE:
        return None, offset
    first, traffic_class, length, sequence = _unpack_base(data, offset)
    if first & 0xF0 != _VERSION_BITS:
        raise FrameError("version")
    flags = first & 0x0F
    if flags > _KNOWN_FLAGS and flags != SEGMENT_FLAGS:
        raise FrameError("flags")
    if length == 0:
        raise FrameError("empty")
    start = offset + HEADER_SIZES[flags]
    end = start + length
    if flags & 11 == 0:
        if end > available:
            return None, offset
        return Frame(bytes(data[start:end]), traffic_class, sequence, flags), end
    if start > available:
        return None, offset
    gso_size, index, count = 0, 0, 1
    if flags == SEGMENT_FLAGS:
        if end > available:
            return None, offset
        place, gso_size = _PLACE.unpack_from(data, offset + BASE_HEADER_SIZE)
        try:
            packet = segment.restore(bytes(data[start:end]), place, gso_size)
        except MalformedPacketError as error:
            raise FrameError(error.reason) from error
        return Frame(packet, traffic_class, sequence, _CHECKSUM), end
    if flags & _SUPERFRAME:
        gso_size = _GSO.unpack_from(data, offset + BASE_HEADER_SIZE)[0]
        if gso_size == 0:
            raise FrameError("gso_size")
    if flags & _FRAGMENT:
        index, count = data[start - 2], data[start - 1]
        if count < 2 or index >= count:
            raise FrameError("fragment")
    if end > available:
        return None, offset
    return Frame(bytes(data[start:end]), traffic_class, sequence, flags, gso_size, index, count), end


def decode_frames(data: bytes) -> list[Frame]:
    """Decode the frames of one datagram, back to back and complete.

    Raises:
        FrameError: the datagram is empty, truncated or malformed; nothing of it is to be used.
    """
    frames: list[Frame] = []
    offset, available = 0, len(data)
    while offset < available:
        frame, offset = _decode_one(data, offset, available)
        if frame is None:
            raise FrameError("truncated")
        frames.append(frame)
    if not frames:
        raise FrameError("empty")
    return frames


class FrameStreamDecoder:
    """Cuts an ordered byte stream into frames. Holds at most one incomplete frame between calls.

    A malformed frame ends the stream for good, since nothing marks where the next one begins.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed = BASE_HEADER_SIZE
        self._failed: str | None = None

    @property
    def buffered(self) -> int:
        """Bytes held back for an incomplete frame."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes of the stream and return the frames that they complete.

        Raises:
            FrameError: now, or at an earlier call, the stream was malformed.
        """
        if self._failed is not None:
            raise FrameError(self._failed)
        buffer = self._buffer
        buffer += data
        available = len(buffer)
        if available < self._needed:
            return []
        frames: list[Frame] = []
        offset = 0
        try:
            while True:
                frame, offset = _decode_one(buffer, offset, available)
                if frame is None:
                    break
                frames.append(frame)
        except FrameError as error:
            self._failed = error.reason
            self._buffer = bytearray()
            if not frames:
                raise
            return frames
        if offset:
            del buffer[:offset]
        self._needed = self._bytes_needed()
        return frames

    def _bytes_needed(self) -> int:
        if len(self._buffer) < BASE_HEADER_SIZE:
            return BASE_HEADER_SIZE
        first, _, length, _ = _unpack_base(self._buffer)
        return int(HEADER_SIZES[first & 15] + length)


class SequenceCounter:
    """Hands out tunnel sequence numbers, 64 bits, from 0."""

    __slots__ = ("_next",)

    def __init__(self, first: int = 0) -> None:
        self._next = first

    def take(self, count: int = 1) -> int:
        """Reserve `count` consecutive numbers and return the first."""
        first = self._next
        self._next = first + count
        return first


def expand_sequence(low32: int, highest: int) -> int:
    """Return the 64-bit number nearest to `highest` + 1 whose low 32 bits are `low32` (RFC 9000 appendix A.3).

    `highest` is the highest number seen so far, -1 before the first.
    """
    expected = highest + 1
    candidate = (expected & ~_SEQUENCE_MASK) | low32
    half = _SEQUENCE_WINDOW >> 1
    if candidate <= expected - half and candidate < _SEQUENCE_LIMIT - _SEQUENCE_WINDOW:
        return candidate + _SEQUENCE_WINDOW
    if candidate > expected + half and candidate >= _SEQUENCE_WINDOW:
        return candidate - _SEQUENCE_WINDOW
    return candidate


def serial_distance(number: int, other: int) -> int:
    """Return by how much a 32-bit number is ahead of another, negative when it is behind (RFC 1982, RFC 9293 3.4)."""
    return (number - other + 0x80000000 & 0xFFFFFFFF) - 0x80000000
