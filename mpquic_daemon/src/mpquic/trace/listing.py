"""What `ip -json` prints, as rules, routes and devices."""

from __future__ import annotations

import ipaddress
import re
import shlex
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mpquic.trace.fib import Flow, Hop, Kind, Network, Route, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

OTHER_SELECTORS: Final = {"uid_start": "a user's id", "l3mdev": "a VRF", "tun_id": "a tunnel's id"}
MAIN_TABLE: Final = "main"
PROTOCOLS: Final = {
    "icmp": socket.IPPROTO_ICMP,
    "tcp": socket.IPPROTO_TCP,
    "udp": socket.IPPROTO_UDP,
    "ipv6-icmp": socket.IPPROTO_ICMPV6,
    "icmpv6": socket.IPPROTO_ICMPV6,
    "sctp": socket.IPPROTO_SCTP,
    "gre": socket.IPPROTO_GRE,
    "esp": socket.IPPROTO_ESP,
}
_ERRORS: Final[Mapping[str, Kind]] = {
    "No route to host": "unreachable",
    "Network is unreachable": "no_route",
    "Invalid argument": "blackhole",
    "Permission denied": "prohibit",
}


@dataclass(frozen=True, slots=True)
class Device:
    """A network device as `ip -json -stats link` and `address` know it; bytes and packets since it was made."""

    name: str
    mtu: int
    up: bool
    carrier: bool
    group: str
    addresses: tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, ...]
    sent_packets: int
    received_packets: int
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True, slots=True)
class KernelWord:
    """What `ip route get` says of a packet."""

    kind: Kind
    device: str | None = None
    gateway: str | None = None
    table: str | None = None
    error: str | None = None


def rules(entries: Iterable[Mapping[str, Any]], version: int) -> list[Rule]:
    """Return the rules of `ip -json rule`, in its order, which is the kernel's."""
    return [_rule(entry, version) for entry in entries]


def _rule(entry: Mapping[str, Any], version: int) -> Rule:
    action, table, target = "lookup", entry.get("table"), None
    if "goto" in entry:
        action, target = "goto", _goto(entry["goto"])
    elif "nop" in entry:
        action = "nop"
    elif entry.get("action") in {"unreachable", "blackhole", "prohibit"}:
        action = entry["action"]
    mask = _number(entry["fwmask"]) if "fwmask" in entry else (0xFFFFFFFF if "fwmark" in entry else 0)
    detached = tuple(
        f"the device {entry[key]}, which isn't there" for key in ("iif", "oif") if f"{key}_detached" in entry
    )
    return Rule(
        priority=int(entry["priority"]),
        action=action,
        table=None if table is None else str(table),
        target=target,
        source=_prefix(entry.get("src"), entry.get("srclen"), version),
        destination=_prefix(entry.get("dst"), entry.get("dstlen"), version),
        iif=entry.get("iif"),
        oif=entry.get("oif"),
        mark=_number(entry.get("fwmark", 0)),
        mask=mask,
        tos=_number(entry.get("tos", 0)),
        protocol=protocol_number(entry["ipproto"]) if "ipproto" in entry else None,
        source_ports=_ports(entry, "sport"),
        ports=_ports(entry, "dport"),
        inverted="not" in entry,
        suppress_prefix_length=int(entry.get("suppress_prefixlen", -1)),
        suppress_group=entry.get("suppress_ifgroup"),
        other=detached + tuple(words for key, words in OTHER_SELECTORS.items() if key in entry),
        text=_rule_text(entry),
    )


def _goto(target: object) -> int | None:
    found = re.match(r"\d+", str(target))
    return int(found[0]) if found else None


def _rule_text(entry: Mapping[str, Any]) -> str:
    """Return the rule as `ip rule` prints it."""
    words = [f"{entry['priority']}:", *(["not"] if "not" in entry else []), "from", _with_length(entry, "src")]
    if "dst" in entry:
        words += ["to", _with_length(entry, "dst")]
    if "tos" in entry:
        words += ["tos", str(entry["tos"])]
    if "fwmark" in entry:
        words += ["fwmark", str(entry["fwmark"]) + (f"/{entry['fwmask']}" if "fwmask" in entry else "")]
    for key in ("iif", "oif", "ipproto", "sport", "dport"):
        if key in entry:
            words += [key, str(entry[key])]
        elif f"{key}_start" in entry:
            words += [key, f"{entry[f'{key}_start']}-{entry[f'{key}_end']}"]
    if "goto" in entry:
        words += ["goto", str(entry["goto"])]
    elif "nop" in entry:
        words.append("nop")
    elif "table" in entry:
        words += ["lookup", str(entry["table"])]
    else:
        words.append(str(entry.get("action", "")))
    for key in ("suppress_prefixlen", "suppress_ifgroup"):
        if key in entry:
            words += [key, str(entry[key])]
    return " ".join(words)


def _with_length(entry: Mapping[str, Any], key: str) -> str:
    text = str(entry.get(key, "all"))
    return f"{text}/{entry[f'{key}len']}" if f"{key}len" in entry else text


def _ports(entry: Mapping[str, Any], key: str) -> tuple[int, int] | None:
    if f"{key}_start" in entry:
        return int(entry[f"{key}_start"]), int(entry[f"{key}_end"])
    return (int(entry[key]), int(entry[key])) if key in entry else None


def _prefix(text: object, length: object, version: int) -> Network | None:
    if text in (None, "all", "default"):
        return None if text != "default" else _default(version)
    return ipaddress.ip_network(f"{text}/{length}" if length is not None else str(text), strict=False)


