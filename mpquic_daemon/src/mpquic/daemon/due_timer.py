"""A timer that is put off with every packet: that costs next to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class DueTimer:
    """Calls `act` once when it is due. Times are those of the event loop, in seconds.

    Making and cancelling a timer of asyncio's costs as much as several packets. So the one that runs stays when the
    time is put off, and goes on for the rest when it is over.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, act: Callable[[], object]) -> None:
        self._loop = loop
        self._act = act
        self._handle: asyncio.TimerHandle | None = None
        self._ends = 0.0
        """When the timer that runs is over."""
        self.due: float | None = None
        """When to act; None for never."""

    def set(self, due: float | None) -> None:
        """Act at `due` and no more at the time that was set before; None: don't act."""
        self.due = due
        if due is None:
            return
        if self._handle is not None:
            if self._ends <= due:
                return
            self._handle.cancel()
        self._run(due)

    def close(self) -> None:
        """Don't act any more."""
        self.due = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _run(self, due: float) -> None:
        self._ends = due
        self._handle = self._loop.call_at(due, self._on_end)

    def _on_end(self) -> None:
        self._handle = None
        due = self.due
        if due is None:
            return
        if due > self._ends:
            self._run(due)
            return
        self.due = None
        self._act()
