"""Asks linkd to renew the lease of a device whose path stays dead: the provider may have renumbered."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpquic.daemon.journal import Journal

SOCKET_VARIABLE = "MPQUIC_LINKD_SOCKET"
DEFAULT_SOCKET = "/run/mpquic-linkd/request"
FIRST_PAUSE = 10.0
LAST_PAUSE = 300.0


class LeaseRequest:
    """Sends `renew DEV`, again with growing pauses while the path stays dead, and `works DEV` once it carries again.

    Times are seconds.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._path = os.environ.get(SOCKET_VARIABLE, DEFAULT_SOCKET)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._next = 0.0
        self._pause = FIRST_PAUSE
        self._asked = False

    def reset(self) -> None:
        """A new outage begins: the first request isn't delayed."""
        self._next, self._pause = 0.0, FIRST_PAUSE

    def ask(self, device: str, now: float) -> None:
        """Ask for `device` unless that was done too recently."""
        if now < self._next:
            return
        self._next = now + self._pause
        self._pause = min(2 * self._pause, LAST_PAUSE)
        self._asked = True
        if self._tell(f"renew {device}", now):
            self._journal.info("lease.requested", device=device)

    def works(self, device: str, now: float) -> None:
        """Tell that the path carries, if a request was made since it last did: another outage is another matter."""
        self.reset()
        if self._asked:
            self._asked = False
            self._tell(f"works {device}", now)

    def _tell(self, what: str, now: float) -> bool:
        try:
            self._socket.sendto(what.encode(), self._path)
        except OSError as error:
            self._journal.limited("linkd", now, "lease.request_failed", 3600.0, request=what, error=error.strerror)
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
