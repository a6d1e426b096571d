"""The queue of one class in front of the paths: FQ-CoDel (RFC 8290), bounded in bytes.

Each connection has a queue of its own, with CoDel (RFC 8289) against standing delay, and they are served by turns by
deficit round robin. Whoever sends little finds no queue: a connection that begins to wait goes before those that do.
"""

from __future__ import annotations

from collections import deque
from itertools import chain
from math import sqrt

from mpquic.proto.packet import ip
from mpquic.proto.packet.superframe import Packet, drop_segment, split

_ECT = (ip.Ecn.ECT_0, ip.Ecn.ECT_1, ip.Ecn.CE)

MAX_PACKET = 1514
"""Bytes of a full packet: the least quantum (RFC 8290 section 5.2.4), and what CoDel takes for no standing queue (RFC
8289 section 5.5, "maxpacket")."""
MAX_FLOWS = 1024
"""Connections that have a queue of their own, and what is remembered of those that don't wait; others share one."""
_SHARED = b""
_LARGEST = 1 << 16


class _Flow:
    """What waits of one connection, and the state of its CoDel."""

    __slots__ = (
        "bytes",
        "count",
        "deficit",
        "drop_next",
        "dropping",
        "entries",
        "first_above",
        "last_count",
        "listed",
    )

    def __init__(self) -> None:
        self.entries: deque[tuple[float, Packet]] = deque()
        """Packets with the time at which each was queued."""
        self.bytes = 0
        self.deficit = 0
        self.listed = False
        """Whether it is among the flows that are served."""
        self.first_above: float | None = None
        self.drop_next = 0.0
        self.count = 0
        self.last_count = 0
        self.dropping = False


