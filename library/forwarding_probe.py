#!/usr/bin/python
"""Ansible module: a packet is forwarded from one device of this host to another, and its reply back, or why not."""

from __future__ import annotations

DOCUMENTATION = r"""
module: forwarding_probe
short_description: Have the kernel forward a packet and its reply
description:
  - A packet enters the kernel as if a device had received it (a pair of veth devices and C(tc) with C(mirred) put it
    there), passes routing and every packet filter, and is seen leaving by the other device. Then a reply to it enters
    there and is seen leaving by the first. No host has to be behind either device, and nobody has to answer.
  - Its TTL ends at the next hop. Nothing is changed, but for a veth pair that is there meanwhile.
  - A passage whose devices don't both have carrier isn't tried.
options:
  passages:
    description:
      - Each with C(from), the name of a device, C(network), the prefix of an address behind it, and C(to), names of
        devices. The one of these that the routes choose now must be the way out.
    type: list
    elements: dict
    required: true
  target: {description: IPv4 address to which the packet is addressed., type: str, default: 192.0.2.1}
  timeout: {description: Seconds for each direction., type: float, default: 3}
"""

RETURN = r"""
passed: {description: Passages that work., returned: always, type: list, sample: [enp7s1 to mpq5]}
idle: {description: Passages that weren't tried as there is nothing to forward now., returned: always, type: list}
untried: {description: Why this kernel could not be asked about others., returned: always, type: list}
"""

import ipaddress
import json
import os
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    from collections.abc import Callable

NEAR, FAR = "mpqprobe0", "mpqprobe1"
ETH_P_ALL, ETH_P_IP, ETH_P_ARP = 0x0003, 0x0800, 0x0806
OUTGOING = 4
ECHO_REQUEST, ECHO_REPLY = 8, 0
TTL = 2
REPEAT = 0.4
TABLE = ("inet", "mpquic")


class Echo(NamedTuple):
    """An ICMP echo message (RFC 792) in IPv4."""

    kind: int
    source: str
    destination: str
    identifier: int
    mark: bytes
    """Payload, by which it is known again behind a NAT."""


def checksum(data: bytes) -> int:
    """Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def encode(echo: Echo) -> bytes:
    """IPv4 packet of a message."""
    body = struct.pack("!BBHHH", echo.kind, 0, 0, echo.identifier, 1) + echo.mark
    body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    addresses = socket.inet_aton(echo.source) + socket.inet_aton(echo.destination)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, TTL, socket.IPPROTO_ICMP, 0) + addresses
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def decode(packet: bytes) -> Echo | None:
    """Message in an IPv4 packet, None when it is something else."""
    if len(packet) < 28 or packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_ICMP:
        return None
    length = (packet[0] & 15) * 4
    body = packet[length : struct.unpack_from("!H", packet, 2)[0]]
    if len(body) < 8 or body[0] not in (ECHO_REQUEST, ECHO_REPLY):
        return None
    source, destination = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
    return Echo(body[0], source, destination, struct.unpack_from("!H", body, 4)[0], body[8:])


def asks_for(body: bytes, address: str) -> bool:
    """Whether an ARP message (RFC 826) is a request for `address`: a packet waits that is going there."""
    return len(body) >= 28 and body[6:8] == b"\0\1" and body[24:28] == socket.inet_aton(address)


def somebody(network: str, own: set[str]) -> str | None:
    """First address of a prefix that isn't this host's."""
    hosts = ipaddress.ip_interface(network).network.hosts()
    return next((str(host) for host in hosts if str(host) not in own), None)


def dropping_chains(listing: dict[str, Any]) -> list[str]:
    """Other base chains of the forward hook that drop what no rule of theirs accepts, given `nft -j list chains`."""
    chains = [entry["chain"] for entry in listing["nftables"] if "chain" in entry]
    return [
        f"table {chain['family']} {chain['table']} chain {chain['name']} has policy drop"
        for chain in chains
        if chain.get("hook") == "forward"
        and chain.get("policy") == "drop"
        and (chain["family"], chain["table"]) != TABLE
    ]


class Unavailable(Exception):  # noqa: N818
    """This kernel can't put a packet where a device receives."""


class Prober:
    """Puts packets where devices receive, and watches what leaves."""

    def __init__(self, run: Callable[[list[str]], tuple[int, str, str]], timeout: float) -> None:
        self._run = run
        self._timeout = timeout

    def _do(self, words: str) -> None:
        code, out, err = self._run(words.split())
        if code != 0:
            raise Unavailable(f"{words}: {(err.strip() or out.strip()).splitlines()[0]}")

    def __enter__(self) -> Prober:
        self._run(["ip", "link", "delete", NEAR])
        self._do(f"ip link add {NEAR} type veth peer name {FAR}")
        try:
            for device in (NEAR, FAR):
                self._do(f"ip link set {device} addrgenmode none arp off up")
            self._do(f"tc qdisc add dev {NEAR} clsact")
        except Unavailable:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._run(["ip", "link", "delete", NEAR])

    def pass_through(self, echo: Echo, enters: str, leaves: str, seen: Callable[[int, bytes], bool]) -> bool:
        """Put a message where `enters` receives; tells whether a packet that `seen` knows left by `leaves`."""
        self._run(["tc", "filter", "delete", "dev", NEAR, "ingress"])
        self._do(
            f"tc filter add dev {NEAR} ingress protocol ip prio 1 u32 match ip src {echo.source}/32 "
            f"match ip dst {echo.destination}/32 action mirred ingress redirect dev {enters}"
        )
        near = bytes.fromhex(Path("/sys/class/net", NEAR, "address").read_text().strip().replace(":", ""))
        frame = near + b"\x02\0\0\0\0\x01" + struct.pack("!H", ETH_P_IP) + encode(echo)
        with (
            socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as watch,
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as inject,
        ):
            watch.bind((leaves, ETH_P_ALL))
            watch.settimeout(REPEAT)
            inject.bind((FAR, 0))
            end = time.monotonic() + self._timeout
            sent_at = float("-inf")
            while (now := time.monotonic()) < end:
                if now - sent_at >= REPEAT:
                    inject.send(frame)
                    sent_at = now
                try:
                    packet, address = watch.recvfrom(2048)
                except TimeoutError:
                    continue
                if address[2] == OUTGOING and seen(address[1], packet):
                    return True
        return False


