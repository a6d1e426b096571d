"""A packet's way from a LAN: what each part of the host does with it, put together as plain data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from mpquic.trace import listing
from mpquic.trace.expression import ICMP, ICMPV6, TCP, Packet
from mpquic.trace.fib import Flow, decide
from mpquic.trace.ruleset import Passage

if TYPE_CHECKING:
    from mpquic.trace.fib import Address, Decision, Skipped
    from mpquic.trace.host import Routing
    from mpquic.trace.links import Link
    from mpquic.trace.listing import KernelWord
    from mpquic.trace.ruleset import Place, Ruleset

NOT_UNICAST: Final = {
    "unreachable": "the sender gets an ICMP error at once (host unreachable)",
    "blackhole": "it vanishes without an error",
    "prohibit": "the sender gets an ICMP error at once (administratively prohibited)",
    "no_route": "no rule leads to a route; the sender gets an ICMP error (network unreachable)",
    "local": "it is for this host itself and isn't forwarded",
    "other": "nothing is forwarded to such an address",
}
_SAME: Final = ({"unreachable", "no_route"},)
"""Kinds that the kernel's errors don't tell apart in every version."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a packet of a LAN. `protocol` is icmp, tcp or udp."""

    lan: Link
    source: Address
    source_from: str
    destination: Address
    protocol: str = "icmp"
    port: int | None = None
    dscp: int = 0

    @property
    def number(self) -> int:
        """IP's number of the protocol."""
        if self.protocol == "icmp":
            return ICMP if self.destination.version == 4 else ICMPV6
        return listing.protocol_number(self.protocol)

    def packet(self, protocol: int | None = None) -> Packet:
        """Return it as rules of nftables see it when it comes in."""
        return Packet(
            source=self.source,
            destination=self.destination,
            iif=self.lan.device,
            protocol=self.number if protocol is None else protocol,
            port=self.port,
            dscp=self.dscp,
        )

    def flow(self, mark: int) -> Flow:
        """Return it as the rules of routing see it."""
        return Flow(
            destination=self.destination,
            source=self.source,
            iif=self.lan.device,
            mark=mark,
            protocol=self.number,
            port=self.port,
            tos=self.dscp << 2,
        )


@dataclass(slots=True)
class Way:
    """What was found, for `report` and for whoever sends a packet the same way."""

    question: Question
    decision: Decision
    kernel: KernelWord
    device: str | None
    """The device by which it leaves, None when it doesn't."""
    mark: int | None
    prerouting: Passage
    forward: Passage
    postrouting: Passage
    forwards: bool
    segment_size: int | None
    mark_rules: list[Place]

    @property
    def agrees(self) -> bool:
        """Whether the evaluation and the kernel come to the same outcome."""
        return agree(self.decision, self.kernel, forwards=self.forwards)

    @property
    def outcome(self) -> str:
        """`leaves`, `dropped` (by a packet filter), `not_forwarded`, or why routing has no way (fib.Kind)."""
        if not self.prerouting.accepted:
            return "dropped"
        if self.decision.kind != "unicast":
            return self.decision.kind
        if not self.forwards:
            return "not_forwarded"
        return "leaves" if self.forward.accepted and self.postrouting.accepted else "dropped"


def agree(decision: Decision, kernel: KernelWord, *, forwards: bool = True) -> bool:
    """Whether the kernel's word is the decision. Of several next hops it has chosen one."""
    if decision.kind == "unicast":
        if not forwards and decision.rule is not None and kernel.kind == "unreachable":
            return True
        return kernel.kind == "unicast" and kernel.device in {hop.device for hop in decision.hops}
    if decision.kind == "other":
        return kernel.kind != "unicast"
    return kernel.kind == decision.kind or any({kernel.kind, decision.kind} <= same for same in _SAME)


def evaluate(question: Question, routing: Routing, rules: Ruleset, kernel: KernelWord, *, forwards: bool) -> Way:
    """Follow a packet through prerouting, routing, forward and postrouting. `kernel` is its word for the same mark."""
    packet = question.packet()
    prerouting = rules.pass_hook("prerouting", packet)
    decision = decide(routing.rules, routing.routes, question.flow(packet.mark or 0), routing.groups)
    mark = packet.mark
    device = chosen_device(decision, kernel)
    forward, postrouting, size = Passage(), Passage(), None
    if device is not None:
        packet.oif = device
        forward = rules.pass_hook("forward", packet)
        own = masquerade_address(device, question.destination.version, routing)
        postrouting = rules.pass_hook("postrouting", replace(packet, iif=None), own)
        size = _segment_size(question, rules, device)
    return Way(
        question, decision, kernel, device, mark, prerouting, forward, postrouting, forwards, size, rules.sets_marks()
    )


