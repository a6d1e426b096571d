"""The kernel's side of rules, routes, addresses and devices: what is there, and putting back what is missing.

Everything is made as systemd-networkd makes it (protocol static), so that it takes it for its own at its next
configuration. Layouts: include/uapi/linux/{rtnetlink,fib_rules,if_addr,if_link}.h.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import os
import socket
import struct
from typing import TYPE_CHECKING

from mpquic.guard.drift import Device, route_key, rule_key
from mpquic.guard.nftables import MAX_READS
from mpquic.guard.wanted import Route, Rule
from mpquic.net import tun
from mpquic.net.rtnetlink import (
    IFF_LOWER_UP,
    IFF_UP,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    RouteSocket,
    attributes,
    messages,
    parse_address,
    parse_link,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mpquic.guard.wanted import Address, Family, RouteType

RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTPROT_STATIC = 4
TUNSETPERSIST, TUNSETOWNER, TUNSETGROUP = 0x400454CB, 0x400454CC, 0x400454CE

_GROUPS = (1, 5, 7, 8, 9, 11, 19, 24, 25)
"""Links; addresses, routes and rules of both families; parameters of devices (RTNLGRP_*)."""
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _SO_RCVBUFFORCE = 270, 1, 33
_NLMSG_ERROR = 2
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_EXCL, _NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
_FAMILIES: dict[Family, int] = {4: int(socket.AF_INET), 6: int(socket.AF_INET6)}
_VERSIONS = {number: version for version, number in _FAMILIES.items()}
_TYPES: dict[RouteType, int] = {"unicast": 1, "blackhole": 6, "unreachable": 7, "prohibit": 8}
_TYPE_NAMES = {number: name for name, number in _TYPES.items()}
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = _RULE = struct.Struct("=BBBBBBBBI")
_NEXTHOP = struct.Struct("=HBBi")
_IFLA_MTU, _IFLA_LINKINFO, _IFLA_INFO_KIND = 4, 18, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_NODAD, _IFA_F_PERMANENT, _IFA_F_NOPREFIXROUTE = 0x02, 0x80, 0x200
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_MULTIPATH, _RTA_TABLE = 1, 4, 5, 6, 9, 15
_RTNH_F_ONLINK, _RTM_F_CLONED, _RT_TABLE_COMPAT = 0x4, 0x200, 252
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_FRA_SRC, _FRA_IIFNAME, _FRA_PRIORITY, _FRA_FWMARK, _FRA_SUPPRESS_PREFIXLEN = 2, 3, 6, 10, 14
_FRA_TABLE, _FRA_FWMASK, _FRA_OIFNAME, _FRA_PROTOCOL = 15, 16, 17, 21
_FR_ACT_TO_TBL = 1
_NOT_SUPPRESSED = 0xFFFFFFFF
_RULE_ATTRIBUTES = frozenset({_FRA_SRC, _FRA_IIFNAME, _FRA_PRIORITY, _FRA_FWMARK, _FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE,
                              _FRA_FWMASK, _FRA_OIFNAME, _FRA_PROTOCOL})  # fmt: skip
_BUFFER_BYTES = 1 << 20


def attribute(kind: int, value: bytes) -> bytes:
    """Encode an attribute, padded."""
    data = struct.pack("=HH", 4 + len(value), kind) + value
    return data + bytes(-len(data) % 4)


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def _name(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0") if value else b""


def encode_rule(rule: Rule) -> bytes:
    """Return the body of RTM_NEWRULE."""
    source = ipaddress.ip_network(rule.source) if rule.source else None
    length = source.prefixlen if source else 0
    table = rule.table if rule.table < 256 else 0
    body = _RULE.pack(_FAMILIES[rule.family], 0, length, 0, table, 0, 0, _FR_ACT_TO_TBL, 0)
    body += _number(_FRA_PRIORITY, rule.priority) + _number(_FRA_TABLE, rule.table)
    body += attribute(_FRA_PROTOCOL, bytes([RTPROT_STATIC]))
    body += attribute(_FRA_SRC, source.network_address.packed) if source else b""
    body += _name(_FRA_IIFNAME, rule.incoming) + _name(_FRA_OIFNAME, rule.outgoing)
    if rule.mask:
        body += _number(_FRA_FWMARK, rule.mark) + _number(_FRA_FWMASK, rule.mask)
    if rule.suppress_prefix_length is not None:
        body += _number(_FRA_SUPPRESS_PREFIXLEN, rule.suppress_prefix_length)
    return body


def parse_rule(body: memoryview) -> Rule | None:
    """Decode RTM_NEWRULE; None for a rule that selects by what none of ours does."""
    family, destination, length, tos, table, _1, _2, action, flags = _RULE.unpack_from(body)
    found = attributes(body[_RULE.size :])
    version = _VERSIONS.get(family)
    # The kernel adds attributes to the listing (FRA_PAD, FRA_SUPPRESS_IFGROUP) that say nothing.
    selects = found.keys() - _RULE_ATTRIBUTES - {13, 18}
    if version is None or destination or tos or action != _FR_ACT_TO_TBL or flags & 0x2 or selects:
        return None
    suppress = _u32(found, _FRA_SUPPRESS_PREFIXLEN, _NOT_SUPPRESSED)
    source = f"{ipaddress.ip_address(bytes(found[_FRA_SRC]))}/{length}" if _FRA_SRC in found else ""
    return Rule(
        family=version,
        priority=_u32(found, _FRA_PRIORITY, 0),
        table=_u32(found, _FRA_TABLE, table),
        source=source,
        incoming=_text(found, _FRA_IIFNAME),
        outgoing=_text(found, _FRA_OIFNAME),
        mark=_u32(found, _FRA_FWMARK, 0),
        mask=_u32(found, _FRA_FWMASK, 0),
        suppress_prefix_length=None if suppress == _NOT_SUPPRESSED else suppress,
    )


def encode_route(route: Route, index: int) -> bytes:
    """Return the body of RTM_NEWROUTE for a route over the device with this index."""
    network = ipaddress.ip_network(route.destination)
    unicast = route.type == "unicast"
    scope = _SCOPE_LINK if unicast and route.family == 4 and not route.gateway else _SCOPE_UNIVERSE
    table = route.table if route.table < 256 else 0
    flags = _RTNH_F_ONLINK if route.on_link else 0
    family = _FAMILIES[route.family]
    body = _ROUTE.pack(family, network.prefixlen, 0, 0, table, RTPROT_STATIC, scope, _TYPES[route.type], flags)
    body += attribute(_RTA_DST, network.network_address.packed) + _number(_RTA_TABLE, route.table)
    body += _number(_RTA_PRIORITY, route.metric) if route.metric else b""
    body += _number(_RTA_OIF, index) if unicast else b""
    body += attribute(_RTA_GATEWAY, ipaddress.ip_address(route.gateway).packed) if route.gateway else b""
    return body


def route_head(route: Route) -> tuple[int, int, int]:
    """Return bytes 0, 1 and 4 of the route's message: family, prefix length, and the table as far as it fits there."""
    table = route.table if route.table < 256 else _RT_TABLE_COMPAT
    return _FAMILIES[route.family], int(route.destination.partition("/")[2]), table


