"""The part of rtnetlink(7) that the watch over WANs needs: links, addresses, default routes, neighbours.

An own decoder of four messages rather than a library: each instance of the daemon would pay 0.4 s of imports and 20 MB
for the rest. Layouts: include/uapi/linux/{netlink,rtnetlink,if_link,if_addr,neighbour}.h. A netlink socket asks for no
privilege to read.
"""

import contextlib
import enum
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_GETNEIGH = 28, 30
RTMGRP_WATCHED = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""Groups link, ipv4-ifaddr, ipv4-route, ipv6-ifaddr, ipv6-route."""

IFF_UP = 0x1
IFF_LOWER_UP = 0x10000

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP_INTR, _NLM_F_DUMP = 0x1, 0x10, 0x300
_IFLA_IFNAME = 3
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_UNUSABLE = 0x40 | 0x08  # tentative, duplicate detected
_RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_MULTIPATH, _RTA_TABLE, _RTA_VIA = 4, 5, 6, 9, 15, 18
_RTN_UNICAST = 1
_RTM_F_CLONED = 0x200
_NDA_DST = 1
_ATTRIBUTE_TYPE = 0x3FFF
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxHiHBB")
_NEXTHOP = struct.Struct("=HBBi")
_U32 = struct.Struct("=I")
_BUFFER_BYTES = 1 << 18
_TIMEOUT_S = 2.0
_DUMP_ATTEMPTS = 5


class NeighbourState(enum.IntFlag):
    """State of a neighbour entry (NUD_*)."""

    NONE = 0
    INCOMPLETE = 0x01
    REACHABLE = 0x02
    STALE = 0x04
    DELAY = 0x08
    PROBE = 0x10
    FAILED = 0x20
    NOARP = 0x40
    PERMANENT = 0x80


@dataclass(frozen=True, slots=True)
class Link:
    """A network device."""

    index: int
    name: str
    flags: int
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address on a device; `ready` when duplicate address detection is over and found nothing."""

    index: int
    address: IpAddress
    scope: int
    ready: bool
    prefix_length: int


