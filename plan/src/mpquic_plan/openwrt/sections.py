"""UCI sections of a site's router: packages network, firewall and mwan3.

Syntax: netifd and firewall4 of OpenWrt 22.03 to 24.10, mwan3 2.11. Names of policies and rules have at most 15
characters (mwan3.sh), those of interfaces at most 13, as iptables chains are called after them.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Final

from mpquic_plan.classes import PROTOCOLS
from mpquic_plan.openwrt.uplinks import FAMILIES, Uplink, balanced, policy_uplinks, uplinks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mpquic_plan.model import MatchRule, Router, Site, TrafficClass, Vps

Section = dict[str, Any]

MAX_PORTS: Final = 15
"""Ports of a rule of mwan3, a range counting as two (iptables, extension multiport)."""

PROBE: Final = {"track_method": "ping", "reliability": "1", "count": "1", "size": "56", "max_ttl": "60", "timeout": "2"}
"""How mwan3 looks whether an uplink leads out."""

TIMING: Final = {"interval": "5", "failure_interval": "2", "recovery_interval": "2", "down": "3", "up": "2"}
"""Seconds between pings, and how many fail before an uplink is down or come back before it is up.

Few are enough to be up again: in a link that loses every third ping a row of five would hardly ever come.
"""

ACCEPTED_ICMP: Final = {
    4: ("echo-request",),
    # Neighbour discovery isn't accepted by itself in a zone that rejects.
    6: ("echo-request", "neighbour-solicitation", "neighbour-advertisement"),
}

_PROTOCOL_NAMES: Final = {PROTOCOLS[name]: name for name in ("tcp", "udp", "icmp", "esp")}
_OF_FAMILY: Final = {PROTOCOLS["icmp"]: 4, PROTOCOLS["icmpv6"]: 6}
_DSCP_NAMES: Final = {46: "EF", **{8 * n: f"CS{n}" for n in range(8)}} | {
    8 * n + 2 * m: f"AF{n}{m}" for n in range(1, 5) for m in range(1, 4)
}


def router_slice(site: Site, router: Router, vps: Vps) -> dict[str, Any]:
    """Return everything that is configured on the router of a site whose variables are sound.

    `left_out` names the rules of classes that mwan3 can't express, with the reason.
    """
    known = uplinks(site, router, vps)
    rules = list(_rules(site, known))
    packages = {
        "network": list(_network(known)),
        "firewall": list(_firewall(site, router, known)),
        "mwan3": [
            *_tracked(known),
            *_members(site, router, known),
            *_policies(site, router, known),
            *(rule for rule in rules if "options" in rule),
        ],
    }
    for sections in packages.values():
        for each in sections:
            each["options"] = {
                name: value if isinstance(value, list) else str(value)
                for name, value in each["options"].items()
                if value not in (None, [])
            }
    return {
        "role": "openwrt",
        "client": site.host,
        "packages": packages,
        "left_out": [rule for rule in rules if "options" not in rule],
    }


def _section(kind: str, name: str, /, **options: Any) -> Section:
    return {"type": kind, "name": name, "options": options}


def _network(known: Sequence[Uplink]) -> Iterator[Section]:
    for uplink in known:
        if uplink.lan.vlan_id is not None:
            yield _section(
                "device",
                f"mpq_dev_{uplink.place}",
                type="8021q",
                ifname=uplink.port,
                vid=uplink.lan.vlan_id,
                name=uplink.device,
                mtu=uplink.mtu,
                egress_qos_mapping=[f"{priority}:{uplink.lan.pcp}" for priority in range(8)] if uplink.lan.pcp else [],
            )
        for family in uplink.families:
            address = uplink.address(family)
            keys: dict[str, Any] = (
                {"ipaddr": address.ip, "netmask": address.netmask, "gateway": uplink.gateway(family)}
                if family == FAMILIES[0]
                else {"ip6addr": address, "ip6gw": uplink.gateway(family)}
            )
            yield _section(
                "interface",
                uplink.interface(family),
                proto="static",
                device=uplink.device,
                **keys,
                metric=uplink.metric,
                delegate="0",
            )


def zone(uplink: Uplink) -> str:
    """Return the firewall zone of an uplink: that of its class, of all others, or its own if prefixes are routed."""
    if uplink.lan.behind:
        return f"mpq_{uplink.place}"
    return f"mpq_c{min(uplink.classes)}" if uplink.rank == 0 else "mpq_all"


def _firewall(site: Site, router: Router, known: Sequence[Uplink]) -> Iterator[Section]:
    zones: dict[str, list[Uplink]] = {}
    for uplink in known:
        zones.setdefault(zone(uplink), []).append(uplink)
    forwardings = [(source, name) for source in router.zones for name in zones]
    for name, members in zones.items():
        families = {family for uplink in members for family in uplink.families}
        prefixes = sorted({str(prefix) for uplink in members for prefix in uplink.lan.behind})
        yield _section(
            "zone",
            name,
            name=name,
            network=[uplink.interface(family) for uplink in members for family in uplink.families],
            input="REJECT",
            output="ACCEPT",
            forward="REJECT",
            masq="1",
            masq6="1" if FAMILIES[1] in families else None,
            masq_src=[f"!{prefix}" for prefix in prefixes],
            mtu_fix="1",
        )
        if prefixes and site.lan_mode == "routed":
            forwardings += [(name, target) for target in router.zones]
    for number, (source, target) in enumerate(forwardings, 1):
        yield _section("forwarding", f"mpq_fwd_{number}", src=source, dest=target)
    for name, members in zones.items():
        for family in sorted({family for uplink in members for family in uplink.families}):
            yield _section(
                "rule",
                f"mpq_icmp{'' if family == FAMILIES[0] else family}_{name.removeprefix('mpq_')}",
                name=f"{name}: ICMP",
                family=f"ipv{family}",
                src=name,
                proto="icmp",
                icmp_type=list(ACCEPTED_ICMP[family]),
                target="ACCEPT",
            )
    for entry in sorted(site.classes, key=lambda entry: entry.slot):
        if entry.dscp and f"mpq_c{entry.slot}" in zones:
            yield _section(
                "rule",
                f"mpq_dscp_c{entry.slot}",
                name=f"mpq_c{entry.slot}: DSCP of class {entry.name}",
                src="*",
                dest=f"mpq_c{entry.slot}",
                proto="all",
                target="DSCP",
                set_dscp=_DSCP_NAMES.get(entry.dscp, hex(entry.dscp)),
            )


def _tracked(known: Sequence[Uplink]) -> Iterator[Section]:
    for uplink in known:
        for family in uplink.families:
            yield _section(
                "interface",
                uplink.interface(family),
                enabled="1",
                family=f"ipv{family}",
                track_ip=uplink.tracked(family),
                **PROBE,
                **TIMING,
            )


def _member(entry: TrafficClass, uplink: Uplink, family: int) -> str:
    return f"{uplink.interface(family)}_c{entry.slot}"


def _members(site: Site, router: Router, known: Sequence[Uplink]) -> Iterator[Section]:
    for entry in site.classes:
        together = balanced(router, entry)
        for place, uplink in enumerate(policy_uplinks(site, router, known, entry), 1):
            for family in uplink.families:
                yield _section(
                    "member",
                    _member(entry, uplink, family),
                    interface=uplink.interface(family),
                    metric=1 if together else place,
                    weight="1",
                )


def _policies(site: Site, router: Router, known: Sequence[Uplink]) -> Iterator[Section]:
    for entry in site.classes:
        yield _section(
            "policy",
            f"mpq_c{entry.slot}",
            use_member=[
                _member(entry, uplink, family)
                for uplink in policy_uplinks(site, router, known, entry)
                for family in uplink.families
            ],
            last_resort=router.last_resort,
        )


def _rules(site: Site, known: Sequence[Uplink]) -> Iterator[Section]:
    """Yield rules of mwan3 in the order of the classes' rules, and a note for each part that it can't express."""
    # Without an uplink for IPv6 that family isn't ours to decide about.
    families = {family for uplink in known for family in uplink.families}
    for entry in site.classes:
        number = 0
        for rule in entry.rules:
            if rule.dscps:
                yield {"path": rule.path, "reason": "mwan3 doesn't look at the DSCP"}
                continue
            for options in _expressed(rule, families):
                if "reason" in options:
                    yield options
                    continue
                number += 1
                yield _section("rule", f"mpq_c{entry.slot}_r{number}", **options, use_policy=f"mpq_c{entry.slot}")
    if site.catch_all is not None:
        family = None if FAMILIES[1] in families else "ipv4"
        yield _section("rule", "mpq_rest", family=family, proto="all", use_policy=f"mpq_c{site.catch_all.slot}")


def _expressed(rule: MatchRule, families: set[int]) -> Iterator[dict[str, Any]]:
    """Yield the options of each rule of mwan3 that a rule of a class needs."""
    for protocol in rule.protocols or (None,):
        has_ports = bool(rule.ports or rule.source_ports)
        if has_ports and protocol not in (PROTOCOLS["tcp"], PROTOCOLS["udp"]):
            yield {
                "path": rule.path,
                "reason": f"mwan3 looks at ports of TCP and UDP alone, not of protocol {protocol}",
            }
            continue
        for family, source, destination in _prefixes(rule, protocol, families):
            for source_ports, ports in product(_chunks(rule.source_ports), _chunks(rule.ports)):
                yield {
                    "family": None if family is None else f"ipv{family}",
                    "proto": "all" if protocol is None else _PROTOCOL_NAMES.get(protocol, str(protocol)),
                    "src_ip": source,
                    "src_port": source_ports,
                    "dest_ip": destination,
                    "dest_port": ports,
                }


def _prefixes(
    rule: MatchRule, protocol: int | None, families: set[int]
) -> Iterator[tuple[int | None, str | None, str | None]]:
    """Yield family, source and destination of each rule: mwan3 takes one prefix of each."""
    only = _OF_FAMILY.get(protocol) if protocol is not None else None
    if not rule.sources and not rule.destinations and only is None:
        yield (None if FAMILIES[1] in families else FAMILIES[0]), None, None
        return
    for family in FAMILIES:
        sources, destinations = (
            [str(prefix) for prefix in chosen if prefix.version == family] if chosen else [None]
            for chosen in (rule.sources, rule.destinations)
        )
        if family in families and only in (None, family):
            yield from ((family, source, destination) for source, destination in product(sources, destinations))


def _chunks(ranges: Sequence[tuple[int, int]]) -> list[str | None]:
    """Return ports as mwan3 takes them, in as many texts as are needed."""
    chunks: list[list[str]] = [[]]
    room = MAX_PORTS
    for low, high in ranges:
        needed = 1 if low == high else 2
        if needed > room:
            chunks.append([])
            room = MAX_PORTS
        chunks[-1].append(str(low) if low == high else f"{low}:{high}")
        room -= needed
    return [",".join(chunk) or None for chunk in chunks]
