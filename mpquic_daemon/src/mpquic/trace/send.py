"""Sends one packet by one device, from an address of this host, and watches on every device what leaves and returns.

The socket is bound to the device, so that no route can lead the packet elsewhere. IPv4 then needs no route; IPv6 does,
and gets it by a rule for these two addresses that leads to the LAN's own table and is there meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import select
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mpquic.trace import host
from mpquic.trace.probe import TOKEN_BYTES, Probe, Sighting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpquic.trace.fib import Address

TIMEOUT_S: Final = 4.0
WATCH_AFTER_REPLY_S: Final = 0.2
"""Seconds for which a packet is watched after its reply, for copies that leave elsewhere."""
RULE_PRIORITY: Final = "990"
"""Before the suite's rules (1001 and higher) and the kernel's rule for VRFs (1000)."""
CONNTRACK: Final = Path("/proc/net/nf_conntrack")
_ETH_P_ALL, _ETH_P_IP, _ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
_OUTGOING: Final = 4
_READ_BYTES: Final = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to send, and how. `table` is where IPv6 finds its route."""

    device: str
    source: Address
    destination: Address
    protocol: str
    port: int | None = None
    dscp: int = 0
    mark: int = 0
    table: str | None = None


@dataclass(slots=True)
class Sent:
    """What was seen: devices by which the packet left, and by which its reply came in."""

    left: list[str] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    reply: str | None = None
    delivered: bool = False
    """Whether the reply reached the socket."""
    rtt_seconds: float | None = None
    connection: str | None = None
    """The kernel's entry in its table of connections."""
    error: str | None = None


def send(order: Order, timeout: float = TIMEOUT_S) -> Sent:
    """Send and watch, for at most `timeout` seconds; OSError when there is no way to watch, HostError."""
    sent = Sent()
    with contextlib.ExitStack() as stack:
        watch = stack.enter_context(
            socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ALL))
        )
        try:
            if order.destination.version == 6 and order.table is not None:
                stack.enter_context(_route6(order))
            sender = stack.enter_context(_socket(order))
            probe = _probe(order, sender)
            started = time.monotonic()
            _start(order, probe, sender)
        except OSError as error:
            sent.error = f"it can't be sent: {error.strerror or error}"
            return sent
        _observe(sent, probe, sender, watch, started, timeout)
        sent.connection = connection(order)
    return sent


def _socket(order: Order) -> socket.socket:
    family = socket.AF_INET if order.destination.version == 4 else socket.AF_INET6
    kind, protocol = {
        "icmp": (socket.SOCK_RAW, socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6),
        "udp": (socket.SOCK_DGRAM, 0),
        "tcp": (socket.SOCK_STREAM, 0),
    }[order.protocol]
    opened = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    try:
        # Before anything else: no packet of this socket ever takes another device.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, order.device.encode() + b"\0")
        if order.dscp:
            v6 = family == socket.AF_INET6
            level, option = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS) if v6 else (socket.IPPROTO_IP, socket.IP_TOS)
            opened.setsockopt(level, option, order.dscp << 2)
        if order.mark:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, order.mark)
        opened.bind((str(order.source), 0))
    except OSError:
        opened.close()
        raise
    return opened


def _probe(order: Order, sender: socket.socket) -> Probe:
    own = secrets.randbelow(0xFFFF) + 1 if order.protocol == "icmp" else sender.getsockname()[1]
    return Probe(order.destination, order.protocol, order.port, secrets.token_bytes(TOKEN_BYTES), own)


def _start(order: Order, probe: Probe, sender: socket.socket) -> None:
    target = (str(order.destination), order.port or 0)
    if order.protocol == "icmp":
        sender.sendto(probe.echo_request(), target)
    elif order.protocol == "udp":
        sender.connect(target)
        sender.send(probe.token)
    else:
        # Whoever is there isn't left with half a connection.
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        code = sender.connect_ex(target)
        if code not in (0, errno.EINPROGRESS, errno.ECONNREFUSED):
            raise OSError(code, os.strerror(code))


