"""Decides how a default route comes back that a lease brought and somebody has deleted: pure, time comes in.

Only systemd-networkd knows the gateway of a lease, and it doesn't notice that the route is gone. A renewal has it set
all routes of an IPv4 lease again, and takes nothing away. Where that doesn't help, and for the route of a router
advertisement, which a renewal doesn't ask for, the device is configured anew.

A device that has had no default route since it got its address has lost none: its lease may come without a router.
What was there before this process started isn't known: two renewals are harmless, and all that is asked then.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from mpquic.linkd.renew import Verb

GRACE = 0.3
"""Seconds that a route may be absent while systemd-networkd replaces it."""
FIRST_GRACE = 5.0
"""Seconds that it may be absent when it hasn't been seen: its address comes first, and its lease may be on its way."""
FIRST_PAUSE = 2.0
LAST_PAUSE = 60.0
RENEWALS = 2
"""Renewals before the device is configured anew."""


@dataclass(slots=True)
class _Lost:
    due: float
    pause: float = FIRST_PAUSE
    asked: int = 0
    certain: bool = True
    """Whether the route was seen."""


class LostRoutes:
    """Follows devices by name and address family. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._had: dict[tuple[str, int], frozenset[str]] = {}
        """The addresses with which each last had a default route."""
        self._lost: dict[tuple[str, int], _Lost] = {}
        self._met: set[tuple[str, int]] = set()

    def seen(self, device: str, family: int, hosts: Collection[str], *, carrier: bool, route: bool, now: float) -> None:
        """Take notice of what a device has; `hosts` are its own addresses of the family."""
        key = (device, family)
        addresses = frozenset(hosts)
        first = key not in self._met
        self._met.add(key)
        if route:
            self._had[key] = addresses
            self._lost.pop(key, None)
        elif carrier and addresses and self._had.get(key) == addresses:
            self._lost.setdefault(key, _Lost(now + GRACE))
        elif carrier and addresses and first:
            self._had[key] = addresses
            self._lost[key] = _Lost(now + FIRST_GRACE, certain=False)
        else:
            self._had.pop(key, None)
            self._lost.pop(key, None)

    def due(self, now: float) -> list[tuple[str, Verb]]:
        """Return what to ask of systemd-networkd now; each device is due again after its next pause."""
        found: list[tuple[str, Verb]] = []
        for (device, family), lost in self._lost.items():
            if now < lost.due:
                continue
            renewable = family == socket.AF_INET and lost.asked < RENEWALS
            if not renewable and not lost.certain:
                lost.due = float("inf")
                continue
            found.append((device, "renew" if renewable else "reconfigure"))
            lost.asked += 1
            lost.due = now + lost.pause
            lost.pause = min(lost.pause * 2, LAST_PAUSE)
        return found

    def next_time(self) -> float | None:
        """Return when a device is due; None when none is."""
        return min((lost.due for lost in self._lost.values() if lost.due < float("inf")), default=None)

    def forget(self, devices: Collection[str]) -> None:
        """Keep what is known of these devices only."""
        self._had = {key: had for key, had in self._had.items() if key[0] in devices}
        self._lost = {key: lost for key, lost in self._lost.items() if key[0] in devices}
        self._met = {key for key in self._met if key[0] in devices}
