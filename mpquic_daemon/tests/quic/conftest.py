"""A test PKI, and a client and a server joined in memory by a link with virtual time."""

from __future__ import annotations

import datetime as dt
import heapq
import os
import random
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from mpquic.quic.configuration import LinkOptions
from mpquic.quic.connect import connect
from mpquic.quic.connection_view import LinkState
from mpquic.quic.events import DatagramsReceived, LinkEvent, StreamReceived, Terminated
from mpquic.quic.listener import QuicListener

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic.proto.control.unregistered import UnregisteredLimits
    from mpquic.quic.link import QuicLink

SERVER_NAME = "vps1.example.net"
SERVER_ADDRESS = ("203.0.113.10", 45005)
CLIENT_ADDRESS = ("192.0.2.7", 40000)


class Authority:
    """A certification authority that writes PEM files."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = (
            self._builder(subject, subject, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file = str(directory / f"{name}.crt")
        (directory / f"{name}.crt").write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    @staticmethod
    def _builder(
        subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int = 30
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=60))
            .not_valid_after(now + dt.timedelta(days=days))
        )

    def issue(
        self,
        name: str,
        *,
        dns: str = SERVER_NAME,
        usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.SERVER_AUTH,
        days: int = 30,
    ) -> tuple[str, str]:
        """Give the files of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, self._certificate.subject, key, days).add_extension(
            x509.SubjectAlternativeName([x509.DNSName(dns)]), critical=False
        )
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        cert_file, key_file = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return str(cert_file), str(key_file)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"), "ca")


@pytest.fixture(scope="session")
def server_files(authority: Authority) -> tuple[str, str]:
    return authority.issue("server")


@dataclass
class LinkModel:
    """What one direction does to datagrams."""

    delay: float = 0.01
    loss: float = 0.0
    duplicate: float = 0.0
    jitter: float = 0.0
    max_size: int = 65535
    rate: float | None = None
    """Bytes per second; a queue of 100 ms."""
    _busy_until: float = 0.0
    dropped: int = 0

    def arrivals(self, size: int, now: float, dice: random.Random) -> list[float]:
        if size > self.max_size or dice.random() < self.loss:
            self.dropped += 1
            return []
        start = now
        if self.rate is not None:
            start = max(now, self._busy_until)
            if start - now > 0.1:
                self.dropped += 1
                return []
            self._busy_until = start = start + size / self.rate
        copies = 2 if dice.random() < self.duplicate else 1
        return [start + self.delay + dice.random() * self.jitter for _ in range(copies)]


@dataclass
class Side:
    """What one end received."""

    link: QuicLink | None = None
    datagrams: list[bytes] = field(default_factory=list)
    streams: dict[int, bytearray] = field(default_factory=dict)
    ended: Terminated | None = None
    events: list[LinkEvent] = field(default_factory=list)

    def take(self, events: list[LinkEvent]) -> None:
        for event in events:
            self.events.append(event)
            if isinstance(event, DatagramsReceived):
                self.datagrams.extend(event.payloads)
            elif isinstance(event, StreamReceived):
                self.streams.setdefault(event.stream_id, bytearray()).extend(event.data)
            elif isinstance(event, Terminated):
                self.ended = event


