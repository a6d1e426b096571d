"""Which connections of peers that haven't registered a server keeps: pure, times are seconds of one monotonic clock.

A connection is *unregistered* from its first packet until its peer has proved who it is. There are few places for such
connections, and a share of the server's time. While both suffice, whoever comes gets a place. When they don't:

* the time for the handshake is shorter,
* the oldest connection of the source with the most of them makes room for the one that comes, where a source is a
  network (IPv4 /24, IPv6 /48) and within it an address (IPv4 address, IPv6 /64); an address that has its share of the
  places makes room for its own, and what it has beyond that share for others at once,
* those wait whose network has cost processor time by connections that came to nothing,
* some places are kept for addresses from which a client has been admitted lately.

An address counts as the source only once it is proven, by a Retry or by the handshake: a forged one costs its owner
nothing. All connections of unproven addresses are one source together.

Many clients may share an address behind a NAT, some of them hostile. What the hostile ones can't have without end is
ports of that NAT, so one that hasn't been used in vain lately is served before the others. A connection whose peer has
shown its certificate, and waits for the place of a client that may be gone, has a place of its own.
"""

from __future__ import annotations

import ipaddress
import math
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

Key = TypeVar("Key", bound="Hashable")


@dataclass(frozen=True, slots=True)
class UnregisteredLimits:
    """What unregistered connections may take. Times in seconds."""

    places: int = 256
    reserved: int = 64
    """How many of the places others leave at once to addresses that were admitted lately."""
    per_address: int = 64
    """The share of an address. It may have more while nobody else needs them: many sites may share one address."""
    per_port: int = 2
    """From one port of one address: each attempt of a client has a port of its own."""
    per_identity: int = 32
    """Connections beside the places whose peers have shown the same identity: a site's tunnels all come at once."""
    retry_threshold: int = 32
    """Unregistered connections beyond which an address has to be proved first (RFC 9000 section 8.1.2)."""
    timeout: float = 10.0
    """From the first packet to the end of the handshake, from there to the registration, and to a decision."""
    short_timeout: float = 4.0
    """For the handshake, once half of the places that aren't reserved are taken."""
    grace: float = 1.0
    """For so long a connection keeps its place: a registration takes four round trips."""
    max_datagrams: int = 128
    """From one connection: a registration takes about ten."""
    max_work: float = 0.1
    """Processor time for one connection: a registration takes about 0.01 s."""
    share: float = 0.15
    """Of the server's time, for all of them, before sources that have cost something wait."""
    free_work: float = 0.01
    """Processor time that a source may have cost in vain before it waits."""
    max_credit: float = 1.0
    """Processor time that a source may cost in vain more, since registrations from it took as much."""
    known_for: float = 86400.0
    max_known: int = 1024
    max_debtors: int = 4096
    max_ports: int = 4096


BUSY_PERIOD = 2.0
"""Seconds over which the share of time is averaged."""
DEBT_PERIOD = 60.0
"""Seconds in which what a source has cost is forgotten by 63 %, and a port entirely."""
_UNPROVEN = "unproven"
"""The network of all addresses that aren't proven."""


class Stage(Enum):
    """What a connection is at; each stage has its time."""

    HANDSHAKE = "handshake"
    REGISTRATION = "registration"
    DECISION = "decision"


@dataclass(slots=True)
class _Place:
    address: str
    network: str
    port: int
    entered_at: float
    is_proven: bool
    known: bool
    stage: Stage = Stage.HANDSHAKE
    identity: str | None = None
    work: float = 0.0
    datagrams: int = 0
    source: tuple[str, str] = field(init=False)
    """The network and the address that it counts for."""

    def __post_init__(self) -> None:
        self.source = (self.network if self.is_proven else _UNPROVEN), self.address


class Decision(NamedTuple, Generic[Key]):
    """Whether a connection gets a place; if not, why; if so, whose place it takes."""

    refusal: str | None = None
    evicted: Key | None = None


