"""Traffic classes: names of protocols and DSCPs, and rules that an earlier one leaves nothing for."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from mpquic_plan.model import Listener, MatchRule, Network, TrafficClass

PROTOCOLS: Final = {
    "icmp": 1,
    "tcp": 6,
    "udp": 17,
    "dccp": 33,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmpv6": 58,
    "sctp": 132,
    "udplite": 136,
}
WITH_PORTS: Final = (6, 17, 33, 132, 136)
"""Protocols whose headers begin with two ports."""

MARK_SHIFT: Final = 16
MARK_MASK: Final = 0xFF << MARK_SHIFT
"""Bits of the packet mark and of the connection mark that are ours; all others are anybody's."""

LISTENER_MASK: Final = 0xFFFF << MARK_SHIFT
"""Bits of the marks that are ours on a VPS: they hold the port of a listener."""

_AF: Final = 8
_LARGEST_PORT: Final = 65535
_LARGEST_DSCP: Final = 63
_LARGEST_PROTOCOL: Final = 255

Box = tuple[tuple[int, int], ...]
"""A range, ends included, for each of IP version, protocol, source port, port, source, destination and DSCP."""


def mark(traffic_class: TrafficClass) -> int:
    """Return the mark of a class's packets and connections."""
    return traffic_class.slot << MARK_SHIFT


def listener_mark(listener: Listener) -> int:
    """Return the mark of connections that come by a listener of a VPS."""
    return listener.port << MARK_SHIFT


def protocol_number(value: int | str) -> int:
    """Return the number of a protocol."""
    return value if isinstance(value, int) else PROTOCOLS[value]


def dscp_number(value: int | str) -> int:
    """Return a DSCP by its name (RFC 2474 section 4.2.2, RFC 2597 section 6, RFC 3246 section 2.7)."""
    if isinstance(value, int):
        return value
    name = value.upper()
    if name == "EF":
        return 46
    first, second = int(name[2]), int(name[3:] or 0)
    return first * _AF + second * 2 if name.startswith("AF") else first * _AF


def port_range(value: int | str) -> tuple[int, int]:
    """Return the ends of a port or of a range."""
    if isinstance(value, int):
        return value, value
    low, _, high = value.partition("-")
    return int(low), int(high or low)


def shadowed(classes: Sequence[TrafficClass]) -> Iterator[tuple[MatchRule, MatchRule]]:
    """Yield each rule that can never match with the last of the earlier ones that leave nothing for it."""
    earlier: list[tuple[MatchRule, list[Box]]] = []
    for rule in (rule for entry in classes for rule in entry.rules):
        own = left = list(_boxes(rule))
        cause = rule
        for other, boxes in earlier:
            rest = _without(left, boxes)
            if rest != left:
                cause, left = other, rest
        if own and not left:
            yield rule, cause
        earlier.append((rule, own))


def _boxes(rule: MatchRule) -> Iterator[Box]:
    protocols = [(number, number) for number in rule.protocols] or [(0, _LARGEST_PROTOCOL)]
    dscps = [(number, number) for number in rule.dscps] or [(0, _LARGEST_DSCP)]
    # What has no ports stands at port 0, which nothing that has ports uses.
    every_port = [(1 if rule.protocols and set(rule.protocols) <= set(WITH_PORTS) else 0, _LARGEST_PORT)]
    for version, largest in ((4, (1 << 32) - 1), (6, (1 << 128) - 1)):
        prefixes = [
            _of_version(chosen, version) if chosen else [(0, largest)] for chosen in (rule.sources, rule.destinations)
        ]
        ports = rule.source_ports or every_port, rule.ports or every_port
        yield from product([(version, version)], protocols, *ports, *prefixes, dscps)


def _of_version(prefixes: Sequence[Network], version: int) -> list[tuple[int, int]]:
    return [_ends(prefix) for prefix in prefixes if prefix.version == version]


def _ends(prefix: IPv4Network | IPv6Network) -> tuple[int, int]:
    return int(prefix.network_address), int(prefix.broadcast_address)


def _without(boxes: Sequence[Box], others: Sequence[Box]) -> list[Box]:
    """Return what is left of boxes without others, as boxes that don't overlap what was taken."""
    left = list(boxes)
    for other in others:
        left = [piece for box in left for piece in _cut(box, other)]
    return left


def _cut(box: Box, other: Box) -> Iterator[Box]:
    if any(high < low2 or high2 < low for (low, high), (low2, high2) in zip(box, other, strict=True)):
        yield box
        return
    rest = list(box)
    for place, (low2, high2) in enumerate(other):
        low, high = rest[place]
        if low < low2:
            yield (*rest[:place], (low, low2 - 1), *rest[place + 1 :])
        if high2 < high:
            yield (*rest[:place], (high2 + 1, high), *rest[place + 1 :])
        rest[place] = (max(low, low2), min(high, high2))
