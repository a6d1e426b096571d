"""The kernel's choice of a route for a packet that is forwarded: policy rules, tables, next hops.

Sources: `fib_rules_lookup` in net/core/fib_rules.c, `fib4_rule_action` and `fib4_rule_suppress` in
net/ipv4/fib_rules.c, `fib_table_lookup` in net/ipv4/fib_trie.c, `fib6_table_lookup` and `find_rr_leaf` in
net/ipv6/route.c of Linux.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address: TypeAlias = "IPv4Address | IPv6Address"
Network: TypeAlias = "IPv4Network | IPv6Network"
Kind = Literal["unicast", "local", "unreachable", "blackhole", "prohibit", "no_route", "other"]
"""What becomes of the packet; `other` is a route to which nothing is forwarded (broadcast, multicast, anycast)."""

ERRORS: Final[Mapping[str, Kind]] = {"unreachable": "unreachable", "blackhole": "blackhole", "prohibit": "prohibit"}
_WITH_HOPS: Final = frozenset({"unicast", "local", "broadcast", "anycast", "multicast"})
PREFERENCES: Final = {"low": -1, "medium": 0, "high": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A packet that comes in by `iif`. `protocol` is IP's number; ports are None where the protocol has none."""

    destination: Address
    source: Address
    iif: str
    mark: int = 0
    protocol: int | None = None
    source_port: int | None = None
    port: int | None = None
    tos: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One policy rule. `action` is `lookup`, `goto`, `nop` or a type of ERRORS; ranges include both ends."""

    priority: int
    action: str = "lookup"
    table: str | None = None
    target: int | None = None
    source: Network | None = None
    destination: Network | None = None
    iif: str | None = None
    oif: str | None = None
    mark: int = 0
    mask: int = 0
    tos: int = 0
    protocol: int | None = None
    source_ports: tuple[int, int] | None = None
    ports: tuple[int, int] | None = None
    inverted: bool = False
    suppress_prefix_length: int = -1
    suppress_group: str | None = None
    other: tuple[str, ...] = ()
    """Selectors that a packet that is forwarded never meets: a user's id, a VRF, a tunnel's id."""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Hop:
    """A next hop. `dead` is the kernel's word that it isn't used, as where routes without carrier are ignored."""

    device: str | None
    gateway: str | None = None
    dead: bool = False
    linkdown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route of a table."""

    table: str
    prefix: Network
    kind: str = "unicast"
    hops: tuple[Hop, ...] = ()
    metric: int = 0
    tos: int = 0
    source: Network | None = None
    """IPv6: only for packets from there."""
    preference: str = "medium"
    mtu: int | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A route for this destination that isn't taken."""

    route: Route
    why: str


@dataclass(frozen=True, slots=True)
class Step:
    """What a rule that was looked at has led to; `result` says why it doesn't match, too."""

    rule: Rule
    matched: bool
    result: str
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome, and how it came to it. `hops` are several for a multipath route, of which a hash chooses."""

    kind: Kind
    rule: Rule | None = None
    route: Route | None = None
    hops: tuple[Hop, ...] = ()
    steps: tuple[Step, ...] = field(default=())

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Routes that would have been taken before, if they could be used."""
        return tuple(skipped for step in self.steps for skipped in step.skipped)


def mismatch(rule: Rule, flow: Flow) -> str | None:
    """Return the first selector of a rule that the packet doesn't meet, in words; None when the rule matches."""
    found = next(_mismatches(rule, flow), None)
    if not rule.inverted:
        return found
    return None if found is not None else "it is inverted (not), and its selectors match"


def _mismatches(rule: Rule, flow: Flow) -> Iterator[str]:
    if rule.iif is not None and rule.iif != flow.iif:
        yield f"the packet comes in by {flow.iif}, not {rule.iif}"
    if rule.oif is not None:
        # Only the packets of a socket that is bound to a device have one before they are routed.
        yield f"it is for sockets of this host that are bound to {rule.oif}"
    if (flow.mark ^ rule.mark) & rule.mask:
        yield f"the packet's mark is {flow.mark:#x}, not {rule.mark:#x}/{rule.mask:#x}"
    for name in rule.other:
        yield f"no forwarded packet has {name}"
    if rule.source is not None and flow.source not in rule.source:
        yield f"{flow.source} isn't in {rule.source}"
    if rule.destination is not None and flow.destination not in rule.destination:
        yield f"{flow.destination} isn't in {rule.destination}"
    if rule.tos and rule.tos != flow.tos:
        yield f"the packet's TOS is {flow.tos:#x}, not {rule.tos:#x}"
    if rule.protocol is not None and rule.protocol != flow.protocol:
        yield f"the packet's protocol is {flow.protocol}, not {rule.protocol}"
    for name, wanted, port in (("source", rule.source_ports, flow.source_port), ("destination", rule.ports, flow.port)):
        if wanted is not None and not (port is not None and wanted[0] <= port <= wanted[1]):
            yield f"the packet's {name} port is {port or 'not known'}, not {wanted[0]} to {wanted[1]}"


