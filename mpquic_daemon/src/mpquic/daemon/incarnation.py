"""Under which boot id a client registers, and what it says when another machine has its identity."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mpquic.proto.control.identity import claimed_uri
from mpquic.proto.control.messages import RefuseCode
from mpquic.proto.control.printable import printable
from mpquic.table import SITE_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic.daemon.journal import Journal
    from mpquic.proto.control.handshake import Rejected
    from mpquic.proto.control.identity import Credentials

CONFLICTS = (RefuseCode.IN_USE, RefuseCode.HANDED_OVER)
"""Codes of refusals because of another machine."""

CONFLICT_INTERVAL = 3600.0
"""Seconds between two journal lines that another machine has taken the place of this one."""


class Incarnation:
    """The boot id of a process, and the epochs of its connections.

    A machine that was copied or set back while it ran has the boot id of another one. Who was registered by a boot id
    and finds another in its place draws a boot id of its own: from then on the server can tell both apart.
    """

    def __init__(self, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._entropy = entropy
        self.boot_id = entropy(16)
        self.epoch = 0
        self._was_registered = False
        self._conflict_told_at = float("-inf")

    def next_epoch(self) -> int:
        """Begin another connection; return its epoch."""
        self.epoch += 1
        return self.epoch

    def registered(self) -> None:
        """The server has admitted this boot id."""
        self._was_registered = True

    def displaced(self) -> None:
        """Another machine has the place that this boot id had."""
        if self._was_registered:
            self.boot_id, self._was_registered = self._entropy(16), False

    def tell_of_conflict(self, journal: Journal, path: str, now: float) -> None:
        """Write, once an hour at most, that another machine has taken the place of this one."""
        if now - self._conflict_told_at >= CONFLICT_INTERVAL:
            self._conflict_told_at = now
            cause = "another client has this identity and tunnel: a copy of this machine, or of its certificate and key"
            journal.error("path.taken_over", path=path, cause=cause)


def who(credentials: Credentials, tunnel: str) -> str:
    """Return how an identity and tunnel are named on the command line of the VPS."""
    return f"{printable(claimed_uri(credentials.chain[0]) or 'SITE').removeprefix(SITE_PREFIX)} {tunnel}"


def words(rejected: Rejected, credentials: Credentials, tunnel: str) -> str:
    """Return why a client is refused for another machine, and what to do."""
    where = f" at {printable(rejected.peer)}" if rejected.peer else ""
    name = who(credentials, tunnel)
    if rejected.code == RefuseCode.HANDED_OVER:
        return (
            f"an operator has handed this identity ({name}) over to another machine{where}: switch this one off; "
            f"to take it back run mpquicctl handover {name} on the VPS"
        )
    return (
        f"another machine{where} uses this identity ({name}), a copy of this one or of its certificate and key: switch "
        "it off, or make this machine a site of its own; if this one is to take its place, run "
        f"mpquicctl handover {name} on the VPS"
    )