def _observe(
    sent: Sent, probe: Probe, sender: socket.socket, watch: socket.socket, started: float, timeout: float
) -> None:
    end = started + timeout
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    poll.register(sender, select.POLLOUT if probe.protocol == "tcp" else select.POLLIN)
    while (left := end - time.monotonic()) > 0:
        for number, _ in poll.poll(left * 1000):
            if number == watch.fileno():
                for device, sighting in _seen(watch, probe):
                    _note(sent, device, sighting, started)
            elif _is_delivered(sender, probe):
                sent.delivered = True
                poll.unregister(sender)
        if sent.returned and sent.delivered:
            end = min(end, time.monotonic() + WATCH_AFTER_REPLY_S)


def _seen(watch: socket.socket, probe: Probe) -> Iterator[tuple[str, Sighting]]:
    while True:
        try:
            packet, address = watch.recvfrom(_READ_BYTES)
        except BlockingIOError:
            return
        if address[1] in (_ETH_P_IP, _ETH_P_IPV6):
            sighting = probe.recognise(packet, outgoing=address[2] == _OUTGOING)
            if sighting is not None:
                yield address[0], sighting


def _note(sent: Sent, device: str, sighting: Sighting, started: float) -> None:
    if sighting.kind == "request":
        if device not in sent.left:
            sent.left.append(device)
        return
    if device not in sent.returned:
        sent.returned.append(device)
    if sent.reply is None:
        sent.reply = sighting.words
        sent.rtt_seconds = round(time.monotonic() - started, 6)
    # A raw socket isn't told of errors.
    sent.delivered = sent.delivered or sighting.kind == "error"


def _is_delivered(sender: socket.socket, probe: Probe) -> bool:
    """Take what the socket has, and tell whether it is a reply, or the error that one has caused."""
    if probe.protocol == "tcp":
        return True
    try:
        data = sender.recv(_READ_BYTES)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return probe.protocol == "udp" or probe.token in data


@contextlib.contextmanager
def _route6(order: Order) -> Iterator[None]:
    rule = ["from", f"{order.source}/128", "to", f"{order.destination}/128", "priority", RULE_PRIORITY]
    rule += ["lookup", str(order.table)]
    # One that a killed run has left behind.
    host.run(["ip", "-6", "rule", "delete", *rule])
    with _ends_by_exception(signal.SIGTERM):
        added = host.run(["ip", "-6", "rule", "add", *rule])
        if added.returncode != 0:
            raise OSError(errno.EINVAL, f"no rule for it: {added.stderr.strip()}")
        try:
            yield
        finally:
            host.run(["ip", "-6", "rule", "delete", *rule])


@contextlib.contextmanager
def _ends_by_exception(number: signal.Signals) -> Iterator[None]:
    """Have a signal end the program by an exception, so that it cleans up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(code: int, _frame: object) -> None:
        raise SystemExit(128 + code)

    before = signal.signal(number, end)
    try:
        yield
    finally:
        signal.signal(number, before)


def connection(order: Order) -> str | None:
    """Return the newest entry of the kernel's connections for this packet, None where it shows none."""
    ends = f" src={order.source.exploded} dst={order.destination.exploded} "
    try:
        lines = CONNTRACK.read_text().splitlines()
    except OSError:
        return None
    found = [line for line in lines if ends in line and order.protocol in line]
    if order.port is not None:
        found = [line for line in found if f" dport={order.port} " in line]
    return " ".join(found[-1].split()) if found else None


def judge(sent: Sent, device: str, counters: list[dict[str, Any]]) -> tuple[bool, list[str]]:
    """Return whether the way out and back by `device` is proven, and what speaks against it."""
    problems = []
    if sent.error is not None:
        problems.append(sent.error)
    elif not sent.left:
        problems.append(f"it was not seen leaving by {device}")
    elsewhere = [name for name in sent.left if name != device]
    if elsewhere:
        problems.append(f"it left by {', '.join(elsewhere)}")
    if sent.left and not sent.returned:
        problems.append("no reply has come back: the way back isn't proven")
    strange = [name for name in sent.returned if name != device]
    if strange:
        problems.append(f"its reply came in by {', '.join(strange)}")
    if sent.returned and not sent.delivered:
        problems.append("its reply came in, and the packet filter or the kernel didn't deliver it to the socket")
    for counter in counters:
        for side, word in (("tx", "sent"), ("rx", "received")) if sent.returned else (("tx", "sent"),):
            before, after = counter[f"{side}_packets_before"], counter[f"{side}_packets_after"]
            if sent.left and None not in (before, after) and after <= before:
                problems.append(f"{counter['name']} hasn't counted it as {word}")
    return not problems, problems