def _default(version: int) -> Network:
    return ipaddress.ip_network("0.0.0.0/0" if version == 4 else "::/0")


def _number(value: object) -> int:
    return value if isinstance(value, int) else int(str(value), 0)


def protocol_number(value: object) -> int:
    """Return IP's number of a protocol that iproute2 or nftables names; ValueError for an unknown one."""
    if isinstance(value, int):
        return value
    text = str(value)
    if text.isdecimal():
        return int(text)
    if text in PROTOCOLS:
        return PROTOCOLS[text]
    try:
        return socket.getprotobyname(text)
    except OSError:
        raise ValueError(f"unknown protocol {text}") from None


def routes(entries: Iterable[Mapping[str, Any]], version: int) -> list[Route]:
    """Return the routes of `ip -json -details route show table all`."""
    return [_route(entry, version) for entry in entries if "dst" in entry]


def _route(entry: Mapping[str, Any], version: int) -> Route:
    hops = tuple(_hop(hop, entry) for hop in entry["nexthops"]) if "nexthops" in entry else ()
    if not hops and "dev" in entry:
        hops = (_hop(entry, entry),)
    prefix = _prefix(entry["dst"], None, version) or _default(version)
    mtu = next((metric["mtu"] for metric in entry.get("metrics", []) if "mtu" in metric), None)
    return Route(
        table=str(entry.get("table", MAIN_TABLE)),
        prefix=prefix,
        kind=entry.get("type", "unicast"),
        hops=hops,
        metric=int(entry.get("metric", 0)),
        tos=_number(entry.get("tos", 0)),
        source=_prefix(entry.get("from"), None, version),
        preference=entry.get("pref", "medium"),
        mtu=int(mtu) if mtu is not None else None,
        text=_route_text(entry),
    )


def _hop(hop: Mapping[str, Any], entry: Mapping[str, Any]) -> Hop:
    flags = {
        *hop.get("flags", []),
        *(entry.get("flags", []) if hop is not entry and "dead" in entry.get("flags", []) else []),
    }
    gateway = hop.get("gateway") or (hop.get("via") or {}).get("host")
    return Hop(hop.get("dev"), gateway, dead="dead" in flags, linkdown="linkdown" in flags)


def _route_text(entry: Mapping[str, Any]) -> str:
    """Return the route in the words of `ip route`."""
    kind = entry.get("type", "unicast")
    words = ([] if kind == "unicast" else [kind]) + [str(entry["dst"])]
    for hop in entry.get("nexthops", [entry]):
        gateway = hop.get("gateway") or (hop.get("via") or {}).get("host")
        words += ["via", gateway] if gateway else []
        words += ["dev", hop["dev"]] if "dev" in hop and kind in {"unicast", "local"} else []
    words += ["metric", str(entry["metric"])] if entry.get("metric") else []
    return " ".join(words)


def devices(entries: Iterable[Mapping[str, Any]]) -> dict[str, Device]:
    """Return the devices of `ip -json -stats -details address`, by their names."""
    return {entry["ifname"]: _device(entry) for entry in entries if "ifname" in entry}


def _device(entry: Mapping[str, Any]) -> Device:
    flags, stats = entry.get("flags", []), entry.get("stats64", {})
    sent, received = stats.get("tx", {}), stats.get("rx", {})
    return Device(
        name=entry["ifname"],
        mtu=int(entry["mtu"]),
        up="UP" in flags,
        carrier="LOWER_UP" in flags,
        group=str(entry.get("group", "default")),
        addresses=tuple(
            ipaddress.ip_interface(f"{each['local']}/{each['prefixlen']}")
            for each in entry.get("addr_info", [])
            if "local" in each and each.get("scope") == "global"
        ),
        sent_packets=int(sent.get("packets", 0)),
        received_packets=int(received.get("packets", 0)),
        sent_bytes=int(sent.get("bytes", 0)),
        received_bytes=int(received.get("bytes", 0)),
    )


def question(flow: Flow) -> list[str]:
    """Return the `ip` command that asks the kernel for the route of a packet."""
    command = ["ip", "-json", f"-{flow.destination.version}", "route", "get", str(flow.destination)]
    command += ["from", str(flow.source), "iif", flow.iif]
    if flow.mark:
        command += ["mark", f"{flow.mark:#x}"]
    if flow.tos:
        command += ["tos", f"{flow.tos:#x}"]
    if flow.protocol is not None and flow.port is not None:
        command += ["ipproto", str(flow.protocol)]
        command += ["sport", str(flow.source_port)] if flow.source_port is not None else []
        command += ["dport", str(flow.port)]
    return command


def kernel_word(entries: Sequence[Mapping[str, Any]], error: str) -> KernelWord:
    """Return what `ip route get` printed, or refused with `error`."""
    if not entries:
        text = error.strip().removeprefix("RTNETLINK answers: ").splitlines()
        return KernelWord(_ERRORS.get(text[0] if text else "", "other"), error=text[0] if text else "no answer")
    entry = entries[0]
    kind = entry.get("type", "unicast")
    gateway = entry.get("gateway") or (entry.get("via") or {}).get("host")
    known: Kind = kind if kind in {"unicast", "local", "unreachable", "blackhole", "prohibit"} else "other"
    table = str(entry.get("table", MAIN_TABLE))
    return KernelWord(
        known, entry.get("dev") if known in {"unicast", "local"} else None, gateway, table, entry.get("error")
    )


def shown(command: Sequence[str]) -> str:
    """Return a command as a person would type it."""
    return shlex.join(word for word in command if word != "-json")
