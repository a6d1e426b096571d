"""The queue of one class in front of the paths: bounded in bytes, with CoDel (RFC 8289) against standing delay."""

from __future__ import annotations

from collections import deque
from math import sqrt

from mpquic.proto import ip
from mpquic.proto.superframe import Packet, drop_segment

_ECT = (ip.Ecn.ECT_0, ip.Ecn.ECT_1, ip.Ecn.CE)


class ClassQueue:
    """First in, first out. What waits longer than `target` for a whole `interval` (seconds) is marked or dropped.

    The signal is ECN CE for packets that can carry it. Of a superframe that cannot, one segment is dropped, as CoDel
    would have dropped one packet. `max_bytes` counts payload; a packet that does not fit is refused at the tail.
    """

    # RFC 8289 section 5.5 "maxpacket": with no more than this left, the queue is not a standing one.
    MAX_PACKET = 1514

    def __init__(self, *, max_bytes: int = 1 << 20, target: float = 0.005, interval: float = 0.1) -> None:
        self.max_bytes = max_bytes
        """Payload that fits; may be changed."""
        self.target = target
        """Seconds; may be changed."""
        self.interval = interval
        """Seconds: about the longest round trip of the connections in it; may be changed."""
        self.excess = float("inf")
        """Seconds of waiting at which half an interval is enough; may be changed."""
        self._entries: deque[tuple[float, Packet]] = deque()
        self.bytes = 0
        self.overflow_drops = 0
        self.codel_drops = 0
        self.codel_marks = 0
        self.expired = 0
        self._first_above: float | None = None
        self._drop_next = 0.0
        self._count = 0
        self._last_count = 0
        self._dropping = False

    def __len__(self) -> int:
        return len(self._entries)

    def push(self, packet: Packet, now: float) -> bool:
        """Append a packet; False when it does not fit and is lost."""
        size = len(packet.payload)
        if self.bytes + size > self.max_bytes:
            self.overflow_drops += packet.segments
            return False
        self.bytes += size
        self._entries.append((now, packet))
        return True

    def pop(self, now: float) -> Packet | None:
        """Take the next packet out, None when the queue is empty (RFC 8289 section 5.6, `deque`)."""
        packet, may_drop = self._take(now)
        if packet is None:
            self._dropping = False
            return None
        if self._dropping:
            if not may_drop:
                self._dropping = False
                return packet
            while self._dropping and packet is not None and now >= self._drop_next:
                self._count += 1
                survivor = self._signal(packet)
                if survivor is not None:
                    self._drop_next = self._control_law(self._drop_next)
                    return survivor
                packet, may_drop = self._take(now)
                if not may_drop:
                    self._dropping = False
                else:
                    self._drop_next = self._control_law(self._drop_next)
            return packet
        if not may_drop:
            return packet
        self._dropping = True
        delta = self._count - self._last_count
        recently = now - self._drop_next < 16 * self.interval
        self._count = delta if delta > 1 and recently else 1
        self._drop_next = self._control_law(now)
        self._last_count = self._count
        survivor = self._signal(packet)
        if survivor is not None:
            return survivor
        return self._take(now)[0]

    def expire(self, before: float) -> None:
        """Drop what was queued before a time: nobody wants it after an outage."""
        while self._entries and self._entries[0][0] < before:
            _, packet = self._entries.popleft()
            self.bytes -= len(packet.payload)
            self.expired += packet.segments

    def clear(self) -> None:
        """Drop everything."""
        self.expire(float("inf"))

    def _take(self, now: float) -> tuple[Packet | None, bool]:
        if not self._entries:
            self._first_above = None
            return None, False
        queued_at, packet = self._entries.popleft()
        self.bytes -= len(packet.payload)
        if now - queued_at < self.target or self.bytes <= self.MAX_PACKET:
            self._first_above = None
            return packet, False
        if self._first_above is None:
            self._first_above = now + self.interval
            return packet, False
        patience = self.interval / 2 if now - queued_at >= self.excess else 0.0
        return packet, now >= self._first_above - patience

    def _control_law(self, time: float) -> float:
        return time + self.interval / sqrt(self._count)

    def _signal(self, packet: Packet) -> Packet | None:
        """Mark or drop; return what is left to send."""
        if ip.ecn(packet.payload) in _ECT:
            self.codel_marks += 1
            packet.payload = ip.mark_ce(packet.payload)
            return packet
        self.codel_drops += 1
        return drop_segment(packet)
