"""Expressions of nftables, read for one packet: what rules compare, and what they set."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from mpquic.trace.listing import protocol_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mpquic.trace.fib import Address

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
LARGEST_DSCP = 63
DSCP_NAMES = {
    "ef": 46,
    "va": 44,
    "le": 1,
    **{f"cs{n}": 8 * n for n in range(8)},
    **{f"af{n}{k}": 8 * n + 2 * k for n in range(1, 5) for k in range(1, 4)},
}
Elements: TypeAlias = Callable[[str], Any]
"""Gives the elements of a named set or map of the rule's table."""


class Unknown(Exception):  # noqa: N818 - it is no fault
    """A value that only the kernel knows; the text says which."""


@dataclass(slots=True, kw_only=True)
class Packet:
    """The first packet of a connection: what rules may look at, and the marks, which they may set."""

    source: Address
    destination: Address
    iif: str | None = None
    oif: str | None = None
    protocol: int = ICMP
    source_port: int | None = None
    port: int | None = None
    dscp: int = 0
    mark: int | None = 0
    """None when a rule sets one that can't be told."""
    connection_mark: int | None = 0


class Values:
    """Reads expressions of nftables for one packet: numbers, texts, addresses, frozensets of flags, tuples."""

    def __init__(self, packet: Packet, named: Elements) -> None:
        self._packet, self._named = packet, named

    def matches(self, match: Mapping[str, Any]) -> bool:
        """Whether the packet meets a match; Unknown."""
        left, right, operator = self.of(match["left"]), match["right"], match.get("op", "==")
        if left is None:
            return False
        if operator in {"<", ">", "<=", ">="}:
            wanted = self.of(right)
            return bool({"<": left < wanted, ">": left > wanted, "<=": left <= wanted, ">=": left >= wanted}[operator])
        if isinstance(left, frozenset):
            wanted = _flags(right)
            # `in` asks for any of the flags, `==` for exactly these; an anonymous set for any of its members.
            any_of = operator == "in" or (isinstance(right, Mapping) and "set" in right)
            found = bool(left & wanted) if any_of else left == wanted
            return found if operator != "!=" else not found
        found = any(_equals(left, candidate) for candidate in self._candidates(right))
        return found if operator != "!=" else not found

    def mapped(self, expression: Mapping[str, Any]) -> Any:
        """Return what a map or verdict map gives for the packet, None when it has no such key; Unknown."""
        key, data = self.of(expression["key"]), expression["data"]
        pairs = self._elements(data)
        for pair in pairs:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                continue
            wanted = _element(pair[0])
            if wanted == "*" or (isinstance(key, frozenset) and bool(key & _flags(wanted))) or _equals(key, wanted):
                return pair[1]
        return None

    def _candidates(self, right: Any) -> Iterator[Any]:
        if (isinstance(right, Mapping) and "set" in right) or (isinstance(right, str) and right.startswith("@")):
            yield from (_element(each) for each in self._elements(right))
        elif isinstance(right, list):
            yield from right
        elif isinstance(right, Mapping) and not right.keys() & {"prefix", "range", "concat"}:
            yield self.of(right)
        else:
            yield right

    def _elements(self, data: Any) -> Iterable[Any]:
        if isinstance(data, str) and data.startswith("@"):
            return list(self._named(data.removeprefix("@")))
        found = data.get("set", []) if isinstance(data, Mapping) else data
        return found if isinstance(found, list) else [found]

    def of(self, expression: Any) -> Any:
        """Return the value of an expression, None where the packet has none (a port of ICMP); Unknown."""
        if not isinstance(expression, Mapping):
            return frozenset(expression) if isinstance(expression, list) else expression
        name, argument = next(iter(expression.items()))
        match name:
            case "meta":
                return self._meta(argument["key"])
            case "payload":
                return self._payload(argument)
            case "ct":
                return self._ct(argument["key"])
            case "concat":
                return tuple(self.of(part) for part in argument)
            case "&" | "|" | "^" | "<<" | ">>":
                return self._binary(name, argument)
            case "map":
                return self.of(self.mapped(argument))
        raise Unknown(name)

    def _binary(self, operator: str, parts: Sequence[Any]) -> Any:
        left, *others = (self.of(part) for part in parts)
        if left is None:
            return None
        for right in others:
            if isinstance(left, frozenset):
                right = _flags(right)
                left = left & right if operator == "&" else left | right
                continue
            if not isinstance(left, int) or not isinstance(right, int):
                raise Unknown(operator)
            left = {"&": left & right, "|": left | right, "^": left ^ right}.get(operator, left)
            if operator in {"<<", ">>"}:
                left = left << right if operator == "<<" else left >> right
        return left

    def _meta(self, key: str) -> Any:
        packet = self._packet
        version = packet.destination.version
        if key == "mark":
            return _known(packet.mark)
        found: dict[str, Any] = {
            "iifname": packet.iif,
            "iif": packet.iif,
            "oifname": packet.oif,
            "oif": packet.oif,
            "nfproto": "ipv4" if version == 4 else "ipv6",
            "protocol": "ip" if version == 4 else "ip6",
            "l4proto": _Protocol(packet.protocol),
            "pkttype": "host",
        }
        if key not in found:
            raise Unknown(key)
        return found[key]

    def _ct(self, key: str) -> Any:
        if key == "mark":
            return _known(self._packet.connection_mark)
        found: dict[str, Any] = {"state": frozenset({"new"}), "direction": "original", "status": frozenset()}
        if key not in found:
            raise Unknown(f"ct {key}")
        return found[key]

    def _payload(self, argument: Mapping[str, Any]) -> Any:
        packet = self._packet
        header, name = argument.get("protocol"), argument.get("field")
        version = packet.destination.version
        if header in {"ip", "ip6"}:
            if (header == "ip") != (version == 4):
                return None
            found = {
                "saddr": packet.source,
                "daddr": packet.destination,
                "protocol": _Protocol(packet.protocol),
                "nexthdr": _Protocol(packet.protocol),
                "dscp": _Dscp(packet.dscp),
                "ecn": "not-ect",
            }
            if name in found:
                return found[name]
        if header in {"tcp", "udp", "th"}:
            if header != "th" and packet.protocol != {"tcp": TCP, "udp": UDP}[header]:
                return None
            if name == "flags":
                return frozenset({"syn"})
            if name in {"dport", "sport"}:
                return _known(packet.port if name == "dport" else packet.source_port)
        if header in {"icmp", "icmpv6"}:
            if packet.protocol != {"icmp": ICMP, "icmpv6": ICMPV6}[header]:
                return None
            if name == "type":
                return "echo-request"
        raise Unknown(f"{header} {name}")


