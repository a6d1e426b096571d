"""The certificates that a server has shown: what of them isn't accepted any more while a client is connected."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from mpquic.proto.control.validity import Validity

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cryptography import x509

EXPIRY_CHECK = 60.0
"""Seconds between two looks at the dates, while connected."""


class ServerChain:
    """The server's own certificate first, as TLS has verified them. Times are those of the event loop, in seconds."""

    def __init__(self, certificates: Iterable[x509.Certificate], now: float) -> None:
        self._chain = tuple(map(Validity.of, certificates))
        self._next_look = now

    @property
    def own(self) -> Validity:
        """Dates and serial number of the server's certificate."""
        return self._chain[0]

    def revoked(self, serials: Collection[int]) -> str | None:
        """Say which certificate is among these serial numbers, None when none is."""
        found = next((each for each in self._chain if each.serial in serials), None)
        if found is None:
            return None
        return f"the server's certificate {found.serial:x} is revoked: run site.yml for the VPS"

    def expired(self, now: float) -> str | None:
        """Say which certificate's time is over, None when none is or it isn't time to look yet."""
        if now < self._next_look:
            return None
        self._next_look = now + EXPIRY_CHECK
        today = dt.datetime.now(dt.UTC)
        found = next((each for each in self._chain if each.not_after < today), None)
        return None if found is None else found.problem("the server's certificate", today)
