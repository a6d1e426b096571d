"""The event loop of a daemon: asyncio's own, which also tells for how long it had nothing to do."""

from __future__ import annotations

import asyncio
import selectors
import time


class _IdleSelector(selectors.EpollSelector):
    """Adds up the time for which it has waited."""

    idle = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(timeout)  # There is work.
        began = time.monotonic()
        events = super().select(timeout)
        self.idle += time.monotonic() - began
        return events


class EventLoop(asyncio.SelectorEventLoop):
    """`idle_time` are the seconds in which it waited for something to happen, in all."""

    def __init__(self) -> None:
        self._idle_selector = _IdleSelector()
        super().__init__(self._idle_selector)

    @property
    def idle_time(self) -> float:
        """Seconds for which the loop had nothing to do. The time in which the kernel didn't let it run isn't in it."""
        return self._idle_selector.idle


def idle_time() -> float:
    """Return the `idle_time` of the running loop; of one that doesn't tell, all time, as if it had nothing to do."""
    loop = asyncio.get_running_loop()
    return loop.idle_time if isinstance(loop, EventLoop) else loop.time()
