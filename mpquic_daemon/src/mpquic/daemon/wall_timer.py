"""A timer for a moment of the wall clock, as the end of a hold is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

LONGEST = 86400.0
"""Seconds after which the wall clock is looked at again, as it may have been set."""


class WallTimer:
    """Calls `on_due` at the moment, or after LONGEST, so that it looks at the clock and sets the timer anew."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_due: Callable[[], None]) -> None:
        self._loop = loop
        self._on_due = on_due
        self._handle: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        """Whether there is a moment to wait for since the last `set`."""
        return self._handle is not None

    def set(self, moment: float | None) -> None:
        """Wait for a moment (seconds of the wall clock) in place of an earlier one; for none with None."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if moment is not None:
            delay = min(max(moment - time.time(), 0.0) + 0.01, LONGEST)
            self._handle = self._loop.call_later(delay, self._on_due)
