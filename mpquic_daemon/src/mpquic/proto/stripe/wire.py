"""The stripe datagram: a 16-byte header in clear, then one AEAD-sealed body.

Layout of the header (big endian); all of it is associated data of the AEAD::

    0               1               2               3
    |             magic             |version| pipe  |epoch|  type   |
    |                            session                            |
    |                 packet number, low 32 bits                    |
    |  shard index  |  data shards  |     length of what follows    |

Packet numbers are 64 bits and dense, one space for shards and one for the control types, as in QUIC (RFC 9000 section
12.3). A group of FEC has consecutive numbers, so the number less the shard index names the group.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from struct import Struct

MAGIC = 0x6D71
VERSION = 1
HEADER_SIZE = 16
TAG_SIZE = 16
OVERHEAD = HEADER_SIZE + TAG_SIZE
MAX_PIPES = 16
MAX_GROUP = 128
"""Shards of a group, data and parity together."""
REPAIR_PREFIX = Struct("!I")
"""What the body of a REPAIR begins with: the number of the shard that it copies, low 32 bits."""

QUICK_HEADER = Struct("!QII")
"""The header in three numbers: what a session's packets of one type and pipe have in common; the packet number; place
and length."""
NUMBER = Struct("!8xI")
"""The packet number alone, low 32 bits."""
HEADER = Struct("!HBBIIBBH")
pack_header = HEADER.pack
unpack_header = HEADER.unpack_from


@lru_cache(maxsize=512)
def each_of(head: Struct, segment: int, count: int) -> Struct:
    """Return what unpacks what `head` does of each of so many datagrams of `segment` bytes, and skips the rest."""
    return Struct("!" + f"{head.format[1:]}{segment - head.size}x" * count)


class PacketType(IntEnum):
    """Type of a packet. DATA, PARITY and REPAIR are shards; the others have the control number space."""

    DATA = 0
    PARITY = 1
    REPAIR = 2
    REGISTER = 8
    KEEPALIVE = 9
    REPORT = 10
    PROBE = 11
    PROBE_ACK = 12
    PATH_CHALLENGE = 13
    PATH_RESPONSE = 14


CONTROL_BIT = 0x08
SHARD_TYPES = frozenset(kind for kind in PacketType if not kind & CONTROL_BIT)
CONTROL_TYPES = frozenset(PacketType) - SHARD_TYPES
TYPE_MASK = 0x1F
EPOCH_SHIFT = 5
EPOCHS = 8
_KNOWN_TYPES = frozenset(int(kind) for kind in PacketType)


class WireError(ValueError):
    """A datagram that is no stripe packet of this version. `reason` is a short word for counters."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"malformed stripe packet: {reason}")
        self.reason = reason


class Header:
    """A decoded header. `number` is the low 32 bits, `epoch` the low 3."""

    __slots__ = ("data_shards", "epoch", "index", "kind", "length", "number", "pipe", "session")

    def __init__(
        self, kind: int, session: int, number: int, pipe: int, epoch: int, index: int, data_shards: int, length: int
    ) -> None:
        self.kind = kind
        self.session = session
        self.number = number
        self.pipe = pipe
        self.epoch = epoch
        self.index = index
        self.data_shards = data_shards
        self.length = length

    def encode(self) -> bytes:
        """Return the 16 bytes."""
        return pack_header(
            MAGIC,
            VERSION << 4 | self.pipe,
            (self.epoch % EPOCHS) << EPOCH_SHIFT | self.kind,
            self.session,
            self.number & 0xFFFFFFFF,
            self.index,
            self.data_shards,
            self.length,
        )


def check_shape(kind: int, index: int, data_shards: int) -> str | None:
    """Say what is wrong with a type and its place in a group, None when nothing is."""
    if kind == PacketType.DATA or kind == PacketType.REPAIR:
        # Without parity there is no group; with it a shard lies inside it.
        return "shard" if (index and index >= data_shards) or data_shards > MAX_GROUP else None
    if kind == PacketType.PARITY:
        return None if 0 < data_shards <= index < MAX_GROUP else "shard"
    if kind not in _KNOWN_TYPES:
        return "type"
    return "shard" if index or data_shards else None


def decode_header(datagram: bytes | bytearray | memoryview) -> Header:
    """Decode the header of one whole datagram. What it says is not to be believed before the body is opened.

    Raises:
        WireError: too short, wrong magic, version, type, place in the group or length.
    """
    if len(datagram) < OVERHEAD:
        raise WireError("truncated")
    magic, version_pipe, epoch_type, session, number, index, data_shards, length = unpack_header(datagram)
    if magic != MAGIC:
        raise WireError("magic")
    if version_pipe >> 4 != VERSION:
        raise WireError("version")
    kind = epoch_type & TYPE_MASK
    fault = check_shape(kind, index, data_shards)
    if fault is not None:
        raise WireError(fault)
    if length != len(datagram) - HEADER_SIZE:
        raise WireError("length")
    return Header(kind, session, number, version_pipe & 15, epoch_type >> EPOCH_SHIFT, index, data_shards, length)


def shard_number(datagram: bytes | bytearray | memoryview) -> int | None:
    """Return the low 32 bits of the number that a datagram claims in the space of shards.

    None when it claims a control type or is too short: for those who look at the order before anything is opened.
    """
    if len(datagram) < OVERHEAD or datagram[3] & CONTROL_BIT:
        return None
    return int.from_bytes(datagram[8:12], "big")


def session_of(datagram: bytes | bytearray | memoryview) -> int | None:
    """Return the session id that a datagram claims, None when it is too short or not ours: for the server's look-up."""
    if len(datagram) < OVERHEAD:
        return None
    magic, version_pipe, _, session = unpack_header(datagram)[:4]
    return int(session) if magic == MAGIC and version_pipe >> 4 == VERSION else None