class Pair:
    """A client and a listener with a virtual clock; time jumps from event to event."""

    def __init__(
        self,
        listener: QuicListener,
        connect: Callable[[float], QuicLink],
        seed: int = 1,
        up: LinkModel | None = None,
        down: LinkModel | None = None,
    ) -> None:
        self.now = 1000.0
        self.listener = listener
        self.up, self.down = up or LinkModel(), down or LinkModel()
        self.client = Side(connect(self.now))
        self.server = Side()
        self.client_address = CLIENT_ADDRESS
        self.source: Callable[[], tuple[str, int]] = lambda: self.client_address
        """Where the next packet of the client comes from."""
        self.reaches: Callable[[tuple[str, int]], bool] = lambda address: address == self.client_address
        """Whether what is sent to an address reaches the client."""
        self.flights: list[tuple[float, int, str, bytes, tuple[str, int]]] = []
        self.pump: Callable[[], None] = lambda: None
        self._order = count()
        self._dice = random.Random(seed)
        self.largest = 0

    @property
    def link(self) -> QuicLink:
        assert self.client.link is not None
        return self.client.link

    @property
    def peer(self) -> QuicLink:
        assert self.server.link is not None
        return self.server.link

    def run(self, until: Callable[[], bool], seconds: float = 10.0) -> bool:
        """Let time pass until the condition holds; tells whether it did within the (virtual) seconds."""
        end = self.now + seconds
        while not until():
            self.pump()
            self._send()
            self.pump()  # as the daemon does: what was acknowledged is acted on by the flush, and makes room
            self._send()
            if until():
                return True
            moments = [self.link.timer(), self.listener.timer(), self.flights[0][0] if self.flights else None, end]
            # A microsecond late, as any clock: aioquic doesn't send an ACK due at this very instant while pacing.
            self.now = max(self.now, min(moment for moment in moments if moment is not None)) + 1e-6
            if self.now >= end:
                return until()
            self._deliver()
            for side in (self.link, self.listener):
                timer = side.timer()
                if timer is not None and timer <= self.now:
                    side.handle_timer(self.now)
            self._collect()
        return True

    def _deliver(self) -> None:
        while self.flights and self.flights[0][0] <= self.now:
            _, _, where, datagram, address = heapq.heappop(self.flights)
            if where == "up":
                self.listener.receive([datagram], address, self.now)
            elif self.reaches(address):
                self.link.receive([datagram], SERVER_ADDRESS, self.now)

    def _collect(self) -> None:
        self.client.take(self.link.pop_events())
        for link in self.listener.pop_ready():
            if self.server.link is None or self.server.link.state is LinkState.CLOSED:
                self.server.link = link
            if link is self.server.link:
                self.server.take(link.pop_events())
            else:
                link.pop_events()

    def put_on_the_wire(self) -> None:
        """Send what the client has ready, so that there is room again."""
        for datagram, _ in self.link.flush(self.now):
            self._put("up", self.up, datagram, self.source())

    def _send(self) -> None:
        self.put_on_the_wire()
        for datagrams, address in self.listener.flush(self.now):
            for datagram in datagrams:
                self._put("down", self.down, datagram, address)
        self._collect()

    def _put(self, where: str, model: LinkModel, datagram: bytes, address: tuple[str, int]) -> None:
        self.largest = max(self.largest, len(datagram))
        for at in model.arrivals(len(datagram), self.now, self._dice):
            heapq.heappush(self.flights, (at, next(self._order), where, datagram, address))


@pytest.fixture
def make_listener(server_files: tuple[str, str]) -> Callable[..., QuicListener]:
    def make(
        options: LinkOptions | None = None,
        limits: UnregisteredLimits | None = None,
        files: tuple[str, str] = server_files,
        processor_time: Callable[[], float] = lambda: 0.0,
    ) -> QuicListener:
        return QuicListener(
            cert_file=files[0],
            key_file=files[1],
            options=options or LinkOptions(),
            limits=limits,
            entropy=os.urandom,
            processor_time=processor_time,
            time_passed=processor_time,
        )

    return make


@pytest.fixture
def make_client(authority: Authority) -> Callable[..., QuicLink]:
    def make(
        now: float,
        options: LinkOptions | None = None,
        ca_file: str = authority.ca_file,
        server_name: str = SERVER_NAME,
    ) -> QuicLink:
        ca_data = Path(ca_file).read_bytes()
        return connect(
            SERVER_ADDRESS,
            ca_data=ca_data,
            server_name=server_name,
            options=options or LinkOptions(),
            now=now,
            wall_clock=lambda: dt.datetime.now(dt.UTC),
        )

    return make


@pytest.fixture
def make_pair(make_listener: Callable[..., QuicListener], make_client: Callable[..., QuicLink]) -> Callable[..., Pair]:
    """Give a pair; `established=True` runs it until both ends are, and admits the client."""

    def make(
        *,
        options: LinkOptions | None = None,
        server_options: LinkOptions | None = None,
        limits: UnregisteredLimits | None = None,
        established: bool = True,
        **model: object,
    ) -> Pair:
        listener = make_listener(server_options or options, limits)
        pair = Pair(listener, lambda now: make_client(now, options), **model)  # type: ignore[arg-type]
        if established:
            assert pair.run(lambda: pair.server.link is not None and pair.link.state is LinkState.ESTABLISHED)
            assert pair.run(lambda: pair.peer.state is LinkState.ESTABLISHED)
            listener.admit(pair.peer, pair.now)
        return pair

    return make
