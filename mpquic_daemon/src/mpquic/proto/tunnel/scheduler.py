"""Which path a class uses now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpquic.proto.path.path import Path, PathState

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class ScheduledPath:
    """A path as the scheduler sees it. A lower `priority` is preferred."""

    path: Path
    priority: int = 100
    weight: float = 1.0


class FailoverScheduler:
    """The best path that is up, by priority, then in the order in which they were added; a suspect one at need.

    It returns to a better path as soon as that is up.
    """

    def __init__(self) -> None:
        self._members: list[ScheduledPath] = []

    def __iter__(self) -> Iterator[ScheduledPath]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def add(self, path: Path, *, priority: int = 100, weight: float = 1.0) -> None:
        """Add a path; one of the same name is replaced."""
        self._members = [member for member in self._members if member.path.name != path.name]
        self._members.append(ScheduledPath(path, priority, weight))
        self._members.sort(key=lambda member: member.priority)

    def remove(self, path: Path) -> None:
        """Remove this very path; one that was replaced meanwhile under the same name stays."""
        self._members = [member for member in self._members if member.path is not path]

    def select(self, traffic_class: int) -> Path | None:
        """Return the path for a class, None when nothing carries. All classes share one policy."""
        del traffic_class
        suspect: Path | None = None
        for member in self._members:
            state = member.path.state
            if state is PathState.UP:
                return member.path
            if state is PathState.SUSPECT and suspect is None:
                suspect = member.path
        return suspect
