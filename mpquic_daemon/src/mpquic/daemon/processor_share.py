"""Shares the processor time of a server among its clients while there is more work than time.

What arrives is read first, so that everybody's work is seen, and is done then in passes of bounded length. In a pass
the client that has had least is served next, a bounded piece of its work at a time, and is charged for the time that
this took. The work of a client that is alone isn't cut into pieces. While there is too little time, the work of a
client that takes more than its share is put off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from mpquic.proto.processor.fair_queue import ServiceOrder
from mpquic.proto.processor.share_limit import ShareLimit

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Hashable

    from mpquic.daemon.arrivals import Arrivals

    Work = Callable[[float], object]
    """A piece of work; takes the time of the event loop. What remains is added again by itself."""

Key = TypeVar("Key")

PASS_TIME = 0.002
"""Seconds of processor time after which sockets are read again."""
PIECE = 64 << 10
"""Bytes that are handled for a client at a time while others wait."""


class ProcessorShare:
    """`clock` gives processor time in seconds, `idle` that without work; `after` is called after each pass."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        after: Callable[[], object],
        idle: Callable[[], float] | None = None,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._after = after
        self._idle = loop.time if idle is None else idle
        self._idle_at = self._idle()
        self._order: ServiceOrder[Hashable] = ServiceOrder()
        self._limit: ShareLimit[Hashable] = ShareLimit(loop.time())
        self._held: dict[Hashable, asyncio.TimerHandle] = {}
        """Clients whose work is put off, and when it goes on."""
        self._work: dict[Hashable, dict[Work, None]] = {}
        self._current: Hashable | None = None
        self._measured_at = clock()
        self._next: asyncio.Handle | None = None
        self._passing = False

    @property
    def is_short(self) -> bool:
        """Whether there is too little time, so that it matters who is charged for what."""
        return self._limit.is_set

    @property
    def piece(self) -> int | None:
        """Bytes that the client in service may have handled now; None without bound, as nobody else waits."""
        return PIECE if self._held or len(self._order) > (self._current in self._order) else None

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is done, and there is time enough: what comes now needs no iteration."""
        return not (self._work or self._passing or self._limit.is_set)

    def do(self, client: Hashable, work: Work, octets: int, now: float) -> None:
        """Have work done for a client that carries so many bytes: at once when nothing waits, else in its turn."""
        if not self.is_idle:
            self.carry(client, octets)
            self.add(client, work)
            self.start()
            return
        if self._limit.is_due(now):
            self._find_limit(now)
        self._passing = True
        self._measured_at = self._clock()
        self._current = client
        try:
            work(now)
        finally:
            self._current = None
            measured_at, self._measured_at = self._measured_at, self._clock()
            cost = self._measured_at - measured_at
            self._order.charge(client, cost)
            self._limit.charge(client, cost, octets, now)
            self._end_pass()

    def add(self, client: Hashable, work: Work) -> None:
        """Have `work` done for a client, once."""
        self._work.setdefault(client, {})[work] = None
        if client not in self._held:
            self._order.wait(client)

    def start(self) -> None:
        """Begin a pass, unless one is under way or to come."""
        if self._next is None and not self._passing:
            self._pass()

    def charge(self, client: Hashable | None) -> None:
        """Charge a client for the time since the last call; None: it was nobody's."""
        now = self._clock()
        if client is not None:
            self._charge(client, now - self._measured_at)
        self._measured_at = now

    def read(self, arrivals: Arrivals[Key], payer: Callable[[Key], Hashable], now: float) -> bool:
        """Read a socket, and charge the senders for it while time is short; false when more may wait in the socket.

        `payer` tells whom a sender belongs to. Small datagrams cost as much to be read as large ones.
        """
        if not self._limit.is_set:
            return arrivals.read(now)
        self.charge(None)
        counts: dict[Key, int] = {}
        drained = arrivals.read(now, counts)
        read_at = self._clock()
        cost = (read_at - self._measured_at) / max(1, sum(counts.values()))
        self._measured_at = read_at
        for key, count in counts.items():
            self._charge(payer(key), cost * count)
        return drained

    def carry(self, client: Hashable, octets: int) -> None:
        """Note bytes that are carried for a client."""
        self._limit.charge(client, 0.0, octets, self._limit_time())

    def charged(self, client: Hashable) -> float:
        """Return what a client has been charged, comparable with that of others."""
        return self._order.charged(client)

    def forget(self, client: Hashable) -> None:
        """Drop what is to be done for a client that has gone, and what it was charged."""
        self._work.pop(client, None)
        self._order.forget(client)
        self._limit.forget(client)
        if client in self._held:
            self._held.pop(client).cancel()

    def put_off(self, client: Hashable, work: Work) -> bool:
        """Put work off if the client has taken more than its share; false when it may be done now."""
        if not self._hold(client):
            return False
        self._work.setdefault(client, {})[work] = None
        return True

    def close(self) -> None:
        """Do nothing any more."""
        for handle in self._held.values():
            handle.cancel()
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._passing = True

    def _pass(self) -> None:
        self._next = None
        self._passing = True
        now = self._loop.time()
        if self._limit.is_due(now):
            self._find_limit(now)
        began = self._measured_at = self._clock()
        try:
            while (client := self._order.take()) is not None:
                if (self._held or self._limit.is_set) and self._hold(client):
                    continue
                self._serve(client)
                if self._measured_at - began >= PASS_TIME:
                    break
        finally:
            self._end_pass()

    def _end_pass(self) -> None:
        # After a fault too: what waits would wait for ever.
        self._passing = False
        if self._order:
            self._next = self._loop.call_soon(self._pass)
        self._after()

    def _find_limit(self, now: float) -> None:
        since, idle = self._limit.began, self._idle()
        self._limit.close_interval(now, 1 - (idle - self._idle_at) / (now - since))
        self._idle_at = idle

    def _charge(self, client: Hashable, cost: float) -> None:
        self._order.charge(client, cost)
        self._limit.charge(client, cost, 0, self._limit_time())

    def _limit_time(self) -> float:
        """Return the time where it is needed: reading it for each piece of work would cost as much as the rest."""
        return self._loop.time() if self._limit.is_set else 0.0

    def _hold(self, client: Hashable) -> bool:
        """Have a client wait for its share; false when it needn't."""
        if client in self._held:
            return True
        if not self._limit.is_set:
            return False
        delay = self._limit.delay(client, self._loop.time())
        if delay <= 0:
            return False
        self._held[client] = self._loop.call_later(delay, self._resume, client)
        return True

    def _resume(self, client: Hashable) -> None:
        del self._held[client]
        if client in self._work:
            self._order.wait(client)
            self.start()

    def _serve(self, client: Hashable) -> None:
        works = self._work[client]
        work = next(iter(works))
        del works[work]
        if works:
            self._order.wait(client)
        else:
            del self._work[client]
        self._work_on(client, work, self._loop.time())

    def _work_on(self, client: Hashable, work: Work, now: float) -> None:
        self._current = client
        try:
            work(now)
        finally:
            self._current = None
            self.charge(client)
