"""For how long a state has lasted, by the clock that counts from the boot.

Nobody sets that clock, and it goes on while the machine is suspended.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from mpquic.proto.control.validity import shown

if TYPE_CHECKING:
    import asyncio

    from mpquic.net.kernel import Kernel


class Period:
    """Begins when it is made, and again at `restart`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, kernel: Kernel) -> None:
        self._loop = loop
        self._kernel = kernel
        self._began = self.now()

    def restart(self) -> None:
        """Begin now."""
        self._began = self.now()

    def status(self) -> dict[str, object]:
        """Return the fields of `mpquicctl status`: seconds, and the beginning by what the wall clock says now."""
        return lasting(self.now() - self._began)

    def now(self) -> float:
        """Return the seconds since the machine was booted, those of suspension included."""
        return self._loop.time() + self._kernel.suspended()


def lasting(seconds: float) -> dict[str, object]:
    """Return the fields that tell for how long something has lasted."""
    seconds = max(0.0, seconds)
    return {"since": ago(seconds), "duration_seconds": round(seconds, 1)}


def ago(seconds: float) -> str:
    """Return the time of so many seconds ago, by what the wall clock says now."""
    return shown(dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds))
