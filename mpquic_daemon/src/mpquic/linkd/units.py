"""What a unit does, as far as linkd's decisions depend on it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Activity(Enum):
    """The states of a unit."""

    STOPPED = auto()
    """It doesn't run, and nothing will start it but a request."""
    FAILED = auto()
    """Like STOPPED; systemd has given up, since it was started too often."""
    STARTING = auto()
    """It is being started, or its start is queued."""
    RUNNING = auto()
    RESTARTING = auto()
    """It has ended, and systemd starts it again in half a second."""
    STOPPING = auto()


ALIVE = frozenset({Activity.STARTING, Activity.RUNNING, Activity.RESTARTING})
"""There is something to stop."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit of an instance. One that is masked can't be started."""

    activity: Activity
    masked: bool = False


STOPPED = Unit(Activity.STOPPED)
RUNNING = Unit(Activity.RUNNING)
