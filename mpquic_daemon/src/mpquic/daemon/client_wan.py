"""The WAN of a client's path: what it lacks, the addresses that packets may leave from, and its lease."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.daemon.lease_request import LeaseRequest

if TYPE_CHECKING:
    from mpquic.config import PathConfig
    from mpquic.daemon.journal import Journal
    from mpquic.net.netlink import Missing, WanState

RENEW_AFTER = 6.0
"""Seconds without a packet of the server after which the WAN's lease is asked for."""


class ClientWan:
    """Follows the WAN of one path."""

    def __init__(self, settings: PathConfig, journal: Journal) -> None:
        self._settings = settings
        self.own: tuple[str, ...] = ()
        """Addresses of the WAN's device."""
        self.missing: Missing | None = None
        """What the WAN lacks for being usable."""
        self.lease = LeaseRequest(journal)

    def look(self, wan: WanState) -> bool:
        """Take over the state of the device; tell whether it can be used."""
        family = self._settings.family
        if not wan.usable_for(family):
            self.own, self.missing = (), wan.missing_for(family)
            return False
        self.own, self.missing = wan.own_hosts(family), None
        return True

    def obstacle(self, wan: WanState) -> str | None:
        """Say why no packet can reach the server by the WAN as it is, None when its addresses don't tell."""
        subnet, server = wan.covering(self._settings.remote_addr), self._settings.remote_addr
        if subnet is None:
            return None
        return (
            f"the lease {subnet} of {wan.device} covers the VPS's address {server}: it is looked for at the modem, "
            "which must give another subnet"
        )

    def follow(self, now: float, *, was_up: bool, is_up: bool, heard_at: float) -> None:
        """Ask for a new lease while the path stays dead, and tell when it works."""
        device = self._settings.bind_device
        if was_up and not is_up:
            self.lease.reset()
        if device is None:
            return
        if is_up:
            if not was_up:
                self.lease.works(device, now)
        elif now - heard_at >= RENEW_AFTER:
            self.lease.ask(device, now)
