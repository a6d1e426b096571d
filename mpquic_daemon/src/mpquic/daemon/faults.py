"""What is written when a defect of this program shows in the work for one peer.

Such a fault ends the session that brought it to light, and nothing else: a peer decides how often that happens, so it
isn't counted with the faults after which a process starts anew.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpquic.daemon.journal import Journal

INTERVAL = 60.0
"""Seconds between two lines of one kind."""


def tell(journal: Journal, now: float, event: str, error: Exception, **fields: object) -> None:
    """Write the fault with its traceback; at most one of each `event` in `INTERVAL`."""
    exception = "".join(traceback.format_exception(error))
    journal.limited(event, now, event, INTERVAL, exception=exception, **fields)
