"""A site's OpenWrt router, as the site's variables say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address


@dataclass(frozen=True, slots=True)
class RouterPort:
    """The device of a site's OpenWrt router that a LAN of the client is plugged into."""

    path: str
    lan: str
    device: str


@dataclass(frozen=True, slots=True)
class RouterPolicy:
    """LANs and VLANs by which OpenWrt sends a class: in their order, or with `balance` shared among them."""

    path: str
    traffic_class: str
    lans: tuple[str, ...]
    balance: bool


@dataclass(frozen=True, slots=True)
class Router:
    """A site's OpenWrt router. `ports` is None where each LAN has the device of its number.

    `zones` are the router's own firewall zones that may use the tunnels, `track` the addresses that mwan3 pings.
    """

    path: str
    host: str
    ports: tuple[RouterPort, ...] | None
    zones: tuple[str, ...]
    policies: tuple[RouterPolicy, ...]
    track: tuple[IPv4Address | IPv6Address, ...]
    last_resort: str
