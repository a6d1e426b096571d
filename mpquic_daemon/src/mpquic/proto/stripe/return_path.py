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


class UnprovenAddress:
    """One address that has yet to prove itself. It may be that of several pipes."""

    __slots__ = ("address", "next_try", "received", "sent", "token", "tries")

    def __init__(self, address: Address, token: bytes) -> None:
        self.address = address
        self.token = token
        self.received = 0
        """Bytes that have come from there."""
        self.sent = 0
        self.tries = 0
        self.next_try = float("-inf")

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
        self.tries += 1
        return True

    @property
    def exhausted(self) -> bool:
        """Whether all tries have been made; the last one has its time until `next_try`."""
        return self.tries >= MAX_TRIES
