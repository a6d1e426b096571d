"""What a ruleset of nftables does with a packet, as far as it can be told from outside.

Rules are those of `nft -j list ruleset` (libnftables-json(5)). A rule with a part that can't be read here (a mark, a
limit that is exceeded, an extension of iptables, of which nft's JSON says `xt` alone) may or may not be met:

* It doesn't close the way, as a sound host must not be stopped.
* It opens the way for an established connection, and for a new one if what can be read names the packet's protocol:
  iptables has `-m multiport` in such rules, and `-m conntrack` in those that are for replies alone.
* It leaves its chain, if that is what it does: what the chain drops afterwards isn't sure any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

UNKNOWN: Final = None
SOURCE_PORT: Final = "50000"
_NUMBERS: Final = {"1": "icmp", "6": "tcp", "17": "udp"}
_LAYER_4: Final = frozenset({"tcp", "udp", "icmp", "icmpv6", "sctp", "dccp", "udplite", "esp", "ah", "comp", "igmp"})
# Verdicts of whoever reads the queue can't be known, and are taken for accepting.
_VERDICTS: Final = {"accept": "accept", "queue": "accept", "drop": "drop", "reject": "drop", "return": "return"}

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet: devices ('' where there is none), addresses, protocol, destination port.

    `state` is that of its connection: `new` for the first packet, `established` for a reply to it.
    """

    incoming: str
    outgoing: str
    source: str
    destination: str
    protocol: str
    port: int
    state: str = "new"

    @property
    def family(self) -> str:
        """`ip` or `ip6`."""
        return "ip6" if ip_address(self.source.partition("%")[0]).version == 6 else "ip"


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain; `hook` is '' for one that is only jumped to."""

    family: str
    table: str
    name: str
    hook: str = ""
    policy: str = "accept"

    @property
    def is_ours(self) -> bool:
        """Whether the suite has written it."""
        return self.family == "inet" and self.table in ("mpquic", "mpquic_guard")

    @property
    def key(self) -> Key:
        """What tells it from all others."""
        return self.family, self.table, self.name

    def __str__(self) -> str:
        return f"table {self.family} {self.table}, chain {self.name}, policy {self.policy}"


@dataclass(frozen=True, slots=True)
class Effect:
    """What a rule does with a packet that meets it."""

    verdict: str
    """`accept`, `drop`, `return`, `jump`, `goto`, or '' for a rule that only counts or writes."""
    target: str = ""
    sure: bool = True
    """Whether all of the rule's conditions can be read."""
    names_protocol: bool = False


