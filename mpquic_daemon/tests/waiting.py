"""Waits for a state in tests: polls a condition up to a deadline, and says what did not come."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL = 0.01
"""Seconds between two looks."""


def wait_for(
    condition: Callable[[], object], seconds: float = 10.0, what: str = "", *, shown: Callable[[], object] | None = None
) -> float:
    """Wait until `condition` holds.

    Args:
        condition: Polled; anything true ends the wait.
        seconds: How long to wait at most.
        what: What is waited for; the condition's source text when empty.
        shown: Gives what a failure shows besides, such as the status of a process.

    Returns:
        Seconds that it took.

    Raises:
        AssertionError: It did not hold within `seconds`.
    """
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, _message(condition, seconds, what, shown)
        time.sleep(INTERVAL)
    return time.monotonic() - began


async def wait_for_async(
    condition: Callable[[], object], seconds: float = 10.0, what: str = "", *, shown: Callable[[], object] | None = None
) -> float:
    """Do as `wait_for`, on the clock of the running event loop, which goes on meanwhile."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not condition():
        assert loop.time() - began < seconds, _message(condition, seconds, what, shown)
        await asyncio.sleep(INTERVAL / 5)
    return loop.time() - began


def _message(condition: Callable[[], object], seconds: float, what: str, shown: Callable[[], object] | None) -> str:
    if not what:
        try:
            what = " ".join(inspect.getsource(condition).split())
        except (OSError, TypeError):  # no function of a file
            what = repr(condition)
    return f"not within {seconds:g} s: {what}" + (f"; {shown()}" if shown else "")
