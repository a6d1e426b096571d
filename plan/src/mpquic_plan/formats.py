"""The formats of addresses that the schemas name, as checks for jsonschema.

A check raises ValueError. `NotOfAHostError` says besides what an address is that no host can have.
"""

from __future__ import annotations

import re
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TYPE_CHECKING, Final

from jsonschema import FormatChecker

if TYPE_CHECKING:
    from collections.abc import Callable

_HOSTNAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$")
_HEX = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2})+$")

LARGEST_PORT: Final = 65535
SHORTEST_RFC4361_ID: Final = 1 + 4 + 2 + 1
"""Type, IAID, type of the DUID, and something in it (RFC 4361 section 6.1)."""
MAX_RFC4361_ID: Final = 1 + 4 + 130
"""A DUID has at most 128 bytes after its type (RFC 8415 section 11.1)."""
DUID_TYPES: Final = {"0001": "link-layer-time", "0002": "vendor", "0003": "link-layer", "0004": "uuid"}
"""Types of DUIDs (RFC 8415 section 11, RFC 6355) and systemd-networkd's words for them; it takes no others."""

LINK_LOCAL: Final = "a link-local address, which is valid on one link only"
SPECIAL: Final = (
    (IPv4Network("0.0.0.0/8"), "an address of no host (0.0.0.0/8)"),
    (IPv4Network("127.0.0.0/8"), "a loopback address"),
    (IPv4Network("169.254.0.0/16"), LINK_LOCAL),
    (IPv4Network("224.0.0.0/4"), "a multicast address"),
    (IPv4Network("255.255.255.255/32"), "the broadcast address"),
    (IPv4Network("240.0.0.0/4"), "a reserved address (240.0.0.0/4)"),
    (IPv6Network("::/128"), "the unspecified address"),
    (IPv6Network("::1/128"), "a loopback address"),
    (IPv6Network("::ffff:0:0/96"), "an IPv4 address in IPv6 notation"),
    (IPv6Network("fe80::/10"), LINK_LOCAL),
    (IPv6Network("ff00::/8"), "a multicast address"),
)
"""Addresses that no interface of ours and no host that we talk to can have (RFC 6890), the narrower ones first."""


class NotOfAHostError(ValueError):
    """An address that is well-formed and can't be a host's; the text says what it is."""


def special(address: IPv4Address | IPv6Address) -> str | None:
    """Return what an address is that no host can have, or None for one of a host."""
    return next((what for net, what in SPECIAL if address.version == net.version and address in net), None)


def holds_special(network: IPv4Network | IPv6Network) -> str | None:
    """Return which special addresses a prefix holds, or None if all may be hosts'."""
    for net, what in SPECIAL:
        shared = (
            network.overlaps(net)
            if isinstance(network, IPv4Network) and isinstance(net, IPv4Network)
            else isinstance(network, IPv6Network) and isinstance(net, IPv6Network) and network.overlaps(net)
        )
        if shared:
            return what
    return None


def _of_a_host(address: IPv4Address | IPv6Address) -> None:
    what = special(address)
    if what is not None:
        raise NotOfAHostError(what)


def _ipv4(text: str) -> None:
    _of_a_host(IPv4Address(text))


def _ipv6(text: str) -> None:
    _of_a_host(IPv6Address(text))


def _ipv6_router(text: str) -> None:
    """Routers are known by their link-local addresses as often as not."""
    address = IPv6Address(text)
    if not address.is_link_local:
        _of_a_host(address)


def _resolver(text: str) -> None:
    """A DNS server; it may run on the host itself."""
    address = ip_address(text)
    if not address.is_loopback:
        _of_a_host(address)


def _ip_address(text: str) -> None:
    _of_a_host(ip_address(text))


def _with_prefix(text: str) -> None:
    if "/" not in text:
        raise ValueError("no prefix length")
    if not text.rpartition("/")[2].isdecimal():
        raise ValueError("the prefix length is no number")


def _ipv4_interface(text: str) -> None:
    _with_prefix(text)
    interface = IPv4Interface(text)
    network = interface.network
    _of_a_host(interface.ip)
    if network.prefixlen < 31 and interface.ip == network.network_address:
        raise NotOfAHostError("the address of the subnet itself")
    if network.prefixlen < 31 and interface.ip == network.broadcast_address:
        raise NotOfAHostError("the broadcast address of its subnet")


def _ipv6_interface(text: str) -> None:
    _with_prefix(text)
    _of_a_host(IPv6Interface(text).ip)


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


def _ip_network_of_hosts(text: str) -> None:
    _ip_network(text)
    what = holds_special(ip_network(text))
    if what is not None:
        raise NotOfAHostError(f"a prefix that holds {what}")


def _modem_prefix(text: str) -> None:
    """Modems have link-local addresses, too."""
    _ipv4_network(text)
    what = holds_special(IPv4Network(text))
    if what is not None and what != LINK_LOCAL:
        raise NotOfAHostError(f"a prefix that holds {what}")


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


def _dns_name(text: str) -> None:
    _hostname(text)
    if text.rpartition(".")[2].isdecimal():
        raise ValueError("an address that is wrong, rather than a name")


def _ntp_server(text: str) -> None:
    try:
        _dns_name(text)
    except ValueError:
        _of_a_host(ip_address(text))


def _mac(text: str) -> None:
    if not _MAC.match(text):
        raise ValueError("not a MAC address")
    if int(text[:2], 16) & 1:
        raise NotOfAHostError("a multicast address")
    if not text.strip("0:"):
        raise NotOfAHostError("an address of no card")


def _dhcp_client_id(text: str) -> None:
    if text in ("mac", "duid"):
        return
    if not _HEX.match(text):
        raise ValueError("neither a word nor hexadecimal digits")
    if text[:2].lower() == "01":
        _mac(text[3:])
        return
    if text[:2].lower() != "ff" or not SHORTEST_RFC4361_ID <= len(text.split(":")) <= MAX_RFC4361_ID:
        raise ValueError("neither a MAC address nor IAID and DUID")
    if "".join(text.split(":")[5:7]) not in DUID_TYPES:
        raise ValueError("a DUID of no known type")


def _port_range(text: str) -> None:
    low, dash, high = text.partition("-")
    if not dash or not low.isdecimal() or not high.isdecimal() or not 1 <= int(low) <= int(high) <= LARGEST_PORT:
        raise ValueError


_FORMATS: Final[dict[str, Callable[[str], object]]] = {
    "ipv4": _ipv4,
    "ipv6": _ipv6,
    "ipv6-router": _ipv6_router,
    "resolver": _resolver,
    "ipv4-interface": _ipv4_interface,
    "ipv4-interface-or-dhcp": _ipv4_interface_or_dhcp,
    "ipv6-interface": _ipv6_interface,
    "ipv4-network": _ipv4_network,
    "ipv6-network": _ipv6_network,
    "ip-address": _ip_address,
    "ip-network": _ip_network,
    "ip-network-of-hosts": _ip_network_of_hosts,
    "modem-prefix": _modem_prefix,
    "ula-32": _ula_32,
    "hostname": _hostname,
    "dns-name": _dns_name,
    "ntp-server": _ntp_server,
    "mac": _mac,
    "dhcp-client-id": _dhcp_client_id,
    "port-range": _port_range,
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


def conforms(text: str, name: str) -> bool:
    """Return whether a text has a format."""
    return checker().conforms(text, name)
