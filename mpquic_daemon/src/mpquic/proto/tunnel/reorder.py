"""The reorder buffer of a class: a repair that comes late isn't taken for loss by the TCP connection inside.

Only what follows a gap of its own connection waits. A gap in tunnel sequence numbers says that a path lost something,
or that a slower one is yet to bring it; a gap in TCP sequence numbers says whose it was (what was dropped before it was
numbered leaves no gap of the first kind, and nobody waits for it). Everything that isn't TCP passes at once. While
nothing is missing, no packet is looked into. A run of segments waits and goes on as one, and its neighbours of the same
superframe join it again.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from mpquic.proto.packet.frame import FrameFlag, expand_sequence, serial_distance
from mpquic.proto.packet.run import SegmentRun, joined, packets_in
from mpquic.proto.packet.tcp import TcpSpan, run_span, tcp_span
from mpquic.proto.path.memory import STEP
from mpquic.proto.tunnel.gaps import Gaps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mpquic.proto.path.path import FrameOrRun

_FRAGMENT = int(FrameFlag.FRAGMENT)
_MAX_FLOWS = 1024
MAX_WAITING_FLOWS = 256
"""Connections of which something waits. What else follows a gap passes at once."""
HELD_COST = 400
SEGMENT_COST = 64
"""Bytes that what waits takes beyond its octets: for itself, and for each segment of a run."""
MAX_RECENT = 1 << 20
"""Octets of packets that have passed and are kept for `_learn`, with `FRAME_COST` for each frame."""
FRAME_COST = 200
"""Bytes that a frame takes beyond its octets, so that many small ones don't exceed the bound."""
_MAX_JUMP = 4096
"""A jump of more tunnel sequence numbers is an outage, which nobody waits for."""


def _span(carried: FrameOrRun) -> TcpSpan | None:
    if isinstance(carried, SegmentRun):
        return run_span(carried)
    return None if carried.flags & _FRAGMENT else tcp_span(carried.payload)


def held_cost(carried: FrameOrRun) -> int:
    """Return the bytes of memory that it takes while it waits, about."""
    if isinstance(carried, SegmentRun):
        return carried.payload_size + carried.count * (carried.skip + SEGMENT_COST) + HELD_COST
    return len(carried.payload) + HELD_COST


def _fills(span: TcpSpan, expected: int | None) -> bool:
    """True for a segment with the octet that is due.

    Older ones don't count: what a connection sends again for another reason than the path's loss (a queue in front of
    it dropped one) must not overtake what was sent before and waits here, or RACK at its sender (RFC 8985) takes all of
    that for lost.
    """
    if expected is None:
        return False
    end = span.sequence + span.length & 0xFFFFFFFF
    return serial_distance(span.sequence, expected) <= 0 < serial_distance(end, expected)


class _Flow:
    """One connection: what comes next, the tunnel sequence number up to which that is known, and what waits."""

    __slots__ = ("expected", "held", "known")

    def __init__(self, expected: int | None, known: int) -> None:
        self.expected = expected
        """None for one that was first seen behind a gap: perhaps the gap is its own, so that numbers tell the order."""
        self.known = known
        self.held: list[tuple[int, int, TcpSpan, FrameOrRun]] = []