def mark_of(question: Question, rules: Ruleset) -> int | None:
    """Return the mark that the rules give a packet before it is routed; None when it can't be told."""
    packet = question.packet()
    rules.pass_hook("prerouting", packet)
    return packet.mark


def chosen_device(decision: Decision, kernel: KernelWord) -> str | None:
    """Return the device by which a packet leaves; of a multipath route the kernel's choice."""
    devices = [hop.device for hop in decision.hops]
    if decision.kind != "unicast" or not devices:
        return None
    return kernel.device if kernel.device in devices else devices[0]


def _segment_size(question: Question, rules: Ruleset, device: str) -> int | None:
    """Return to what the rules set the MSS of a TCP connection that takes the same way."""
    if question.protocol not in {"tcp", "icmp"}:
        return None
    packet = question.packet(TCP)
    packet.oif = device
    return rules.pass_hook("forward", packet).segment_size


def report(way: Way, routing: Routing) -> dict[str, Any]:
    """Return the way as plain data for `--json`; the parts of the tunnel and of what was sent are added by others."""
    question, decision = way.question, way.decision
    lan = routing.devices.get(question.lan.device)
    return {
        "lan": {
            "name": question.lan.name,
            "device": question.lan.device,
            "present": lan is not None,
            "carrier": lan is not None and lan.carrier,
        },
        "packet": {
            "source": str(question.source),
            "source_from": question.source_from,
            "destination": str(question.destination),
            "protocol": question.protocol,
            "port": question.port,
            "dscp": question.dscp,
            "mark": way.mark,
            "mark_rules": [str(place) for place in way.prerouting.marks],
        },
        "rules": [
            {
                "priority": step.rule.priority,
                "rule": step.rule.text,
                "matches": step.matched,
                "result": step.result,
                "skipped": [_skipped(skipped) for skipped in step.skipped],
            }
            for step in decision.steps
        ],
        "route": {
            "kind": decision.kind,
            "priority": decision.rule.priority if decision.rule is not None else None,
            "table": decision.route.table if decision.route is not None else None,
            "route": decision.route.text if decision.route is not None else None,
            "device": way.device,
            "gateway": next((hop.gateway for hop in decision.hops if hop.device == way.device), None),
            "skipped": [_skipped(skipped) for skipped in decision.skipped],
        },
        "kernel": {
            "command": listing.shown(listing.question(question.flow(way.mark or 0))),
            "kind": way.kernel.kind,
            "device": way.kernel.device,
            "table": way.kernel.table,
            "error": way.kernel.error,
            "agrees": way.agrees,
        },
        "firewall": _firewall(way),
        "translation": _translation(way, routing),
        **_sizes(way, routing),
        "outcome": way.outcome,
    }


def _skipped(skipped: Skipped) -> dict[str, Any]:
    return {"table": skipped.route.table, "route": skipped.route.text, "why": skipped.why}


def _firewall(way: Way) -> dict[str, Any]:
    parts = {"prerouting": way.prerouting, "forward": way.forward, "postrouting": way.postrouting}
    dropped = next((part for part in parts.values() if not part.accepted), None)
    decisive = dropped or way.forward
    return {
        "forwarding": way.forwards,
        "accepted": dropped is None if way.device is not None or dropped else None,
        "by": str(decisive.by) if decisive.by is not None else None,
        "unknown": [str(place) for part in parts.values() for place in part.unknown],
    }


def _translation(way: Way, routing: Routing) -> dict[str, Any] | None:
    """Return what NAT makes of the packet: of its source when it leaves, or of its destination when it comes in."""
    for passage in (way.prerouting, way.postrouting):
        if passage.translation is None:
            continue
        kind, place, argument = passage.translation
        address = str(argument["addr"]) if "addr" in argument else None
        if kind == "masquerade" and way.device is not None:
            own = masquerade_address(way.device, way.question.destination.version, routing)
            address = str(own) if own is not None else None
        return {"kind": kind, "address": address, "rule": str(place)}
    return None


def masquerade_address(name: str, version: int, routing: Routing) -> Address | None:
    """Return the first address of the device by which it leaves: what the kernel takes where there is one only."""
    device = routing.devices.get(name)
    addresses = device.addresses if device is not None else ()
    return next((address.ip for address in addresses if address.version == version), None)


def _sizes(way: Way, routing: Routing) -> dict[str, int | None]:
    device = routing.devices.get(way.device or "")
    route = way.decision.route
    mtu = device.mtu if device is not None else None
    if mtu is not None and route is not None and route.mtu is not None:
        mtu = min(mtu, route.mtu)
    return {"mtu": mtu, "mss": way.segment_size}