@dataclass(frozen=True, slots=True)
class DefaultRoute:
    """A unicast route to everything through one device; `gateway` is None on a point-to-point link."""

    index: int
    family: int
    gateway: IpAddress | None
    table: int
    metric: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry of the neighbour table."""

    index: int
    address: IpAddress
    state: NeighbourState


Message = tuple[int, int, memoryview]
"""Type, flags and body of a netlink message."""


def messages(data: bytes | memoryview) -> Iterator[Message]:
    """Cut a read into messages; stops at the first malformed one."""
    view = memoryview(data)
    while len(view) >= _HEADER.size:
        length, kind, flags, _sequence, _port = _HEADER.unpack_from(view)
        if not _HEADER.size <= length <= len(view):
            return
        yield kind, flags, view[_HEADER.size : length]
        view = view[(length + 3) & ~3 :]


def attributes(body: memoryview) -> dict[int, memoryview]:
    """Attributes by type, without the flag bits; the last of a type wins."""
    found: dict[int, memoryview] = {}
    while len(body) >= 4:
        length, kind = struct.unpack_from("=HH", body)
        if not 4 <= length <= len(body):
            break
        found[kind & _ATTRIBUTE_TYPE] = body[4:length]
        body = body[(length + 3) & ~3 :]
    return found


def parse_link(kind: int, body: memoryview) -> Link:
    """Decode RTM_NEWLINK and RTM_DELLINK."""
    _family, _type, index, flags, _change = _LINK.unpack_from(body)
    name = bytes(attributes(body[_LINK.size :]).get(_IFLA_IFNAME, b"")).rstrip(b"\0").decode(errors="replace")
    return Link(index, name, flags, deleted=kind == RTM_DELLINK)


def parse_address(body: memoryview) -> InterfaceAddress | None:
    """Decode RTM_NEWADDR and RTM_DELADDR; None for a family other than IP."""
    family, prefix, flags, scope, index = _ADDRESS.unpack_from(body)
    found = attributes(body[_ADDRESS.size :])
    # On a point-to-point link IFA_ADDRESS is the peer's.
    raw = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    if family not in (socket.AF_INET, socket.AF_INET6) or raw is None:
        return None
    if _IFA_FLAGS in found:
        flags = _U32.unpack_from(found[_IFA_FLAGS])[0]
    ready = not flags & _IFA_F_UNUSABLE
    return InterfaceAddress(index, ipaddress.ip_address(bytes(raw)), scope, ready=ready, prefix_length=prefix)


def parse_default_routes(body: memoryview) -> list[DefaultRoute]:
    """Decode RTM_NEWROUTE and RTM_DELROUTE: one entry for each next hop of a default route, none for other routes."""
    family, length, _source, _tos, table, _protocol, _scope, kind, flags = _ROUTE.unpack_from(body)
    if length or kind != _RTN_UNICAST or flags & _RTM_F_CLONED or family not in (socket.AF_INET, socket.AF_INET6):
        return []
    found = attributes(body[_ROUTE.size :])
    table = _u32(found, _RTA_TABLE, table)
    metric = _u32(found, _RTA_PRIORITY, 0)
    hops = list(_nexthops(found[_RTA_MULTIPATH])) if _RTA_MULTIPATH in found else []
    if not hops and _RTA_OIF in found:
        hops = [(_u32(found, _RTA_OIF, 0), found)]
    return [DefaultRoute(index, family, _gateway(hop), table, metric) for index, hop in hops]


def parse_neighbour(body: memoryview) -> Neighbour | None:
    """Decode RTM_NEWNEIGH; None for a family other than IP."""
    family, _pad, index, state, _flags, _type = _NEIGHBOUR.unpack_from(body)
    raw = attributes(body[_NEIGHBOUR.size :]).get(_NDA_DST)
    if family not in (socket.AF_INET, socket.AF_INET6) or raw is None:
        return None
    return Neighbour(index, ipaddress.ip_address(bytes(raw)), NeighbourState(state))


def _u32(found: dict[int, memoryview], kind: int, default: int) -> int:
    return int(_U32.unpack_from(found[kind])[0]) if kind in found else default


def _nexthops(data: memoryview) -> Iterator[tuple[int, dict[int, memoryview]]]:
    while len(data) >= _NEXTHOP.size:
        length, _flags, _hops, index = _NEXTHOP.unpack_from(data)
        if not _NEXTHOP.size <= length <= len(data):
            return
        yield index, attributes(data[_NEXTHOP.size : length])
        data = data[(length + 3) & ~3 :]


def _gateway(found: dict[int, memoryview]) -> IpAddress | None:
    raw = found.get(_RTA_GATEWAY)
    if raw is None and _RTA_VIA in found:
        raw = found[_RTA_VIA][2:]  # an IPv6 gateway of an IPv4 route, after its family
    return ipaddress.ip_address(bytes(raw)) if raw is not None and len(raw) in (4, 16) else None


class RouteSocket:
    """A netlink socket for questions: each asks for a whole table and reads the answer, in well under a millisecond."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._socket.settimeout(_TIMEOUT_S)
        self._sequence = 0

    def links(self) -> list[Link]:
        """All devices of the network namespace."""
        body = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        return [parse_link(kind, data) for kind, data in self._dump(RTM_GETLINK, body) if kind == RTM_NEWLINK]

    def addresses(self) -> list[InterfaceAddress]:
        """All addresses of all devices."""
        body = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        found = (parse_address(data) for kind, data in self._dump(RTM_GETADDR, body) if kind == RTM_NEWADDR)
        return [address for address in found if address is not None]

    def default_routes(self) -> list[DefaultRoute]:
        """The default routes of all tables."""
        body = _ROUTE.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0, 0)
        dump = self._dump(RTM_GETROUTE, body)
        return [route for kind, data in dump if kind == RTM_NEWROUTE for route in parse_default_routes(data)]

    def neighbours(self) -> list[Neighbour]:
        """All entries of the neighbour tables."""
        body = _NEIGHBOUR.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0)
        found = (parse_neighbour(data) for kind, data in self._dump(RTM_GETNEIGH, body) if kind == RTM_NEWNEIGH)
        return [neighbour for neighbour in found if neighbour is not None]

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _dump(self, kind: int, body: bytes) -> list[tuple[int, memoryview]]:
        """Ask for a table. The kernel marks an answer during which the table changed; ask again then."""
        for attempt in range(_DUMP_ATTEMPTS):
            answer, consistent = self._ask(kind, body)
            if consistent or attempt == _DUMP_ATTEMPTS - 1:
                break
        return answer

    def _ask(self, kind: int, body: bytes) -> tuple[list[tuple[int, memoryview]], bool]:
        self._sequence += 1
        length = _HEADER.size + len(body)
        header = _HEADER.pack(length, kind, _NLM_F_REQUEST | _NLM_F_DUMP, self._sequence, 0)
        self._socket.send(header + body)
        answer: list[tuple[int, memoryview]] = []
        consistent = True
        while True:
            data = self._socket.recv(_BUFFER_BYTES)
            # What an earlier question left behind when its reading failed isn't an answer to this one.
            if len(data) < _HEADER.size or _HEADER.unpack_from(data)[3] != self._sequence:
                continue
            for answer_kind, flags, answer_body in messages(data):
                consistent = consistent and not flags & _NLM_F_DUMP_INTR
                if answer_kind == _NLMSG_DONE:
                    return answer, consistent
                if answer_kind == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", answer_body)[0]
                    raise OSError(code, f"netlink: {os.strerror(code)}")
                answer.append((answer_kind, answer_body))


class EventSocket:
    """A netlink socket that hears of changes to links, addresses and routes."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._socket.bind((0, RTMGRP_WATCHED))

    def fileno(self) -> int:
        """File descriptor for a selector."""
        return self._socket.fileno()

    def read(self) -> tuple[list[Message], bool]:
        """Take what waits. The flag tells that the kernel had to drop some: ask for the whole then."""
        found: list[Message] = []
        overflow = False
        while True:
            try:
                data = self._socket.recv(_BUFFER_BYTES)
            except BlockingIOError:
                return found, overflow
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                overflow = True
                continue
            found.extend(messages(data))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