@dataclass(slots=True)
class Ruleset:
    """All tables of a host."""

    chains: dict[Key, Chain] = field(default_factory=dict)
    rules: dict[Key, list[Sequence[Mapping[str, Any]]]] = field(default_factory=dict)
    elements: dict[Key, list[Any]] = field(default_factory=dict)
    """Elements of named sets and maps."""

    @classmethod
    def of(cls, entries: Sequence[Mapping[str, Any]]) -> Ruleset:
        """Return the ruleset that `nft -j list ruleset` lists."""
        result = cls()
        for entry in entries:
            if chain := entry.get("chain"):
                key = (chain["family"], chain["table"], chain["name"])
                result.chains[key] = Chain(*key, chain.get("hook", ""), chain.get("policy", "accept"))
            elif rule := entry.get("rule"):
                key = (rule["family"], rule["table"], rule["chain"])
                result.rules.setdefault(key, []).append(rule.get("expr", []))
            elif listed := entry.get("set") or entry.get("map"):
                key = (listed["family"], listed["table"], listed["name"])
                result.elements[key] = list(listed.get("elem", []))
        return result

    def base_chains(self) -> list[Chain]:
        """Return the chains that the kernel calls."""
        return [chain for chain in self.chains.values() if chain.hook]

    def jumps(self, chain: Chain) -> list[str]:
        """Return the names of the chains that the rules of a chain go to, in order."""
        names = []
        for rule in self.rules.get(chain.key, []):
            for statement in rule:
                target = statement.get("jump") or statement.get("goto")
                if target:
                    names.append(target["target"])
        return names

    def verdict(self, chain: Chain, packet: Packet) -> str:
        """Return `accept` or `drop`: what a base chain does with a packet."""
        if chain.family not in (packet.family, "inet"):
            return "accept"
        return self._walk(chain, packet, {}) or chain.policy

    def _walk(self, chain: Chain, packet: Packet, known: dict[Key, str | None]) -> str | None:
        """Return the verdict of a chain's rules, None when the packet comes to their end.

        What is known of a chain holds wherever it's jumped to from. A loop, which the kernel refuses, ends here.
        """
        if chain.key not in known:
            known[chain.key] = None
            known[chain.key] = self._through(chain, packet, known)
        return known[chain.key]

    def _through(self, chain: Chain, packet: Packet, known: dict[Key, str | None]) -> str | None:
        for rule in self.rules.get(chain.key, []):
            effect = self._effect(rule, chain, packet)
            verdict = effect.verdict
            if verdict in ("jump", "goto"):
                other = self.chains.get((chain.family, chain.table, effect.target))
                inner = self._walk(other, packet, known) if other else None
                # A goto doesn't come back: whoever has called this chain decides, at last the base chain's policy.
                verdict = inner or ("return" if verdict == "goto" and effect.sure else "")
            if verdict == "return":
                return None
            if verdict == "accept" and (effect.sure or effect.names_protocol or packet.state == "established"):
                return "accept"
            if verdict == "drop" and effect.sure:
                return "drop"
        return None

    def _effect(self, rule: Sequence[Mapping[str, Any]], chain: Chain, packet: Packet) -> Effect:
        """Return what a rule does with a packet; nothing if it's sure that the packet doesn't meet it."""
        sure, names_protocol = True, False
        for statement in rule:
            for name, body in statement.items():
                if name == "match":
                    met = self._meets(body, chain, packet)
                    if met is False:
                        return Effect("")
                    names_protocol |= bool(met) and _is_protocol(body.get("left"))
                    sure &= met is not UNKNOWN
                elif _may_fail(name, body):
                    sure = False
                elif name in _VERDICTS:
                    return Effect(_VERDICTS[name], "", sure, names_protocol)
                elif name in ("jump", "goto"):
                    return Effect(name, body["target"], sure, names_protocol)
                elif name == "vmap":
                    found = self._look_up(body, chain, packet)
                    if found is UNKNOWN:
                        return Effect("")
                    for verdict, target in found.items():
                        if verdict in ("jump", "goto"):
                            return Effect(verdict, target["target"], sure, names_protocol)
                        if verdict in _VERDICTS:
                            return Effect(_VERDICTS[verdict], "", sure, names_protocol)
        return Effect("")

    def _look_up(self, vmap: Mapping[str, Any], chain: Chain, packet: Packet) -> Mapping[str, Any] | None:
        """Return the verdict that a map has for a packet, None if it has none or can't be read."""
        value = _value(vmap.get("key"), packet)
        for entry in self._options(vmap.get("data"), chain) or []:
            if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], dict) and _equals(value, entry[0]):
                return entry[1]
        return None

    def _meets(self, match: Mapping[str, Any], chain: Chain, packet: Packet) -> bool | None:
        """Whether a packet meets a match; None if that can't be judged."""
        left, operator = match.get("left"), match.get("op", "==")
        if _is_of_other_protocol(left, packet):
            return False
        value, wanted = _value(left, packet), self._options(match.get("right"), chain)
        if value is UNKNOWN or wanted is UNKNOWN:
            return None
        if operator in ("==", "in"):
            return any(_equals(value, option) for option in wanted)
        if operator == "!=":
            return not any(_equals(value, option) for option in wanted)
        return None

    def _options(self, right: Any, chain: Chain) -> list[Any] | None:
        """Return the values that the right side of a match has, None if they aren't known."""
        if isinstance(right, str) and right.startswith("@"):
            return self.elements.get((chain.family, chain.table, right[1:]))
        if isinstance(right, dict):
            if "set" in right:
                return list(right["set"]) if isinstance(right["set"], list) else [right["set"]]
            return [right] if right.keys() & {"prefix", "range", "concat"} else None
        return right if isinstance(right, list) else [right]


