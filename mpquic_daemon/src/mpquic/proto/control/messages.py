"""Control messages: what two ends say to each other on the control stream of a path.

Every stream opens with one byte, its `StreamType`. On a control stream follow messages, each an unsigned 32-bit big
endian length and that many bytes of msgpack: a map `{type, id, body}`. Unknown types and unknown keys of a body are
ignored, so that ends of different age understand each other; what must be understood is a *required feature* of HELLO.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated, ClassVar

import msgspec

PROTOCOL_VERSION = 2
MIN_PROTOCOL_VERSION = 2
MAX_MESSAGE = 32768
NONCE_SIZE = 32
BOOT_ID_SIZE = 16
SESSION_SIZE = 8
_LENGTH_SIZE = 4
_U64 = (1 << 63) - 1

Word = Annotated[str, msgspec.Meta(max_length=128)]
Text = Annotated[str, msgspec.Meta(max_length=1024)]
Prefix = Annotated[str, msgspec.Meta(max_length=64)]
Counter = Annotated[int, msgspec.Meta(ge=0, le=_U64)]
Nonce = Annotated[bytes, msgspec.Meta(min_length=NONCE_SIZE, max_length=NONCE_SIZE)]
Features = Annotated[list[Word], msgspec.Meta(max_length=64)]
Moment = Annotated[float, msgspec.Meta(ge=0, le=253402300799)]
"""Seconds of the wall clock, at most the end of the year 9999."""


class StreamType(IntEnum):
    """First byte of a stream."""

    CONTROL = 1
    DATA = 2


class Feature(StrEnum):
    """Abilities beyond the base protocol that an end can offer or demand."""

    SUPERFRAME = "superframe"
    FRAGMENT = "fragment"


class RefuseCode(StrEnum):
    """Why a registration was refused. An end that meets an unknown code shows the reason text."""

    VERSION = "version"
    FEATURE = "feature"
    AUTHENTICATION = "authentication"
    AUTHORIZATION = "authorization"
    STALE = "stale"
    CONFLICT = "conflict"
    IN_USE = "in_use"
    HANDED_OVER = "handed_over"
    BUSY = "busy"
    PROTOCOL = "protocol"


class ControlError(ValueError):
    """Bytes on the control stream that are no message. `reason` is a short word for counters."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"malformed control message: {reason}" + (f" ({detail})" if detail else ""))
        self.reason = reason


class Message(msgspec.Struct, frozen=True):
    """Base of all messages; `TYPE` is the word on the wire."""

    TYPE: ClassVar[str] = ""


class Hello(Message, frozen=True, kw_only=True):
    """Client to server, first: what the client speaks, and its nonce."""

    TYPE: ClassVar[str] = "hello"
    min_version: Counter
    max_version: Counter
    nonce: Nonce
    features: Features = []
    required: Features = []


class Challenge(Message, frozen=True, kw_only=True):
    """Server to client: the version chosen, the features in common, and the nonce to be signed."""

    TYPE: ClassVar[str] = "challenge"
    version: Counter
    nonce: Nonce
    features: Features = []
    required: Features = []


class StripeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A client's wish for a striped data plane: its pipes, the UDP payload that its WAN takes, and how it wants FEC.

    Both ends use these settings of FEC for what they send. `suites` are AEADs, the preferred one first.
    """

    pipes: Annotated[int, msgspec.Meta(ge=1, le=16)]
    datagram_size: Annotated[int, msgspec.Meta(ge=1200, le=65000)]
    suites: Annotated[list[int], msgspec.Meta(min_length=1, max_length=16)]
    data_shards: Annotated[int, msgspec.Meta(ge=1, le=64)] = 10
    parity_shards: Annotated[int, msgspec.Meta(ge=0, le=64)] = 2
    fec: Word = "adaptive"
    max_overhead: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5


class StripeGrant(msgspec.Struct, frozen=True, kw_only=True):
    """The session that a server hands out for a striped data plane; see docs/stripe.md."""

    session: Annotated[int, msgspec.Meta(ge=1, le=0xFFFFFFFF)]
    secret: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    suite: int


class Register(Message, frozen=True, kw_only=True):
    """Client to server: who it is, what it wants, and the proof that it holds its certificate's key.

    `certificates` is the chain in DER, leaf first, without the root. `inner` are the addresses and prefixes from which
    the client will send packets. `release` names the version and build that it runs.
    """

    TYPE: ClassVar[str] = "register"
    tunnel: Word
    path: Word
    boot_id: Annotated[bytes, msgspec.Meta(min_length=BOOT_ID_SIZE, max_length=BOOT_ID_SIZE)]
    epoch: Counter
    inner: Annotated[list[Prefix], msgspec.Meta(min_length=1, max_length=64)]
    certificates: Annotated[
        list[Annotated[bytes, msgspec.Meta(max_length=8192)]], msgspec.Meta(min_length=1, max_length=4)
    ]
    algorithm: Word
    signature: Annotated[bytes, msgspec.Meta(max_length=512)]
    weight: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0
    priority: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 100
    transport_mode: Word = "datagram"
    stripe: StripeRequest | None = None
    release: Word = ""


class Welcome(Message, frozen=True, kw_only=True):
    """Server to client: registered. `session` names the group's life; when it changes, sequence numbers start anew.

    Without `stripe` a client that asked for it uses the QUIC connection: the server has none, or none left. `release`
    names the version and build that the server runs: an unregistered peer isn't told.
    """

    TYPE: ClassVar[str] = "welcome"
    session: Annotated[bytes, msgspec.Meta(min_length=SESSION_SIZE, max_length=SESSION_SIZE)]
    inner: Annotated[list[Prefix], msgspec.Meta(max_length=64)]
    tun_mtu: Counter = 0
    policy: dict[Word, str | int | float | bool | None] = {}
    stripe: StripeGrant | None = None
    release: Word = ""


class RenewStripe(Message, frozen=True, kw_only=True):
    """Client to server, once registered: the striped session has fallen silent or is used up, another is wanted."""

    TYPE: ClassVar[str] = "renew_stripe"
    stripe: StripeRequest


class StripeRenewed(Message, frozen=True, kw_only=True):
    """The reply to RENEW_STRIPE: the session that replaces the old one; nil where there is none, or none so soon."""

    TYPE: ClassVar[str] = "stripe_renewed"
    stripe: StripeGrant | None = None


class Refuse(Message, frozen=True, kw_only=True):
    """Server to client, or client to server: no. The connection is closed after it. `retry_after` in seconds.

    `peer` is the outer address of the other machine that has the client's identity, as text; empty where there is none.
    """

    TYPE: ClassVar[str] = "refuse"
    code: Word
    reason: Text
    retry_after: Annotated[float, msgspec.Meta(ge=0, le=86400)] | None = None
    peer: Word = ""


class Wait(Message, frozen=True, kw_only=True):
    """Server to client, while a registration waits for its decision: the server is there."""

    TYPE: ClassVar[str] = "wait"


class Probe(Message, frozen=True, kw_only=True):
    """Either way: answer at once. The sender remembers when it sent `sequence`."""

    TYPE: ClassVar[str] = "probe"
    sequence: Counter


class ProbeAck(Message, frozen=True, kw_only=True):
    """The answer to PROBE."""

    TYPE: ClassVar[str] = "probe_ack"
    sequence: Counter


class Held(Message, frozen=True, kw_only=True):
    """Either way, before BYE: the sender is put out of service on purpose. Fields as in `mpquic.hold.Hold`.

    An `origin` that the receiver doesn't know counts as `operator`.
    """

    TYPE: ClassVar[str] = "held"
    by: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    reason: Annotated[str, msgspec.Meta(max_length=200)]
    since: Moment
    until: Moment | None = None
    origin: Word = "operator"


class Bye(Message, frozen=True, kw_only=True):
    """Either way: the sender leaves on purpose; the other end forgets it at once."""

    TYPE: ClassVar[str] = "bye"
    reason: Text = ""


class Unknown(Message, frozen=True):
    """A message of a type that this version does not know; to be ignored."""

    TYPE: ClassVar[str] = "unknown"
    type: str = ""


class _Envelope(msgspec.Struct, frozen=True):
    type: Word
    id: Counter
    body: msgspec.Raw = msgspec.Raw(b"\x80")


class _EnvelopeOut(msgspec.Struct, frozen=True):
    type: str
    id: int
    body: Message


_TYPES: tuple[type[Message], ...] = (
    Hello,
    Challenge,
    Register,
    Welcome,
    RenewStripe,
    StripeRenewed,
    Refuse,
    Wait,
    Probe,
    ProbeAck,
    Held,
    Bye,
)
_DECODERS: dict[str, msgspec.msgpack.Decoder[Message]] = {kind.TYPE: msgspec.msgpack.Decoder(kind) for kind in _TYPES}
_envelope_decoder = msgspec.msgpack.Decoder(_Envelope)
_encoder = msgspec.msgpack.Encoder()


def encode(message: Message, message_id: int) -> bytes:
    """Encode a message with its length in front. `message_id` of an answer is that of the question.

    Raises:
        ControlError: the message is longer than `MAX_MESSAGE`.
    """
    body = _encoder.encode(_EnvelopeOut(message.TYPE, message_id, message))
    if len(body) > MAX_MESSAGE:
        raise ControlError("too long", f"{len(body)} bytes")
    return len(body).to_bytes(_LENGTH_SIZE, "big") + body


def decode(data: bytes) -> tuple[int, Message]:
    """Decode one message without its length; return (id, message), `Unknown` for a type of another version.

    Raises:
        ControlError: it is malformed or a field is out of its range.
    """
    try:
        envelope = _envelope_decoder.decode(data)
        decoder = _DECODERS.get(envelope.type)
        if decoder is None:
            return envelope.id, Unknown(envelope.type)
        return envelope.id, decoder.decode(envelope.body)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise ControlError("undecodable", str(error)[:200]) from error


class ControlDecoder:
    """Cuts the bytes of a control stream into messages. Holds at most one incomplete message between calls."""

    def __init__(self, max_message: int = MAX_MESSAGE) -> None:
        self._buffer = bytearray()
        self._max_message = max_message
        self._failed: str | None = None

    @property
    def buffered(self) -> int:
        """Bytes held back for an incomplete message."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[tuple[int, Message]]:
        """Take the next bytes of the stream; return the (id, message) pairs that they complete.

        Raises:
            ControlError: the stream is malformed, and stays so. Messages before the fault in the same call are lost
                with the connection, which is to be closed.
        """
        if self._failed is not None:
            raise ControlError(self._failed)
        buffer = self._buffer
        buffer += data
        messages: list[tuple[int, Message]] = []
        offset, available = 0, len(buffer)
        try:
            while available - offset >= _LENGTH_SIZE:
                length = self._length_at(offset)
                end = offset + _LENGTH_SIZE + length
                if end > available:
                    break
                messages.append(decode(bytes(buffer[offset + _LENGTH_SIZE : end])))
                offset = end
        except ControlError as error:
            self._failed = error.reason
            self._buffer = bytearray()
            raise
        del buffer[:offset]
        return messages

    def _length_at(self, offset: int) -> int:
        length = int.from_bytes(self._buffer[offset : offset + _LENGTH_SIZE], "big")
        if length > self._max_message:
            raise ControlError("too long", f"{length} bytes")
        return length


class NegotiationError(ValueError):
    """Two ends have no version in common, or one demands a feature that the other lacks."""

    def __init__(self, code: RefuseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def negotiate_version(
    hello: Hello, min_version: int = MIN_PROTOCOL_VERSION, max_version: int = PROTOCOL_VERSION
) -> int:
    """Return the highest version that both ends speak.

    Raises:
        NegotiationError: there is none.
    """
    chosen = min(hello.max_version, max_version)
    if chosen < max(hello.min_version, min_version):
        raise NegotiationError(
            RefuseCode.VERSION,
            f"no common protocol version: client speaks {hello.min_version}-{hello.max_version}, "
            f"server speaks {min_version}-{max_version}",
        )
    return chosen


def negotiate_features(offered: list[str], required: list[str], own: frozenset[str]) -> list[str]:
    """Return the features in common, sorted.

    Raises:
        NegotiationError: `required` names one that is not in `own`.
    """
    missing = sorted(set(required) - own)
    if missing:
        raise NegotiationError(RefuseCode.FEATURE, f"required feature not supported: {', '.join(missing)}")
    return sorted((set(offered) | set(required)) & own)
