"""Waits for a state of the lab, up to a deadline."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mpqlab.errors import LabError
from mpqlab.topology import RUN

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpqlab.state import Process

POLL_SECONDS = 0.02


def wait_for(condition: Callable[[], bool], seconds: float, what: str, process: Process | None = None) -> float:
    """Poll until `condition` holds; return the seconds that it took.

    Raises:
        LabError: it doesn't within `seconds`, or `process`, which was to bring it about, has ended.
    """
    began = time.monotonic()
    while not condition():
        if process is not None and not process.alive:
            raise LabError(f"{what}: the process {process.name} ended before that; its log is in {RUN / 'log'}")
        if time.monotonic() - began > seconds:
            raise LabError(f"{what}: not within {seconds:g} s")
        time.sleep(POLL_SECONDS)
    return time.monotonic() - began
