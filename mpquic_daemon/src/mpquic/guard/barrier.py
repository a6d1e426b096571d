"""A table of the guard's own that nobody else can take away: no packet leaves without its translated address.

Between the moment in which somebody flushes the ruleset and the load of the rules, packets would leave with the inner
or LAN addresses that are masqueraded otherwise, and connection tracking, where others keep it at work, would remember
their connections as they are. The kernel lets nobody but the owner change a table with an owner, passes it over in
`flush ruleset`, and removes it with the owner's socket (Linux 5.12).

    table inet mpquic_guard {
        flags owner
        chain postrouting {
            type filter hook postrouting priority 110; policy accept;
            ip saddr 10.200.0.0/16 jump masqueraded_1    # for each prefix
        }
        chain masqueraded_1 {
            oifname "eth0" counter drop    # for each device at which those prefixes are masqueraded
        }
    }

A site with many tunnels masquerades each prefix at each of them: a rule for each pair would make some hundred, which
every packet would be compared with.

Layouts: include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
from typing import TYPE_CHECKING

from mpquic.guard.kernel import attribute
from mpquic.guard.nftables import NETLINK_NETFILTER, NFNL_SUBSYS_NFTABLES, NFPROTO_INET
from mpquic.net.rtnetlink import messages

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = "mpquic_guard"
CHAIN = "postrouting"
PRIORITY = 110
"""After source translation (NF_IP_PRI_NAT_SRC, 100)."""

_BATCH_BEGIN, _BATCH_END = 16, 17
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0, 2, 3, 6
_NLMSG_ERROR = 2
_REQUEST, _ACK, _CREATE, _APPEND = 0x1, 0x4, 0x400, 0x800
_NESTED = 0x8000
_OWNER = 0x2
_POST_ROUTING = 4
_OIFNAME, _NFPROTO = 7, 15
_NETWORK_HEADER = 1
_REGISTER, _VERDICT_REGISTER = 1, 0
_EQUAL = 0
_DROP, _ACCEPT, _JUMP = 0, 1, 0xFFFFFFFD
_IFNAMSIZ = 16
_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct(">BBH")
_BUFFER_BYTES = 1 << 16
_SO_SNDBUFFORCE = 32
_SEND_BUFFER_BYTES = 4 << 20
"""A transaction is one message, which must have room in the buffer: some 300 octets for each prefix and device."""
_TIMEOUT_S = 2.0


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value))


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def _nested(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(parts))


def _expression(name: str, *parts: bytes) -> bytes:
    return _nested(1, _text(1, name), _nested(2, *parts))


def _data(kind: int, value: bytes) -> bytes:
    return _nested(kind, attribute(1, value))


def _meta(key: int) -> bytes:
    return _expression("meta", _number(1, _REGISTER), _number(2, key))


def _compare(value: bytes) -> bytes:
    return _expression("cmp", _number(1, _REGISTER), _number(2, _EQUAL), _data(3, value))


def _source(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bytes:
    """Compare the source address with a prefix."""
    place, length = (12, 4) if network.version == 4 else (8, 16)
    load = _expression(
        "payload", _number(1, _REGISTER), _number(2, _NETWORK_HEADER), _number(3, place), _number(4, length)
    )
    mask = _expression(
        "bitwise",
        _number(1, _REGISTER),
        _number(2, _REGISTER),
        _number(3, length),
        _data(4, network.netmask.packed),
        _data(5, bytes(length)),
    )
    return load + mask + _compare(network.network_address.packed)


def _rule(chain: str, *expressions: bytes) -> bytes:
    return _text(1, NAME) + _text(2, chain) + _nested(4, *expressions)


def _verdict(*parts: bytes) -> bytes:
    return _expression("immediate", _number(1, _VERDICT_REGISTER), _nested(2, _nested(2, *parts)))


def encode_jump(prefix: str, chain: str) -> bytes:
    """Return the attributes of the rule that sends what comes from `prefix` through `chain`."""
    network = ipaddress.ip_network(prefix)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    matches = _meta(_NFPROTO) + _compare(bytes([family])) + _source(network)
    return _rule(CHAIN, matches, _verdict(_number(1, _JUMP), _text(2, chain)))


def encode_drop(chain: str, device: str) -> bytes:
    """Return the attributes of the rule of `chain` that drops what leaves by `device`."""
    matches = _meta(_OIFNAME) + _compare(device.encode().ljust(_IFNAMSIZ, b"\0"))
    return _rule(chain, matches, _expression("counter"), _verdict(_number(1, _DROP)))


def grouped(masqueraded: Iterable[tuple[str, str]]) -> dict[tuple[str, ...], list[str]]:
    """Return the prefixes by the devices at which they are masqueraded, both sorted."""
    devices: dict[str, set[str]] = {}
    for device, prefix in masqueraded:
        devices.setdefault(prefix, set()).add(device)
    groups: dict[tuple[str, ...], list[str]] = {}
    for prefix in sorted(devices):
        groups.setdefault(tuple(sorted(devices[prefix])), []).append(prefix)
    return groups


class Barrier:
    """The table. It lives as long as this object's socket; OSError when the kernel refuses it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        with contextlib.suppress(PermissionError):  # whoever may not do that may not make the table either
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER_BYTES)
        self._socket.settimeout(_TIMEOUT_S)
        self._sequence = 0
        self._masqueraded: frozenset[tuple[str, str]] = frozenset()

    def keep(self, masqueraded: Iterable[tuple[str, str]]) -> None:
        """Have the table drop each pair of device and prefix, in one transaction; without any, there is no table."""
        wanted = frozenset(masqueraded)
        if wanted == self._masqueraded:
            return
        parts: list[tuple[int, int, bytes]] = []
        if self._masqueraded:
            parts.append((_DELTABLE, 0, _text(1, NAME)))
        if wanted:
            hook = _nested(4, _number(1, _POST_ROUTING), _number(2, PRIORITY))
            chain = _text(1, NAME) + _text(3, CHAIN) + hook + _number(5, _ACCEPT) + _text(7, "filter")
            parts.append((_NEWTABLE, _CREATE, _text(1, NAME) + _number(2, _OWNER)))
            parts.append((_NEWCHAIN, _CREATE, chain))
            for number, (devices, prefixes) in enumerate(grouped(wanted).items(), 1):
                name = f"masqueraded_{number}"
                parts.append((_NEWCHAIN, _CREATE, _text(1, NAME) + _text(3, name)))
                rules = [encode_drop(name, device) for device in devices]
                rules += [encode_jump(prefix, name) for prefix in prefixes]
                parts += [(_NEWRULE, _CREATE | _APPEND, rule) for rule in rules]
        self._commit(parts)
        self._masqueraded = wanted

    def close(self) -> None:
        """Remove the table."""
        self._socket.close()

    def _commit(self, parts: list[tuple[int, int, bytes]]) -> None:
        batch = self._message(_BATCH_BEGIN, 0, socket.AF_UNSPEC, NFNL_SUBSYS_NFTABLES, b"")
        first = self._sequence + 1
        for kind, flags, body in parts:
            # Errors come unasked, and one answer tells that there are none: hundreds wouldn't have room in the buffer.
            flags |= _ACK if body is parts[-1][2] else 0
            batch += self._message(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, NFPROTO_INET, 0, body)
        last = self._sequence
        batch += self._message(_BATCH_END, 0, socket.AF_UNSPEC, NFNL_SUBSYS_NFTABLES, b"")
        self._socket.send(batch)
        answered = False
        while not answered:
            data = self._socket.recv(_BUFFER_BYTES)
            number = _HEADER.unpack_from(data)[3] if len(data) >= _HEADER.size else 0
            for kind, _flags, answer in messages(data):
                code = -struct.unpack_from("=i", answer)[0] if kind == _NLMSG_ERROR else 0
                if code and number >= first - 1:
                    raise OSError(code, f"table inet {NAME}: {os.strerror(code)}")
            answered = number == last

    def _message(self, kind: int, flags: int, family: int, resource: int, body: bytes) -> bytes:
        self._sequence += 1
        body = _FAMILY.pack(family, 0, resource) + body
        return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, self._sequence, 0) + body