class Unregistered(Generic[Key]):
    """The unregistered connections of a server, `Key` each."""

    def __init__(self, limits: UnregisteredLimits) -> None:
        self.limits = limits
        self._places: dict[Key, _Place] = {}
        self._identified: dict[Key, _Place] = {}
        """Those beside the places, whose peers have shown who they are."""
        self._since: dict[Stage, dict[Key, float]] = {stage: {} for stage in Stage}
        """When a connection came to its stage, in this order."""
        self._networks: Counter[str] = Counter()
        self._addresses: Counter[tuple[str, str]] = Counter()
        self._ports: Counter[tuple[str, str, int]] = Counter()
        self._identities: Counter[str] = Counter()
        """Numbers of connections by what they count for; none of them is 0."""
        self._known_places = 0
        self._known: dict[str, float] = {}
        """When a client was last admitted from an address; the latest at the end."""
        self._busy = 0.0
        self._busy_at = 0.0
        self._debts: dict[str, tuple[float, float]] = {}
        """What a network or an address has cost in vain, and when that was so; the latest at the end."""
        self._used_ports: dict[tuple[str, int], float] = {}
        """When a connection came from a port that hasn't registered; the latest at the end."""

    def __len__(self) -> int:
        """Return the number of unregistered connections."""
        return len(self._places) + len(self._identified)

    def __contains__(self, key: Key) -> bool:
        """Return whether a connection is unregistered."""
        return key in self._places or key in self._identified

    def must_prove_address(self, now: float) -> bool:
        """Whether an address has to be proved before it gets a place."""
        return len(self._places) >= self.limits.retry_threshold or self._utilisation(now) > self.limits.share

    def enter(self, key: Key, host: str, port: int, now: float, *, is_proven: bool) -> Decision[Key]:
        """Give a connection from `host` a place, or say why not.

        `is_proven` says whether it has shown by a Retry that its address is its own.
        """
        limits = self.limits
        address, network = sources(host)
        known = is_proven and self._is_known(address, now)
        place = _Place(address, network, port, now, is_proven, known)
        if self._ports[(*place.source, port)] >= limits.per_port:
            return Decision("too_many_unregistered_of_port")
        if is_proven and self._utilisation(now) > self._allowance(place, now):
            return Decision("network_cost_exceeded")
        evicted = None
        if len(self._places) >= limits.places:
            evicted = self._to_evict(place, now)
            if evicted is None:
                return Decision("too_many_unregistered")
            self.leave(evicted)
        self._places[key] = place
        self._since[Stage.HANDSHAKE][key] = now
        self._file(place, 1)
        self._note_port(place, now)
        return Decision(evicted=evicted)

    def count(self, key: Key, datagrams: int, work: float, elapsed: float, now: float) -> str | None:
        """Note what a connection has sent and what it cost; say why it is to end, if it is.

        `work` is processor time. `elapsed` is the time in which nobody else was served: longer, where the processor is
        taken by others.
        """
        place = self._places.get(key) or self._identified.get(key)
        if place is None:
            return None
        place.datagrams += datagrams
        place.work += work
        self._busy, self._busy_at = self._decayed(now) + elapsed, now
        if place.datagrams > self.limits.max_datagrams:
            return "too_many_datagrams_before_registration"
        if place.work > self.limits.max_work:
            return "too_much_processor_time_before_registration"
        return None

    def established(self, key: Key, now: float, *, is_proven: bool) -> None:
        """The handshake of a connection is complete; `is_proven` says whether that proves its address.

        It does if all packets came from there (RFC 9000 section 8.1).
        """
        place = self._places.get(key)
        if place is None or place.stage is not Stage.HANDSHAKE:
            return
        if is_proven and not place.is_proven:
            self._file(place, -1)
            place.is_proven, place.known = True, self._is_known(place.address, now)
            place.source = place.network, place.address
            self._file(place, 1)
            self._note_port(place, now)
        self._move(key, place, Stage.REGISTRATION, now)

    def identified(self, key: Key, identity: str, now: float) -> None:
        """The peer of a connection proved who it is, and waits: nobody else takes its place, up to a number of them."""
        place = self._places.get(key)
        if place is None or self._identities[identity] >= self.limits.per_identity:
            return
        del self._places[key]
        self._file(place, -1)
        place.identity = identity
        self._identified[key] = place
        self._identities[identity] += 1
        self._move(key, place, Stage.DECISION, now)

    def admitted(self, key: Key, now: float) -> None:
        """The peer of a connection proved who it is, and has registered."""
        place = self._forget(key)
        if place is not None and place.is_proven:
            self._known.pop(place.address, None)
            self._known[place.address] = now
            if len(self._known) > self.limits.max_known:
                del self._known[next(iter(self._known))]
            self._charge(place, -place.work)
            self._used_ports.pop((place.address, place.port), None)

    def leave(self, key: Key) -> None:
        """A connection is over; no matter whether it was unregistered."""
        place = self._forget(key)
        if place is not None and place.is_proven and place.work:
            self._charge(place, place.work)

    def next_expiry(self) -> float | None:
        """When the time of a connection is up next."""
        if not len(self):
            return None
        expiry: float | None = None
        for stage, since in self._since.items():
            if since:
                at = next(iter(since.values())) + self._timeout(stage)
                expiry = at if expiry is None else min(at, expiry)
        return expiry

    def pop_expired(self, now: float) -> list[Key]:
        """Take out the connections whose time is up."""
        if not len(self):
            return []
        expired: list[Key] = []
        for stage, since in self._since.items():
            while since and next(iter(since.values())) + self._timeout(stage) <= now:
                key = next(iter(since))
                self.leave(key)
                expired.append(key)
        return expired

    @property
    def _unknown(self) -> int:
        return len(self._places) - self._known_places

    def _timeout(self, stage: Stage) -> float:
        pressed = 2 * self._unknown > self.limits.places - self.limits.reserved
        return self.limits.short_timeout if pressed and stage is Stage.HANDSHAKE else self.limits.timeout

    def _to_evict(self, comer: _Place, now: float) -> Key | None:
        """The connection that makes room for `comer`.

        That is the oldest connection of the fullest address of the fullest network, if it has had its time. What an
        address has beyond its share, and others of what is reserved, has no such time: the latest of it goes first.
        """
        limits = self.limits
        has_share = self._addresses[comer.source] >= limits.per_address
        takes_known = self._known_places + comer.known > limits.reserved
        takes_reserved = comer.known and self._unknown > limits.places - limits.reserved
        latest = now - limits.grace
        if next(iter(self._places.values())).entered_at > latest and (
            has_share or not (takes_reserved or max(self._addresses.values()) > limits.per_address)
        ):
            return None  # without a look at all of them, since nobody has had its time
        best: tuple[bool, int, int, bool, float] | None = None
        chosen: Key | None = None
        for key, place in self._places.items():
            if place.known and not takes_known:
                continue
            if has_share and place.source != comer.source:
                continue
            size = self._addresses[place.source]
            excess = not has_share and (size > limits.per_address or (takes_reserved and not place.known))
            if not excess and place.entered_at > latest:
                continue
            age = place.entered_at if excess else -place.entered_at
            rank = excess, self._networks[place.source[0]], size, place.stage is Stage.HANDSHAKE, age
            if best is None or rank > best or (excess and rank == best):
                best, chosen = rank, key
        return chosen

    def _allowance(self, place: _Place, now: float) -> float:
        """Return the utilisation beyond which a connection of a proven address has to wait."""
        limits = self.limits
        if self._debt(place.address if place.known else place.network, now) <= limits.free_work:
            return math.inf
        used_at = self._used_ports.get((place.address, place.port))
        is_fresh = used_at is None or now - used_at > DEBT_PERIOD
        return limits.share * (1 + place.known + is_fresh)

    def _is_known(self, address: str, now: float) -> bool:
        at = self._known.get(address)
        return at is not None and now - at <= self.limits.known_for

    def _decayed(self, now: float) -> float:
        return self._busy * math.exp((self._busy_at - now) / BUSY_PERIOD)

    def _utilisation(self, now: float) -> float:
        return self._decayed(now) / BUSY_PERIOD

    def _debt(self, source: str, now: float) -> float:
        debt, at = self._debts.get(source, (0.0, now))
        return debt * math.exp((at - now) / DEBT_PERIOD)

    def _charge(self, place: _Place, work: float) -> None:
        """Note what a connection has cost in vain, or by a negative number, to good purpose."""
        for source in (place.network, place.address):
            debt = max(self._debt(source, self._busy_at) + work, -self.limits.max_credit)
            self._debts.pop(source, None)
            self._debts[source] = debt, self._busy_at
            if len(self._debts) > self.limits.max_debtors:
                del self._debts[next(iter(self._debts))]

    def _note_port(self, place: _Place, now: float) -> None:
        if place.is_proven:
            endpoint = place.address, place.port
            self._used_ports.pop(endpoint, None)
            self._used_ports[endpoint] = now
            if len(self._used_ports) > self.limits.max_ports:
                del self._used_ports[next(iter(self._used_ports))]

    def _move(self, key: Key, place: _Place, stage: Stage, now: float) -> None:
        del self._since[place.stage][key]
        place.stage = stage
        self._since[stage][key] = now

    def _file(self, place: _Place, number: int) -> None:
        """Count a place for its sources, or with -1 no more."""
        network, address = place.source
        _add(self._networks, network, number)
        _add(self._addresses, (network, address), number)
        _add(self._ports, (network, address, place.port), number)
        self._known_places += number * place.known

    def _forget(self, key: Key) -> _Place | None:
        place = self._places.pop(key, None)
        if place is not None:
            self._file(place, -1)
        else:
            place = self._identified.pop(key, None)
            if place is None:
                return None
            assert place.identity is not None
            _add(self._identities, place.identity, -1)
        del self._since[place.stage][key]
        return place


Counted = TypeVar("Counted", bound="Hashable")


def _add(counter: Counter[Counted], key: Counted, number: int) -> None:
    counter[key] += number
    if not counter[key]:
        del counter[key]


@lru_cache(maxsize=1024)
def sources(host: str) -> tuple[str, str]:
    """Return what counts as one address and as one network: IPv4 address and /24, IPv6 /64 and /48."""
    address = ipaddress.ip_address(host.partition("%")[0])
    narrow, wide = (32, 24) if address.version == 4 else (64, 48)
    return (
        str(ipaddress.ip_network((address, narrow), strict=False)),
        str(ipaddress.ip_network((address, wide), strict=False)),
    )
