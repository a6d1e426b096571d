"""Packet filters of others: whether they let ours pass, and whether ours lets theirs pass.

A packet that one table accepts is still dropped by another (nft(8), "BASE CHAINS"), so both have to know of each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Final

from mpquic_plan.preflight import ruleset
from mpquic_plan.preflight.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mpquic_plan.preflight.finding import Host
    from mpquic_plan.preflight.ruleset import Packet

FOREIGN: Final = "foreign-filters"
PRIVATE_SOURCE: Final = "172.16.5.2"
OUTSIDE: Final = "192.0.2.80"
_OWNERS: Final = {
    "DOCKER": "Docker",
    "ufw": "ufw",
    "FIREWALLD": "firewalld",
    "filter_INPUT": "firewalld",
    "LIBVIRT": "libvirt",
    "guest_": "libvirt",
    "KUBE": "Kubernetes",
}


@dataclass(frozen=True, slots=True)
class Way:
    """A way of packets that must stay open: a name for people, a packet of it, and what opens it in whose filter."""

    name: str
    packet: Packet
    device: str


_PROGRAMS: Final = {"docker.service": "Docker", "ufw.service": "ufw", "firewalld.service": "firewalld"}


def filters_can_be_read(host: Host) -> Iterator[Finding]:
    """Whoever else filters is seen: by nft, which lists the rules of iptables-nft too, but not of iptables-legacy."""
    running = [
        name
        for unit, name in _PROGRAMS.items()
        if host.survey["units"].get(unit, {}).get("active") == "active"
        # Its unit is active on every host that has the package.
        and (name != "ufw" or host.survey.get("ufw_enabled", True))
    ]
    if running and not host.survey["nft"]:
        yield Finding(
            FOREIGN,
            f"{', '.join(running)} filters packets here, and its rules can't be read without nft: "
            f"`apt-get install nftables`, then run again; mpquic_accept={FOREIGN} goes on without",
        )
    if host.survey["legacy_filters"]:
        yield Finding(
            FOREIGN,
            f"iptables-legacy has the tables {', '.join(host.survey['legacy_filters'])}, which nft doesn't list: see "
            "that they let the tunnels pass (`iptables-legacy-save`)",
            Severity.NOTICE,
        )


def others_let_ours_pass(host: Host) -> Iterator[Finding]:
    """No foreign chain drops what the tunnels need."""
    rules = ruleset.Ruleset.of(host.survey["filters"])
    for chain in rules.base_chains():
        if chain.hook not in ("input", "forward") or chain.is_ours:
            continue
        blocked = [way for way in _ways(host, chain.hook) if rules.verdict(chain, way.packet) == "drop"]
        if not blocked:
            continue
        owner = owner_of(rules, chain)
        names = ", ".join(dict.fromkeys(way.name for way in blocked))
        yield Finding(
            FOREIGN,
            f"{owner} ({chain}) drops {names}; open it there: {_remedy(owner, chain.hook, blocked)}; "
            f"mpquic_accept={FOREIGN} goes on without",
        )


def _ways(host: Host, hook: str) -> Iterator[Way]:
    if hook == "input":
        yield from _input_ways(host)
    elif host.is_client:
        lans = {lan["device"]: lan["addresses"] for lan in host.plan["lans"]}
        for pair in host.plan["firewall"]["forward"]:
            yield from _both_ways(pair["from"], pair["to"], _neighbour(lans.get(pair["from"], [])))
    elif host.public_device:
        for tun in host.tuns:
            yield from _both_ways(tun, host.public_device, _inner_address(host, tun))


def _both_ways(inside: str, outside: str, source: str) -> Iterator[Way]:
    """Yield the first packet of a connection, and the reply to it."""
    first = ruleset.Packet(inside, outside, source, OUTSIDE, "tcp", 443)
    yield Way(f"forwarding from {inside} to {outside}", first, inside)
    reply = ruleset.Packet(outside, inside, OUTSIDE, source, "tcp", int(ruleset.SOURCE_PORT), "established")
    yield Way(f"replies from {outside} to {inside}", reply, inside)


def _neighbour(addresses: Sequence[str]) -> str:
    """Return the address of a host beside the first of ours."""
    for entry in map(ip_interface, addresses):
        if entry.version == 4:
            above = entry.ip + 1
            return str(above if above in entry.network else entry.ip - 1)
    return PRIVATE_SOURCE


def _inner_address(host: Host, tun: str) -> str:
    """Return the address by which the first site behind a TUN device of a VPS comes."""
    for instance in host.plan["instances"]:
        if instance["config"].get("tun_name") == tun:
            for peer in instance["config"].get("peers", []):
                for prefix in map(ip_interface, peer["allowed"]):
                    if prefix.version == 4:
                        return str(prefix.ip)
    return PRIVATE_SOURCE


def _input_ways(host: Host) -> Iterator[Way]:
    connection = host.survey["connection"]
    if connection and connection["device"]:
        packet = ruleset.Packet(
            connection["device"], "", connection["client"], connection["address"], "tcp", connection["port"]
        )
        yield Way(f"ssh (TCP port {connection['port']})", packet, connection["device"])
    for port in host.plan["firewall"].get("udp_ports", []):
        packet = ruleset.Packet(host.public_device, "", OUTSIDE, _public_address(host), "udp", port)
        yield Way(f"UDP port {port}", packet, host.public_device)


def _public_address(host: Host) -> str:
    found = host.survey["links"].get(host.public_device, {"addresses": []})["addresses"]
    return next((str(entry.ip) for entry in map(ip_interface, found) if entry.version == 4), OUTSIDE)


def _remedy(owner: str, hook: str, blocked: list[Way]) -> str:
    devices = list(dict.fromkeys(way.device for way in blocked))
    ports = list(dict.fromkeys(str(way.packet.port) for way in blocked if way.packet.protocol == "udp"))
    if hook == "forward":
        commands = {
            "Docker": "`iptables -I DOCKER-USER -i DEVICE -j ACCEPT` and `iptables -I DOCKER-USER -o DEVICE -j ACCEPT`",
            "ufw": "`ufw route allow in on DEVICE` and `ufw route allow out on DEVICE`",
            "firewalld": "`firewall-cmd --permanent --zone=trusted --add-interface=DEVICE`, then "
            "`firewall-cmd --reload`",
        }
        command = commands.get(owner, "accept what comes in by DEVICE and what goes out by it")
        return f"{command}, for each of {', '.join(devices)}"
    if not ports:
        return "accept ssh as it comes in now"
    listed = ",".join(ports)
    return {
        "ufw": f"`ufw allow {listed}/udp`",
        "firewalld": f"`firewall-cmd --permanent {' '.join(f'--add-port={port}/udp' for port in ports)}`, then "
        "`firewall-cmd --reload`",
    }.get(owner, f"accept UDP ports {listed}")


def owner_of(rules: ruleset.Ruleset, chain: ruleset.Chain) -> str:
    """Return the program that has written a base chain, by the names of the chains of its table."""
    if chain.table == "firewalld":
        return "firewalld"
    # Several programs write to iptables' tables: the chain that is jumped to first belongs to the one that matters.
    for name in [*rules.jumps(chain), chain.name]:
        for mark, owner in _OWNERS.items():
            if name.startswith(mark) or f"-{mark}" in name:
                return owner
    return f"table {chain.family} {chain.table}"


def ours_lets_others_pass(host: Host) -> Iterator[Finding]:
    """What others forward, by what they say themselves, our forward chain accepts."""
    openings = host.plan["firewall"].get("forward_openings", [])
    for device, addresses in _foreign_networks(host):
        if any(_names(opening["from"], device) or _names(opening["to"], device) for opening in openings):
            continue
        key = "site.firewall.forward_openings" if host.is_client else "vps.forward_openings"
        outside = "wanN" if host.is_client else "public"
        yield Finding(
            FOREIGN,
            f"{device} ({', '.join(addresses)}) is a bridge of containers or machines, whose packets our forward chain "
            f"would drop; add to {key}: {{from: {device}, to: {outside}, sources: [{addresses[0]}]}}, and for each "
            f"published port {{from: {outside}, to: {device}, protocol: tcp, ports: [PORT IN THE CONTAINER]}}; or "
            f"go on with mpquic_accept={FOREIGN}",
        )


def _names(pattern: str, device: str) -> bool:
    """Whether an end of an opening names a device, or a family of devices by a `*` at its end."""
    return fnmatchcase(device, pattern) if pattern.endswith("*") else pattern == device


def _foreign_networks(host: Host) -> Iterator[tuple[str, list[str]]]:
    """Yield bridges that somebody forwards for: those with an address and without a network card among their ports."""
    ours = set(host.devices) | {host.public_device}
    links = host.survey["links"]
    wired = {link["master"] for link in links.values() if link["kind"] in ("", "vlan", "bond")}
    for name, link in sorted(links.items()):
        if link["kind"] != "bridge" or name in ours or name in wired:
            continue
        networks = [entry.network for entry in map(ip_interface, link["addresses"]) if not entry.ip.is_link_local]
        # One that has a link-local address alone only switches.
        if networks:
            yield name, [str(network) for network in sorted(networks, key=lambda network: network.version)]
