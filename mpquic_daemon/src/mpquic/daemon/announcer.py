"""Tells of changes, at most once in an interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

CHANGE_INTERVAL = 1.0
"""Least seconds between two announcements of a change: clients may come and go by the hundred."""


class Announcer:
    """Calls `tell` for the changes that were announced since it was called last."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tell: Callable[[], None]) -> None:
        self._loop = loop
        self._tell = tell
        self._timer: asyncio.TimerHandle | None = None
        self._told_at = float("-inf")
        self._closed = False

    def announce(self) -> None:
        """Tell of a change, at once if the last was told long enough ago."""
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_at(max(self._told_at + CHANGE_INTERVAL, self._loop.time()), self._on_timer)

    def close(self) -> None:
        """Tell of nothing any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _on_timer(self) -> None:
        self._timer = None
        self._told_at = self._loop.time()
        self._tell()