@dataclass(frozen=True, slots=True)
class _Protocol:
    """A protocol's number, which nft prints by its name."""

    number: int


@dataclass(frozen=True, slots=True)
class _Dscp:
    """A DSCP, which nft prints by its name where it has one."""

    number: int


def dscp_number(value: int | str) -> int:
    """Return a DSCP by its name or number (RFC 2474, RFC 2597, RFC 3246, RFC 8622); ValueError."""
    if isinstance(value, int):
        return value
    number = DSCP_NAMES.get(value.lower())
    if number is None:
        number = int(value, 0)
    if not 0 <= number <= LARGEST_DSCP:
        raise ValueError(f"a DSCP is from 0 to {LARGEST_DSCP}")
    return number


def _known(value: int | None) -> int:
    if value is None:
        raise Unknown("a value that isn't known")
    return value


def _flags(value: Any) -> frozenset[Any]:
    if isinstance(value, Mapping):
        value = value.get("set", value.get("|", []))
    return frozenset(value) if isinstance(value, list | frozenset | tuple) else frozenset({value})


def _element(element: Any) -> Any:
    """Return an element of a set without its counter, timeout or comment."""
    return element["elem"]["val"] if isinstance(element, Mapping) and "elem" in element else element


def _equals(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        if "concat" in wanted:
            parts = wanted["concat"]
            return isinstance(value, tuple) and len(value) == len(parts) and all(map(_equals, value, parts))
        if "range" in wanted:
            low, high = (_like(value, end) for end in wanted["range"])
            return value is not None and low is not None and high is not None and bool(low <= value <= high)
        if "prefix" in wanted:
            network = ipaddress.ip_network(f"{wanted['prefix']['addr']}/{wanted['prefix']['len']}", strict=False)
            return isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address) and value in network
        return False
    if isinstance(value, str) and isinstance(wanted, str) and wanted.endswith("*"):
        return value.startswith(wanted.removesuffix("*"))
    return value is not None and bool(value == _like(value, wanted))


def _like(value: Any, wanted: Any) -> Any:
    """Return what nft prints as the kind of value that it is compared with, None when it is of another kind."""
    try:
        if isinstance(value, _Protocol):
            return _Protocol(protocol_number(wanted))
        if isinstance(value, _Dscp):
            return _Dscp(dscp_number(wanted))
        if isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address):
            return ipaddress.ip_address(wanted)
    except ValueError:
        return None
    return wanted
