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

from mpquic.trace.expression import Packet, Unknown, Values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mpquic.trace.fib import Address

_FAMILIES: Final = {4: {"ip", "inet"}, 6: {"ip6", "inet"}}
_HANDLE: Final = re.compile(r"^\s*(?P<text>.*?)\s+# handle (?P<handle>\d+)$")
_BLOCK: Final = re.compile(r"^\s*(?P<kind>table|chain)\s+(?P<name>[^{]+?)\s*\{")
MAX_JUMPS: Final = 16
"""Depth of chains within chains (NFT_JUMP_STACK_SIZE)."""


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

    def pass_hook(self, hook: str, packet: Packet, masquerade: Address | None = None) -> Passage:
        """Return what the chains of a hook make of a packet, whose marks and source are changed accordingly.

        `masquerade` is the source address that a rule which masquerades gives to it.
        """
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
            if hook == "postrouting" and chain.get("type") == "nat" and passage.translation is not None:
                # The chains behind it see the packet as it will leave.
                packet.source = _translated(passage.translation, masquerade) or packet.source
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


def _translated(translation: tuple[str, Place, Mapping[str, Any]], masquerade: Address | None) -> Address | None:
    """Return the new source address, None where it can't be told."""
    kind, _, argument = translation
    if kind == "masquerade":
        return masquerade
    try:
        return ipaddress.ip_address(argument["addr"]) if kind == "snat" else None
    except (KeyError, ValueError):
        return None


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
        for rule in self._ruleset.rules(key) if depth <= MAX_JUMPS else ():
            verdict, place = self._rule(key, rule, depth)
            if verdict == "return":
                return None, None
            if verdict is not None:
                return verdict, place
        return None, None

    def _rule(self, key: tuple[str, str, str], rule: Mapping[str, Any], depth: int) -> tuple[str | None, Place | None]:
        place = self._ruleset.place(key, rule)
        values = Values(self._packet, lambda name: self._ruleset.elements(*key[:2], name))
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
