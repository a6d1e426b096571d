"""What the event loops of both ends share: how much is sent before sockets are read again, and what counts as sleep."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ITERATION_BYTES = 256 << 10
MAX_ROUNDS = 16
SLEPT = 2.0
"""Seconds by which an iteration is late after which this process, or its machine, has slept meanwhile."""


def send(flush: Callable[[], None], fill: Callable[[], int]) -> bool:
    """Send until nothing moves, or until an iteration's share has been sent: true when there may be more.

    `flush` has QUIC send what it holds; `fill` hands it packets and returns their bytes. A flush makes room and comes
    first: while bytes of the control stream wait in QUIC, a path takes nothing.
    """
    total = 0
    for _ in range(MAX_ROUNDS):
        flush()
        moved = fill()
        if not moved:
            return False
        total += moved
        if total >= ITERATION_BYTES:
            break
    flush()
    return True