def parse_routes(body: memoryview, names: dict[int, str]) -> list[Route]:
    """Decode RTM_NEWROUTE: one entry for each next hop; `names` are those of the devices by index."""
    family, length, _source, _tos, table, _protocol, _scope, kind, flags = _ROUTE.unpack_from(body)
    version = _VERSIONS.get(family)
    if version is None or kind not in _TYPE_NAMES or flags & _RTM_F_CLONED:
        return []
    found = attributes(body[_ROUTE.size :])
    raw = bytes(found.get(_RTA_DST, bytes(4 if version == 4 else 16)))
    hops = list(_hops(found[_RTA_MULTIPATH])) if _RTA_MULTIPATH in found else [(_u32(found, _RTA_OIF, 0), found)]
    return [
        Route(
            family=version,
            destination=f"{ipaddress.ip_address(raw)}/{length}",
            table=_u32(found, _RTA_TABLE, table),
            type=_TYPE_NAMES[kind],
            gateway=str(ipaddress.ip_address(bytes(hop[_RTA_GATEWAY]))) if _RTA_GATEWAY in hop else "",
            metric=_u32(found, _RTA_PRIORITY, 0),
            device=names.get(index, "") if kind == _TYPES["unicast"] else "",
        )
        for index, hop in hops
    ]


def encode_address(address: Address, index: int) -> bytes:
    """Return the body of RTM_NEWADDR for an address of the device with this index."""
    interface = ipaddress.ip_interface(address.address)
    flags = _IFA_F_PERMANENT
    flags |= 0 if address.prefix_route else _IFA_F_NOPREFIXROUTE
    flags |= 0 if address.detect_duplicates or interface.version == 4 else _IFA_F_NODAD
    body = _ADDRESS.pack(_FAMILIES[interface.version], interface.network.prefixlen, flags & 0xFF, 0, index)
    body += attribute(_IFA_LOCAL, interface.ip.packed) + attribute(_IFA_ADDRESS, interface.ip.packed)
    if isinstance(interface, ipaddress.IPv4Interface) and interface.network.prefixlen < 31:
        body += attribute(_IFA_BROADCAST, interface.network.broadcast_address.packed)
    return body + _number(_IFA_FLAGS, flags)


def _u32(found: dict[int, memoryview], kind: int, default: int) -> int:
    return int(struct.unpack_from("=I", found[kind])[0]) if kind in found else default


def _text(found: dict[int, memoryview], kind: int) -> str:
    return bytes(found.get(kind, b"")).rstrip(b"\0").decode(errors="replace")


def _hops(data: memoryview) -> Iterator[tuple[int, dict[int, memoryview]]]:
    while len(data) >= _NEXTHOP.size:
        length, _flags, _weight, index = _NEXTHOP.unpack_from(data)
        if not _NEXTHOP.size <= length <= len(data):
            return
        yield index, attributes(data[_NEXTHOP.size : length])
        data = data[(length + 3) & ~3 :]


