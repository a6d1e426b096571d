"""The body of REGISTER and KEEPALIVE: a question of the client on a pipe, or the server's answer."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

_BODY = Struct("!BBQI")
KEEPALIVE_SIZE = _BODY.size


class Keepalive(IntEnum):
    """First octet of the body of REGISTER and KEEPALIVE; an epoch, the asker's time and RTT in microseconds follow."""

    REQUEST = 0
    REPLY = 1
    REQUEST_HEARING = 2
    """A question of one who has had a reply since the one before: so both directions work."""


def encode_keepalive(kind: Keepalive, epoch: int, stamp: float, rtt: float | None = None) -> bytes:
    """Return the body: the newest epoch opened here, and the asker's time in seconds, which an answer repeats.

    `rtt` is what the asker has measured since it asked last, in seconds: the peer, which doesn't ask, learns it so.
    """
    microseconds = 0 if rtt is None else min(max(int(rtt * 1e6), 1), 0xFFFFFFFF)
    return _BODY.pack(kind, epoch & 0xFF, int(stamp * 1e6) & 0xFFFFFFFFFFFFFFFF, microseconds)


def decode_keepalive(body: bytes) -> tuple[Keepalive, int, float, float | None] | None:
    """Return kind, low 8 bits of the epoch, stamp, and RTT if there is one; None when the body is malformed."""
    if len(body) != KEEPALIVE_SIZE or body[0] > max(Keepalive):
        return None
    kind, epoch, stamp, microseconds = _BODY.unpack(body)
    return Keepalive(kind), epoch, stamp / 1e6, microseconds / 1e6 if microseconds else None
