"""A client with a valid certificate that does its worst, against a real server:

    python registered.py INSTANCE --seconds 10 [--attack NAME ...] [--rate 500] [--after 3] [--spoof 198.51.100.7 ...]

INSTANCE is the file of a client whose transport is stripe. It registers with the daemon's own code, keeps its pipes
alive as an honest client does, and beside that sends what the named attacks make, each `--rate` times a second, from
`--after` seconds on. When the server ends the connection, it registers again after a second. A line of JSON tells what
was sent.

`spoofed` needs root: its packets are written with other source addresses, into whatever network the process is in.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from mpquic.config import ClientConfig, load
from mpquic.daemon.client_connection import ClientConnection, Phase
from mpquic.daemon.credentials import load_client
from mpquic.daemon.session import CloseCode
from mpquic.daemon.stripe_plane import stripe_config
from mpquic.proto.control.messages import Held, RenewStripe, StripeRenewed
from mpquic.proto.packet import ip
from mpquic.proto.packet.frame import Frame, encode_frames
from mpquic.proto.stripe.fec import parity
from mpquic.proto.stripe.keepalive import Keepalive, encode_keepalive
from mpquic.proto.stripe.reports import MAX_RANGES, Report, encode_report
from mpquic.proto.stripe.session import StripeSession
from mpquic.proto.stripe.wire import PacketType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mpquic.proto.control.messages import StripeGrant

TICK = 0.005
PAUSE = 1.0
"""Seconds before it registers again."""
JUMP = 4000
"""Tunnel sequence numbers from one frame to the next: just below what counts as an outage."""


class Striped:
    """One striped session: sockets, and the session that keeps it alive and seals whatever it is asked to."""

    def __init__(self, config: ClientConfig, grant: StripeGrant, request: object, now: float) -> None:
        settings = stripe_config(request, grant.suite, config.max_datagram_size, "auto")  # type: ignore[arg-type]
        self.session = StripeSession(settings, grant.session, grant.secret, now, client=True, entropy=os.urandom)
        path = config.paths[0]
        self.server = (path.remote_addr, grant.port)
        family = socket.AF_INET6 if ":" in path.remote_addr else socket.AF_INET
        self.sockets = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(settings.pipes)]
        for each in self.sockets:
            each.setblocking(False)
            each.connect(self.server)
        self.received = 0

    def turn(self, now: float) -> None:
        """Do what an honest client does: take what came, answer, report, keep the pipes alive."""
        for each in self.sockets:
            for _ in range(64):
                try:
                    data = each.recv(65535)
                except OSError:
                    break
                self.received += 1
                self.session.receive([(data, len(data), None)], now)
        self.session.poll(now)
        for pipe, _, datagrams in self.session.take_outgoing():
            for datagram in datagrams:
                self.send(datagram, pipe)

    def send(self, datagram: bytes, pipe: int = 0) -> None:
        """Send one datagram, or lose it."""
        try:
            self.sockets[pipe].send(datagram)
        except OSError:
            self.received += 0  # A full buffer, or an ICMP error: the next one goes.

    def shard(self, body: bytes, kind: int = PacketType.DATA, index: int = 0, data_shards: int = 0) -> bytes:
        return self.session._sealer.seal_shards(kind, 0, index, data_shards, [body])[0]

    def control(self, kind: int, body: bytes, pipe: int = 0) -> bytes:
        return self.session._sealer.seal_control(kind, pipe, body)

    def close(self) -> None:
        for each in self.sockets:
            each.close()


class Registered:
    """The client. `run` registers, attacks, and registers again until the time is over."""

    def __init__(
        self, config: ClientConfig, attacks: list[str], rate: float, spoof: list[str], echo: str | None
    ) -> None:
        self.config = config
        self.identity = load_client(config.tls)
        self.rate = rate
        self.spoof = spoof
        self.echo = echo
        self.rng = random.Random(os.urandom(8))
        self.sent = dict.fromkeys(attacks, 0)
        self.registrations = 0
        self.sessions = 0
        self.received = 0
        self.ended: dict[str, int] = {}
        self.sequence = 0
        self.striped: Striped | None = None
        self.connection: ClientConnection | None = None
        self._attacks: dict[str, Callable[[], None]] = {name: getattr(self, name) for name in attacks}
        self._epochs = itertools.count(1)
        self._boot = os.urandom(16)
        self._raw: socket.socket | None = None
        self._begin_at = 0.0

    async def run(self, seconds: float, after: float = 0.0) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        self._begin_at = loop.time() + after
        while loop.time() < end:
            now = loop.time()
            path, epoch = self.config.paths[0], next(self._epochs)
            connection = self.connection = ClientConnection(
                self.config, path, self.identity, boot_id=self._boot, epoch=epoch, now=now
            )
            try:
                await self._live(connection, end)
                if connection.ending is None:
                    connection.close(CloseCode.NONE, "the attack is over", loop.time())
            finally:
                if self.striped is not None:
                    self.received += self.striped.received
                    self.striped.close()
                    self.striped = None
                connection.release()
            await asyncio.sleep(min(PAUSE, max(0.0, end - loop.time())))

    async def _live(self, connection: ClientConnection, end: float) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        due = dict.fromkeys(self._attacks, 0.0)
        registered = False
        while (now := loop.time()) < end:
            connection.read(now)
            inbox = connection.advance(now)
            if connection.ending is not None:
                reason = connection.ending.reason
                self.ended[reason] = self.ended.get(reason, 0) + 1
                connection.flush(now)
                return
            if connection.phase is Phase.REGISTERED and not registered:
                registered = True
                self.registrations += 1
                assert connection.welcome is not None
                self._begin(connection.welcome.stripe, now)
            for _, message in inbox.messages:
                if isinstance(message, StripeRenewed) and message.stripe is not None:
                    self._begin(message.stripe, now)
            if registered and self.striped is not None:
                self.striped.turn(now)
            if registered and now >= self._begin_at:
                for name, attack in self._attacks.items():
                    due[name] = min(due[name] + (now - last) * self.rate, self.rate * 0.1)
                    while due[name] >= 1:
                        due[name] -= 1
                        attack()
                        self.sent[name] += 1
            last = now
            connection.flush(now)
            await asyncio.sleep(TICK)

    def _begin(self, grant: StripeGrant | None, now: float) -> None:
        if self.striped is not None:
            self.received += self.striped.received
            self.striped.close()
            self.striped = None
        if grant is not None and self.connection is not None:
            self.sessions += 1
            self.striped = Striped(self.config, grant, self.connection._request.stripe, now)

    def _own(self) -> bytes:
        address = self.config.inner_addresses[0].split("/")[0]
        return socket.inet_pton(socket.AF_INET, address)

    def _tcp(self, connection: int, sequence: int) -> bytes:
        """A segment with one octet of data, from the client's own inner address to itself."""
        own = self._own()
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 41, 0, 0, 64, 6, 0, own, own)
        return head + struct.pack("!HHIIBBHHHB", connection & 0xFFFF, 9, sequence, 0, 0x50, 0x10, 64, 0, 0, 0)

    def _pipes(self) -> Iterator[tuple[Striped, int]]:
        if self.striped is not None:
            yield from ((self.striped, pipe) for pipe in range(len(self.striped.sockets)))

    # Attacks: each sends once

    def reports(self) -> None:
        """A report with the widest ranges, of what the server has sent, and one of what it hasn't."""
        if self.striped is None:
            return
        top = max(2 * MAX_RANGES, self.striped.session.receiver.window.highest)
        wide = max(1, top // MAX_RANGES)
        ranges = [(max(0, top - wide * (place + 1) + 2), top - wide * place) for place in range(MAX_RANGES - 1)]
        for highest, found in ((top, [(0, top)]), (top, ranges), (top + 100_000, [(0, top + 100_000)])):
            body = encode_report(Report(highest, 0.0, top, found, found))
            self.striped.send(self.striped.control(PacketType.REPORT, body))

    def jumps(self) -> None:
        """A datagram with 155 frames whose numbers jump, and segments of many connections behind the gaps."""
        if self.striped is None:
            return
        frames = []
        for _ in range(155):
            self.sequence = (self.sequence + JUMP) % 2**32
            frames.append(Frame(b"x", 1, self.sequence))
        self.striped.send(self.striped.shard(encode_frames(frames)))
        segments = []
        for _ in range(26):
            self.sequence = (self.sequence + 2) % 2**32
            segments.append(Frame(self._tcp(self.rng.randrange(2**16), self.rng.randrange(2**32)), 1, self.sequence))
        self.striped.send(self.striped.shard(encode_frames(segments)))

    def dead_pipes(self) -> None:
        """Have the server send, and then say of each pipe that nothing is received on it."""
        if self.striped is None:
            return
        if self.echo is not None:
            echo = struct.pack("!BBHHH", 8, 0, 0, 1, self.sent["dead_pipes"] & 0xFFFF) + bytes(56)
            echo = echo[:2] + ip.internet_checksum(echo).to_bytes(2, "big") + echo[4:]
            ends = self._own(), socket.inet_pton(socket.AF_INET, self.echo)
            head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(echo), 0, 0, 64, 1, 0, *ends)
            head = head[:10] + ip.internet_checksum(head).to_bytes(2, "big") + head[12:]
            self.sequence = (self.sequence + 1) % 2**32
            for _, pipe in self._pipes():
                ask = encode_keepalive(Keepalive.REQUEST, 0, time.monotonic())
                self.striped.send(self.striped.control(PacketType.KEEPALIVE, ask, pipe), pipe)
            self.striped.send(self.striped.shard(encode_frames([Frame(head + echo, 1, self.sequence)])))
        # When the reply has opened a group, and before that is closed.
        asyncio.get_running_loop().call_later(self.rng.uniform(0.0005, 0.004), self._kill_pipes)

    def _kill_pipes(self) -> None:
        for striped, pipe in self._pipes():
            ask = encode_keepalive(Keepalive.REQUEST, 0, time.monotonic())
            striped.send(striped.control(PacketType.REGISTER, ask, pipe), pipe)

    def groups(self) -> None:
        """Shards of groups that stay open, of every shape, and one whose decoding costs most."""
        if self.striped is None:
            return
        self.striped.session._sealer.next_shard += self.rng.randrange(200)
        shards = self.rng.choice((1, 2, 10, 64, 127))
        for _ in range(4):
            index = self.rng.randrange(shards)
            self.striped.send(self.striped.shard(bytes(1), PacketType.DATA, index, shards))
        if shards == 64:
            for place, body in enumerate(parity([bytes((16,)) * 1300] * 64, 64)):
                self.striped.send(self.striped.shard(body, PacketType.PARITY, 64 + place, 64))
        self.striped.send(self.striped.shard(bytes(1), PacketType.PARITY, shards, shards))

    def tiny(self) -> None:
        """Valid packets as small as they can be, 20 at a time."""
        if self.striped is None:
            return
        for place in range(20):
            self.sequence = (self.sequence + 1) % 2**32
            frame = encode_frames([Frame(b"x", 1, self.sequence)])
            self.striped.send(self.striped.shard(frame), place % len(self.striped.sockets))

    def keepalives(self) -> None:
        """Ask on all pipes, and probe with small probes."""
        for striped, pipe in self._pipes():
            ask = encode_keepalive(Keepalive.REQUEST, 0, time.monotonic())
            striped.send(striped.control(PacketType.KEEPALIVE, ask, pipe), pipe)
            striped.send(striped.control(PacketType.PROBE, bytes(7), pipe), pipe)

    def spoofed(self) -> None:
        """Say from other addresses that everything is received there."""
        if self.striped is None or not self.spoof:
            return
        if self._raw is None:
            self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        source = socket.inet_pton(socket.AF_INET, self.rng.choice(self.spoof))
        server, port = self.striped.server
        for striped, pipe in self._pipes():
            ask = encode_keepalive(Keepalive.REQUEST, 0, time.monotonic())
            data = striped.control(PacketType.KEEPALIVE, ask, pipe)
            udp = struct.pack("!HHHH", 40000 + pipe, port, 8 + len(data), 0) + data
            ends = source, socket.inet_pton(socket.AF_INET, server)
            head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, *ends)
            self._raw.sendto(head + udp, (server, 0))

    def control(self) -> None:
        """Messages on the control stream: a request for another session, an announcement, one of an unknown type."""
        connection = self.connection
        if connection is None or not connection.session.active:
            return
        request = connection._request.stripe
        if request is not None:
            connection.session.send(RenewStripe(stripe=request))
        connection.session.send(Held(by="nobody", reason="x" * self.rng.randrange(200), since=time.time()))
        body = msgspec.msgpack.encode({"type": "nonsense", "id": self.rng.randrange(2**32), "body": {"a": [1] * 50}})
        connection.session.send_bytes(len(body).to_bytes(4, "big") + body)


ATTACKS = ("reports", "jumps", "dead_pipes", "groups", "tiny", "keepalives", "spoofed", "control")


def main() -> None:
    """Attack for some seconds, then print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("instance", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--attack", nargs="*", default=list(ATTACKS), choices=ATTACKS)
    parser.add_argument("--after", type=float, default=0.0, help="seconds without an attack in the beginning")
    parser.add_argument("--rate", type=float, default=200.0, help="of each attack, a second")
    parser.add_argument("--spoof", nargs="*", default=[], help="IPv4 source addresses for `spoofed`")
    parser.add_argument("--echo", help="inner IPv4 address that replies to pings, for `dead_pipes`")
    options = parser.parse_args()
    config = load(options.instance)
    if not isinstance(config, ClientConfig) or config.paths[0].transport != "stripe":
        parser.error("the instance is no client with transport: stripe")
    client = Registered(config, options.attack, options.rate, options.spoof, options.echo)
    asyncio.run(client.run(options.seconds, options.after))
    numbers = {name: getattr(client, name) for name in ("registrations", "sessions", "received", "sent", "ended")}
    print(json.dumps(numbers), flush=True)


if __name__ == "__main__":
    main()
