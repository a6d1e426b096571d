"""What one direction counts. Packets are those of a wire: a superframe counts as its segments."""

from dataclasses import asdict, dataclass, field

DROP_REASONS = (
    "blackhole",  # cut
    "burst",  # Gilbert-Elliott loss
    "device",  # the receiving device refused it
    "flow_queue",  # waited too long for the cap of its flow
    "loss",  # independent loss
    "malformed",  # not an IP packet
    "mtu",  # too large, whether the sender was told or not
    "queue",  # waited too long for the capacity
)


@dataclass(slots=True)
class Counters:
    """Plain sums since the start; bytes are those of IP packets."""

    in_packets: int = 0
    in_bytes: int = 0
    out_packets: int = 0
    out_bytes: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DROP_REASONS, 0))
    dropped_bytes: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0
    fragments: int = 0
    """Packets that fragmentation added."""
    icmp: int = 0
    """'Too big' messages that this direction carried for the other one; part of in_packets."""
    superframes: int = 0
    """Frames of several packets that came in."""

    def drop(self, reason: str, packets: int, size: int) -> None:
        """Count packets that don't arrive."""
        self.dropped[reason] += packets
        self.dropped_bytes += size

    def as_dict(self) -> dict[str, object]:
        """Return all counters, JSON-able."""
        return asdict(self)
