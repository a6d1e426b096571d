"""Facts about a device's lease, asked of the kernel and of the instances that use the device."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING

from mpquic import control_client
from mpquic.linkd.renew import LeaseEvidence
from mpquic.net import rtnetlink
from mpquic.net.rtnetlink import NeighbourState, RouteSocket

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from mpquic.net.netlink import LinkMonitor, WanState

CONTROL_TIMEOUT = 1.0
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg of include/uapi/linux/if_addr.h
# A family that the provider doesn't give has nothing to renew; a device without any address stays recognizable as such.
_NO_ADDRESS = {(int(socket.AF_UNSPEC), 0)}
_SCOPE_UNIVERSE = 0
_IFA_CACHEINFO = 6
_TSTAMP = struct.Struct("=12xI")  # the last member of struct ifa_cacheinfo


async def gather(
    monitor: LinkMonitor, device: str, families: Collection[int], instances: Iterable[str]
) -> LeaseEvidence:
    """Return what is known of `device`, over which `instances` send by `families`; OSError when netlink fails."""
    state = monitor.state(device)
    neighbours = [monitor.neighbour(device, gateway) for family in families if (gateway := state.gateway(family))]
    stamps = {(family, stamp) for family in families if (stamp := address_stamp(state.index, family))}
    answers = await asyncio.gather(*(asyncio.to_thread(_families_heard, name, device) for name in instances))
    heard = frozenset[int]().union(*answers)
    return LeaseEvidence(
        tunnel_up=bool(heard),
        all_heard=heard.issuperset(families),
        gateway_failed=any(entry & (NeighbourState.FAILED | NeighbourState.INCOMPLETE) for entry in neighbours),
        address_stamps=frozenset(stamps or _NO_ADDRESS),
        identity=identity(state, families),
    )


def identity(state: WanState, families: Collection[int]) -> frozenset[object]:
    """Return what a lease gives to a device, each thing by itself: addresses and gateways, with the device's index."""
    versions = {4 if family == socket.AF_INET else 6 for family in families}
    addresses = {(state.index, address) for address in state.addresses if address.version in versions}
    gateways = {(state.index, route.gateway, route.table) for route in state.default_routes if route.family in families}
    return frozenset(addresses | gateways)


def address_stamp(index: int, family: int) -> int:
    """Return when the kernel was last told of an address of the device, in hundredths of a second of its uptime.

    networkd sets the address anew at each answer of the DHCP server and at each router advertisement, which updates
    `tstamp` of struct ifa_cacheinfo (net/ipv4/devinet.c, set_ifa_lifetime; net/ipv6/addrconf.c, inet6_addr_modify).
    Addresses of the link alone don't count. 0 without an address.
    """
    with contextlib.closing(_AddressSocket()) as kernel:
        return max(kernel.stamps(index, family), default=0)


class _AddressSocket(RouteSocket):
    """Asks for what the watch over WANs doesn't need of addresses."""

    def stamps(self, index: int, family: int) -> list[int]:
        """Times of the last change of the device's global addresses."""
        found = []
        for kind, body in self._dump(rtnetlink.RTM_GETADDR, _ADDRESS.pack(family, 0, 0, 0, 0)):
            if kind != rtnetlink.RTM_NEWADDR:
                continue
            answered, _prefix, _flags, scope, device = _ADDRESS.unpack_from(body)
            info = rtnetlink.attributes(body[_ADDRESS.size :]).get(_IFA_CACHEINFO)
            if (answered, scope, device) == (family, _SCOPE_UNIVERSE, index) and info is not None:
                found.append(int(_TSTAMP.unpack_from(info)[0]))
        return found


def _families_heard(name: str, device: str) -> frozenset[int]:
    """Return the address families by which an instance hears its server over the device, whatever its other WANs do."""
    try:
        answer = control_client.call(name, {"op": "get", "what": "paths"}, CONTROL_TIMEOUT)
    except (control_client.NotRunning, control_client.ControlError, OSError):
        return frozenset()  # What can't say that it hears anything doesn't.
    rows = [row for row in answer if isinstance(row, dict)] if isinstance(answer, list) else []
    up = [str(row.get("peer")) for row in rows if row.get("device") == device and row.get("state") == "up"]
    return frozenset(int(socket.AF_INET6 if peer.startswith("[") else socket.AF_INET) for peer in up)
