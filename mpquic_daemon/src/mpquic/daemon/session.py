"""One path over one QUIC connection, as both ends see it: streams, control messages, probes, frames.

The first byte of a stream says what it carries. Each end opens at most one control and one data stream for a path, and
it is the client that opens them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from mpquic.proto.control import messages as control
from mpquic.proto.control.messages import Bye, ControlDecoder, Message, Probe, ProbeAck, StreamType
from mpquic.proto.packet.frame import FrameStreamDecoder
from mpquic.proto.path.budget import BudgetMember, PathBudget
from mpquic.proto.path.liveness import Liveness
from mpquic.proto.path.path import PathState
from mpquic.proto.path.probe import decode, is_probe
from mpquic.quic.events import DatagramsReceived, LinkEvent, StreamAborted, StreamReceived
from mpquic.quic.path import QuicPath

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mpquic.daemon.stripe_plane import StripePlane
    from mpquic.proto.packet.coalescer import Write
    from mpquic.proto.tunnel.receiver import TunnelReceiver
    from mpquic.quic.link import QuicLink

MAX_REFUSED_STREAMS = 64
"""Streams of a peer that are refused, for a connection: those of a later version are few."""
RECEIPT = (1 << 63) - 1
"""Sequence number of the probe behind a message whose arrival is to be known; no other probe has it."""
IDLE_TIMEOUT = 90.0
"""Seconds without a packet after which both ends forget a connection. A cut that heals earlier is survived by it."""


class CloseCode(IntEnum):
    """Application error codes with which a connection is closed."""

    NONE = 0
    REFUSED = 1
    REPLACED = 2
    PROTOCOL = 3
    SHUTDOWN = 4
    REVOKED = 5
    HANDED_OVER = 6
    # Clear of QUIC's own error codes, which a handshake may end with.
    TOO_LARGE = 0x220
    INTERNAL = 0x221


class SessionError(Exception):
    """The peer broke the protocol of streams; the connection is to be closed."""


@dataclass(slots=True)
class Inbox:
    """What a batch of events brought, besides frames and what the session dealt with itself."""

    messages: list[tuple[int, Message]] = field(default_factory=list)
    bye: str | None = None


class Session:
    """Streams, liveness and frames of one path. `probe_interval` and `down_after` are seconds.

    `probes` tells whether this end probes the path by itself, as a client does.
    """

    def __init__(
        self,
        member: BudgetMember,
        link: QuicLink,
        now: float,
        *,
        probe_interval: float,
        down_after: float,
        max_rate: int | None = None,
        probes: bool = True,
    ) -> None:
        self.link = link
        self.member = member
        """What this end says about itself on the WAN; a server learns it with the registration."""
        self.budget = PathBudget(member)
        """What may be sent in all, by the connection and by the striped data plane."""
        self.budget.limit(max_rate)
        self.path = QuicPath(member.wan, link, budget=self.budget)
        self.estimators = link.estimators
        """Round-trip time and loss of the path, by the connection and the striped data plane."""
        self.liveness = Liveness(
            now, probe_interval=probe_interval, down_after=down_after, probes=probes, estimators=self.estimators
        )
        self._newest_received = -1
        self._plane: StripePlane | None = None
        self._proved_at: float | None = None
        self.active = False
        """Whether the registration is done: probes are sent and answered, frames are taken."""
        self._control_stream: int | None = None
        self._control = ControlDecoder()
        self._frames = FrameStreamDecoder()
        self._datagrams: list[bytes] = []
        self._stream_bytes: list[bytes] = []
        self._refused: set[int] = set()
        self._message_id = 100  # Below it lie the ids of the registration.
        self._receipt_wanted = False

    @property
    def data_stream(self) -> int | None:
        """The stream of the reliable mode, once it is open."""
        return self.path.data_stream

    @property
    def plane(self) -> StripePlane | None:
        """The striped data plane beside the connection, if there is one: what it hears counts as proof of life."""
        return self._plane

    @plane.setter
    def plane(self, plane: StripePlane | None) -> None:
        self._plane = plane
        self._proved_at = None
        if plane is not None:
            plane.session.estimators = self.estimators

    def open_control(self) -> None:
        """Open the control stream (client)."""
        self._control_stream = self.link.open_stream()
        self.link.send_stream(self._control_stream, bytes([StreamType.CONTROL]))

    def open_data(self) -> None:
        """Open the data stream of the reliable mode (client)."""
        stream = self.link.open_stream()
        self.link.send_stream(stream, bytes([StreamType.DATA]))
        self.path.data_stream = stream

    def send_bytes(self, data: bytes) -> None:
        """Write encoded messages to the control stream."""
        if self._control_stream is not None:
            self.link.send_stream(self._control_stream, data)

    def send(self, message: Message, message_id: int | None = None) -> int:
        """Send a message and return its id; a request gets an id of its own."""
        if message_id is None:
            self._message_id += 1
            message_id = self._message_id
        self.send_bytes(control.encode(message, message_id))
        return message_id

    def tell(self, message: Message) -> None:
        """Send a message and a probe behind it, whose reply is the receipt.

        A stream keeps the order, so this works with a peer that doesn't know the message, too.
        """
        self.send(message)
        self._receipt_wanted = True
        self.send(Probe(sequence=RECEIPT))

    @property
    def awaits_receipt(self) -> bool:
        """Whether what was told may still arrive: the receipt hasn't come, and the peer answers as far as is known."""
        return self._receipt_wanted and self.path.state is not PathState.DOWN

    def take(self, events: Iterable[LinkEvent], now: float) -> Inbox:
        """Sort out a batch of events; `writes` gives what of it is for the TUN. Raises SessionError, ControlError."""
        inbox = Inbox()
        self._datagrams, self._stream_bytes = [], []
        for event in events:
            if isinstance(event, DatagramsReceived):
                self._datagrams += self._take_probes(event.payloads, now)
            elif isinstance(event, StreamReceived):
                self._take_stream(event, inbox)
            elif isinstance(event, StreamAborted) and event.stream_id in (self._control_stream, self.path.data_stream):
                raise SessionError("the peer reset a stream of the path")
        newest = self.link.newest_received
        if newest != self._newest_received:
            # Whatever it was: an acknowledgement alone is proof of life as well.
            self._newest_received = newest
            self.liveness.on_receive(now)
        return inbox

    def _take_probes(self, payloads: list[bytes], now: float) -> list[bytes]:
        """Act on the probes among what datagrams have brought; return the rest."""
        probes = [payload for payload in payloads if is_probe(payload)]
        if not probes:
            return payloads
        for payload in probes if self.active else ():
            found = decode(payload)
            reply = self.liveness.on_probe(found, now) if found is not None else None
            if reply is not None:
                self.link.send_apart(reply.encode())
        return [payload for payload in payloads if not is_probe(payload)]

    def _take_stream(self, event: StreamReceived, inbox: Inbox) -> None:
        stream, data = event.stream_id, event.data
        if stream in self._refused:
            return  # Sent before the peer learned of it.
        if stream not in (self._control_stream, self.path.data_stream):
            if not data:
                return
            kind, data = data[0], data[1:]
            if kind == StreamType.CONTROL and self._control_stream is None:
                self._control_stream = stream
            elif kind == StreamType.DATA and self.path.data_stream is None and self.active:
                self.path.data_stream = stream
            else:
                # Of a later version, one too many, or data of somebody who hasn't registered.
                if len(self._refused) >= MAX_REFUSED_STREAMS:
                    raise SessionError("too many streams of an unknown kind")
                self._refused.add(stream)
                self.link.reset_stream(stream, CloseCode.PROTOCOL)
                return
        if stream == self._control_stream:
            for message_id, message in self._control.feed(data):
                self._take_message(message_id, message, inbox)
        elif data:
            self._stream_bytes.append(data)
        if event.end:
            raise SessionError("the peer ended a stream of the path")

    def _take_message(self, message_id: int, message: Message, inbox: Inbox) -> None:
        if not self.active:
            inbox.messages.append((message_id, message))
        elif isinstance(message, Probe):
            self.send(ProbeAck(sequence=message.sequence), message_id)
        elif isinstance(message, ProbeAck):
            self._receipt_wanted = self._receipt_wanted and message.sequence != RECEIPT
        elif isinstance(message, Bye):
            inbox.bye = message.reason
        else:
            inbox.messages.append((message_id, message))

    def activate(self, now: float) -> None:
        """The registration is done, which was a round trip."""
        self.active = True
        self.liveness.on_round_trip(now)
        self.path.state = self.liveness.state

    def poll(self, now: float) -> None:
        """Send the probe that is due and bring the path's state up to date."""
        if not self.active:
            return
        self._look_at_plane(now)
        for due in self.liveness.poll(now):
            self.link.send_apart(due.encode())
        self.path.state = self.liveness.state

    def ask(self, now: float) -> None:
        """Have the peer send something by the connection, whatever is due."""
        self.link.send_apart(self.liveness.probe(now).encode())

    def _look_at_plane(self, now: float) -> None:
        """Take over what the striped data plane has learned since this was done last."""
        plane = self._plane
        if plane is None:
            self.liveness.proved_every = None
            return
        striped = plane.session
        is_proved = striped.round_trip_at is not None and striped.round_trip_at != self._proved_at
        self._expect_proofs(plane, now, is_proved=is_proved)
        if striped.heard_at > self.liveness.heard_at:
            self.liveness.on_receive(striped.heard_at)
        if is_proved and striped.round_trip_at is not None:
            self._proved_at = striped.round_trip_at
            self.liveness.on_round_trip(striped.round_trip_at)
        if striped.pmtu.is_silent:
            self.link.doubt_size()

    def _expect_proofs(self, plane: StripePlane, now: float, *, is_proved: bool) -> None:
        """Say how often pipes prove the path. That it is more often than before counts from the next proof on."""
        liveness = self.liveness
        if plane.session.state is not PathState.UP:
            liveness.proved_every = None
            return
        every = plane.session.pipes.rest_interval(now)
        told_after = 0.0 if liveness.probes or plane.session.pipes.is_busy(now) else every
        before = liveness.proved_every
        if is_proved or before is None or every + told_after > before + liveness.told_after:
            liveness.proved_every, liveness.told_after = every, told_after

    def timer(self, now: float) -> float | None:
        """When `poll` is due, or the share of the WAN allows sending again."""
        if not self.active:
            return None
        allowed, due = self.path.next_allowance(now), self.liveness.next_timer(now)
        return due if allowed is None else min(due, allowed)

    def retime(self, probe_interval: float, down_after: float) -> None:
        """Use other times from now on."""
        self.liveness.retime(probe_interval, down_after)

    @property
    def has_frames(self) -> bool:
        """Whether the last batch of events has brought something for `writes`."""
        return self.active and bool(self._datagrams or self._stream_bytes)

    def writes(self, receiver: TunnelReceiver, now: float) -> list[Write]:
        """Turn what the last batch brought into TUN writes, once. Raises FrameError: the data stream is malformed."""
        if not self.active:
            return []
        writes: list[Write] = []
        stream_bytes, self._stream_bytes = self._stream_bytes, []
        datagrams, self._datagrams = self._datagrams, []
        for data in stream_bytes:
            writes += receiver.receive(self._frames.feed(data), now, self.path)
        if datagrams:
            writes += receiver.receive_datagrams(datagrams, now, self.path)
        return writes
