"""A path that remembers what it was given, and a tunnel over such paths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpquic.proto.packet.run import SegmentRun
from mpquic.proto.path.path import Path, PathState
from mpquic.proto.tunnel.scheduler import FailoverScheduler
from mpquic.proto.tunnel.sender import TunnelSender

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mpquic.proto.path.data_plane import DataPlane
    from mpquic.proto.path.path import FrameOrRun


class RecordingPath:
    """A path that takes what its budget allows and keeps it."""

    def __init__(
        self,
        name: str = "wan5",
        *,
        reliable: bool = False,
        runs: bool = False,
        capacity: int = 1420,
        budget: int = 1 << 20,
    ) -> None:
        self.name, self.reliable, self.takes_runs, self.frame_capacity = name, reliable, runs, capacity
        self.state = PathState.UP
        self.rtt: float | None = 0.03
        self.loss = self.rate = 0.0
        self.left = budget
        self.most: int | None = None
        """Frames and runs that one call takes at most, whatever the budget is."""
        self.taken: list[Any] = []
        """Frames and runs."""
        self.in_flight: list[FrameOrRun] = []
        """What it says isn't acknowledged."""

    def unacknowledged(self, since: float) -> list[FrameOrRun]:
        del since
        return self.in_flight

    def repair_time(self, traffic_class: int, now: float) -> float:
        del traffic_class, now
        return 0.0

    def budget(self, now: float) -> int:
        del now
        return self.left

    def send(self, frames: Sequence[FrameOrRun], now: float) -> int:
        del now
        count = 0
        for frame in frames:
            if self.left <= 0 or count == self.most:
                break
            if isinstance(frame, SegmentRun):
                assert self.takes_runs
                assert frame.largest_frame <= self.frame_capacity
            else:
                assert self.reliable or frame.size <= self.frame_capacity
            self.left -= frame.size
            self.taken.append(frame)
            count += 1
        return count


def path_of(plane: DataPlane, *, priority: int = 100) -> Path:
    """A path that has nothing but one data plane."""
    path = Path(plane.name, priority=priority)
    path.control = plane
    return path


def tunnel(*paths: RecordingPath) -> TunnelSender:
    scheduler = FailoverScheduler()
    for priority, path in enumerate(paths):
        scheduler.add(path_of(path, priority=priority))
    return TunnelSender(scheduler)


def joined(writes: list[list[bytes]]) -> list[bytes]:
    return [b"".join(write) for write in writes]
