"""The hosts to which datagrams leave one by one, since the device towards them refuses to segment (EIO)."""

from collections.abc import Callable

RETRY = 60.0
"""Seconds after which it is tried again: routes and devices change."""
MAX_HOSTS = 4096


class Unsegmented:
    """Remembers refusals by host, None standing for the peer of a connected socket. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.hosts: dict[str | None, float] = {}
        """Until when each is remembered, at least; mostly empty."""

    def __contains__(self, host: str | None) -> bool:
        until = self.hosts.get(host)
        if until is not None and self._clock() >= until:
            del self.hosts[host]
            return False
        return until is not None

    def add(self, host: str | None) -> None:
        """Segmentation was refused on the way to a host, and single datagrams weren't."""
        self.hosts.pop(host, None)
        if len(self.hosts) >= MAX_HOSTS:
            del self.hosts[next(iter(self.hosts))]
        self.hosts[host] = self._clock() + RETRY
