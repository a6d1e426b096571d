"""Which connections of peers that haven't registered a server keeps: pure, times are seconds of one monotonic clock.

A connection is *unregistered* from its first packet until its peer has proved who it is. There are few places for such
connections, and a share of the server's time. While both suffice, whoever comes gets a place. When they don't:

* the time to register is shorter,
* the oldest connection of the source with the most of them makes room for the one that comes, where a source is a
  network (IPv4 /24, IPv6 /48) and within it an address (IPv4 address, IPv6 /64),
* networks whose connections have cost processor time and come to nothing wait,
* some places are kept for addresses from which a client has been admitted lately, and none of the above is for them.
"""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

Key = TypeVar("Key", bound="Hashable")


@dataclass(frozen=True, slots=True)
class UnregisteredLimits:
    """What unregistered connections may take. Times in seconds."""

    places: int = 256
    reserved: int = 64
    """How many of the places are kept for addresses that were admitted lately."""
    per_address: int = 64
    """A site's tunnels may share one address, and all come at once after a restart."""
    retry_threshold: int = 32
    """Unregistered connections beyond which an address has to be proved first (RFC 9000 section 8.1.2)."""
    timeout: float = 10.0
    """From the first packet to the registration."""
    short_timeout: float = 4.0
    """The same, once half of the places that aren't reserved are taken."""
    grace: float = 1.0
    """For so long a connection keeps its place: a registration takes four round trips."""
    max_datagrams: int = 128
    """From one connection: a registration takes about ten."""
    max_work: float = 0.1
    """Processor time for one connection: a registration takes about 0.01 s."""
    share: float = 0.15
    """Of the server's time, for all of them, before sources that have cost something wait."""
    free_work: float = 0.01
    """Processor time that a network may have cost in vain before it waits."""
    known_for: float = 86400.0
    max_known: int = 1024
    max_debtors: int = 4096


BUSY_PERIOD = 2.0
"""Seconds over which the share of time is averaged."""
DEBT_PERIOD = 60.0
"""Seconds in which what a network has cost is forgotten by 63 %."""


@dataclass(slots=True)
class _Place:
    address: str
    network: str
    entered_at: float
    known: bool
    work: float = 0.0
    datagrams: int = 0


@dataclass(frozen=True, slots=True)
class Decision(Generic[Key]):
    """Whether a connection gets a place; if not, why; if so, whose place it takes."""

    refusal: str | None = None
    evicted: Key | None = None


