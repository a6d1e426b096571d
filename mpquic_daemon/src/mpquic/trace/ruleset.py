"""What nftables makes of the first packet of a connection at one hook, given `nft --json list ruleset`.

What can't be told without the packet or the kernel (a limit, a socket's user, a lookup in the FIB, rules of
iptables that have no form in nftables) counts as not matching, and is reported as `unknown`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mpquic.trace.listing import protocol_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mpquic.trace.fib import Address

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
_FAMILIES: Final = {4: {"ip", "inet"}, 6: {"ip6", "inet"}}
_HANDLE: Final = re.compile(r"^\s*(?P<text>.*?)\s+# handle (?P<handle>\d+)$")
_BLOCK: Final = re.compile(r"^\s*(?P<kind>table|chain)\s+(?P<name>[^{]+?)\s*\{")
MOST_JUMPS: Final = 16
"""Depth of chains within chains (NFT_JUMP_STACK_SIZE)."""


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
    mark: int | None = 0
    """None when a rule sets one that can't be told."""
    connection_mark: int | None = 0


@dataclass(frozen=True, slots=True)
class Place:
    """A rule, or a chain whose policy decides: `text` is the rule as `nft list` prints it."""

    family: str
    table: str
    chain: str
    text: str

    def __str__(self) -> str:
        return f"table {self.family} {self.table} chain {self.chain}: {self.text}"


@dataclass(slots=True)
class Passage:
    """What a hook does with a packet."""

    accepted: bool = True
    by: Place | None = None
    """The rule that accepted, or the rule or policy that dropped; None where no chain has a say."""
    marks: list[Place] = field(default_factory=list)
    """The rules that set a mark."""
    translation: tuple[str, Place, Mapping[str, Any]] | None = None
    """masquerade, snat, dnat or redirect, its rule and its argument."""
    segment_size: int | None = None
    """The least size to which rules set the MSS option of a SYN."""
    unknown: list[Place] = field(default_factory=list)
    """Rules that may match, for all that can be told, and would change the outcome."""


class Ruleset:
    """The chains of `nft --json list ruleset`; `text` is what `nft --handle list ruleset` prints, for people."""

    def __init__(self, listing: Mapping[str, Any], text: str = "") -> None:
        entries = listing.get("nftables", [])
        self._chains = [entry["chain"] for entry in entries if "chain" in entry]
        self._rules: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
        self._sets: dict[tuple[str, str, str], Mapping[str, Any]] = {}
        for entry in entries:
            if "rule" in entry:
                rule = entry["rule"]
                self._rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(rule)
            for kind in ("set", "map"):
                if kind in entry:
                    found = entry[kind]
                    self._sets[found["family"], found["table"], found["name"]] = found
        self._texts = rule_texts(text)

    def has_table(self, family: str, name: str) -> bool:
        """Whether any chain of this table is there."""
        return any((chain["family"], chain["table"]) == (family, name) for chain in self._chains)

    def sets_marks(self) -> list[Place]:
        """Return every rule that sets a mark of packets or connections, whichever packets it is for."""
        return [
            self.place(key, rule)
            for key, rules in self._rules.items()
            for rule in rules
            if any(_marked(statement) for statement in rule.get("expr", []))
        ]

    def pass_hook(self, hook: str, packet: Packet) -> Passage:
        """Return what the chains of a hook make of a packet, whose marks are changed accordingly."""
        passage = Passage()
        families = _FAMILIES[packet.destination.version]
        chains = [chain for chain in self._chains if chain.get("hook") == hook and chain["family"] in families]
        for chain in sorted(chains, key=lambda each: int(each.get("prio", 0))):
            # NAT has a say once: what a chain before has translated passes the chains behind it.
            if chain.get("type") == "nat" and passage.translation is not None:
                continue
            key = chain["family"], chain["table"], chain["name"]
            verdict, place = _Walk(self, packet, passage).chain(key)
            if verdict is None:
                verdict, place = chain.get("policy", "accept"), Place(*key, f"policy {chain.get('policy', 'accept')}")
            if verdict in {"drop", "reject", "queue"}:
                passage.accepted, passage.by = False, place
                return passage
            # A rule that lets it pass says more than the policy of a chain that has nothing to say.
            if chain.get("type") != "nat" and (passage.by is None or not place or not place.text.startswith("policy")):
                passage.by = place
        return passage

    def rules(self, key: tuple[str, str, str]) -> Sequence[Mapping[str, Any]]:
        """Return the rules of a chain in their order."""
        return self._rules.get(key, ())

    def elements(self, family: str, table: str, name: str) -> Any:
        """Return the elements of a named set or map."""
        return self._sets.get((family, table, name), {}).get("elem", [])

    def place(self, key: tuple[str, str, str], rule: Mapping[str, Any]) -> Place:
        """Return a rule of a chain as people find it."""
        text = self._texts.get((*key, int(rule.get("handle", 0))), f"handle {rule.get('handle')}")
        return Place(*key, text)


def rule_texts(text: str) -> dict[tuple[str, str, str, int], str]:
    """Return the rules in what `nft --handle list ruleset` prints, by family, table, chain and handle."""
    found: dict[tuple[str, str, str, int], str] = {}
    family = table = chain = ""
    for line in text.splitlines():
        block = _BLOCK.match(line)
        if block is not None:
            if block["kind"] == "table":
                family, table = block["name"].split(maxsplit=1)
            else:
                chain = block["name"]
        elif chain and (rule := _HANDLE.match(line)):
            found[family, table, chain, int(rule["handle"])] = rule["text"]
    return found


