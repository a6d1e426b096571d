"""The body of REGISTER and KEEPALIVE: a request of the client on a pipe, or the server's reply."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import NamedTuple

_BODY = Struct("!BBQIBHQ")
_MAX_AGO = 0xFFFF
KEEPALIVE_SIZE = _BODY.size


class Keepalive(IntEnum):
    """First octet of the body of REGISTER and KEEPALIVE.

    An epoch, the client's time, an RTT in microseconds, the pipe that it is of and how many milliseconds ago it was
    measured, and the shards sent by this pipe follow.
    """

    REQUEST = 0
    REPLY = 1
    REQUEST_HEARING = 2
    """A request of one who has had a reply since the one before: both directions worked when its RTT was measured."""


class PipeRtt(NamedTuple):
    """A round-trip time that was measured on a pipe, and how long ago, in seconds."""

    pipe: int
    rtt: float
    ago: float


class KeepaliveBody(NamedTuple):
    """What REGISTER and KEEPALIVE say."""

    kind: Keepalive
    epoch: int
    """The newest epoch that their sender has opened a packet of, low 8 bits."""
    stamp: float
    """The client's time in seconds, which a reply repeats."""
    rtt: PipeRtt | None = None
    """What the client has measured, and not told yet: the server, which sends no requests, learns it so."""
    shards: int = 0
    """Shards that their sender has sent by this pipe before: the peer learns how many of them were lost."""


def encode_keepalive(kind: Keepalive, epoch: int, stamp: float, rtt: PipeRtt | None = None, shards: int = 0) -> bytes:
    """Return the body; the arguments are those of `KeepaliveBody`."""
    pipe = microseconds = ago = 0
    if rtt is not None:
        pipe, microseconds = rtt.pipe, min(max(int(rtt.rtt * 1e6), 1), 0xFFFFFFFF)
        ago = min(max(int(rtt.ago * 1e3), 0), _MAX_AGO)
    return _BODY.pack(kind, epoch & 0xFF, int(stamp * 1e6) & 0xFFFFFFFFFFFFFFFF, microseconds, pipe, ago, shards)


def decode_keepalive(body: bytes) -> KeepaliveBody | None:
    """Return what a body says; None when it is malformed."""
    if len(body) != KEEPALIVE_SIZE or body[0] > max(Keepalive):
        return None
    kind, epoch, stamp, microseconds, pipe, ago, shards = _BODY.unpack(body)
    rtt = PipeRtt(pipe, microseconds / 1e6, ago / 1e3) if microseconds else None
    return KeepaliveBody(Keepalive(kind), epoch, stamp / 1e6, rtt, shards)
