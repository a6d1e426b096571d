"""From encoded frames, as datagrams bring them, to what the tunnel handles: runs of segments, and single frames."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from mpquic.proto.packet import segment
from mpquic.proto.packet.frame import BASE_HEADER_SIZE, FRAME_VERSION, Frame, FrameError, decode_frames
from mpquic.proto.packet.ip import MalformedPacketError
from mpquic.proto.packet.run import FIRST_OCTET, SEGMENT_HEADER, SegmentRun

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic.proto.path.path import FrameOrRun

# The header of a SEGMENT frame as three numbers: what segments of a run have in common, the sequence number, the place
# (offset and gso_size).
_unpack = Struct("!III").unpack_from
_unpack_base = Struct("!BBHI").unpack_from
_SKIP = SEGMENT_HEADER.size
_PLAIN = FRAME_VERSION << 4


class FrameAssembler:
    """Takes the contents of datagrams one after the other; `take` gives what they held, in order.

    Segments that follow each other in sequence and place become one run: after the first, only their frame headers are
    looked at. Malformed content is told to `refuse` by reason.
    """

    def __init__(self, refuse: Callable[[str], None]) -> None:
        self._refuse = refuse
        self._frames: list[FrameOrRun] = []
        self._run: SegmentRun | None = None
        self._word = self._sequence = self._place = -1
        self._size = self._stride = 0
        self._append: Callable[[bytes], None] = _refuse_orphan

    def add(self, body: bytes) -> None:
        """Take the content of one datagram: frames back to back."""
        size = len(body)
        if size > _SKIP:
            word, sequence, place = _unpack(body)
            if place == self._place and sequence == self._sequence and word == self._word and size == self._size:
                self._append(body)
                self._sequence = sequence + 1
                self._place = place + self._stride
                return
            if word >> 24 == FIRST_OCTET and word & 0xFFFF == size - _SKIP:
                self._segment(body, word, sequence, place >> 16, place & 0xFFFF)
                return
        self._end()
        if size > BASE_HEADER_SIZE:
            # One whole packet is the usual content; anything else takes the long way.
            first, traffic_class, length, sequence = _unpack_base(body)
            if first & 0xFB == _PLAIN and length == size - BASE_HEADER_SIZE:
                self._frames.append(Frame(body[BASE_HEADER_SIZE:], traffic_class, sequence, first & 15))
                return
        try:
            self._frames += decode_frames(body)
        except FrameError as error:
            self._refuse(f"frame_{error.reason}")

    def add_all(self, bodies: list[bytes]) -> None:
        """Take the contents of several datagrams of one size, in order."""
        self.add(bodies[0])
        rest = bodies[1:]
        if rest and self._run is not None and len(rest[0]) == self._size:
            count, stride = len(rest), self._stride
            words, sequences, places = zip(*map(_unpack, rest), strict=True)
            if (
                words.count(self._word) == count
                and sequences == tuple(range(self._sequence, self._sequence + count))
                and places == tuple(range(self._place, self._place + count * stride, stride))
            ):
                self._run.parts += rest
                self._sequence += count
                self._place += count * stride
                return
        for body in rest:
            self.add(body)

    def take(self) -> list[FrameOrRun]:
        """Return what has come since the last call."""
        self._end()
        frames, self._frames = self._frames, []
        return frames

    def _segment(self, body: bytes, word: int, sequence: int, offset: int, step: int) -> None:
        run = self._run
        if run is not None and self._place == offset << 16 | step and sequence == self._sequence:
            plan = run.layout
            size = len(body) - _SKIP - plan.header
            if word >> 16 == self._word >> 16 and 0 < size <= step and offset + size == plan.payload:
                # The last of its superframe, shorter than the others.
                self._append(body)
                run.count = len(run.parts)
                self._forget()
                return
        self._end()
        try:
            plan = segment.layout(memoryview(body)[_SKIP:])
            size = len(body) - _SKIP - plan.header
            segment.check_place(plan, offset, size, step)
        except MalformedPacketError as error:
            self._refuse(f"frame_{error.reason}")
            return
        head = body[_SKIP : _SKIP + plan.header]
        parts: list[bytes | memoryview] = [body]
        run = SegmentRun(head, plan, parts, _SKIP + plan.header, step, offset, sequence, 1, word >> 16 & 0xFF)
        self._frames.append(run)
        if size == step:
            self._run = run
            self._append = parts.append
            self._word, self._sequence, self._size = word, sequence + 1, len(body)
            self._place, self._stride = offset + step << 16 | step, step << 16

    def _end(self) -> None:
        """Nothing more joins the run. What a peer has put behind the end of the superframe is refused."""
        run = self._run
        if run is None:
            return
        fitting = (run.layout.payload - run.offset) // run.gso_size
        for _ in run.parts[fitting:]:
            self._refuse("frame_segment_place")
        del run.parts[fitting:]
        run.count = len(run.parts)
        self._forget()

    def _forget(self) -> None:
        self._run = None
        self._word = self._sequence = self._place = -1


def _refuse_orphan(_: bytes) -> None:
    raise AssertionError("no run is open")