def probe(prober: Prober, enters: str, leaves: str, source: str, target: str) -> str:
    """`` when a packet and its reply pass, else what doesn't."""
    echo = Echo(ECHO_REQUEST, source, target, int.from_bytes(os.urandom(2), "big"), os.urandom(16))
    found: list[Echo] = []

    def is_request(protocol: int, packet: bytes) -> bool:
        out = decode(packet) if protocol == ETH_P_IP else None
        if out is not None and out.mark == echo.mark and out.kind == ECHO_REQUEST:
            found.append(out)
        return bool(found)

    def is_reply(protocol: int, packet: bytes) -> bool:
        if protocol == ETH_P_ARP:
            return asks_for(packet, source)
        back = decode(packet) if protocol == ETH_P_IP else None
        return back is not None and (back.kind, back.mark, back.destination) == (ECHO_REPLY, echo.mark, source)

    if not prober.pass_through(echo, enters, leaves, is_request):
        return f"a packet from {source} that comes in by {enters} does not leave by {leaves}"
    reply = Echo(ECHO_REPLY, target, found[0].source, found[0].identifier, echo.mark)
    if not prober.pass_through(reply, leaves, enters, is_reply):
        return f"the reply to {source} that comes in by {leaves} does not leave by {enters}"
    return ""


def has_carrier(device: str) -> bool:
    """Whether a device is up and connected."""
    try:
        return Path("/sys/class/net", device, "carrier").read_text().strip() == "1"
    except OSError:
        return False


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "passages": {"type": "list", "elements": "dict", "required": True},
            "target": {"type": "str", "default": "192.0.2.1"},
            "timeout": {"type": "float", "default": 3.0},
        },
        supports_check_mode=True,
    )
    target = module.params["target"]
    passed: list[str] = []
    idle: list[str] = []
    untried: list[str] = []
    problems: dict[str, list[str]] = {}

    def run(words: list[str]) -> tuple[int, str, str]:
        return module.run_command(words)  # type: ignore[no-any-return]

    def route(enters: str, source: str) -> str:
        _, out, err = run(["ip", "route", "get", target, "from", source, "iif", enters])
        return (out.strip() or err.strip() or "not at all").splitlines()[0].strip()

    def cause(enters: str, leaves: str, source: str) -> str:
        code, out, _ = run(["nft", "--json", "list", "chains"])
        drops = dropping_chains(json.loads(out)) if code == 0 and out else []
        if drops:
            return "; ".join(drops)
        way = route(enters, source)
        if f" dev {leaves} " not in f"{way} ":
            return f"the kernel routes it so: {way}"
        return "routing is right, so a rule of a packet filter drops it: see nft list ruleset, iptables-legacy -S"

    _, out, _ = run(["ip", "-json", "-4", "address"])
    own = {entry["local"] for link in json.loads(out or "[]") for entry in link.get("addr_info", [])}
    wanted = []
    for passage in module.params["passages"]:
        enters, source = passage["from"], somebody(passage["network"], own)
        way = route(enters, source or target)
        leaves = next((device for device in passage["to"] if f" dev {device} " in f"{way} "), passage["to"][0])
        without = [device for device in (enters, leaves) if not has_carrier(device)]
        if without or source is None:
            why = f"{' and '.join(without)} without carrier" if without else f"no other address in {passage['network']}"
            idle.append(f"{enters} to {leaves}: {why}")
        else:
            wanted.append((enters, leaves, source))
    if wanted and not module.check_mode:
        try:
            with Prober(run, module.params["timeout"]) as prober:
                for enters, leaves, source in wanted:
                    problem = probe(prober, enters, leaves, source, target)
                    if problem:
                        problems.setdefault(cause(enters, leaves, source), []).append(problem)
                    else:
                        passed.append(f"{enters} to {leaves}")
        except Unavailable as error:
            untried += [f"{enters} to {leaves}: this kernel can't be asked ({error})" for enters, leaves, _ in wanted]
    if problems:
        sentences = [f"{', '.join(those)}: {why}" for why, those in problems.items()]
        module.fail_json(msg="; ".join(sentences), problems=sentences, passed=passed, idle=idle, untried=untried)
    module.exit_json(changed=False, passed=passed, idle=idle, untried=untried)


if __name__ == "__main__":
    main()