class ReorderBuffer:
    """Puts the frames of a class in order for each TCP connection, bounded in octets and time."""

    def __init__(
        self, *, max_bytes: int = 6 << 20, history: int = 16, extend: Callable[[], None] | None = None
    ) -> None:
        self._max_bytes = max_bytes
        self._extend = extend
        self.allowed = STEP
        """Bytes that it may hold before `extend` is called (memory.py)."""
        self.on_shed: Callable[[], None] | None = None
        """Called when `expire` has something to pass on at once."""
        self._shed_frames: list[FrameOrRun] = []
        """What `shed` has let go, until it can be passed on."""
        self.highest = -1
        """The highest number that has come, -1 before the first. Set it to skip what nobody is to wait for."""
        self._gaps = Gaps()
        self._closed = False
        """Whether a gap was filled or given up since the last `_release`."""
        self._flows: dict[bytes, _Flow] = {}
        self._holding: dict[bytes, _Flow] = {}
        self._history = history
        self._recent: deque[tuple[int, Sequence[FrameOrRun], int]] = deque()
        self._recent_cost = 0
        self._order = 0
        self.bytes = 0
        self.held = 0
        self.given_up = 0

    def next_time(self) -> float | None:
        """When `expire` has something to do."""
        return 0.0 if self._shed_frames else self._gaps.next_time

    @property
    def is_idle(self) -> bool:
        """Whether nothing is missing and nothing waits."""
        return not self._gaps and not self._shed_frames

    def passed(self, frames: Sequence[FrameOrRun], first: int, last: int, octets: int) -> None:
        """Take note of frames that have gone on at once while idle: theirs are the numbers `first` to `last`."""
        self._remember(first, frames, octets)
        self.highest = last

    def arrived(self, number: int, count: int, now: float, wait: float) -> None:
        """Take note of numbers that have come and of which nothing goes on."""
        self._enter(number, number + count - 1, now, wait)

    def add(self, frames: list[FrameOrRun], now: float, wait: float) -> list[FrameOrRun]:
        """Take frames as they arrived; return those that may go on, in order. A gap is waited for `wait` seconds."""
        if not frames:
            return frames
        passing = self._take_shed()
        for carried in frames:
            self._take(carried, now, wait, passing)
        self._release(passing)
        return joined(passing)

    def expire(self, now: float) -> list[FrameOrRun]:
        """Give up what has been missing for too long; return what waited for it."""
        passing = self._take_shed()
        self._give_up(self._gaps.expire(now))
        self._release(passing)
        return joined(passing)

    def shed(self) -> None:
        """Give up an eighth of the gaps, the oldest; what waited for them goes on with the next `add` or `expire`."""
        self._shed(self._shed_frames)
        if self._shed_frames and self.on_shed is not None:
            self.on_shed()

    def _take_shed(self) -> list[FrameOrRun]:
        passing, self._shed_frames = self._shed_frames, []
        return passing

    def _shed(self, passing: list[FrameOrRun]) -> None:
        self._give_up(self._gaps.give_up(1 + len(self._gaps) // 8))
        self._release(passing)

    def _remember(self, due: int, frames: Sequence[FrameOrRun], octets: int) -> None:
        recent, cost = self._recent, octets + FRAME_COST * len(frames)
        if cost > MAX_RECENT:
            # The latest of them are enough.
            cost, place = 0, len(frames)
            while place and cost + held_cost(frames[place - 1]) <= MAX_RECENT:
                place -= 1
                cost += held_cost(frames[place])
            due += sum(map(packets_in, frames[:place]))
            frames = frames[place:]
        recent.append((due, tuple(frames), cost))
        self._recent_cost += cost
        while len(recent) > self._history or self._recent_cost > MAX_RECENT:
            self._recent_cost -= recent.popleft()[2]

    def _take(self, carried: FrameOrRun, now: float, wait: float, passing: list[FrameOrRun]) -> None:
        number = expand_sequence(carried.sequence & 0xFFFFFFFF, self.highest)
        self._enter(number, number + packets_in(carried) - 1, now, wait)
        span = _span(carried)
        if span is None or not span.length:
            passing.append(carried)
            return
        flow = self._flow(span, number)
        held = flow.held
        if (
            _fills(span, flow.expected)
            or not ((held and held[0][0] <= number) or self._gaps.between(flow.known, number))
            or (not held and len(self._holding) >= MAX_WAITING_FLOWS)
        ):
            self._pass(flow, carried, number, span, passing)
            self._drain(flow, passing)
            return
        self._order += 1
        heappush(flow.held, (number, self._order, span, carried))
        self._holding[span.connection] = flow
        self.held += packets_in(carried)
        self.bytes += held_cost(carried)
        while self.bytes > self._max_bytes and self._gaps:
            self._shed(passing)
        if self.bytes > self.allowed and self._extend is not None:
            self._extend()
            passing += self._take_shed()

    def _enter(self, number: int, last: int, now: float, wait: float) -> None:
        if self.highest < 0:
            # The first of a session, wherever it begins.
            self.highest = number - 1
        if last > self.highest:
            if number > self.highest + 1:
                self._open_gap(number, now, wait)
            self.highest = last
        if self._gaps.fill(number, last):
            self._closed = True

    def _flow(self, span: TcpSpan, number: int) -> _Flow:
        flow = self._flows.get(span.connection)
        if flow is None:
            if len(self._flows) >= _MAX_FLOWS:
                self._flows = dict(self._holding)
            mine = not span.opens and self._gaps.between(-1, number)
            flow = _Flow(None if mine else span.sequence, -1)
            self._flows[span.connection] = flow
        return flow

    def _pass(self, flow: _Flow, carried: FrameOrRun, number: int, span: TcpSpan, passing: list[FrameOrRun]) -> None:
        passing.append(carried)
        end = span.sequence + span.length & 0xFFFFFFFF
        if flow.expected is None or serial_distance(end, flow.expected) > 0:
            # Nothing of this connection is missing up to here, or nobody waits for it any more.
            flow.expected = end
        # One that the connection itself has sent again comes long after its neighbours, and tells nothing of those that
        # are missing between: what is held for them waits on.
        if not flow.held or number < flow.held[0][0]:
            flow.known = max(flow.known, number + packets_in(carried) - 1)

    def _drain(self, flow: _Flow, passing: list[FrameOrRun]) -> None:
        held = flow.held
        while held:
            number, _, span, carried = held[0]
            if self._gaps.between(flow.known, number) and not _fills(span, flow.expected):
                return
            heappop(held)
            self.bytes -= held_cost(carried)
            self._pass(flow, carried, number, span, passing)

    def _open_gap(self, number: int, now: float, wait: float) -> None:
        if not self._gaps:
            self._learn()
        first = self.highest + 1
        if number - first > _MAX_JUMP or wait <= 0:
            self.given_up += number - first
            return
        self._give_up(self._gaps.open(first, number - 1, now + wait))

    def _learn(self) -> None:
        """Look into what has passed of late, so that it is known whose gap a gap is."""
        for number, batch, _ in self._recent:
            for carried in batch:
                last = number + packets_in(carried) - 1
                span = _span(carried)
                if span is not None and span.length:
                    flow = self._flow(span, number)
                    end = span.sequence + span.length & 0xFFFFFFFF
                    if flow.expected is None or serial_distance(end, flow.expected) > 0:
                        flow.expected = end
                    flow.known = last
                number = last + 1
        self._recent.clear()
        self._recent_cost = 0

    def _give_up(self, numbers: int) -> None:
        self.given_up += numbers
        self._closed = self._closed or numbers > 0

    def _release(self, passing: list[FrameOrRun]) -> None:
        """Let go what no gap is before any more. Only the end of a gap makes any difference, so it is rarely done."""
        if not self._closed:
            return
        self._closed = False
        for connection, flow in list(self._holding.items()):
            self._drain(flow, passing)
            if not flow.held:
                del self._holding[connection]
