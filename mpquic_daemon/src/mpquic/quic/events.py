"""What happens on a QUIC connection, for whoever owns it."""

from dataclasses import dataclass

from mpquic.quic.aioquic_receive import Inbound


@dataclass(frozen=True, slots=True)
class Established:
    """The handshake is complete and the server's certificate was accepted."""


@dataclass(frozen=True, slots=True)
class StreamReceived:
    """Bytes in order on one stream, everything of a batch in one piece."""

    stream_id: int
    data: bytes
    end: bool


@dataclass(frozen=True, slots=True)
class StreamAborted:
    """The peer reset a stream or refuses to read it."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class DatagramsReceived:
    """Payloads of DATAGRAM frames, in order of arrival."""

    payloads: list[bytes]


@dataclass(frozen=True, slots=True)
class Terminated:
    """The connection is over; nothing follows. `code` is a QUIC or application error code (0: none)."""

    code: int
    reason: str
    by_peer: bool


LinkEvent = Established | StreamReceived | StreamAborted | DatagramsReceived | Terminated


class EventQueue:
    """What happened and hasn't been asked for: stream bytes and datagrams gathered, all others as they came."""

    def __init__(self) -> None:
        self.inbound = Inbound()
        self.ended: set[int] = set()
        """Streams of which the last bytes are in `inbound`."""
        self.others: list[LinkEvent] = []

    def __bool__(self) -> bool:
        """Whether `pop` would give something."""
        return bool(self.others or self.inbound.payloads or self.inbound.chunks)

    def pop(self) -> list[LinkEvent]:
        """What happened since the last call, in order; stream bytes and datagrams gathered."""
        inbound = self.inbound
        for stream_id, chunks in inbound.chunks.items():
            self.others.append(StreamReceived(stream_id, b"".join(chunks), stream_id in self.ended))
        if inbound.payloads:
            self.others.append(DatagramsReceived(inbound.payloads))
            inbound.payloads = []
        if inbound.chunks:
            inbound.chunks = {}
            self.ended = set()
        events, self.others = self.others, []
        # The end comes last, whatever came with it.
        events.sort(key=_comes_last)
        return events


def _comes_last(event: LinkEvent) -> bool:
    return isinstance(event, Terminated)
