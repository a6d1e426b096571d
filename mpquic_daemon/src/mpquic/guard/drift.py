"""Decides what is missing of what is wanted, and for how long it may be: pure.

systemd-networkd makes everything of a link when it configures it, and takes it away for some milliseconds when it
configures it anew. So what has been there is put back soon, and what has not yet been there since its device came is
left to systemd-networkd for some seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mpquic.guard.wanted import Address, Parameter, Route, Rule, Tun, TunState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mpquic.guard.wanted import Thing, Wanted

REPAIR_DELAY = 0.1
"""Seconds that what has been there may be missing."""
SETUP_DELAY = 5.0
"""Seconds that systemd-networkd has for what has not been there yet."""


@dataclass(frozen=True, slots=True)
class Device:
    """A network device as it is."""

    index: int
    up: bool
    carrier: bool
    mtu: int
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Present:
    """What the kernel has. Routes, rules and addresses are as `wanted` writes them, without `device` of those rules and
    routes that lead nowhere, and without the properties by which the kernel doesn't tell them apart."""

    devices: Mapping[str, Device] = field(default_factory=dict)
    rules: frozenset[tuple[object, ...]] = frozenset()
    routes: frozenset[tuple[object, ...]] = frozenset()
    addresses: frozenset[tuple[str, str]] = frozenset()
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Values of those parameters that exist."""


def rule_key(rule: Rule) -> tuple[object, ...]:
    """What tells rules apart."""
    return (
        rule.family,
        rule.priority,
        rule.table,
        rule.source,
        rule.incoming,
        rule.outgoing,
        rule.mark,
        rule.mask,
        rule.suppress_prefix_length,
    )


def route_key(route: Route) -> tuple[object, ...]:
    """What tells routes apart."""
    device = route.device if route.type == "unicast" else ""
    # An IPv6 route without a metric has this one (IP6_RT_PRIO_USER of include/uapi/linux/ipv6_route.h).
    metric = route.metric or (1024 if route.family == 6 else 0)
    return (route.family, route.table, route.destination, route.type, metric, device, route.gateway)


class Drift:
    """Compares what is wanted with what is there, and remembers what has been there."""

    def __init__(self) -> None:
        self._seen: dict[Thing, int] = {}
        """The index of the device with which each thing was there."""

    def missing(self, wanted: Wanted, present: Present, *, forward: bool = True) -> dict[Thing, float]:
        """Return what is missing, with the seconds that it may be; with `forward` off the host must not forward."""
        found: dict[Thing, float] = {}
        states: dict[Thing, tuple[int, bool]] = {}
        for tun in wanted.tuns:
            device = present.devices.get(tun.name)
            if device is None:
                found[tun] = REPAIR_DELAY
            elif device.kind == "tun":
                state = TunState(name=tun.name, mtu=tun.mtu)
                states[state] = device.index, device.up and device.mtu == tun.mtu
        for rule in wanted.rules:
            if (device := _carrying(rule, present)) is not None:
                states[rule] = device.index, rule_key(rule) in present.rules
        for route in wanted.routes:
            device = _carrying(route, present)
            if device is not None and (device.up or route.type != "unicast"):
                states[route] = device.index, route_key(route) in present.routes
        for address in wanted.addresses:
            device = _carrying(address, present)
            if device is not None and device.up:
                states[address] = device.index, (address.device, address.address) in present.addresses
        for thing, (index, there) in states.items():
            if there:
                self._seen[thing] = index
            else:
                found[thing] = REPAIR_DELAY if self._seen.get(thing) == index else SETUP_DELAY
        self._seen = {thing: index for thing, index in self._seen.items() if thing in states}
        found.update(dict.fromkeys(_parameters(wanted, present, forward=forward), REPAIR_DELAY))
        return found


def _carrying(thing: Rule | Route | Address, present: Present) -> Device | None:
    device = present.devices.get(thing.device)
    return None if device is None or (thing.carrier and not device.carrier) else device


def _parameters(wanted: Wanted, present: Present, *, forward: bool) -> Iterable[Parameter]:
    forwarding = wanted.forwarding if forward else dict.fromkeys(wanted.forwarding, 0)
    for name, number in {**wanted.parameters, **forwarding}.items():
        value = str(number)
        if present.parameters.get(name, value) != value:
            yield Parameter(name=name, value=value)


KINDS: tuple[tuple[str, type[Thing]], ...] = (
    ("parameters", Parameter),
    ("devices", Tun),
    ("device states", TunState),
    ("addresses", Address),
    ("routes", Route),
    ("rules", Rule),
)
"""The kinds of things in the order in which they are put back: later ones need the earlier ones."""
