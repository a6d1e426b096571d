"""`mpquicctl trace`: which way a packet of a LAN takes, and why."""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpquic.ctl import trace_send
from mpquic.ctl.exit_status import FAILED, UNKNOWN, UNUSABLE
from mpquic.ctl.instances import add_directory
from mpquic.ctl.tun_owner import describe
from mpquic.proto.control.printable import printable
from mpquic.trace import host, links, text
from mpquic.trace.expression import dscp_number
from mpquic.trace.way import NOT_UNICAST, Question, Way, agree, evaluate, mark_of, report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mpquic.ctl.command import Commands
    from mpquic.trace.fib import Address
    from mpquic.trace.host import Routing

PROTOCOLS = ("icmp", "tcp", "udp")
ATTEMPTS = 3
"""Readings of the host: what changes between its listings looks as if the kernel disagreed."""


class Refusal(Exception):  # noqa: N818
    """The question makes no sense; the text says why."""


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "trace",
        help="which way a packet of a LAN takes now, and why",
        description="Tells which rule, table, route, TUN and WAN a packet takes that comes from a host behind a LAN of "
        "this client. Needs root.",
    )
    command.add_argument(
        "lan", metavar="LAN|VLAN", help="its name in the site's variables (lan5, lan1.21), or its device"
    )
    command.add_argument("destination", metavar="DESTINATION", help="IPv4 or IPv6 address")
    command.add_argument(
        "protocol", nargs="?", choices=PROTOCOLS, metavar="PROTOCOL", help="udp or tcp, with PORT; default: ping"
    )
    command.add_argument("port", nargs="?", type=_port, metavar="PORT")
    command.add_argument("--source", metavar="ADDRESS", help="of the host behind the LAN; default: the router's")
    command.add_argument(
        "--dscp", type=_dscp, default=0, metavar="DSCP", help="of the packet: a number or a name such as EF; default: 0"
    )
    command.add_argument(
        "--send",
        action="store_true",
        help="send one packet from this host's own address on the LAN, and prove the way out and back by counters",
    )
    command.add_argument("--rules", action="store_true", help="show the rules that don't match, too")
    command.add_argument("--json", action="store_true", help="an object instead of lines")
    command.add_argument("--networkd-dir", type=Path, default=links.DIRECTORY, metavar="DIR")
    add_directory(command)
    command.set_defaults(run=_run)


def _port(word: str) -> int:
    if not word.isdecimal() or not 1 <= int(word) <= 65535:
        raise argparse.ArgumentTypeError(f"{word}: expected a port from 1 to 65535")
    return int(word)


def _dscp(word: str) -> int:
    try:
        return dscp_number(word)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{word}: expected a DSCP from 0 to 63, or its name: EF, CS0 to CS7, AF11 to AF43"
        ) from None


