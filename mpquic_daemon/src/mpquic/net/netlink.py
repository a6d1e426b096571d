"""The watch over WAN devices: device, carrier, global address, default route, and whether they are still the same.

Level-triggered: a notification only says that something about a watched device changed, the state is then read anew
from the kernel. A lost notification (the kernel tells of it) costs nothing but such a reading.
"""

import ipaddress
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from mpquic.net import rtnetlink
from mpquic.net.rtnetlink import DefaultRoute, EventSocket, IpAddress, NeighbourState, RouteSocket

Subnet = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Missing: TypeAlias = Literal["device", "carrier", "lease", "route"]
"""What a WAN lacks for being usable."""
_SCOPE_UNIVERSE = 0
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True, slots=True)
class WanState:
    """What the kernel knows of one WAN device."""

    device: str
    exists: bool = False
    index: int = 0
    carrier: bool = False
    """Administratively up, and the lower layer too."""
    addresses: tuple[IpAddress, ...] = ()
    """Addresses of global scope that are ready for use, sorted."""
    default_routes: tuple[DefaultRoute, ...] = ()
    """Default routes over this device in any table, best metric first."""
    subnets: tuple[Subnet, ...] = ()
    """The same addresses with the length of their subnets."""
    generations: dict[int, int] = field(default_factory=dict, compare=False)
    """For each address family: counts the changes of device, addresses and gateways. Sockets of an old one are void."""

    @property
    def default_route(self) -> bool:
        """Whether any table has a default route over this device."""
        return bool(self.default_routes)

    @property
    def usable(self) -> bool:
        """Whether traffic of some address family can leave by this device."""
        return any(self.usable_for(family) for family in _FAMILIES)

    @property
    def generation(self) -> int:
        """Changes with the generation of either family."""
        return sum(self.generations.values())

    def usable_for(self, family: int) -> bool:
        """Tell whether traffic of the family (socket.AF_INET, AF_INET6) can leave by this device."""
        version = 4 if family == socket.AF_INET else 6
        return (
            self.carrier
            and any(address.version == version for address in self.addresses)
            and any(route.family == family for route in self.default_routes)
        )

    def gateway(self, family: int = socket.AF_INET) -> IpAddress | None:
        """Gateway of the best default route of the family; None without one."""
        return next((route.gateway for route in self.default_routes if route.family == family and route.gateway), None)

    def reason(self) -> str:
        """What is missing for being usable, in words; empty when usable."""
        if self.usable:
            return ""
        if not self.exists:
            return "no such device"
        if not self.carrier:
            return "no carrier"
        if not self.addresses:
            return "no address"
        return "no default route"

    def missing_for(self, family: int) -> Missing | None:
        """Return what traffic of the family lacks first; None when it can leave by this device."""
        if self.usable_for(family):
            return None
        if not self.exists:
            return "device"
        if not self.carrier:
            return "carrier"
        return "route" if self.own_hosts(family) else "lease"

    def reason_for(self, family: int) -> str:
        """Return the same in words, with the device and what it means; empty when nothing is missing."""
        missing = self.missing_for(family)
        version = "IPv4" if family == socket.AF_INET else "IPv6"
        words = {
            "device": "no such device",
            "carrier": "no carrier (nothing is plugged in, or the modem is off)",
            "lease": f"no {version} address (the carrier is there, a lease is not)",
            "route": f"no {version} default route (the address {self._first_host(family)} is there)",
        }
        return "" if missing is None else f"{self.device}: {words[missing]}"

    def _first_host(self, family: int) -> str:
        return next(iter(self.own_hosts(family)), "")

    def own_hosts(self, family: int) -> tuple[str, ...]:
        """Return this device's own addresses of the family as the socket module writes them."""
        version = 4 if family == socket.AF_INET else 6
        return tuple(str(address) for address in self.addresses if address.version == version)

    def covering(self, host: str) -> Subnet | None:
        """Return the address of this device in whose subnet `host` lies: it is looked for on the link, not beyond."""
        wanted = ipaddress.ip_address(host)
        return next((subnet for subnet in self.subnets if wanted in subnet.network), None)

    def identity(self, family: int) -> tuple[object, ...]:
        """What a socket of the family depends on."""
        version = 4 if family == socket.AF_INET else 6
        addresses = tuple(address for address in self.addresses if address.version == version)
        return self.index, addresses, {(r.gateway, r.table) for r in self.default_routes if r.family == family}