class Unregistered(Generic[Key]):
    """The unregistered connections of a server, `Key` each."""

    def __init__(self, limits: UnregisteredLimits) -> None:
        self.limits = limits
        self._places: dict[Key, _Place] = {}
        """In order of entry."""
        self._networks: dict[str, dict[Key, _Place]] = {}
        self._known_places = 0
        self._known: dict[str, float] = {}
        """When a client was last admitted from an address; the latest at the end."""
        self._busy = 0.0
        self._busy_at = 0.0
        self._debts: dict[str, tuple[float, float]] = {}
        """What a network has cost in vain, and when that was so; the latest at the end."""

    def __len__(self) -> int:
        """Return the number of unregistered connections."""
        return len(self._places)

    def __contains__(self, key: Key) -> bool:
        """Return whether a connection is unregistered."""
        return key in self._places

    def must_prove_address(self, now: float) -> bool:
        """Whether an address has to be proved before it gets a place."""
        return len(self._places) >= self.limits.retry_threshold or self._utilisation(now) > self.limits.share

    def enter(self, key: Key, host: str, now: float) -> Decision[Key]:
        """Give a connection from `host` a place, or say why not."""
        limits = self.limits
        address, network = sources(host)
        known = self._is_known(address, now)
        others = self._networks.get(network, {})
        if sum(place.address == address for place in others.values()) >= limits.per_address:
            return Decision("too many unregistered of one address")
        if not known and self._utilisation(now) > limits.share and self._debt(network, now) > limits.free_work:
            return Decision("unregistered of a network that has cost too much")
        evicted = None
        if len(self._places) >= limits.places or (not known and self._unknown >= limits.places - limits.reserved):
            evicted = self._to_evict(now)
            if evicted is None:
                return Decision("too many unregistered")
            self.leave(evicted)
        place = _Place(address, network, now, known)
        self._places[key] = place
        self._networks.setdefault(network, {})[key] = place
        self._known_places += known
        return Decision(evicted=evicted)

    def count(self, key: Key, datagrams: int, work: float, elapsed: float, now: float) -> str | None:
        """Note what a connection has sent and what it cost; say why it is to end, if it is.

        `work` is processor time. `elapsed` is the time in which nobody else was served: longer, where the processor is
        taken by others.
        """
        place = self._places.get(key)
        if place is None:
            return None
        place.datagrams += datagrams
        place.work += work
        self._busy, self._busy_at = self._decayed(now) + elapsed, now
        if place.datagrams > self.limits.max_datagrams:
            return "too many datagrams before the registration"
        if place.work > self.limits.max_work:
            return "too much processor time before the registration"
        return None

    def admitted(self, key: Key, now: float) -> None:
        """The peer of a connection proved who it is."""
        place = self._forget(key)
        if place is not None:
            self._known.pop(place.address, None)
            self._known[place.address] = now
            if len(self._known) > self.limits.max_known:
                del self._known[next(iter(self._known))]

    def leave(self, key: Key) -> None:
        """A connection is over; no matter whether it was unregistered."""
        place = self._forget(key)
        if place is not None and place.work:
            debt = self._debt(place.network, self._busy_at) + place.work
            self._debts.pop(place.network, None)
            self._debts[place.network] = debt, self._busy_at
            if len(self._debts) > self.limits.max_debtors:
                del self._debts[next(iter(self._debts))]

    def next_expiry(self) -> float | None:
        """When the time of the oldest connection is up."""
        oldest = next(iter(self._places.values()), None)
        return None if oldest is None else oldest.entered_at + self._timeout

    def pop_expired(self, now: float) -> list[Key]:
        """Take out the connections whose time is up."""
        expired: list[Key] = []
        while (due := self.next_expiry()) is not None and due <= now:
            key = next(iter(self._places))
            self.leave(key)
            expired.append(key)
        return expired

    @property
    def _unknown(self) -> int:
        return len(self._places) - self._known_places

    @property
    def _timeout(self) -> float:
        pressed = 2 * self._unknown > self.limits.places - self.limits.reserved
        return self.limits.short_timeout if pressed else self.limits.timeout

    def _to_evict(self, now: float) -> Key | None:
        """The oldest connection of the fullest address of the fullest network, if it has had its time."""
        latest = now - self.limits.grace
        best: tuple[int, int, float] | None = None
        chosen: Key | None = None
        for places in self._networks.values():
            if best is not None and len(places) < best[0]:
                continue
            addresses: dict[str, int] = {}
            for place in places.values():
                addresses[place.address] = addresses.get(place.address, 0) + 1
            for key, place in places.items():
                if place.entered_at > latest or place.known:
                    continue
                rank = len(places), addresses[place.address], -place.entered_at
                if best is None or rank > best:
                    best, chosen = rank, key
        return chosen

    def _is_known(self, address: str, now: float) -> bool:
        at = self._known.get(address)
        return at is not None and now - at <= self.limits.known_for

    def _decayed(self, now: float) -> float:
        return self._busy * math.exp((self._busy_at - now) / BUSY_PERIOD)

    def _utilisation(self, now: float) -> float:
        return self._decayed(now) / BUSY_PERIOD

    def _debt(self, network: str, now: float) -> float:
        debt, at = self._debts.get(network, (0.0, now))
        return debt * math.exp((at - now) / DEBT_PERIOD)

    def _forget(self, key: Key) -> _Place | None:
        place = self._places.pop(key, None)
        if place is not None:
            places = self._networks[place.network]
            del places[key]
            if not places:
                del self._networks[place.network]
            self._known_places -= place.known
        return place


@lru_cache(maxsize=1024)
def sources(host: str) -> tuple[str, str]:
    """Return what counts as one address and as one network: IPv4 address and /24, IPv6 /64 and /48."""
    address = ipaddress.ip_address(host.partition("%")[0])
    narrow, wide = (32, 24) if address.version == 4 else (64, 48)
    return (
        str(ipaddress.ip_network((address, narrow), strict=False)),
        str(ipaddress.ip_network((address, wide), strict=False)),
    )