def _run(options: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        print(
            "mpquicctl: trace reads the packet filter, which root alone may: sudo mpquicctl trace ...", file=sys.stderr
        )
        return UNUSABLE
    try:
        known = links.read(options.networkd_dir)
        lan = links.find(known, "lan", options.lan)
        if lan is None:
            return _tell_unknown(options.lan, known)
        found = trace(ask(options, lan), known, options.instances_dir, send=options.send)
    except Refusal as refusal:
        print(printable(f"mpquicctl: {refusal}"), file=sys.stderr)
        return UNUSABLE
    except (host.HostError, OSError) as error:
        print(printable(f"mpquicctl: {error}"), file=sys.stderr)
        return FAILED
    print(json.dumps(found, indent=2) if options.json else _printable(text.render(found, every_rule=options.rules)))
    proven = found["sent"] is None or found["sent"]["proven"]
    return 0 if found["outcome"] == "leaves" and found["kernel"]["agrees"] and proven else FAILED


def _printable(lines: str) -> str:
    return "\n".join(printable(line) for line in lines.splitlines())


def _tell_unknown(word: str, known: Sequence[links.Link]) -> int:
    lans = ", ".join(f"{link.name} ({link.device})" for link in known if link.kind == "lan")
    have = f"it has {lans}" if lans else "it has none; LANs are those of a client"
    print(printable(f"mpquicctl: this host has no LAN {word}; {have}"), file=sys.stderr)
    return UNKNOWN


def ask(options: argparse.Namespace, lan: links.Link) -> Question:
    """Return the question of a command line; Refusal."""
    destination = _address(options.destination, "DESTINATION")
    if destination.is_multicast or destination.is_link_local or destination.is_unspecified or destination.is_loopback:
        raise Refusal(f"{destination}: expected an address to which packets are forwarded")
    protocol = options.protocol or "icmp"
    if protocol != "icmp" and options.port is None:
        raise Refusal(f"{protocol} needs a PORT: mpquicctl trace {options.lan} {destination} {protocol} 443")
    if protocol == "icmp" and options.port is not None:
        raise Refusal("icmp has no ports")
    if options.source is not None:
        source: Address | None = _address(options.source, "--source")
        source_from = "as --source says"
    else:
        source = links.router(lan, destination.version)
        source_from = "taken as a host of the LAN: its router"
    if source is None:
        raise Refusal(f"{lan.name} has no IPv{destination.version} address; give the host's by --source")
    if source.version != destination.version:
        raise Refusal(f"--source {source} and {destination} aren't of the same IP version")
    return Question(lan, source, source_from, destination, protocol, options.port, options.dscp)


def _address(word: str, what: str) -> Address:
    try:
        return ipaddress.ip_address(word)
    except ValueError:
        raise Refusal(f"{what}: {word} is no IPv4 or IPv6 address") from None


def trace(question: Question, known: Sequence[links.Link], instances: Path, *, send: bool = False) -> dict[str, Any]:
    """Return the report of a packet's way, with `send` also what became of one that was sent.

    HostError, OSError, Refusal.
    """
    way, routing = look(question)
    own = {address.ip for device in routing.devices.values() for address in device.addresses}
    if question.source in own:
        raise Refusal(f"{question.source} is an address of this host: the kernel takes no packet that comes in with it")
    found = report(way, routing)
    wans = {link.device: link.name for link in known if link.kind == "wan"}
    # The TUN that it would take is the one whose route is skipped.
    skipped = [hop.device for each in way.decision.skipped for hop in each.route.hops]
    candidates = [name for name in (way.device, *skipped) if name]
    owner = next((one for name in candidates if (one := describe(instances, name)) is not None), None)
    found["tunnel"] = owner
    takes_tunnel = owner is not None and owner["device"] == way.device
    found["wan"] = owner["wan"] if owner is not None and takes_tunnel else wans.get(way.device or "")
    found["notes"] = _notes(question, way, routing)
    found["summary"] = summary(found)
    found["sent"] = trace_send.prove(found, way, routing) if send else None
    return found


def look(question: Question) -> tuple[Way, Routing]:
    """Read the host and follow the packet; again when the kernel disagrees, as something may have changed meanwhile."""
    version = question.destination.version
    for _ in range(ATTEMPTS):
        rules = host.ruleset()
        routing = host.routing(version)
        kernel = host.kernel_word(question.flow(mark_of(question, rules) or 0))
        way = evaluate(question, routing, rules, kernel, forwards=host.forwards(question.lan.device, version))
        if agree(way.decision, kernel, forwards=way.forwards):
            break
    return way, routing


def _notes(question: Question, way: Way, routing: Routing) -> list[str]:
    notes = []
    lan = question.lan
    if not any(rule.iif == lan.device for rule in routing.rules):
        notes.append(f"no rule is for what comes in by {lan.device}: the one of {lan.name}'s file was removed")
    elif way.outcome in NOT_UNICAST and way.outcome != "local" and not way.decision.skipped:
        notes.append(f"{lan.name} has no tunnel: the variables give it none, or disable it (enabled: false)")
    legacy = host.legacy_tables(question.destination.version)
    if legacy:
        notes.append(f"iptables-legacy has tables ({', '.join(legacy)}), which aren't looked at: iptables-legacy -S")
    if way.prerouting.translation is not None:
        notes.append("its destination is translated before it is routed, which isn't followed here")
    return notes


def summary(found: dict[str, Any]) -> str:
    """Return the outcome in a sentence, with the reason where it isn't the tunnel."""
    outcome, route, owner, wan = found["outcome"], found["route"], found["tunnel"], found["wan"]
    why = text.why_not(owner) if owner is not None else None
    because = f", as {why}" if why is not None else ""
    if outcome == "leaves":
        if owner is not None and owner["device"] == route["device"]:
            return f"leaves by {route['device']}, whose tunnel takes {wan}{f', but {why}' if why else ''}"
        return f"leaves by {route['device']}{f' ({wan})' if wan else ''} directly, outside of a tunnel{because}"
    if outcome == "dropped":
        return f"dropped by the packet filter: {found['firewall']['by']}"
    if outcome == "not_forwarded":
        return "not forwarded: forwarding is off on this host (systemctl status mpquic-forwarding)"
    return f"{outcome}: {NOT_UNICAST[outcome]}{because}"