class Kernel(RouteSocket):
    """Reads what is there, and puts back what isn't. What is there already is no error."""

    def devices(self) -> dict[str, Device]:
        """Return all devices by name."""
        found = {}
        for kind, body in self._dump(RTM_GETLINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
            if kind != RTM_NEWLINK:
                continue
            link = parse_link(kind, body)
            more = attributes(body[_LINK.size :])
            info = attributes(more[_IFLA_LINKINFO]) if _IFLA_LINKINFO in more else {}
            up = bool(link.flags & IFF_UP)
            carrier = up and bool(link.flags & IFF_LOWER_UP)
            found[link.name] = Device(link.index, up, carrier, _u32(more, _IFLA_MTU, 0), _text(info, _IFLA_INFO_KIND))
        return found

    def rules(self) -> frozenset[tuple[object, ...]]:
        """Return what tells the rules apart that are there."""
        body = _RULE.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0, 0)
        found = (parse_rule(data) for kind, data in self._dump(RTM_GETRULE, body) if kind == RTM_NEWRULE)
        return frozenset(rule_key(rule) for rule in found if rule is not None)

    def routes(self, devices: dict[str, Device], wanted: Iterable[Route]) -> frozenset[tuple[object, ...]]:
        """Return what tells the routes apart that are there, at least of those that `wanted` has.

        Others may have hundreds of thousands of routes here, and decoding one takes 10 us: what can't be a wanted one
        by the header of its message isn't decoded.
        """
        names = {device.index: name for name, device in devices.items()}
        heads = {route_head(route) for route in wanted}
        body = _ROUTE.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0, 0)
        return frozenset(
            route_key(route)
            for kind, data in self._dump(RTM_GETROUTE, body)
            if kind == RTM_NEWROUTE and (data[0], data[1], data[4]) in heads
            for route in parse_routes(data, names)
        )

    def interfaces(self, devices: dict[str, Device]) -> frozenset[tuple[str, str]]:
        """Return device and address, with the length of its subnet, of each address that is there."""
        names = {device.index: name for name, device in devices.items()}
        found = set()
        for kind, body in self._dump(RTM_GETADDR, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
            address = parse_address(body) if kind == RTM_NEWADDR else None
            if address is not None:
                found.add((names.get(address.index, ""), f"{address.address}/{address.prefix_length}"))
        return frozenset(found)

    def add_rule(self, rule: Rule) -> None:
        """Add a rule; OSError."""
        self._make(RTM_NEWRULE, encode_rule(rule))

    def add_route(self, route: Route, index: int) -> None:
        """Add a route over the device with this index; OSError."""
        self._make(RTM_NEWROUTE, encode_route(route, index))

    def add_address(self, address: Address, index: int) -> None:
        """Add an address to the device with this index; OSError."""
        self._make(RTM_NEWADDR, encode_address(address, index))

    def set_up(self, index: int, mtu: int) -> None:
        """Set a device up, with this MTU (bytes); OSError."""
        body = _LINK.pack(socket.AF_UNSPEC, 0, index, IFF_UP, IFF_UP) + _number(_IFLA_MTU, mtu)
        self._request(RTM_NEWLINK, body, 0)

    def _make(self, kind: int, body: bytes) -> None:
        try:
            self._request(kind, body, _NLM_F_CREATE | _NLM_F_EXCL)
        except FileExistsError:
            return

    def _request(self, kind: int, body: bytes, flags: int) -> None:
        self._sequence += 1
        length = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(length, kind, _NLM_F_REQUEST | _NLM_F_ACK | flags, self._sequence, 0) + body)
        while True:
            data = self._socket.recv(_BUFFER_BYTES)
            if len(data) < _HEADER.size or _HEADER.unpack_from(data)[3] != self._sequence:
                continue
            for answer, _flags, content in messages(data):
                if answer == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", content)[0]
                    if code:
                        raise OSError(code, os.strerror(code))
                    return


def create_tun(name: str, user: int, group: int) -> None:
    """Make a TUN device as systemd-networkd does: persistent, with virtio headers, of this user and group; OSError."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        flags = tun.IFF_TUN | tun.IFF_NO_PI | tun.IFF_VNET_HDR
        fcntl.ioctl(device, tun.TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(device, TUNSETOWNER, user)
        fcntl.ioctl(device, TUNSETGROUP, group)
        fcntl.ioctl(device, TUNSETPERSIST, 1)
    finally:
        os.close(device)


class NetworkEvents:
    """A netlink socket that hears of changes to devices, addresses, routes, rules and their parameters."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.bind((0, 0))
        for group in _GROUPS:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def fileno(self) -> int:
        """File descriptor for a selector."""
        return self._socket.fileno()

    def drain(self) -> None:
        """Take some of what waits; what it says is read from the kernel anew."""
        for _ in range(MAX_READS):
            try:
                self._socket.recv(_BUFFER_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
