"""What a tunnel has carried and refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpquic.proto.packet.frame import Frame


_COUNTERS = (
    "rx_bytes",
    "rx_duplicates",
    "rx_frames",
    "rx_late",
    "rx_packets",
    "rx_writes",
    "tx_bytes",
    "tx_frames",
    "tx_packets",
    "tx_resent_packets",
    "tx_superframes",
    "tx_acks_filtered",
)


class Counters:
    """What passed and what was refused. Packets are IP packets on the wire: each segment of a superframe is one."""

    __slots__ = (*_COUNTERS, "refused")

    def __init__(self) -> None:
        self.tx_resent_packets = 0
        self.tx_packets = self.tx_bytes = self.tx_frames = self.tx_superframes = self.tx_acks_filtered = 0
        self.rx_packets = self.rx_bytes = self.rx_frames = self.rx_writes = 0
        self.rx_duplicates = self.rx_late = 0
        self.refused: dict[str, int] = {}

    def refuse(self, reason: str, count: int = 1) -> None:
        """Count something that was not carried."""
        self.refused[reason] = self.refused.get(reason, 0) + count

    def snapshot(self) -> dict[str, int | dict[str, int]]:
        """Return all counters by name."""
        values: dict[str, int | dict[str, int]] = {name: getattr(self, name) for name in _COUNTERS}
        values["refused"] = dict(self.refused)
        return values


def packets_of(frame: Frame) -> int:
    """Return how many packets a superframe stands for, near enough for counters (a header may hold options)."""
    return -(-max(1, len(frame.payload) - 40) // frame.gso_size)