def decide(
    rules: Sequence[Rule], routes: Sequence[Route], flow: Flow, groups: Mapping[str, str] | None = None
) -> Decision:
    """Return what the rules, in the kernel's order, and the routes make of a packet.

    `groups` are the groups of devices, for rules that refuse a route by them.
    """
    steps: list[Step] = []
    jump: int | None = None
    for rule in rules:
        if jump is not None and rule.priority < jump:
            continue
        jump = None
        why = mismatch(rule, flow)
        if why is not None:
            steps.append(Step(rule, matched=False, result=why))
            continue
        if rule.action == "nop":
            steps.append(Step(rule, matched=True, result="it does nothing"))
        elif rule.action == "goto":
            if rule.target is not None and any(other.priority == rule.target for other in rules):
                jump = rule.target
            steps.append(Step(rule, matched=True, result=f"on to priority {rule.target}"))
        elif rule.action in ERRORS:
            steps.append(Step(rule, matched=True, result=rule.action))
            return Decision(ERRORS[rule.action], rule, None, (), tuple(steps))
        else:
            decision = _in_table(rule, routes, flow, groups or {}, steps)
            if decision is not None:
                return decision
    return Decision("no_route", steps=tuple(steps))


def _in_table(
    rule: Rule, routes: Sequence[Route], flow: Flow, groups: Mapping[str, str], steps: list[Step]
) -> Decision | None:
    route, hops, skipped = look_up([route for route in routes if route.table == rule.table], flow)
    result, ends = f"table {rule.table} has no route to {flow.destination}", False
    if skipped and route is None:
        result = f"table {rule.table} has no route to {flow.destination} that can be used"
    if route is not None:
        if route.kind == "throw":
            result = f"table {rule.table} ends here by a throw route"
        elif route.kind not in ERRORS and route.prefix.prefixlen <= rule.suppress_prefix_length:
            result = f"its route has a prefix of at most {rule.suppress_prefix_length} bits, which the rule refuses"
        elif route.kind not in ERRORS and _is_of_group(route, hops, rule.suppress_group, groups):
            result = f"its route leads to a device of group {rule.suppress_group}, which the rule refuses"
        else:
            result, ends = route.text or f"{route.kind} {route.prefix}", True
    steps.append(Step(rule, matched=True, result=result, skipped=tuple(skipped)))
    if route is None or not ends:
        return None
    kind: Kind = ERRORS.get(route.kind) or ("local" if route.kind == "local" else "other")
    if route.kind == "unicast":
        kind = "unicast"
    return Decision(kind, rule, route, hops, tuple(steps))


def _is_of_group(route: Route, hops: Sequence[Hop], group: str | None, groups: Mapping[str, str]) -> bool:
    # IPv4 looks at the first next hop, whether it is used or not, IPv6 at the one that is chosen.
    looked_at = route.hops if route.prefix.version == 4 else hops
    return group is not None and bool(looked_at) and groups.get(looked_at[0].device or "") == group


def look_up(routes: Sequence[Route], flow: Flow) -> tuple[Route | None, tuple[Hop, ...], list[Skipped]]:
    """Return the route of a table that a packet takes, its usable next hops, and routes that it would take before."""
    fitting = [
        route
        for route in routes
        if flow.destination in route.prefix
        and (route.source is None or flow.source in route.source)
        and not (flow.destination.version == 4 and route.tos and route.tos != flow.tos)
    ]
    skipped: list[Skipped] = []
    for route in _in_order(fitting, flow):
        hops = tuple(hop for hop in route.hops if not hop.dead)
        if route.kind not in _WITH_HOPS:
            return route, (), skipped
        if hops or not route.hops:
            return route, hops, skipped
        skipped.append(Skipped(route, _why_dead(route.hops)))
    return None, (), skipped


def _in_order(routes: Sequence[Route], flow: Flow) -> Iterator[Route]:
    """Give the routes for a packet in the order in which the kernel considers them: longer prefixes first."""
    lengths = {(route.prefix.prefixlen, route.source.prefixlen if route.source is not None else 0) for route in routes}
    for length, from_length in sorted(lengths, reverse=True):
        equal = [
            route
            for route in routes
            if (route.prefix.prefixlen, route.source.prefixlen if route.source is not None else 0)
            == (length, from_length)
        ]
        if flow.destination.version == 4:
            # Aliases of a prefix are sorted by their TOS, the highest first, then by their metric.
            yield from sorted(equal, key=lambda route: (-route.tos, route.metric))
            continue
        lowest = min(route.metric for route in equal)
        yield from sorted((route for route in equal if route.metric == lowest), key=lambda route: -_score(route, flow))
        # Where none of these can be used, the others compete by their score first, and only then by their metric.
        others = sorted((route for route in equal if route.metric != lowest), key=lambda route: route.metric)
        yield from sorted(others, key=lambda route: -_score(route, flow))


def _score(route: Route, flow: Flow) -> int:
    """Return what IPv6 prefers (`rt6_score_route`): by the preference of routers, then the packet's own device."""
    same_device = any(hop.device == flow.iif for hop in route.hops)
    return PREFERENCES.get(route.preference, 0) * 2 + int(same_device)


def _why_dead(hops: Sequence[Hop]) -> str:
    devices = ", ".join(dict.fromkeys(hop.device or "?" for hop in hops))
    if all(hop.linkdown for hop in hops):
        return f"{devices} has no carrier (linkdown)"
    return f"{devices} is down"