class _Walk:
    """One base chain and what it jumps to."""

    def __init__(self, ruleset: Ruleset, packet: Packet, passage: Passage) -> None:
        self._ruleset, self._packet, self._passage = ruleset, packet, passage

    def chain(self, key: tuple[str, str, str], depth: int = 0) -> tuple[str | None, Place | None]:
        """Return the verdict and the rule that gave it; None when the end of the chain is reached."""
        for rule in self._ruleset.rules(key) if depth <= MOST_JUMPS else ():
            verdict, place = self._rule(key, rule, depth)
            if verdict == "return":
                return None, None
            if verdict is not None:
                return verdict, place
        return None, None

    def _rule(self, key: tuple[str, str, str], rule: Mapping[str, Any], depth: int) -> tuple[str | None, Place | None]:
        place = self._ruleset.place(key, rule)
        values = Values(self._ruleset, key[0], key[1], self._packet)
        for statement in rule.get("expr", []):
            try:
                found = self._statement(statement, key, place, values, depth)
            except Unknown:
                if _matters(rule):
                    self._passage.unknown.append(place)
                return None, None
            if found is not None:
                return found
        return None, None

    def _statement(
        self, statement: Mapping[str, Any], key: tuple[str, str, str], place: Place, values: Values, depth: int
    ) -> tuple[str | None, Place | None] | None:
        """Carry out a statement. None goes on with the next one; a verdict of None ends the rule."""
        name, argument = next(iter(statement.items()))
        if name == "match":
            return None if values.matches(argument) else (None, None)
        if name == "vmap":
            verdict = values.mapped(argument)
            return (None, None) if verdict is None else self._verdict(verdict, key, place, depth)
        if name in {"accept", "drop", "reject", "queue", "return", "continue", "jump", "goto"}:
            return self._verdict(statement, key, place, depth)
        if name == "mangle":
            return None if self._mangle(argument, place, values) else (None, None)
        if name in {"masquerade", "snat", "dnat", "redirect"}:
            argument = argument if isinstance(argument, Mapping) else {}
            if argument.get("family", "inet") not in _FAMILIES[self._packet.destination.version]:
                return None, None
            self._passage.translation = (name, place, argument)
            return "accept", place
        if name in {"xt", "limit", "quota", "ct count", "socket", "synproxy", "tproxy"}:
            raise Unknown(name)
        # What is left (counter, log, comment, notrack, flow, set updates) lets the packet go on as it is.
        return None

    def _verdict(
        self, verdict: Mapping[str, Any], key: tuple[str, str, str], place: Place, depth: int
    ) -> tuple[str | None, Place | None]:
        name, argument = next(iter(verdict.items()))
        if name == "continue":
            return None, None
        if name in {"jump", "goto"}:
            found, where = self.chain((*key[:2], argument["target"]), depth + 1)
            # After a goto nothing of this chain follows.
            return (found, where) if found is not None or name == "jump" else ("return", None)
        return name, place

    def _mangle(self, argument: Mapping[str, Any], place: Place, values: Values) -> bool:
        """Set what a rule sets; False when the packet has no such value, which ends the rule."""
        target = argument["key"]
        option = target.get("tcp option", {}).get("name")
        kind = next((name for name in ("meta", "ct") if target.get(name, {}).get("key") == "mark"), None)
        if kind is None and option != "maxseg":
            return True
        try:
            value = values.of(argument["value"])
        except Unknown:
            # What a rule takes from the route (`rt mtu`) is shown with the route.
            if kind is not None:
                self._mark(kind, None, place)
                self._passage.unknown.append(place)
            return True
        if not isinstance(value, int):
            return False
        if kind is not None:
            self._mark(kind, value & 0xFFFFFFFF, place)
        else:
            least = self._passage.segment_size
            self._passage.segment_size = value if least is None else min(least, value)
        return True

    def _mark(self, kind: str, mark: int | None, place: Place) -> None:
        self._passage.marks.append(place)
        if kind == "meta":
            self._packet.mark = mark
        else:
            self._packet.connection_mark = mark


def _marked(statement: Mapping[str, Any]) -> bool:
    target = statement.get("mangle", {}).get("key", {}) if isinstance(statement, Mapping) else {}
    return any(target.get(kind, {}).get("key") == "mark" for kind in ("meta", "ct"))


def _matters(rule: Mapping[str, Any]) -> bool:
    """Whether a rule does more than counting and logging."""
    return any(next(iter(statement)) not in {"match", "counter", "log", "limit"} for statement in rule.get("expr", []))


class Values:
    """Reads expressions of nftables for one packet: numbers, texts, addresses, frozensets of flags, tuples."""

    def __init__(self, ruleset: Ruleset, family: str, table: str, packet: Packet) -> None:
        self._ruleset, self._family, self._table, self._packet = ruleset, family, table, packet

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
            return list(self._ruleset.elements(self._family, self._table, data.removeprefix("@")))
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
        if isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address):
            return ipaddress.ip_address(wanted)
    except ValueError:
        return None
    return wanted
