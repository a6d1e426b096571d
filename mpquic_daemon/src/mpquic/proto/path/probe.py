"""A probe of a path and its reply: the payload of a QUIC DATAGRAM frame, apart from tunnel frames by its first octet.

Layout (big endian)::

    0               1               2               3
    |     kind      |   reserved    |        sequence number        |
    |      heard, milliseconds      |
    |   round-trip time in microseconds, 0: no new measurement      |

`kind` is 0x80 (probe) or 0x81 (reply, with the sequence number of the probe); `reserved` is 0 and isn't looked at.
`heard` is how long ago the sender has heard the peer last, 65535 for that time or longer.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

_LAYOUT = Struct("!BxHHI")
PROBE_SIZE = _LAYOUT.size
_PROBE, _REPLY = 0x80, 0x81
_MAX_HEARD = 0xFFFF
_MAX_RTT = 0xFFFFFFFF
SEQUENCES = 1 << 16
"""Sequence numbers begin anew after so many."""


class PathProbe(NamedTuple):
    """Times are seconds; `rtt` is what the sender has measured since its last probe, None for nothing."""

    sequence: int
    is_reply: bool = False
    heard_ago: float = 0.0
    rtt: float | None = None

    def encode(self) -> bytes:
        """Return the payload of the datagram."""
        microseconds = 0 if self.rtt is None else min(max(int(self.rtt * 1e6), 1), _MAX_RTT)
        heard = min(max(int(self.heard_ago * 1e3), 0), _MAX_HEARD)
        return _LAYOUT.pack(_REPLY if self.is_reply else _PROBE, self.sequence, heard, microseconds)


def is_probe(payload: bytes) -> bool:
    """Whether the payload of a datagram is meant to be a probe or a reply: no tunnel frame begins like this."""
    return len(payload) == PROBE_SIZE and payload[0] >= _PROBE


def decode(payload: bytes) -> PathProbe | None:
    """Return what it says; None when it is malformed."""
    if len(payload) != PROBE_SIZE or payload[0] not in (_PROBE, _REPLY):
        return None
    kind, sequence, heard, microseconds = _LAYOUT.unpack(payload)
    return PathProbe(sequence, kind == _REPLY, heard / 1e3, microseconds / 1e6 if microseconds else None)
