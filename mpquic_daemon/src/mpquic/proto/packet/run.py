"""Runs: neighbouring segments of one superframe, handled as one thing from the TUN to the wire and back.

Work that is done once for a run instead of once for each packet is what makes a tunnel in Python fast.
"""

from __future__ import annotations

from itertools import count as count_from
from struct import Struct
from typing import TYPE_CHECKING

from mpquic.proto.packet import segment
from mpquic.proto.packet.frame import FRAME_VERSION, SEGMENT_FLAGS, Frame, FrameFlag

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mpquic.proto.packet.segment import Layout

SEGMENT_HEADER = Struct("!BBHIHH")
"""The encoded header of a SEGMENT frame: version and flags, class, length, sequence, offset, gso_size."""
FIRST_OCTET = FRAME_VERSION << 4 | SEGMENT_FLAGS
_CHECKSUM = int(FrameFlag.CHECKSUM)
_LOW32 = 0xFFFFFFFF


class SegmentRun:
    """`count` segments from `offset` octets of the payload of one superframe on, with consecutive sequence numbers.

    `head` begins with the headers of the superframe. Each of `parts` holds `skip` octets of something else and then
    payload: one part with all of it where it is sent, one for each segment where it has arrived.
    """

    __slots__ = (
        "_payload_size",
        "count",
        "gso_size",
        "head",
        "layout",
        "offset",
        "parts",
        "sequence",
        "skip",
        "traffic_class",
    )

    def __init__(
        self,
        head: bytes,
        layout: Layout,
        parts: list[bytes | memoryview],
        skip: int,
        gso_size: int,
        offset: int,
        sequence: int,
        count: int,
        traffic_class: int,
    ) -> None:
        self.head = head
        self.layout = layout
        self.parts = parts
        self.skip = skip
        self.gso_size = gso_size
        self.offset = offset
        self.sequence = sequence
        self.count = count
        self.traffic_class = traffic_class
        self._payload_size = 0

    @property
    def payload_size(self) -> int:
        """Octets of payload in all segments together; not to be asked for before the run is complete."""
        if not self._payload_size:
            self._payload_size = sum(map(len, self.parts)) - self.skip * len(self.parts)
        return self._payload_size

    @property
    def size(self) -> int:
        """Bytes of all its frames, headers included."""
        return self.payload_size + self.count * (SEGMENT_HEADER.size + self.layout.header)

    @property
    def largest_frame(self) -> int:
        """Bytes of its largest frame."""
        return SEGMENT_HEADER.size + self.layout.header + min(self.gso_size, self.payload_size)

    def encode(self) -> list[bytes]:
        """Return the encoded frames, each by itself. Only for a run with one part, as it is sent."""
        payload, head, step = self.parts[0], self.head, self.gso_size
        pack, join, kind = SEGMENT_HEADER.pack, b"".join, self.traffic_class
        full, start, final = len(head) + step, self.offset, self.count - 1
        bodies = [
            join((pack(FIRST_OCTET, kind, full, number & _LOW32, start + at, step), head, payload[at : at + step]))
            for number, at in zip(count_from(self.sequence), range(0, final * step, step), strict=False)
        ]
        rest = payload[final * step :]
        number = (self.sequence + final) & _LOW32
        bodies.append(
            join((pack(FIRST_OCTET, kind, len(head) + len(rest), number, start + final * step, step), head, rest))
        )
        return bodies

    def frames(self) -> list[Frame]:
        """Return the segments as frames of whole packets, for whoever handles packets one by one."""
        made: list[Frame] = []
        offset, sequence = self.offset, self.sequence
        for payload in self._slices():
            head = segment.headers(self.head, self.layout, offset, len(payload), self.gso_size)
            made.append(Frame(b"".join((head, payload)), self.traffic_class, sequence, _CHECKSUM))
            offset += len(payload)
            sequence += 1
        return made

    def _slices(self) -> list[memoryview]:
        views = [memoryview(part)[self.skip :] for part in self.parts]
        if len(views) == self.count:
            return views
        step = self.gso_size
        return [view[start : start + step] for view in views for start in range(0, len(view), step)]

    def copy(self) -> SegmentRun:
        """Return the same segments as a run of their own, whose list of parts may grow."""
        return SegmentRun(
            self.head,
            self.layout,
            [*self.parts],
            self.skip,
            self.gso_size,
            self.offset,
            self.sequence,
            self.count,
            self.traffic_class,
        )

    def in_one_piece(self) -> SegmentRun:
        """Return the same segments as they are sent: with one part, which is payload alone."""
        payload = b"".join(self._slices())
        return SegmentRun(
            self.head,
            self.layout,
            [payload],
            0,
            self.gso_size,
            self.offset,
            self.sequence,
            self.count,
            self.traffic_class,
        )

    def write(self) -> list[bytes | memoryview]:
        """Return the TUN write for all of it: virtio header and headers, then payload."""
        plan, size = self.layout, self.payload_size
        head = segment.headers(self.head, plan, self.offset, size, self.gso_size)
        front = segment.virtio_header(plan, segment=self.gso_size, several=size > self.gso_size)
        skip = self.skip
        return [front + head, *[memoryview(part)[skip:] for part in self.parts]]

    def precedes(self, other: SegmentRun) -> bool:
        """Tell whether both are of one superframe and `other` begins where this one ends."""
        count = self.count
        return (
            self.offset + count * self.gso_size == other.offset
            and (self.sequence + count - other.sequence) & _LOW32 == 0
            and self.head == other.head
            and self.gso_size == other.gso_size
            and self.skip == other.skip
            and self.traffic_class == other.traffic_class
        )


def packets_in(carried: Frame | SegmentRun) -> int:
    """Return how many sequence numbers a frame or run has."""
    return carried.count if isinstance(carried, SegmentRun) else 1


def joined(carried: Iterable[Frame | SegmentRun]) -> list[Frame | SegmentRun]:
    """Return the same, neighbouring runs made one where they are parts of one superframe that follow each other.

    Only for runs that have arrived, which have a part for each segment.
    """
    found: list[Frame | SegmentRun] = []
    last: SegmentRun | None = None
    own = False
    for one in carried:
        if not isinstance(one, SegmentRun):
            last = None
        elif last is not None and last.precedes(one):
            if not own:
                # What came in isn't changed: somebody may keep it.
                last = found[-1] = last.copy()
                own = True
            last.parts += one.parts
            last.count += one.count
            continue
        else:
            last, own = one, False
        found.append(one)
    return found
