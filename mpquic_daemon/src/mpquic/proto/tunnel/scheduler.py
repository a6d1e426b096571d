"""Which path a class uses now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.proto.path.path import PathState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpquic.proto.path.data_plane import DataPlane
    from mpquic.proto.path.path import Path


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

    def select(self, traffic_class: int) -> DataPlane | None:
        """Return what carries a class now, None when nothing does. All classes share one policy."""
        del traffic_class
        path = self.best
        return path.plane if path is not None else None

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
