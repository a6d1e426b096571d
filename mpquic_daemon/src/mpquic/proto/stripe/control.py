"""The packets of a striped session beside its shards: keepalives, reports, proofs of addresses, MTU probes.

Sans-IO. Methods that send raise KeyLimitError when an epoch is used up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mpquic.proto.path.pmtu import (
    MIN_PROBE,
    PRESENCE,
    AnswerLimit,
    PathMtuState,
    Probe,
    decode_probe,
    decode_probe_ack,
    encode_probe,
    encode_probe_ack,
)
from mpquic.proto.stripe.keepalive import Keepalive, decode_keepalive, encode_keepalive
from mpquic.proto.stripe.reports import ReportError, decode_report
from mpquic.proto.stripe.return_path import TOKEN_SIZE, Address
from mpquic.proto.stripe.wire import PacketType

if TYPE_CHECKING:
    from mpquic.proto.stripe.keys import Opener, Sealer
    from mpquic.proto.stripe.pipe import Pipe
    from mpquic.proto.stripe.pipes import Pipes
    from mpquic.proto.stripe.receiver import ControlPacket, StripeReceiver
    from mpquic.proto.stripe.sender import StripeSender

_INITIAL_RTT = 0.1
_PRESENCE = Probe(PRESENCE, MIN_PROBE)
"""Asks for nothing but the reply."""


class Outgoing(NamedTuple):
    """Datagrams to send on one pipe, in order. `address` is None for a client, whose sockets are connected."""

    pipe: int
    address: Address | None
    datagrams: list[bytes]


class Control:
    """What one end says and answers beside shards. Times are seconds; `rtt` is the round-trip time, None if unknown."""

    def __init__(
        self,
        sealer: Sealer,
        opener: Opener,
        pipes: Pipes,
        sender: StripeSender,
        receiver: StripeReceiver,
        *,
        client: bool,
    ) -> None:
        self._sealer = sealer
        self._opener = opener
        self._pipes = pipes
        self._sender = sender
        self._receiver = receiver
        self._client = client
        self._answers = AnswerLimit()
        self._responses = AnswerLimit()
        self._outgoing: list[Outgoing] = []
        self._counted = (0, 0)
        """Replies and lost requests when the estimators were last told of them."""
        self._has_heard = False
        """Whether a reply has come since the last request."""
        self.round_trip_at: float | None = None
        """When the peer last answered, reported, or said that it is answered: proof that both directions work."""
        self.reports_sent = 0
        self.reports_received = 0
        self.probes_sent = 0

    def take_outgoing(self) -> list[Outgoing]:
        """Return what is to leave, in order; nothing is kept."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def poll(self, now: float, rtt: float | None) -> None:
        """Send what is due: keepalives, challenges, a report, a probe of the path's MTU."""
        for pipe in self._pipes.due(now):
            kind = PacketType.REGISTER if pipe.registering else PacketType.KEEPALIVE
            told = self._pipes.take_untold(now)
            request = Keepalive.REQUEST_HEARING if self._has_heard else Keepalive.REQUEST
            self._has_heard = False
            self._send(kind, pipe.number, encode_keepalive(request, self._opener.epoch, now, told, pipe.sending.shards))
        self._count_requests(now)
        if self._pipes.unproven:
            self.challenge(now, rtt or 0.0)
        reporter = self._receiver.reporter
        report_at = reporter.next_time()
        carrying = self._pipes.carrying(now)
        if report_at is not None and now >= report_at and (alive := carrying or self._pipes.alive(now)):
            # Spread like data, or the loss of one pipe would silence all reports.
            pipe = alive[self.reports_sent % len(alive)]
            self.reports_sent += 1
            self._send(PacketType.REPORT, pipe.number, reporter.build(now))
        probe_at = self._sender.pmtu.due_at
        if probe_at is not None and now >= probe_at and carrying:
            self._probe_path(carrying, now, rtt or _INITIAL_RTT)

    def ask(self, now: float) -> None:
        """Have the peer reply on each pipe that carries: by the smallest probe of the path's MTU."""
        for pipe in self._pipes.alive(now):
            self._send(PacketType.PROBE, pipe.number, encode_probe(_PRESENCE))

    def challenge(self, now: float, rtt: float) -> None:
        """Send tokens to addresses that are to prove themselves, and one to the old one, which may still be in use."""
        for pipe, unproven in self._pipes.challenges(now, rtt):
            for address in (unproven.address, pipe.address if unproven.tries == 1 else None):
                if address is None:
                    continue
                # A reply from the old address is the newest packet of the pipe, whatever it holds.
                token = unproven.token if address is unproven.address else bytes(TOKEN_SIZE)
                datagram = self._sealer.seal_control(PacketType.PATH_CHALLENGE, pipe.number, token)
                if address is not unproven.address or unproven.take(len(datagram)):
                    self._outgoing.append(Outgoing(pipe.number, address, [datagram]))

    def take(self, packet: ControlPacket, now: float) -> None:
        """Act on an authenticated packet of a control type."""
        if packet.kind == PacketType.REPORT:
            self._on_report(packet.body, now)
        elif packet.kind == PacketType.PROBE:
            self._on_probe(packet, now)
        elif packet.kind == PacketType.PROBE_ACK:
            self._on_probe_ack(packet.body, now)
        elif packet.kind in (PacketType.PATH_CHALLENGE, PacketType.PATH_RESPONSE):
            self._on_path_control(packet, now)
        else:
            self._on_keepalive(packet, now)

    def follow_path(self, now: float) -> None:
        """Send datagrams of the size that path MTU discovery has found."""
        before, pmtu = self._sender.datagram_size, self._sender.pmtu
        if pmtu.size == before or pmtu.state is PathMtuState.DISABLED:
            return
        self._sender.datagram_size = pmtu.size
        if pmtu.size < before:
            self._sender.recovery.on_shrunk(pmtu.size, now)

    def _count_requests(self, now: float) -> None:
        pipes, (replies, lost) = self._pipes, self._counted
        self._counted = pipes.replies, pipes.lost_requests
        self._sender.recovery.estimators.on_sent(pipes.replies - replies, pipes.lost_requests - lost, now)

    def _send(self, kind: PacketType, pipe: int, body: bytes) -> None:
        datagram = self._sealer.seal_control(kind, pipe, body)
        self._outgoing.append(Outgoing(pipe, self._pipes.route(self._pipes.all[pipe], len(datagram)), [datagram]))

    def _on_path_control(self, packet: ControlPacket, now: float) -> None:
        """A server proves addresses; a client sends each token back, on the pipe on which it came."""
        body = packet.body
        if len(body) != TOKEN_SIZE or self._client is not (packet.kind == PacketType.PATH_CHALLENGE):
            self._receiver.refuse("path")
        elif self._client:
            if not self._responses.take(now):
                self._receiver.refuse("path_challenge")
                return
            self._send(PacketType.PATH_RESPONSE, packet.pipe, body)
        elif self._pipes.on_response(body, now):
            self.round_trip_at = now

    def _on_keepalive(self, packet: ControlPacket, now: float) -> None:
        decoded = decode_keepalive(packet.body)
        if decoded is None or (decoded.kind is Keepalive.REPLY) is not self._client:
            self._receiver.refuse("keepalive")
            return
        kind, stamp, told = decoded.kind, decoded.stamp, decoded.rtt
        self._sealer.confirm(decoded.epoch)
        pipe = self._pipes.all[packet.pipe]
        pipe.receiving.on_told(decoded.shards, packet.shards_before, now)
        if kind is Keepalive.REPLY:
            rtt = self._pipes.on_reply(packet.pipe, stamp, now)
            if rtt is not None:
                self.round_trip_at = now
                self._has_heard = True
                self._sender.on_rtt(rtt, now)
                self._count_requests(now)
            return
        registering = packet.kind == PacketType.REGISTER
        if kind is Keepalive.REQUEST_HEARING and not registering and told is not None:
            # When its reply came, not now: a client goes on asking for a while when it hears nothing any more.
            self.round_trip_at = max(self.round_trip_at or 0.0, now - told.ago)
        self._pipes.on_request(packet.pipe, packet.number, now, registering=registering, told=told)
        if told is not None and told.pipe < len(self._pipes.all):
            self._pipes.all[told.pipe].rtt.add(told.rtt, now - told.ago)
            self._sender.on_rtt(told.rtt, now - told.ago)
        reply = encode_keepalive(Keepalive.REPLY, self._opener.epoch, stamp, shards=pipe.sending.shards)
        self._send(PacketType.KEEPALIVE, packet.pipe, reply)

    def _probe_path(self, alive: list[Pipe], now: float, rtt: float) -> None:
        pipe = alive[self.probes_sent // 2 % len(alive)]
        for probe in self._sender.pmtu.poll(now, rtt):
            self.probes_sent += 1
            self._send(PacketType.PROBE, pipe.number, encode_probe(probe))
        self.follow_path(now)

    def _on_probe(self, packet: ControlPacket, now: float) -> None:
        probe = decode_probe(packet.body)
        if probe is None or not self._answers.take(now):
            self._receiver.refuse("probe")
            return
        self._send(PacketType.PROBE_ACK, packet.pipe, encode_probe_ack(probe))

    def _on_probe_ack(self, body: bytes, now: float) -> None:
        probe = decode_probe_ack(body)
        if probe == _PRESENCE:
            return
        if probe is None or not self._sender.pmtu.on_acknowledged(probe, now):
            self._receiver.refuse("probe_reply")
            return
        self.round_trip_at = now
        self.follow_path(now)

    def _on_report(self, body: bytes, now: float) -> None:
        if not self._sender.affords_report(len(body), now):
            self._receiver.refuse("report_beyond_what_was_sent")
            return
        try:
            report = decode_report(body)
        except ReportError as error:
            self._receiver.refuse(f"report_{error.reason}")
            return
        if self._sender.on_report(report, now):
            self.reports_received += 1
            self.round_trip_at = now
        else:
            self._receiver.refuse("report_of_what_was_not_sent")