def _may_fail(name: str, body: Any) -> bool:
    """Whether a statement other than a match ends a rule for packets that can't be told from here."""
    if name in ("limit", "quota"):
        return bool(isinstance(body, dict) and body.get("inv"))
    return name in ("xt", "ct count", "meter") or (name == "set" and isinstance(body, dict) and "stmt" in body)


def _is_protocol(left: Any) -> bool:
    if not isinstance(left, dict):
        return False
    payload = left.get("payload")
    if isinstance(payload, dict):
        return payload.get("protocol") in ("tcp", "udp", "th") or payload.get("field") == "protocol"
    return isinstance(left.get("meta"), dict) and left["meta"].get("key") == "l4proto"


def _is_of_other_protocol(left: Any, packet: Packet) -> bool:
    """Whether a match is about a header that the packet doesn't have."""
    payload = left.get("payload") if isinstance(left, dict) else None
    protocol = payload.get("protocol") if isinstance(payload, dict) else None
    if protocol in ("ip", "ip6"):
        return bool(protocol != packet.family)
    return protocol in _LAYER_4 and protocol != packet.protocol


def _value(left: Any, packet: Packet) -> Any:
    """Return what a packet has in the place that an expression names, None if that isn't known."""
    if not isinstance(left, dict):
        return UNKNOWN
    (kind, body), *_ = left.items() or [("", None)]
    if kind == "concat" and isinstance(body, list):
        values = [_value(part, packet) for part in body]
        return UNKNOWN if UNKNOWN in values else values
    if not isinstance(body, dict):
        return UNKNOWN
    if kind == "meta":
        return _of_meta(packet).get(str(body.get("key")))
    if kind == "payload":
        return _of_headers(packet).get((str(body.get("protocol")), str(body.get("field"))))
    if kind == "ct":
        reply = "original" if packet.state == "new" else "reply"
        return {"state": packet.state, "direction": reply}.get(str(body.get("key")))
    if kind == "fib" and body.get("result") == "type" and body.get("flags") in ("daddr", ["daddr"]):
        return "unicast" if packet.outgoing else "local"
    return UNKNOWN


def _of_meta(packet: Packet) -> dict[str, str]:
    return {
        "iifname": packet.incoming,
        "iif": packet.incoming,
        "oifname": packet.outgoing,
        "oif": packet.outgoing,
        "l4proto": packet.protocol,
        "nfproto": "ipv4" if packet.family == "ip" else "ipv6",
        "protocol": packet.family,
    }


def _of_headers(packet: Packet) -> dict[tuple[str, str], str]:
    return {
        (packet.family, "saddr"): packet.source,
        (packet.family, "daddr"): packet.destination,
        ("ip", "protocol"): packet.protocol,
        ("ip6", "nexthdr"): packet.protocol,
        (packet.protocol, "dport"): str(packet.port),
        (packet.protocol, "sport"): SOURCE_PORT,
        ("th", "dport"): str(packet.port),
        ("th", "sport"): SOURCE_PORT,
    }


def _equals(value: Any, option: Any) -> bool:
    if isinstance(option, dict):
        if "elem" in option:
            # An element with a time limit or a counter.
            return isinstance(option["elem"], dict) and _equals(value, option["elem"].get("val"))
        if "concat" in option:
            parts = option["concat"]
            return (
                isinstance(value, list)
                and len(value) == len(parts)
                and all(_equals(*pair) for pair in zip(value, parts, strict=True))
            )
        if "prefix" in option:
            return _within(value, f"{option['prefix']['addr']}/{option['prefix']['len']}")
        if "range" in option:
            return _between(value, *option["range"])
        return False
    text = str(option)
    if not isinstance(value, str):
        return False
    if text == "*":
        # The rest of a verdict map.
        return True
    return fnmatchcase(value, text) if text.endswith("*") else value == _NUMBERS.get(text, text) or value == text


def _within(address: Any, prefix: str) -> bool:
    try:
        return ip_address(address) in ip_network(prefix, strict=False)
    except ValueError:
        return False


def _between(value: Any, first: Any, last: Any) -> bool:
    try:
        if isinstance(first, int):
            return first <= int(value) <= int(last)
        low, own, high = (ip_address(each) for each in (first, value, last))
    except (TypeError, ValueError):
        return False
    return low.version == own.version == high.version and int(low) <= int(own) <= int(high)
