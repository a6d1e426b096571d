"""Find the highest rate that a link carries with a tolerable loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpqbench.iperf import Flow

TOLERABLE = 0.01
KEEPS_UP = 0.9


def highest_rate(measure: Callable[[float], Flow], start: float = 8000, ceiling: float = 1e6, steps: int = 4) -> float:
    """Return the highest rate received, packets/s, of the flows with at most 1 % loss; 0 if every flow lost more.

    `measure` sends a flow of about the rate that it is given. The rate is doubled from `start` until the loss is too
    high, the sender itself can't keep up (below 90 % of what was asked) or `ceiling` is reached; then the interval
    between the last good rate and the first bad one is halved `steps` times.
    """
    best, good, bad, rate = 0.0, 0.0, ceiling, start
    while True:
        flow = measure(rate)
        if flow.loss > TOLERABLE:
            bad = rate
            break
        best, good = max(best, flow.received_rate), rate
        if flow.sent_rate < KEEPS_UP * rate or rate >= ceiling:
            return best
        rate = min(rate * 2, ceiling)
    for _ in range(steps):
        middle = (good + bad) / 2
        flow = measure(middle)
        if flow.loss > TOLERABLE:
            bad = middle
        else:
            best, good = max(best, flow.received_rate), middle
    return best