class ClassQueue:
    """Packets of one class. What waits longer than `target` for a whole `interval` (seconds) is marked or dropped.

    The signal is ECN CE for packets that can carry it. Of a superframe that cannot, one segment is dropped, as CoDel
    would have dropped one packet. `max_bytes` counts payload; when it is exceeded, the flow with the most bytes loses
    its oldest packets (RFC 8290 section 4.1.2).
    """

    def __init__(self, *, max_bytes: int = 1 << 20, target: float = 0.005, interval: float = 0.1) -> None:
        self.max_bytes = max_bytes
        """Payload that fits; may be changed."""
        self.target = target
        """Seconds; may be changed."""
        self.interval = interval
        """Seconds: about the longest round trip of the connections in it; may be changed."""
        self.excess = float("inf")
        """Seconds of waiting at which half an interval is enough; may be changed."""
        self.unit = _LARGEST
        """Bytes of a superframe that leave together at most, where it has more than one segment; may be changed."""
        self.bytes = 0
        self.overflow_drops = 0
        self.codel_drops = 0
        self.codel_marks = 0
        self.expired = 0
        self._arrived: deque[tuple[float, Packet]] = deque()
        """What hasn't been sorted into flows yet: nothing has to be when all of it leaves at once."""
        self._flows: dict[bytes, _Flow] = {}
        """By what `ip.flow` returns, those that began to wait last at the end."""
        self._new: deque[_Flow] = deque()
        """Flows that have begun to wait: they are served first."""
        self._old: deque[_Flow] = deque()
        self._served_at = 0.0
        """When something that had waited was taken out last."""

    def __len__(self) -> int:
        return len(self._arrived) + sum(len(flow.entries) for flow in chain(self._new, self._old))

    def __bool__(self) -> bool:
        return self.bytes > 0

    def push(self, packet: Packet, now: float) -> bool:
        """Append a packet; False when it does not fit and is lost."""
        size = len(packet.payload)
        if self.bytes + size > self.max_bytes and not self._make_room(size):
            self.overflow_drops += packet.segments
            return False
        self.bytes += size
        self._arrived.append((now, packet))
        return True

    def pop(self, now: float) -> Packet | None:
        """Take the next packet out, None when the queue is empty."""
        arrived = self._arrived
        if arrived:
            if arrived[0][0] == now and not self._new and not self._old:
                # Nothing has waited: what was read together leaves as it came, and no flow has to be looked for.
                packet = arrived[0][1]
                if packet.gso_size:
                    return self._first(arrived)
                arrived.popleft()
                self.bytes -= len(packet.payload)
                return packet
            self._sort()
        return self._serve(now)

    def expire(self, before: float) -> None:
        """Drop what was queued before a time: nobody wants it after an outage."""
        self._sort()
        for flow in chain(self._new, self._old):
            while flow.entries and flow.entries[0][0] < before:
                self.expired += self._drop_first(flow)

    def clear(self) -> None:
        """Drop everything."""
        self.expire(float("inf"))

    # Flows

    def _sort(self) -> None:
        """Put what has arrived into the queues of its flows."""
        for entry in self._arrived:
            payload = entry[1].payload
            flow = self._flow(ip.flow(payload))
            flow.entries.append(entry)
            flow.bytes += len(payload)
            if not flow.listed:
                flow.listed = True
                flow.deficit = self.quantum
                self._new.append(flow)
        self._arrived.clear()

    @property
    def quantum(self) -> int:
        """Bytes that a flow sends in its turn, about. It has made up for a superframe after sixteen of them."""
        return max(MAX_PACKET, self.unit >> 4)

    def _flow(self, key: bytes) -> _Flow:
        flows = self._flows
        flow = flows.get(key)
        if flow is not None:
            if not flow.listed:
                del flows[key]
                flows[key] = flow
            return flow
        if len(flows) >= MAX_FLOWS:
            oldest = next(iter(flows))
            if flows[oldest].listed:
                # So many that wait are rarely anything else than a scan of ports, or somebody who wants more than
                # others: they share a queue. The one looked at now is looked at again when the others have been.
                flows[oldest] = flows.pop(oldest)
                key = _SHARED
                if key in flows:
                    return flows[key]
            else:
                del flows[oldest]
        flow = flows[key] = _Flow()
        return flow

    def _first(self, entries: deque[tuple[float, Packet]]) -> Packet:
        """Take out the oldest entry, or as many of its segments as leave together."""
        queued_at, packet = entries[0]
        size = len(packet.payload)
        if size > self.unit and packet.gso_size:
            segments = max(1, (self.unit - packet.header_size) // packet.gso_size)
            if segments < packet.segments:
                packet, rest = split(packet, segments)
                entries[0] = (queued_at, rest)
                self.bytes += len(rest.payload) - size
                return packet
        entries.popleft()
        self.bytes -= size
        return packet

    def _drop_first(self, flow: _Flow) -> int:
        """Drop the oldest entry; return how many packets that was."""
        _, packet = flow.entries.popleft()
        size = len(packet.payload)
        flow.bytes -= size
        self.bytes -= size
        return packet.segments

    def _make_room(self, size: int) -> bool:
        """Drop from the longest queues until so much fits; False when it never does."""
        if size > self.max_bytes:
            return False
        self._sort()
        # Looking for the longest costs a look at each: so it is done once for many small packets.
        wanted = self.max_bytes - max(size, self.max_bytes >> 6)
        while self.bytes > wanted:
            longest = max(chain(self._new, self._old), key=_bytes)
            half = longest.bytes >> 1
            while self.bytes > wanted and longest.bytes > half:
                self.overflow_drops += self._drop_first(longest)
        return True

    # Service

    def _serve(self, now: float) -> Packet | None:
        """Take the next packet of the flow whose turn it is (RFC 8290 section 4.2)."""
        new, old = self._new, self._old
        if now - self._served_at > self.interval:
            self._go_on(now)
        self._served_at = now
        while new or old:
            flows = new or old
            flow = flows[0]
            if flow.deficit <= 0:
                if len(new) + len(old) == 1:
                    flow.deficit = self.quantum
                else:
                    flow.deficit += self.quantum
                    old.append(flows.popleft())
                    continue
            packet = self._next(flow, now)
            if packet is not None:
                flow.deficit -= len(packet.payload)
                return packet
            flows.popleft()
            if flows is new and old:
                # Not at once among the new ones again when it goes on: the others would have to wait.
                old.append(flow)
            else:
                flow.listed = False
        return None

    def _go_on(self, now: float) -> None:
        """Nothing could leave for longer than an interval: the drops that would have been due are not made up for.

        It was no standing queue, but a path that fell silent or a window that was full, and all that waits would go.
        """
        for flow in chain(self._new, self._old):
            if flow.dropping and flow.entries:
                flow.drop_next += now - max(self._served_at, flow.entries[0][0])

    def _next(self, flow: _Flow, now: float) -> Packet | None:
        """Take the next packet of a flow that CoDel lets pass (RFC 8289 section 5.6, `deque`)."""
        packet, may_drop = self._take(flow, now)
        if packet is None:
            flow.dropping = False
            return None
        if flow.dropping:
            if not may_drop:
                flow.dropping = False
                return packet
            while flow.dropping and packet is not None and now >= flow.drop_next:
                flow.count += 1
                survivor = self._signal(packet)
                if survivor is not None:
                    flow.drop_next = self._control_law(flow.drop_next, flow.count)
                    return survivor
                packet, may_drop = self._take(flow, now)
                if not may_drop:
                    flow.dropping = False
                else:
                    flow.drop_next = self._control_law(flow.drop_next, flow.count)
            return packet
        if not may_drop:
            return packet
        flow.dropping = True
        delta = flow.count - flow.last_count
        recently = now - flow.drop_next < 16 * self.interval
        flow.count = delta if delta > 1 and recently else 1
        flow.drop_next = self._control_law(now, flow.count)
        flow.last_count = flow.count
        survivor = self._signal(packet)
        if survivor is not None:
            return survivor
        return self._take(flow, now)[0]

    def _take(self, flow: _Flow, now: float) -> tuple[Packet | None, bool]:
        """Take the next packet of a flow out, and say whether it may be dropped."""
        if not flow.entries:
            flow.first_above = None
            return None, False
        waited = now - flow.entries[0][0]
        before = self.bytes
        packet = self._first(flow.entries)
        flow.bytes += self.bytes - before
        if waited < self.target or flow.bytes <= MAX_PACKET:
            flow.first_above = None
            return packet, False
        if flow.first_above is None:
            flow.first_above = now + self.interval
            return packet, False
        patience = self.interval / 2 if waited >= self.excess else 0.0
        return packet, now >= flow.first_above - patience

    def _control_law(self, time: float, count: int) -> float:
        return time + self.interval / sqrt(count)

    def _signal(self, packet: Packet) -> Packet | None:
        """Mark or drop; return what is left to send."""
        if ip.ecn(packet.payload) in _ECT:
            self.codel_marks += 1
            packet.payload = ip.mark_ce(packet.payload)
            return packet
        self.codel_drops += 1
        return drop_segment(packet)


def _bytes(flow: _Flow) -> int:
    return flow.bytes
