"""LANs and WANs of this host by their names in the site's variables: what the role networkd has written says so."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mpquic.trace.fib import Address

DIRECTORY: Final = Path("/etc/systemd/network")
PATTERN: Final = "*-mpquic-*.network"

Section = tuple[str, "Mapping[str, Sequence[str]]"]


@dataclass(frozen=True, slots=True)
class Link:
    """An interface that the variables name: `kind` is `lan` (VLANs, too) or `wan`."""

    kind: str
    name: str
    device: str
    addresses: tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, ...] = ()
    routers: tuple[Address, ...] = ()
    """Gateways to prefixes behind a LAN."""
    table: str | None = None
    """The number of the LAN's own table."""


def read(directory: Path = DIRECTORY) -> list[Link]:
    """Return the LANs and WANs of the files of a directory, by their names; OSError."""
    found = [link for path in sorted(directory.glob(PATTERN)) if (link := parse(path.read_text())) is not None]
    return sorted(found, key=lambda link: (link.kind, link.name))


def parse(text: str) -> Link | None:
    """Return the link that a file of networkd describes; None when it is neither a LAN nor a WAN.

    The rules tell one from the other: a LAN's match what comes in by its device, a WAN's what is bound to it.
    """
    sections = list(_sections(text))
    device = _first(sections, "Match", "Name")
    name = _first(sections, "Network", "Description")
    rules = [values for section, values in sections if section == "RoutingPolicyRule"]
    if device is None or name is None:
        return None
    incoming = [rule for rule in rules if rule.get("IncomingInterface") == [device]]
    if incoming:
        return Link(
            "lan", name, device, _addresses(sections), _routers(sections), next(iter(incoming[0]["Table"]), None)
        )
    if any(rule.get("OutgoingInterface") == [device] for rule in rules):
        return Link("wan", name, device, _addresses(sections))
    return None


def find(links: Sequence[Link], kind: str, word: str) -> Link | None:
    """Return the link of a kind that has this name or device."""
    return next((link for link in links if link.kind == kind and word in {link.name, link.device}), None)


def router(link: Link, version: int) -> Address | None:
    """Return a host behind a LAN: the gateway of what lies behind it, or the first address beside ours."""
    for gateway in link.routers:
        if gateway.version == version:
            return gateway
    for own in link.addresses:
        if own.version != version:
            continue
        taken = {each.ip for each in link.addresses}
        network = own.network
        # ::0 is the anycast address of routers, .0 the network itself, except where a /31 has two hosts (RFC 3021).
        first = 0 if version == 4 and network.prefixlen == 31 else 1
        for place in range(first, min(network.num_addresses, 4)):
            candidate = network.network_address + place
            if candidate not in taken and candidate in network:
                return candidate
    return None


def _sections(text: str) -> Iterator[Section]:
    name, values = "", {}  # type: str, dict[str, list[str]]
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("[") and stripped.endswith("]"):
            if name:
                yield name, values
            name, values = stripped[1:-1], {}
        elif "=" in stripped and not stripped.startswith(("#", ";")):
            key, _, value = stripped.partition("=")
            values.setdefault(key.strip(), []).append(value.strip())
    if name:
        yield name, values


def _first(sections: Sequence[Section], section: str, key: str) -> str | None:
    return next((values[key][0] for name, values in sections if name == section and key in values), None)


def _addresses(sections: Sequence[Section]) -> tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, ...]:
    texts = [text for name, values in sections if name == "Address" for text in values.get("Address", [])]
    return tuple(ipaddress.ip_interface(text) for text in texts)


def _routers(sections: Sequence[Section]) -> tuple[Address, ...]:
    gateways = [
        values["Gateway"][0]
        for name, values in sections
        if name == "Route" and "Gateway" in values and "Table" not in values
    ]
    return tuple(ipaddress.ip_address(gateway) for gateway in dict.fromkeys(gateways))
