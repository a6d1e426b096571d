"""Which paths a class uses now, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.proto.path.path import PathState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mpquic.proto.path.data_plane import DataPlane
    from mpquic.proto.path.path import Path


class Choice:
    """How the frames of a class are sent now.

    One plane pins the class to it. Of several, each is used while those before it are full (spill-over). With `copies`
    above 1 each frame is sent on so many of them that have room.
    """

    __slots__ = ("copies", "planes", "silent")

    def __init__(self, planes: Sequence[DataPlane], copies: int = 1, silent: Sequence[DataPlane] = ()) -> None:
        self.planes = planes
        """What carries, in order of preference."""
        self.copies = copies
        self.silent = silent
        """What went silent: what was in flight there and isn't acknowledged is sent again by `planes`."""


class FailoverScheduler:
    """The best path that is up, by priority, then in the order in which they were added; a suspect one at need.

    It returns to a better path as soon as that is up.
    """

    def __init__(self) -> None:
        self._paths: list[Path] = []

    def __iter__(self) -> Iterator[Path]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def add(self, path: Path) -> None:
        """Add a path; one of the same name is replaced."""
        self._paths = sorted(
            [*(each for each in self._paths if each.name != path.name), path], key=lambda each: each.priority
        )

    def remove(self, path: Path) -> None:
        """Remove this very path; one that was replaced meanwhile under the same name stays."""
        self._paths = [each for each in self._paths if each is not path]

    def choose(self, traffic_class: int) -> Choice | None:
        """Return how a class is sent now, None when nothing carries. All classes share one policy."""
        del traffic_class
        best = self.best
        plane = best.plane if best is not None else None
        if plane is None:
            return None
        if len(self._paths) == 1 or best is None or best.state is not PathState.UP:
            return Choice((plane,))
        silent = [each for path in self._paths if path.state is not PathState.UP for each in path.planes]
        return Choice((plane,), silent=silent)

    @property
    def best(self) -> Path | None:
        """The path that carries now."""
        suspect: Path | None = None
        for path in self._paths:
            state = path.state
            if state is PathState.UP:
                return path
            if state is PathState.SUSPECT and suspect is None:
                suspect = path
        return suspect