class LinkMonitor:
    """Follows the state of some devices. Register `fileno` for reading and call `read` when it's readable.

    Runs without privilege, in the network namespace in which it was made. Raises OSError when netlink fails.
    """

    def __init__(self, devices: Iterable[str] = ()) -> None:
        self._events = EventSocket()  # before the first reading, so that no change falls between the two
        self._routes = RouteSocket()
        self._states: dict[str, WanState] = {device: WanState(device) for device in devices}
        self._refresh()

    def fileno(self) -> int:
        """File descriptor for a selector."""
        return self._events.fileno()

    @property
    def devices(self) -> tuple[str, ...]:
        """The watched devices."""
        return tuple(self._states)

    def state(self, device: str) -> WanState:
        """State as of the last `read`; KeyError for a device that isn't watched."""
        return self._states[device]

    def watch(self, device: str) -> WanState:
        """Watch another device; gives its state now."""
        if device not in self._states:
            self._states[device] = WanState(device)
            self._refresh()
        return self._states[device]

    def unwatch(self, device: str) -> None:
        """Forget a device."""
        self._states.pop(device, None)

    def read(self) -> list[WanState]:
        """Take what the kernel told; gives the states that differ from before."""
        events, overflow = self._events.read()
        if overflow or any(self._concerns(kind, body) for kind, _flags, body in events):
            return self._refresh()
        return []

    def refresh(self) -> list[WanState]:
        """Read the state anew without a notification; gives the states that differ from before."""
        return self._refresh()

    def neighbour(self, device: str, address: IpAddress | None = None) -> NeighbourState:
        """State of the neighbour entry of `address`, by default the device's gateway; NONE where there is no entry."""
        state = self._states[device]
        wanted = address or state.gateway() or state.gateway(socket.AF_INET6)
        if wanted is None or not state.exists:
            return NeighbourState.NONE
        for entry in self._routes.neighbours():
            if entry.index == state.index and entry.address == wanted:
                return entry.state
        return NeighbourState.NONE

    def close(self) -> None:
        """Close the sockets."""
        self._events.close()
        self._routes.close()

    def _concerns(self, kind: int, body: memoryview) -> bool:
        indexes = {state.index for state in self._states.values() if state.exists}
        try:
            if kind in (rtnetlink.RTM_NEWLINK, rtnetlink.RTM_DELLINK):
                link = rtnetlink.parse_link(kind, body)
                return link.index in indexes or link.name in self._states
            if kind in (rtnetlink.RTM_NEWADDR, rtnetlink.RTM_DELADDR):
                address = rtnetlink.parse_address(body)
                return address is not None and address.index in indexes
            if kind in (rtnetlink.RTM_NEWROUTE, rtnetlink.RTM_DELROUTE):
                return any(route.index in indexes for route in rtnetlink.parse_default_routes(body))
        except (ValueError, struct.error):
            return True  # not understood: look for yourself
        return False

    def _refresh(self) -> list[WanState]:
        links = {link.name: link for link in self._routes.links()}
        addresses = self._routes.addresses()
        routes = self._routes.default_routes()
        changed = []
        for device, old in self._states.items():
            link = links.get(device)
            new = WanState(device)
            if link is not None:
                own = {
                    ipaddress.ip_interface((a.address, a.prefix_length))
                    for a in addresses
                    if a.index == link.index and a.ready and a.scope == _SCOPE_UNIVERSE
                }
                subnets = sorted(own, key=lambda subnet: (subnet.version, subnet.ip.packed, subnet.network.prefixlen))
                new = WanState(
                    device,
                    exists=True,
                    index=link.index,
                    carrier=bool(link.flags & rtnetlink.IFF_UP and link.flags & rtnetlink.IFF_LOWER_UP),
                    addresses=tuple(dict.fromkeys(subnet.ip for subnet in subnets)),
                    subnets=tuple(subnets),
                    default_routes=tuple(
                        sorted(
                            (route for route in routes if route.index == link.index),
                            key=lambda route: (route.metric, route.table, route.family),
                        )
                    ),
                )
            for family in _FAMILIES:
                step = new.identity(family) != old.identity(family)
                new.generations[family] = old.generations.get(family, 0) + step
            if new != old:
                changed.append(new)
            self._states[device] = new
        return changed
