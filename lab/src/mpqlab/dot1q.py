"""Tags of IEEE 802.1Q in Ethernet frames: reading, putting in, taking out."""

from __future__ import annotations

import struct
from dataclasses import dataclass

TPID = 0x8100
"""Ether type of a tag of customer VLANs."""
_ADDRESSES = 12
_TAG = struct.Struct("!HH")
_VLAN_BITS = 12
_MAX_VLAN = (1 << _VLAN_BITS) - 1
_MAX_PRIORITY = 7


@dataclass(frozen=True, slots=True)
class Tag:
    """The tag control information: VLAN id (0: priority only), priority (PCP, 802.1p), drop eligible indicator."""

    vlan: int
    priority: int = 0
    drop_eligible: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.vlan <= _MAX_VLAN and 0 <= self.priority <= _MAX_PRIORITY):
            raise ValueError(f"no tag has VLAN {self.vlan} and priority {self.priority}")

    @classmethod
    def from_tci(cls, tci: int) -> Tag:
        """Read its 16 bits."""
        return cls(tci & _MAX_VLAN, tci >> _VLAN_BITS + 1, bool(tci >> _VLAN_BITS & 1))

    @property
    def tci(self) -> int:
        """Its 16 bits."""
        return self.priority << _VLAN_BITS + 1 | self.drop_eligible << _VLAN_BITS | self.vlan


def with_tag(frame: bytes, tag: Tag) -> bytes:
    """Return a frame with one more tag, the outermost."""
    return frame[:_ADDRESSES] + _TAG.pack(TPID, tag.tci) + frame[_ADDRESSES:]


def without_tag(frame: bytes) -> tuple[Tag | None, bytes]:
    """Return the outermost tag of a frame, None when it has none, and the frame without it."""
    if len(frame) < _ADDRESSES + _TAG.size:
        return None, frame
    ether_type, tci = _TAG.unpack_from(frame, _ADDRESSES)
    if ether_type != TPID:
        return None, frame
    return Tag.from_tci(tci), frame[:_ADDRESSES] + frame[_ADDRESSES + _TAG.size :]
