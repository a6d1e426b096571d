"""Shares the processor time of a server among its clients while there is more work than time.

What arrives is read first, so that everybody's work is seen, and is done then in passes of bounded length. In a pass
the client that has had least is served next, a bounded piece of its work at a time, and is charged for the time that
this took. The work of a client that is alone isn't cut into pieces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.proto.fair_queue import ServiceOrder

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Hashable

    Work = Callable[[float], object]
    """A piece of work; takes the time of the event loop. What remains is added again by itself."""

PASS_TIME = 0.002
"""Seconds of processor time after which sockets are read again."""
PIECE = 64 << 10
"""Bytes that are handled for a client at a time while others wait."""


class ProcessorShare:
    """`clock` gives processor time in seconds; `after` is called after each pass."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float], after: Callable[[], object]
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._after = after
        self._order: ServiceOrder[Hashable] = ServiceOrder()
        self._work: dict[Hashable, dict[Work, None]] = {}
        self._current: Hashable | None = None
        self._measured_at = clock()
        self._next: asyncio.Handle | None = None
        self._passing = False

    @property
    def overdue(self) -> bool:
        """Whether a pass has ended before the work did, and the next one is to come."""
        return self._next is not None

    @property
    def piece(self) -> int | None:
        """Bytes that the client in service may have handled now; None without bound, as nobody else waits."""
        return PIECE if len(self._order) > (self._current in self._order) else None

    def add(self, client: Hashable, work: Work) -> None:
        """Have `work` done for a client, once."""
        self._work.setdefault(client, {})[work] = None
        self._order.wait(client)

    def start(self) -> None:
        """Begin a pass, unless one is under way or to come."""
        if self._next is None and not self._passing:
            self._pass()

    def charge(self, client: Hashable | None) -> None:
        """Charge a client for the time since the last call; None: it was nobody's."""
        now = self._clock()
        if client is not None:
            self._order.charge(client, now - self._measured_at)
        self._measured_at = now

    def charged(self, client: Hashable) -> float:
        """Return what a client has been charged, comparable with that of others."""
        return self._order.charged(client)

    def forget(self, client: Hashable) -> None:
        """Drop what is to be done for a client that has gone, and what it was charged."""
        self._work.pop(client, None)
        self._order.forget(client)

    def close(self) -> None:
        """Do nothing any more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._passing = True

    def _pass(self) -> None:
        self._next = None
        self._passing = True
        self.charge(None)
        began = self._measured_at
        try:
            while (client := self._order.take()) is not None:
                self._serve(client)
                if self._measured_at - began >= PASS_TIME:
                    break
        finally:
            # After a fault too: what waits would wait for ever.
            self._passing = False
            if self._order:
                self._next = self._loop.call_soon(self._pass)
            self._after()

    def _serve(self, client: Hashable) -> None:
        works = self._work[client]
        work = next(iter(works))
        del works[work]
        if works:
            self._order.wait(client)
        else:
            del self._work[client]
        self._current = client
        try:
            work(self._loop.time())
        finally:
            self._current = None
            self.charge(client)
