"""Fits a class queue to the data plane that it feeds: how much it holds, how much leaves together, CoDel's times."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpquic.proto.path.data_plane import DataPlane
    from mpquic.proto.tunnel.class_queue import ClassQueue

QUEUE_BYTES = 1 << 20
QUEUE_TIME = 0.03
"""Seconds of a path's rate that a class queue holds at least: room for the bursts of a quick path. CoDel keeps the
delay short, not this bound."""
QUEUE_TARGET = 0.005
"""CoDel's target in seconds (RFC 8289 section 4.4) on a path that loses nothing."""
QUEUE_INTERVAL = 0.1
UNIT_TIME = 0.005
"""Seconds of a path's rate that leave the queue together at most: the others wait for as long."""
LARGEST = 1 << 16
"""Bytes of the largest superframe."""
LOSSY = 0.02
"""Loss at which nearly always something waits for its repair: one in a large group of FEC."""
LONG_REPAIR = 0.25
"""Seconds of repairing in several rounds that the queue makes up for at most: other connections wait in it too."""
PACKET = 1400
"""Bytes of a full packet, near enough."""


def tune(queue: ClassQueue, plane: DataPlane) -> None:
    """Set a queue to a path: how much it holds, how much leaves at a time, and CoDel.

    While a path repairs losses, it holds back what its connections are told: their acknowledgements, and what follows
    these, come in bursts as long as it takes until the last of a window has arrived. The queue must hold as much, or
    the path runs dry after each. A connection that starts fills such a queue with several times what the path holds
    before CoDel's interval is over, and is then cut down as often: it is told sooner when another round trip waits.
    """
    rtt, rate = plane.rtt or 0.0, plane.rate
    queue.max_bytes = max(QUEUE_BYTES, int(rate * QUEUE_TIME))
    queue.unit = min(int(rate * UNIT_TIME), LARGEST) or LARGEST
    repair = min(plane.loss / LOSSY, 1.0) * max(rtt, min(rtt * _repair_rounds(plane.loss, rate * rtt), LONG_REPAIR))
    queue.target = QUEUE_TARGET + repair
    queue.interval = max(QUEUE_INTERVAL, 2 * (rtt + queue.target))
    queue.excess = max(queue.target + rtt, QUEUE_INTERVAL / 2)


def _repair_rounds(loss: float, window: float) -> float:
    """Return how many times some packet of a window of so many bytes has to be sent until one of it arrives, about.

    Of n packets n * loss^k are still missing after k transmissions.
    """
    if not 0 < loss < 1 or window <= PACKET:
        return 1.0
    return log(window / PACKET) / -log(loss)
