"""Decides what a request to renew a device's lease leads to: pure, rate limited for each device.

A path that stays silent may mean that the provider has renumbered and told nobody. `renew` asks the DHCP server that
gave the lease, and disturbs nothing. `reconfigure` forgets the lease and asks everybody, which takes the address away
for a moment: only when no tunnel on the device is up, and either the gateway no longer resolves or the last renewal
went unanswered (the kernel's stamp on the address didn't change).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FIRST_PAUSE = 8.0
LAST_PAUSE = 600.0
CALM = 1200.0

Verb = Literal["renew", "reconfigure"]


@dataclass(frozen=True, slots=True)
class LeaseEvidence:
    """What is known of a device when a request comes: facts, not conclusions."""

    tunnel_up: bool
    gateway_failed: bool
    address_stamp: int


@dataclass(slots=True)
class _Device:
    last: float
    pause: float
    address_stamp: int


class RenewLimiter:
    """Turns requests into verbs. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._devices: dict[str, _Device] = {}

    def wants(self, device: str, now: float) -> bool:
        """Tell whether a request for `device` would be answered at `now`; lets the caller save gathering evidence."""
        known = self._devices.get(device)
        return known is None or now - known.last >= known.pause

    def decide(self, device: str, evidence: LeaseEvidence, now: float) -> Verb | None:
        """Return what to do for `device`, or None when it was done too recently."""
        if not self.wants(device, now):
            return None
        known = self._devices.get(device)
        if known is None or now - known.last > max(CALM, 2 * known.pause):
            unanswered = False
            self._devices[device] = _Device(now, FIRST_PAUSE, evidence.address_stamp)
        else:
            unanswered = known.address_stamp == evidence.address_stamp
            known.last, known.address_stamp = now, evidence.address_stamp
            known.pause = min(known.pause * 2, LAST_PAUSE)
        if evidence.tunnel_up:
            return "renew"
        return "reconfigure" if evidence.gateway_failed or unanswered else "renew"

    def healthy(self, device: str) -> None:
        """Forget the pauses of `device`: its lease was seen to change, or a tunnel came up on it."""
        self._devices.pop(device, None)


def parse_request(datagram: bytes) -> str | None:
    """Return the device of a `renew DEV` datagram, or None for anything else."""
    try:
        verb, _, device = datagram.decode("ascii").strip().partition(" ")
    except UnicodeDecodeError:
        return None
    valid = 1 <= len(device) <= 15 and device.isprintable() and not any(mark in device for mark in "/ ")
    return device if verb == "renew" and valid else None
