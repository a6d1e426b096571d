"""Decides what a request to renew a device's lease leads to: pure, rate limited for each device.

A path that stays silent may mean that the provider has renumbered and told nobody. `renew` asks the DHCP server that
gave the lease, and disturbs nothing. `reconfigure` forgets the lease and asks everybody, which takes the address away
for a moment: only when no tunnel on the device is up, and either the gateway no longer resolves or the last renewal
went unanswered (the kernel's stamp on the address didn't change).

Where by every address family that is used on the device some tunnel hears its server, the lease is good and nothing is
done: what is silent is another server, or beyond the WAN.

The pauses between renewals grow until the lease gives something new or a tunnel comes up, of which the tunnel's process
tells. That an address comes back is no such sign, since a reconfiguration takes it away itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FIRST_PAUSE = 8.0
LAST_PAUSE = 600.0
RESET_AFTER = 1200.0
FIRST_DISCOVERY = 8.0
LAST_DISCOVERY = 30.0

Verb = Literal["renew", "reconfigure"]
Request = Literal["renew", "works"]
"""What a tunnel's process says of a device: its path stays silent, or has begun to carry."""


@dataclass(frozen=True, slots=True)
class LeaseEvidence:
    """What is known of a device when a request comes: facts, not conclusions.

    `tunnel_up`: some instance hears its server over the device. `all_heard`: by each address family that is used there
    some instance does. `address_stamps` holds (family, time of the address's last change) for each family that has an
    address, `identity` the addresses and gateways that the device has.
    """

    tunnel_up: bool
    gateway_failed: bool
    address_stamps: frozenset[tuple[int, int]]
    identity: frozenset[object]
    all_heard: bool = False


@dataclass(slots=True)
class _Device:
    last: float
    pause: float
    evidence: LeaseEvidence
    worked: bool = False
    """Whether a tunnel has come up since the last request."""


class RenewLimiter:
    """Turns requests into verbs. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._devices: dict[str, _Device] = {}

    def wants(self, device: str, now: float) -> bool:
        """Tell whether a request for `device` would be answered at `now`; lets the caller save gathering evidence."""
        known = self._devices.get(device)
        return known is None or now - known.last >= (FIRST_PAUSE if known.worked else known.pause)

    def decide(self, device: str, evidence: LeaseEvidence, now: float) -> Verb | None:
        """Return what to do for `device`, or None when that was too recent, or tunnels hear their servers by it."""
        if not self.wants(device, now):
            return None
        known = self._devices.get(device)
        if evidence.all_heard:
            if known is not None and self._recovered(known, evidence):
                known.worked = True
            return None
        if known is None or now - known.last > max(RESET_AFTER, 2 * known.pause) or self._recovered(known, evidence):
            unanswered = False
            self._devices[device] = _Device(now, FIRST_PAUSE, evidence)
        else:
            unanswered = bool(known.evidence.address_stamps & evidence.address_stamps)
            self._devices[device] = _Device(now, min(known.pause * 2, LAST_PAUSE), evidence)
        if evidence.tunnel_up:
            return "renew"
        return "reconfigure" if evidence.gateway_failed or unanswered else "renew"

    @staticmethod
    def _recovered(known: _Device, evidence: LeaseEvidence) -> bool:
        """Tell whether a tunnel has come up since the last request. One that was up all the time proves nothing."""
        return known.worked or (evidence.tunnel_up and not known.evidence.tunnel_up)

    def works(self, device: str) -> None:
        """A tunnel on `device` has come up: the next request begins another outage, with its first pause."""
        if (known := self._devices.get(device)) is not None:
            known.worked = True

    def seen(self, device: str, identity: frozenset[object]) -> None:
        """Take notice of what `device` has now; an address or gateway that is new ends its pauses."""
        known = self._devices.get(device)
        if known is not None and identity - known.evidence.identity:
            del self._devices[device]


class Rediscovery:
    """Devices whose lease was given up and that have got no other: when each is configured anew once more.

    networkd's own pauses between two DISCOVERs grow to 64 s (RFC 2131 section 4.1), and nothing else shows that the
    DHCP server can be reached again. Times are seconds of one monotonic clock.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[float, float]] = {}
        """When each is due, and the pause after that."""

    def began(self, device: str, now: float) -> None:
        """The lease of `device` was given up."""
        self._waiting[device] = (now + FIRST_DISCOVERY, FIRST_DISCOVERY)

    def ended(self, device: str) -> None:
        """`device` has an address, or can't ask for one: it has no carrier, where networkd begins anew by itself."""
        self._waiting.pop(device, None)

    def due(self, now: float) -> list[str]:
        """Return the devices that are to be configured anew now; each is due again after its next pause."""
        found = [device for device, (at, _) in self._waiting.items() if now >= at]
        for device in found:
            pause = min(self._waiting[device][1] * 1.5, LAST_DISCOVERY)
            self._waiting[device] = (now + pause, pause)
        return found

    def next_time(self) -> float | None:
        """Return when the next device is due; None when none waits."""
        return min((at for at, _ in self._waiting.values()), default=None)


def parse_request(datagram: bytes) -> tuple[Request, str] | None:
    """Return verb and device of a `renew DEV` or `works DEV` datagram, or None for anything else."""
    try:
        verb, _, device = datagram.decode("ascii").strip().partition(" ")
    except UnicodeDecodeError:
        return None
    if not (1 <= len(device) <= 15 and device.isprintable() and not any(mark in device for mark in "/ ")):
        return None
    return ("renew", device) if verb == "renew" else ("works", device) if verb == "works" else None
