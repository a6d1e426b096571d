"""A timer that is put off all the time acts when it is due, and asks the event loop for little."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from mpquic.daemon.due_timer import DueTimer

if TYPE_CHECKING:
    from collections.abc import Callable


class Handle:
    def __init__(self, when: float, act: Callable[[], object]) -> None:
        self.when, self.act, self.cancelled = when, act, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """An event loop of which only the clock and the timers are left."""

    def __init__(self) -> None:
        self.now = 0.0
        self.handles: list[Handle] = []
        self.made = 0

    def call_at(self, when: float, act: Callable[[], object]) -> Handle:
        self.made += 1
        self.handles.append(Handle(when, act))
        return self.handles[-1]

    def run(self, until: float) -> None:
        while True:
            self.handles = [handle for handle in self.handles if not handle.cancelled]
            due = min(self.handles, key=lambda handle: handle.when, default=None)
            if due is None or due.when > until:
                self.now = until
                return
            self.handles.remove(due)
            self.now = max(self.now, due.when)
            due.act()


def made() -> tuple[Loop, DueTimer, list[float]]:
    loop, acted = Loop(), []
    return loop, DueTimer(loop, lambda: acted.append(loop.now)), acted  # type: ignore[arg-type]


def test_it_acts_once_when_it_is_due() -> None:
    loop, timer, acted = made()
    timer.set(1.0)
    loop.run(3.0)
    assert acted == [1.0]
    assert timer.due is None


def test_a_time_that_is_put_off_with_every_packet_costs_few_timers() -> None:
    loop, timer, acted = made()
    for number in range(1000):
        loop.run(number / 1000)
        timer.set(number / 1000 + 0.1)
    assert loop.made <= 12
    loop.run(3.0)
    assert acted == [999 / 1000 + 0.1]


def test_a_timer_that_was_closed_does_not_act() -> None:
    loop, timer, acted = made()
    timer.set(1.0)
    timer.close()
    loop.run(3.0)
    assert acted == []


@given(st.integers(0, 2**32))
def test_it_acts_when_it_was_set_to_last_whatever_came_before(seed: int) -> None:
    rng = random.Random(seed)
    loop, timer, acted = made()
    expected: list[float] = []
    due: float | None = None
    for _ in range(50):
        until = loop.now + rng.choice((0.0, 0.1, 0.5))
        if due is not None and due <= until:
            expected.append(due)
            due = None
        loop.run(until)
        due = rng.choice((None, until + rng.random(), until, due))
        timer.set(due)
        assert timer.due == due
    if due is not None:
        expected.append(due)
    loop.run(loop.now + 5.0)
    assert acted == expected
