"""What a ruleset of nftables does with a packet, as far as it can be told from outside.

Rules are those of `nft -j list ruleset` (libnftables-json(5)). A match that isn't known here (a set, a mark, xtables)
can't be judged: an accepting rule with one doesn't count as opening the way, and a dropping one doesn't as closing it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_JUMPS: Final = 32
UNKNOWN: Final = None


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet: devices ('' where there is none), addresses, protocol, destination port, state of its connection."""

    incoming: str
    outgoing: str
    source: str
    destination: str
    protocol: str
    port: int
    state: str = "new"


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
        return (self.family, self.table) == ("inet", "mpquic")

    def __str__(self) -> str:
        return f"table {self.family} {self.table}, chain {self.name}, policy {self.policy}"


@dataclass(slots=True)
class Ruleset:
    """All tables of a host."""

    chains: dict[tuple[str, str, str], Chain] = field(default_factory=dict)
    rules: dict[tuple[str, str, str], list[Sequence[Mapping[str, Any]]]] = field(default_factory=dict)

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
        return result

    def base_chains(self) -> list[Chain]:
        """Return the chains that the kernel calls."""
        return [chain for chain in self.chains.values() if chain.hook]

    def jumps(self, chain: Chain) -> list[str]:
        """Return the names of the chains that the rules of a chain go to, in order."""
        names = []
        for rule in self.rules.get((chain.family, chain.table, chain.name), []):
            for statement in rule:
                target = statement.get("jump") or statement.get("goto")
                if target:
                    names.append(target["target"])
        return names

    def verdict(self, chain: Chain, packet: Packet) -> str:
        """Return `accept` or `drop`: what a base chain does with a packet of IPv4."""
        if chain.family not in ("ip", "inet"):
            return "accept"
        return self._walk(chain, packet, MOST_JUMPS) or chain.policy

    def _walk(self, chain: Chain, packet: Packet, depth: int) -> str | None:
        """Return the verdict of a chain's rules, None when the packet comes to their end."""
        if depth == 0:
            return None
        for rule in self.rules.get((chain.family, chain.table, chain.name), []):
            found, verdict = self._apply(rule, chain, packet, depth)
            if verdict in ("accept", "drop"):
                return verdict
            if found == "return":
                return None
        return None

    def _apply(
        self, rule: Sequence[Mapping[str, Any]], chain: Chain, packet: Packet, depth: int
    ) -> tuple[str, str | None]:
        """Return what a rule does: ('return' or '', verdict or None)."""
        for statement in rule:
            if "match" in statement:
                if not _meets(statement["match"], packet):
                    return "", None
            elif "xt" in statement or "vmap" in statement:
                return "", None
            elif "accept" in statement:
                return "", "accept"
            elif "drop" in statement or "reject" in statement:
                return "", "drop"
            elif "return" in statement:
                return "return", None
            elif target := statement.get("jump") or statement.get("goto"):
                other = self.chains.get((chain.family, chain.table, target["target"]))
                verdict = self._walk(other, packet, depth - 1) if other else None
                # A goto doesn't come back: the base chain's policy decides.
                return ("return" if "goto" in statement else ""), verdict
        return "", None


def _meets(match: Mapping[str, Any], packet: Packet) -> bool:
    """Whether a packet meets a match; one that can't be judged is not met."""
    value = _value(match["left"], packet)
    if value is UNKNOWN:
        return False
    wanted = _options(match["right"])
    if wanted is UNKNOWN:
        return False
    found = any(_equals(value, option) for option in wanted)
    return found if match["op"] in ("==", "in") else not found if match["op"] == "!=" else False


def _value(left: Any, packet: Packet) -> str | None:
    if not isinstance(left, dict):
        return UNKNOWN
    if "meta" in left:
        key = left["meta"]["key"]
        return {
            "iifname": packet.incoming,
            "iif": packet.incoming,
            "oifname": packet.outgoing,
            "oif": packet.outgoing,
            "l4proto": packet.protocol,
            "nfproto": "ipv4",
            "protocol": "ip",
        }.get(key)
    if "payload" in left:
        place = (left["payload"].get("protocol"), left["payload"].get("field"))
        if place == ("ip", "saddr"):
            return packet.source
        if place == ("ip", "daddr"):
            return packet.destination
        if place == ("ip", "protocol"):
            return packet.protocol
        if place in ((packet.protocol, "dport"), ("th", "dport")):
            return str(packet.port)
    if "ct" in left and left["ct"].get("key") == "state":
        return packet.state
    return UNKNOWN


def _options(right: Any) -> list[Any] | None:
    if isinstance(right, dict):
        if "set" in right:
            return list(right["set"])
        return [right] if "prefix" in right or "range" in right else UNKNOWN
    if isinstance(right, list):
        return right
    return UNKNOWN if isinstance(right, str) and right.startswith("@") else [right]


def _equals(value: str, option: Any) -> bool:
    if isinstance(option, dict):
        if "prefix" in option:
            return _within(value, f"{option['prefix']['addr']}/{option['prefix']['len']}")
        if "range" in option:
            first, last = option["range"]
            return value.isdecimal() and isinstance(first, int) and first <= int(value) <= last
        return False
    text = str(option)
    return fnmatchcase(value, text) if text.endswith("*") else value == text


def _within(address: str, prefix: str) -> bool:
    try:
        return ip_address(address) in ip_network(prefix, strict=False)
    except ValueError:
        return False
