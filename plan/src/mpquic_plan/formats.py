"""The formats of addresses that the schemas name, as checks for jsonschema."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_address
from typing import TYPE_CHECKING, Final

from jsonschema import FormatChecker

if TYPE_CHECKING:
    from collections.abc import Callable

_HOSTNAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$")


def _with_prefix(text: str) -> None:
    if "/" not in text:
        raise ValueError("no prefix length")
    if not text.rpartition("/")[2].isdecimal():
        raise ValueError("the prefix length is no number")


def _ipv4_interface(text: str) -> None:
    _with_prefix(text)
    interface = IPv4Interface(text)
    network = interface.network
    if network.prefixlen < 31 and interface.ip in (network.network_address, network.broadcast_address):
        raise ValueError("not an address of a host")


def _ipv6_interface(text: str) -> None:
    _with_prefix(text)
    IPv6Interface(text)


def _ipv4_network(text: str) -> None:
    _with_prefix(text)
    IPv4Network(text)


def _ipv6_network(text: str) -> None:
    _with_prefix(text)
    IPv6Network(text)


def _ip_network(text: str) -> None:
    if ":" in text:
        _ipv6_network(text)
    else:
        _ipv4_network(text)


def _ipv4_interface_or_dhcp(text: str) -> None:
    if text != "dhcp":
        _ipv4_interface(text)


def _ula_32(text: str) -> None:
    network = IPv6Network(text)
    if network.prefixlen != 32 or not network.subnet_of(IPv6Network("fd00::/8")):
        raise ValueError("not a /32 inside fd00::/8")


def _hostname(text: str) -> None:
    if not _HOSTNAME.match(text):
        raise ValueError("not a host name")


_FORMATS: Final[dict[str, Callable[[str], object]]] = {
    "ip": ip_address,
    "ipv4": IPv4Address,
    "ipv6": IPv6Address,
    "ipv4-interface": _ipv4_interface,
    "ipv4-interface-or-dhcp": _ipv4_interface_or_dhcp,
    "ipv6-interface": _ipv6_interface,
    "ipv4-network": _ipv4_network,
    "ipv6-network": _ipv6_network,
    "ip-network": _ip_network,
    "ula-32": _ula_32,
    "hostname": _hostname,
}


def _guarded(check: Callable[[str], object]) -> Callable[[object], bool]:
    def valid(value: object) -> bool:
        # Another type than text is the business of the keyword `type`.
        if isinstance(value, str):
            check(value)
        return True

    return valid


def checker() -> FormatChecker:
    """Return the checker of every format that the schemas use."""
    result = FormatChecker(formats=())
    for name, check in _FORMATS.items():
        result.checks(name, raises=ValueError)(_guarded(check))
    return result
