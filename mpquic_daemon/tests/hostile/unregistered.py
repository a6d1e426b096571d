"""Many clients that never register and do their worst, against a real server:

    python unregistered.py 203.0.113.10:45005 --addresses 10.66.0.0/16 [--clients 300] [--seconds 60] [--cores 0.4]
        [--attack NAME ...]

Each client has an address of its own among `--addresses`, which the host must have (`ip route add local 10.66.0.0/16
dev lo`) and the server be able to reply to. It does one of `Peer.ATTACKS`, or of those that are named, until the server
ends the connection or some seconds are over, and then begins anew. All together take at most `--cores` of a processor.
A line of JSON on standard output tells what was sent.
"""

from __future__ import annotations

import argparse
import datetime as dt
import ipaddress
import json
import os
import random
import socket
import ssl
import time
from collections import Counter
from typing import TYPE_CHECKING

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import HandshakeCompleted, StreamDataReceived
from aioquic.tls import CipherSuite, Epoch
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mpquic.proto.control import messages as control
from mpquic.proto.control.client_registration import ClientRegistration, RegistrationRequest
from mpquic.proto.control.handshake import Send
from mpquic.proto.control.identity import Credentials
from mpquic.proto.control.messages import ControlDecoder

from hostile import packets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Address = tuple[str, int]
LIFE = 3.0
REST = 0.02
"""Seconds in which all clients have had their turn, if there is processor time for it."""


