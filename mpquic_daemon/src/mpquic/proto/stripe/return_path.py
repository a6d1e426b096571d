"""Addresses that have not proven yet that the peer receives there: how much is sent to them, and how they prove it.

A server learns from packets where a pipe's peer is. A peer with the keys can write any source address, and someone on
the way can send a packet on from elsewhere. So a token goes to each other address and has to return from it before more
than three times of what came from there is sent to it (RFC 9000 sections 8 and 9).
"""

from __future__ import annotations

from typing import Any

Address = tuple[Any, ...]
"""As the socket module has it. Opaque here."""

AMPLIFICATION = 3
"""Bytes that go to an unproven address for each byte that came from it (RFC 9000 section 8.1)."""
TOKEN_SIZE = 8
MAX_TRIES = 5
MIN_INTERVAL = 0.1
INTERVAL_ROUND_TRIPS = 1.5
"""Seconds, or round trips where these take longer, from the first token to the next, doubled each time; after
`MAX_TRIES` the address is given up until another packet comes from it."""
REPLY_TIME = 1.0
REPLY_ROUND_TRIPS = 3.0
"""Seconds, or round trips where these take longer, for which the reply to a token is waited for after packets have come
from yet another address."""
MAX_UNPROVEN = 64
"""Addresses to which a token is under way. A NAT that gives each packet another port would make no end of them."""
MAX_PROVEN = 16
RECENT = 30.0
"""Seconds after a peer has left an address in which it may return there without proof (RFC 9000 section 9.3)."""
STILL_REACHED = 1.0
"""Seconds after an address has proven itself, though packets came from another one by then, in which it takes what may
not be sent to a newer, unproven one. A NAT may use several ports by turns, or another one for each packet; else the old
one is dead after a rebinding."""
TOLERATED = 0.75
"""Seconds in which shards can't be sent that add up to an obstruction; it ends when half of them are made up for."""
RECOVERY = 0.1
"""Seconds that each second makes up for in which shards can be sent."""
LONGEST_STEP = 0.5
"""Seconds between two updates that count at most: more is a pause of this process."""
ROUNDING = 1e-6


class UnprovenAddress:
    """One address that has yet to prove itself. It may be that of several pipes."""

    __slots__ = ("address", "keep_until", "next_try", "pipes", "received", "sent", "token", "tries")

    def __init__(self, address: Address, token: bytes) -> None:
        self.address = address
        self.token = token
        self.received = 0
        """Bytes that have come from there."""
        self.sent = 0
        self.tries = 0
        self.next_try = float("-inf")
        self.keep_until = float("-inf")
        """Until when a reply may come although no pipe has this address any more."""
        self.pipes: set[int] = set()
        """Numbers of the pipes of which packets came from there."""

    @property
    def room(self) -> int:
        """Bytes that may be sent there."""
        return AMPLIFICATION * self.received - self.sent

    def take(self, size: int) -> bool:
        """Count what is to be sent there; False, and nothing counted, if it is too much."""
        if size > self.room:
            return False
        self.sent += size
        return True

    def try_again(self, now: float, rtt: float) -> bool:
        """Tell whether the token is sent now; False as well when it has been sent often enough (`exhausted`)."""
        if now < self.next_try or self.exhausted:
            return False
        self.next_try = now + max(MIN_INTERVAL, INTERVAL_ROUND_TRIPS * rtt) * (1 << self.tries)
        self.keep_until = now + max(REPLY_TIME, REPLY_ROUND_TRIPS * rtt)
        self.tries += 1
        return True

    @property
    def exhausted(self) -> bool:
        """Whether all tries have been made; the last one has its time until `next_try`."""
        return self.tries >= MAX_TRIES


class Obstruction:
    """Whether the proofs of addresses take so much of the time that another data plane does better.

    After a single rebinding there is a round trip without proof. A NAT that forgets ports again before they have been
    in use for long leaves hardly anything else: what is sent in between is lost as well, with all that repeats it.
    """

    def __init__(self, now: float) -> None:
        self.lasts = False
        self._blocked = False
        self._at = now
        self._sum = 0.0

    def update(self, now: float, *, blocked: bool) -> None:
        """Take whether shards can be sent from now on."""
        elapsed = min(max(0.0, now - self._at), LONGEST_STEP)
        self._at = now
        self._sum += elapsed if self._blocked else -elapsed * RECOVERY
        self._sum = min(max(0.0, self._sum), TOLERATED)
        self._blocked = blocked
        if self._sum >= TOLERATED - ROUNDING:
            self.lasts = True
        elif self._sum < TOLERATED / 2:
            self.lasts = False

    @property
    def changes_at(self) -> float | None:
        """When `update` should be called at the latest; None when nothing changes by time alone."""
        if self._blocked:
            return None if self.lasts else self._at + TOLERATED - self._sum
        return self._at + (self._sum - TOLERATED / 2) / RECOVERY + ROUNDING if self.lasts else None


class ProvenAddresses:
    """Addresses that have proven themselves, and when they did so or were left last; the latest ones of late."""

    def __init__(self) -> None:
        self._seen: dict[Address, float] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, address: Address, now: float) -> None:
        """The address has proven itself, or the peer has left it."""
        self._seen.pop(address, None)
        self._seen[address] = now
        if len(self._seen) > MAX_PROVEN:
            del self._seen[next(iter(self._seen))]

    def has(self, address: Address, now: float) -> bool:
        """Whether packets may be sent to the address without another proof."""
        return now - self._seen.get(address, float("-inf")) < RECENT
