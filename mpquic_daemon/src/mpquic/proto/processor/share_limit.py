"""Shares of processor time that is short, for clients that ask for no more than they were given last.

Senders with a congestion window keep little waiting: while a server is short of processor time, each of them goes on
with the part that it happens to have, and the order in which waiting work is done changes nothing. So while there is
too little, who takes more than its share is served later: its round trips grow, its rate falls, and the others take
what it leaves. The share is found like the fair rate in core-stateless fair queueing (Stoica, Shenker, Zhang:
"Core-Stateless Fair Queueing", SIGCOMM 1998): it falls while there is too little and rises while something is left.

What a client takes is the greater of two: the time that its work took, and what its bytes cost on the average of all
clients. Bytes that come in large pieces cost less, and who is fast has large pieces: shares of time alone would leave
the slow ones slow. Small packets cost more than average: for these it's the time.
"""

from __future__ import annotations

from typing import Generic, TypeVar

Key = TypeVar("Key")

INTERVAL = 0.2
"""Seconds over which it is measured who takes how much: twice the period in which a control group hands out time."""
SHORT = 0.9
"""Part of an interval in which the process was busy, from which on there is too little time."""
BUSY = 0.1
"""A client that takes this part of what the greediest one takes counts when the equal share is reckoned."""
FALL = 0.8
"""What the limit is multiplied by after an interval without enough time, while it is above the equal share."""
RISE = 1.15
"""What it is multiplied by after an interval in which there was enough."""
ROOM = 1.05
"""How much more than the equal share anybody may take: without it, the clients would be held to what they take."""
BURST = 0.1
"""Seconds whose share may be taken at once."""
MAX_DELAY = 0.05
"""Seconds for which work is put off, at most."""
_ENOUGH = float("inf")


class _Account:
    """What one client takes: in this interval, and beyond its share since `since`, in seconds of processor time."""

    __slots__ = ("bytes", "octets_debt", "since", "time", "time_debt")

    def __init__(self, now: float) -> None:
        self.time = 0.0
        self.bytes = 0
        self.time_debt = self.octets_debt = -_ENOUGH
        self.since = now


class ShareLimit(Generic[Key]):
    """A limit for each client, of processor time per second. Times are in seconds."""

    def __init__(self, now: float) -> None:
        self.limit = _ENOUGH
        """Processor time that a client may take per second; infinite while there is enough."""
        self.is_set = False
        """Whether there is a limit at present."""
        self.began = now
        """When the present interval began."""
        self._accounts: dict[Key, _Account] = {}
        self._price = 0.0
        """What a byte cost in the last interval, on average."""

    def charge(self, key: Key, time: float, octets: int, now: float) -> None:
        """Note the processor time that a client has taken, or bytes carried for it; `now` counts if a limit is set."""
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = _Account(now)
        account.time += time
        account.bytes += octets
        if self.is_set:
            self._repay(account, now)
            account.time_debt += time
            account.octets_debt += octets * self._price

    def delay(self, key: Key, now: float) -> float:
        """Return for how long the work of a client is put off; 0 when it may be done now."""
        account = self._accounts.get(key)
        if not self.is_set or account is None:
            return 0.0
        self._repay(account, now)
        return min(max(0.0, account.time_debt, account.octets_debt) / self.limit, MAX_DELAY)

    def is_due(self, now: float) -> bool:
        """Whether an interval is over, so that `close_interval` is to be called."""
        return now - self.began >= INTERVAL

    def close_interval(self, now: float, in_use: float) -> None:
        """Find the limit anew; `in_use` is the part of the time since the last call in which the process was busy."""
        elapsed, self.began = now - self.began, now
        # Who took nothing has nothing to be remembered but what it may take at once, which everybody may.
        self._accounts = {key: account for key, account in self._accounts.items() if account.time or account.bytes}
        accounts = list(self._accounts.values())
        carried = sum(account.bytes for account in accounts)
        self._price = sum(account.time for account in accounts if account.bytes) / carried if carried else 0.0
        taken = [max(account.time, account.bytes * self._price) for account in accounts]
        greediest = max(taken, default=0.0)
        busy = [account.time for account, took in zip(accounts, taken, strict=True) if took > BUSY * greediest]
        if in_use < SHORT:
            self.limit *= RISE
            if self.limit * elapsed > 2 * greediest:
                self.limit = _ENOUGH
        elif len(busy) > 1:
            # Never 0: what took no time, by a coarse clock, has its share, too.
            equal = ROOM * max(sum(busy) / len(busy), BUSY * greediest) / elapsed
            self.limit = max(equal, FALL * min(self.limit, greediest / elapsed))
        else:
            self.limit = _ENOUGH
        self.is_set = self.limit != _ENOUGH
        for account in accounts:
            account.time, account.bytes = 0.0, 0
            if not self.is_set:
                account.time_debt = account.octets_debt = -_ENOUGH

    def forget(self, key: Key) -> None:
        """Remove what is known of a client."""
        self._accounts.pop(key, None)

    def _repay(self, account: _Account, now: float) -> None:
        """Take off what the client might have taken since."""
        share, least = (now - account.since) * self.limit, -BURST * self.limit
        account.time_debt = max(account.time_debt - share, least)
        account.octets_debt = max(account.octets_debt - share, least)
        account.since = now
