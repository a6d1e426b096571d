"""A process that does nothing but take a share of a processor, in small pieces: `python -m mpqbench.standin CORES`.

It stands in for a load generator where that has nothing to do, so that what is measured in both cases has the same
processors left.
"""

from __future__ import annotations

import sys
import time

PIECE = 0.0003
"""Seconds: about what a client takes for one question and its answer."""


def take(cores: float, pieces: int | None = None) -> None:
    """Take `cores` (0.0 to 1.0) of a processor, for so many pieces or for ever.

    A piece that the scheduler delays is made up for, so that the share holds when processors are short.
    """
    if not 0 < cores <= 1:
        raise ValueError("cores: above 0, at most 1")
    begin, begin_used = time.monotonic(), time.process_time()
    done = 0
    while pieces is None or done < pieces:
        done += 1
        until = time.process_time() + PIECE
        while time.process_time() < until:
            pass
        ahead = (time.process_time() - begin_used) / cores - (time.monotonic() - begin)
        if ahead > 0:
            time.sleep(ahead)


if __name__ == "__main__":
    take(float(sys.argv[1]))
