"""The channel of a low-orbit constellation: links are assigned anew every 15 s, everywhere at the same instants.

Each boundary (at second 12, 27, 42 and 57 of the minute) begins with a short outage, then a spike of delay that fades,
and the capacity of the slot differs from the last one's. Figures: measurements of Starlink, public traces.
"""

import random
from typing import NamedTuple

SLOT_S = 15.0
FIRST_BOUNDARY_S = 12.0
OUTAGE_S = (0.060, 0.130)
SPIKE_S = (0.030, 0.070)
SPIKE_FADE_S = 0.5
"""After the outage the extra delay falls to zero within this time."""


class Slot(NamedTuple):
    """One slot; times are wall-clock seconds since the epoch."""

    start: float
    outage_end: float
    end: float
    spike: float
    capacity: float
    """Where between the lowest (0) and the highest (1) capacity the slot lies."""

    def capacity_at(self, time: float) -> float | None:
        """Return the place of the capacity in its range, or None in the outage."""
        return None if time < self.outage_end else self.capacity

    def next_change(self, time: float) -> float:
        """Return when the capacity changes next."""
        return self.outage_end if time < self.outage_end else self.end

    def extra_delay(self, time: float) -> float:
        """Return seconds that the boundary adds to the delay of a packet sent at `time`."""
        faded = max(0.0, time - self.outage_end) / SPIKE_FADE_S
        return self.spike * max(0.0, 1.0 - faded)


def slot_at(time: float, seed: int) -> Slot:
    """Return the slot that holds the wall-clock second `time`. Both directions of a link have the same slots."""
    number = int((time - FIRST_BOUNDARY_S) // SLOT_S)
    start = number * SLOT_S + FIRST_BOUNDARY_S
    chance = random.Random(f"{seed}/leo/{number}")
    outage = chance.uniform(*OUTAGE_S)
    spike = chance.uniform(*SPIKE_S)
    return Slot(start, start + outage, start + SLOT_S, spike, chance.random())