def foreign_credentials() -> Credentials:
    """A certificate that names a client and that no server's CA has signed, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("urn:mpquic:site:site1")]), critical=False
        )
        .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Credentials((certificate.public_bytes(serialization.Encoding.DER),) * 3, key)


class Peer:
    """One client. `step` is called again and again, and does a little each time."""

    def __init__(
        self,
        host: str,
        server: Address,
        credentials: Credentials,
        counts: Counter[str],
        seed: int,
        attacks: Sequence[str],
    ) -> None:
        self.server = server
        self.credentials = credentials
        self.counts = counts
        self.random = random.Random(seed)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind((host, 0))
        self.socket.connect(server)
        self.attacks = [getattr(self, name) for name in attacks]
        self.attack: Callable[[float], None] = self.attacks[seed % len(self.attacks)]
        self.until = 0.0
        self.begin(0.0)

    def begin(self, now: float) -> None:
        """Begin another connection, with the next attack."""
        configuration = QuicConfiguration(
            alpn_protocols=["mpquic/1"],
            max_datagram_frame_size=65535,
            server_name="vps1.example.net",
            verify_mode=ssl.CERT_NONE,
            cipher_suites=[CipherSuite.CHACHA20_POLY1305_SHA256],
        )
        self.connection = QuicConnection(configuration=configuration)
        self.established = self.started = False
        self.registration: ClientRegistration | None = None
        self.decoder = ControlDecoder()
        self.offset = 0
        self.opened: set[Epoch] = set()
        self.until = now + LIFE * (0.5 + self.random.random())
        self.attack = self.attacks[(self.attacks.index(self.attack) + 1) % len(self.attacks)]

    def step(self, now: float) -> None:
        """Take what came and attack once."""
        if now >= self.until or self.connection._close_event is not None:
            self.begin(now)
        try:
            for _ in range(8):
                data = self.socket.recv(65536)
                self.counts["received"] += 1
                if self.attack != self.silent:
                    self.connection.receive_datagram(data, self.server, now)
        except OSError:
            pass  # Nothing more, or an ICMP error.
        while (event := self.connection.next_event()) is not None:
            if isinstance(event, HandshakeCompleted):
                self.established = True
                self.counts["handshakes"] += 1
            elif isinstance(event, StreamDataReceived) and self.registration is not None:
                for _, message in self.decoder.feed(event.data):
                    self.say(self.registration.receive(message, now))
        self.attack(now)

    def send(self, *datagrams: bytes) -> None:
        """Send, or lose."""
        for datagram in datagrams:
            try:
                self.socket.send(datagram)
                self.counts["sent"] += 1
            except OSError:
                self.counts["unsent"] += 1

    def proceed(self, now: float) -> bool:
        """Do what an honest client does, up to the handshake's end; return whether that is there."""
        if not self.started:
            self.started = True
            self.counts["connections"] += 1
            self.connection.connect(self.server, now)
        due = self.connection.get_timer()
        if due is not None and due <= now:
            self.connection.handle_timer(now)
        self.send(*(datagram for datagram, _ in self.connection.datagrams_to_send(now)))
        return self.established

    def say(self, outputs: list[object]) -> None:
        """Write messages of a registration to the control stream."""
        for output in outputs:
            if isinstance(output, Send):
                self.connection.send_stream_data(0, output.encode())

    # Attacks

    def silent(self, now: float) -> None:
        """A handshake that begins and gets no further."""
        if not self.started:
            self.proceed(now)

    def crypto_gaps(self, now: float) -> None:
        """Gaps in the CRYPTO streams of every epoch, many and wide."""
        established = self.proceed(now)
        epoch = Epoch.ONE_RTT if established else Epoch.INITIAL
        if self.started and self.connection._cryptos and self.connection._cryptos[epoch].send.is_valid():
            self.offset += 700
            frames = [packets.crypto(2 + self.offset % 15_000 + 20 * place, bytes(10)) for place in range(30)]
            self.send(packets.packet(self.connection, epoch, b"".join(frames)))

    def wide_gaps(self, now: float) -> None:
        """One gap as wide as it may be in the CRYPTO stream of each epoch and in a stream, and then silence."""
        keys = self.connection._cryptos
        for epoch in (Epoch.INITIAL, Epoch.HANDSHAKE, Epoch.ONE_RTT):
            if epoch not in self.opened and keys and epoch in keys and keys[epoch].send.is_valid():
                self.opened.add(epoch)
                self.send(packets.packet(self.connection, epoch, packets.crypto(500_000, bytes(100))))
        if self.proceed(now) and not self.offset:
            self.offset = 1
            for start in range(60_000, 250_000, 60_000):
                self.send(packets.packet(self.connection, Epoch.ONE_RTT, packets.stream(0, start, bytes(100))))

    def stream_gaps(self, now: float) -> None:
        """As many streams as there may be, each byte with a gap before it."""
        if self.proceed(now):
            self.offset += 400
            stream_id = 4 * self.random.randrange(8) + self.random.choice((0, 2))
            frames = [packets.stream(stream_id, 1 + self.offset % 60_000 + 2 * place, b"x") for place in range(150)]
            self.send(packets.packet(self.connection, Epoch.ONE_RTT, b"".join(frames)))

    def wrong_proof(self, now: float) -> None:
        """A registration with a chain of a foreign CA, as long as it may be."""
        if not self.proceed(now):
            return
        if self.registration is None:
            certificate = self.connection.tls._peer_certificate
            assert certificate is not None
            request = RegistrationRequest("mpq9", "wan9", os.urandom(16), 1, ("10.200.9.1/32",))
            der = certificate.public_bytes(serialization.Encoding.DER)
            self.registration = ClientRegistration(request, self.credentials, der, os.urandom, now)
            self.connection.send_stream_data(0, bytes([control.StreamType.CONTROL]))
            self.say(list(self.registration.start()))
            self.counts["registrations"] += 1

    def idle(self, now: float) -> None:
        """A connection that is kept alive and never registers, with datagrams for a tunnel that it doesn't have."""
        if self.proceed(now):
            self.connection.send_datagram_frame(b"\x10\1\0\x1c" + bytes(4) + b"E" + bytes(27))

    def noise(self, _now: float) -> None:
        """Garbage: of any kind, like a long header, an Initial with an invalid token, an unknown version."""
        head = bytes([0xC0 | self.random.randrange(64)]) + b"\0\0\0\1\x08"
        initial = b"\xc0\0\0\0\1\x08" + os.urandom(8) + b"\x08" + os.urandom(8)
        self.send(
            os.urandom(self.random.randrange(1, 1400)),
            head + os.urandom(1300),
            initial + b"\x40\x60" + os.urandom(96) + b"\x44\x00" + os.urandom(1100),
            initial + b"\x00\x44\xb0" + os.urandom(1200),
            b"\xc0\x1a\x2a\x3a\x4a" + initial[5:] + bytes(1200),
        )

    ATTACKS = ("crypto_gaps", "wide_gaps", "wrong_proof", "silent", "stream_gaps", "idle", "noise")


def run(peers: list[Peer], seconds: float, cores: float) -> None:
    """Let all peers attack in turn, with `cores` of a processor in all."""
    began, began_used = time.monotonic(), time.process_time()
    while (now := time.monotonic()) < began + seconds:
        for peer in peers:
            peer.step(time.monotonic())
            ahead = (time.process_time() - began_used) / cores - (time.monotonic() - began)
            if ahead > 0:
                time.sleep(ahead)
        time.sleep(max(0.0, now + REST - time.monotonic()))


def main() -> None:
    """Attack for some seconds, then print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", help="IPv4 address and port")
    parser.add_argument("--addresses", type=ipaddress.IPv4Network, required=True)
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--cores", type=float, default=0.4)
    parser.add_argument("--attack", nargs="*", default=list(Peer.ATTACKS), choices=Peer.ATTACKS)
    options = parser.parse_args()
    host, _, port = options.server.rpartition(":")
    counts: Counter[str] = Counter()
    credentials = foreign_credentials()
    # Spread over the networks of 256 addresses, and a few in each.
    step = max(1, options.addresses.num_addresses // options.clients)
    hosts = [str(options.addresses[1 + number * step]) for number in range(options.clients)]
    peers = [Peer(own, (host, int(port)), credentials, counts, seed, options.attack) for seed, own in enumerate(hosts)]
    run(peers, options.seconds, options.cores)
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    main()
