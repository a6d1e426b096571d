"""One WAN of one tunnel: its state, and which of its data planes sends."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from mpquic.proto.packet.frame import Frame
from mpquic.proto.packet.run import SegmentRun

if TYPE_CHECKING:
    from mpquic.proto.path.data_plane import DataPlane

FrameOrRun = Frame | SegmentRun
"""What a path carries."""


class PathState(Enum):
    """What liveness says about a path.

    A path starts DOWN, is UP once its peer has answered, SUSPECT while answers are overdue (used only when nothing
    better exists) and DOWN again when they stay out.
    """

    UP = "up"
    SUSPECT = "suspect"
    DOWN = "down"


class Path:
    """One WAN as used by one tunnel, whatever its data planes. Both ends know it by the same name.

    A lower `priority` is preferred, `weight` is the path's part in what several paths share.
    """

    __slots__ = ("control", "name", "preferred", "priority", "weight")

    def __init__(self, name: str, *, priority: int = 100, weight: float = 1.0) -> None:
        self.name = name
        self.priority = priority
        self.weight = weight
        self.control: DataPlane | None = None
        """Sends over the control connection, whose state is that of the path by liveness."""
        self.preferred: DataPlane | None = None
        """Sends instead while it is up."""

    @property
    def state(self) -> PathState:
        """State by liveness, to which all planes contribute; DOWN without a control connection."""
        return PathState.DOWN if self.control is None else self.control.state

    @property
    def planes(self) -> list[DataPlane]:
        """All that it has."""
        return [each for each in (self.preferred, self.control) if each is not None]

    @property
    def plane(self) -> DataPlane | None:
        """What sends now; None when nothing can."""
        preferred = self.preferred
        if preferred is not None and preferred.state is PathState.UP:
            return preferred
        return self.control
