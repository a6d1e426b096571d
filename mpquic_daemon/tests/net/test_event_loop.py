"""How long an event loop had nothing to do."""

from __future__ import annotations

import asyncio
import time

from mpquic.net.event_loop import EventLoop, idle_time


def test_waiting_is_idle_and_working_is_not() -> None:
    async def main() -> tuple[float, float, float]:
        loop = asyncio.get_running_loop()
        began = idle_time()
        since = loop.time()
        await asyncio.sleep(0.05)
        waited, passed = idle_time() - began, loop.time() - since
        began = idle_time()
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            pass
        return waited, passed, idle_time() - began

    with asyncio.Runner(loop_factory=EventLoop) as runner:
        waited, passed, idle_at_work = runner.run(main())
    assert 0.04 < waited <= passed
    assert idle_at_work == 0


def test_a_loop_that_does_not_tell_counts_as_idle() -> None:
    async def main() -> tuple[float, float]:
        return idle_time(), asyncio.get_running_loop().time()

    idle, now = asyncio.run(main())
    assert 0 <= now - idle < 1
