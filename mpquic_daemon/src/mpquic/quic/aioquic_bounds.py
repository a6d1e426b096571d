"""A QuicConnection that stores a bounded amount for its peer, whoever that is.

aioquic bounds most of what it keeps: connection IDs, challenges, paths, ACK ranges; and it keeps no packet that it
can't decrypt. What it leaves open is bounded here: 512 KiB of CRYPTO data out of order in each epoch, a TLS message of
16 MiB that is never completed, gaps in streams at 100 bytes of memory for each byte that arrives, 256 streams at once,
the buffers of epochs that are over, what is sent to a peer that acknowledges nothing, and what several connections of
one peer keep together (`quic_memory`).

Written against aioquic 1.7, whose private attributes are used; see `aioquic_internals`.
"""

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.connection import QuicConnectionError, QuicReceiveContext
from aioquic.quic.events import StreamDataReceived
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, QuicStreamFrame
from aioquic.quic.packet_builder import QuicDeliveryState
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.stream import QuicStream, QuicStreamReceiver
from aioquic.tls import Epoch

from mpquic.quic.aioquic_paths import RoamingConnection
from mpquic.quic.memory import FLOOR, QuicBudget

MAX_CRYPTO_BUFFER = 16 << 10
"""Bytes of CRYPTO data that may wait in an epoch, for a gap or for the rest of a message (RFC 9000 section 7.5)."""
MAX_CRYPTO_GAPS = 32
MAX_STREAMS = 8
"""Streams of each direction that the peer may have open: the protocol has two, one of each end's making."""
MAX_GAPS_BEFORE_ADMISSION = 32
MAX_GAPS = 8192
"""Gaps in one stream: a window of 16 MiB in full packets, of which every second one is lost, has no more than 7000."""
GAP_BYTES = 128
"""Memory that a gap takes beside its bytes."""


MAX_UNACKNOWLEDGED = 2048
"""Packets of ours that elicit no acknowledgement and are remembered until the peer acknowledges a later one: at one in
5 ms, those of ten seconds."""


class PacketDroppedError(Exception):
    """What a packet holds of a stream can't be kept. It isn't acknowledged, so for the peer it is lost.

    Frames before that one have been taken, and will be again with what the peer sends in place of the packet.
    """


class SortedRanges(RangeSet):
    """A RangeSet that finds its place by bisection: aioquic looks at every range for each that is added."""

    def add(self, start: int, stop: int | None = None) -> None:
        """Add the numbers from `start` to below `stop`, or `start` alone."""
        stop = start + 1 if stop is None else stop
        ranges: list[range] = self._RangeSet__ranges  # type: ignore[attr-defined]
        first = last = bisect_left(ranges, start, key=_stop)
        while last < len(ranges) and ranges[last].start <= stop:
            last += 1
        if first < last:
            start, stop = min(start, ranges[first].start), max(stop, ranges[last - 1].stop)
        ranges[first:last] = [range(start, stop)]

    def touches(self, start: int, stop: int) -> bool:
        """Tell whether adding these numbers would make no range more."""
        ranges: list[range] = self._RangeSet__ranges  # type: ignore[attr-defined]
        place = bisect_left(ranges, start, key=_stop)
        return place < len(ranges) and ranges[place].start <= stop


class _Receiver(QuicStreamReceiver):
    """Receiving half of a stream with at most `max_gaps` gaps.

    `may_keep` tells whether so many bytes more may wait for a gap. Where it is None the peer has no right to make more
    gaps than that: one too many ends the connection. Otherwise the packet is dropped, see `PacketDroppedError`.
    """

    def __init__(
        self, stream_id: int | None, *, readable: bool, max_gaps: int, may_keep: Callable[[int], bool] | None = None
    ) -> None:
        super().__init__(stream_id, readable)
        self._ranges: SortedRanges = SortedRanges()
        self.max_gaps = max_gaps
        self.may_keep = may_keep

    @property
    def kept_bytes(self) -> int:
        """What waits for gaps, gaps included."""
        return len(self._buffer) + GAP_BYTES * len(self._ranges)

    def handle_frame(self, frame: QuicStreamFrame) -> StreamDataReceived | None:
        if self.may_keep is not None and frame.offset > self._buffer_start and not self.is_finished:
            self._make_sure(frame.offset, frame.offset + len(frame.data), self.may_keep)
        event = super().handle_frame(frame)
        if self.may_keep is None and len(self._ranges) > self.max_gaps:
            raise QuicConnectionError(QuicErrorCode.INTERNAL_ERROR, QuicFrameType.STREAM_BASE, "too many gaps")
        return event

    def _make_sure(self, start: int, stop: int, may_keep: Callable[[int], bool]) -> None:
        """Raise PacketDroppedError when bytes behind a gap are beyond what may wait."""
        if len(self._ranges) >= self.max_gaps and not self._ranges.touches(start, stop):
            raise PacketDroppedError
        more = stop - self._buffer_start - len(self._buffer)
        if self.kept_bytes + more > FLOOR and not may_keep(max(0, more) + GAP_BYTES):
            raise PacketDroppedError


class _CryptoReceiver(_Receiver):
    """Receiving half of an epoch's CRYPTO stream."""

    def __init__(self) -> None:
        super().__init__(None, readable=True, max_gaps=MAX_CRYPTO_GAPS)

    def handle_frame(self, frame: QuicStreamFrame) -> StreamDataReceived | None:
        if self.is_finished:  # the epoch is over
            return None
        if frame.offset + len(frame.data) - self._buffer_start > MAX_CRYPTO_BUFFER:
            raise _crypto_buffer_exceeded()
        try:
            return super().handle_frame(frame)
        except QuicConnectionError:
            raise _crypto_buffer_exceeded() from None


class BoundedConnection(RoamingConnection):
    """See above. `admit` allows as many gaps as a lossy path makes; before, a peer has the few of a registration.

    What is kept after that counts in `budget`, which is the connection's own unless `share` gives another one.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._is_admitted = self._is_client
        self.budget = QuicBudget()
        self.budget.join(self)
        for limit in (self._local_max_streams_bidi, self._local_max_streams_uni):
            limit.value = limit.sent = MAX_STREAMS

    @property
    def received_bytes(self) -> int:
        """What streams of the peer keep until a gap is filled."""
        receivers = (stream.receiver for stream in self._streams.values())
        return sum(receiver.kept_bytes for receiver in receivers if isinstance(receiver, _Receiver))

    @property
    def sent_bytes(self) -> int:
        """What was written to streams and isn't acknowledged from the first byte on."""
        return sum(len(stream.sender._buffer) for stream in self._streams.values())

    def admit(self) -> None:
        """The peer proved who it is."""
        self._is_admitted = True
        for stream in self._streams.values():
            if isinstance(stream.receiver, _Receiver):
                stream.receiver.max_gaps, stream.receiver.may_keep = MAX_GAPS, self._may_keep

    def share(self, budget: QuicBudget) -> None:
        """Count what is kept in the budget of a client, which may have other connections."""
        self.budget.leave(self)
        self.budget = budget
        budget.join(self)

    def release(self) -> None:
        """The connection is over: keep nothing of its streams, and don't count."""
        self.budget.leave(self)
        for stream in self._streams.values():
            stream.receiver._buffer, stream.receiver._ranges = bytearray(), SortedRanges()
            stream.sender._buffer = bytearray()

    def _may_keep(self, size: int) -> bool:
        return self.budget.may_receive(size)

    def forget_unacknowledged(self) -> None:
        """Forget the oldest packets that elicit no acknowledgement and got none, where there are too many of them.

        aioquic keeps each until the peer acknowledges a later packet, which a peer may never do (RFC 9002 section 2:
        such packets aren't in flight, so no window holds them back).
        """
        space = self._spaces[Epoch.ONE_RTT]
        if len(space.sent_packets) - space.ack_eliciting_in_flight <= MAX_UNACKNOWLEDGED:
            return
        kept = [packet for packet in space.sent_packets.values() if not packet.is_ack_eliciting]
        for packet in kept[: len(kept) - MAX_UNACKNOWLEDGED // 2]:
            del space.sent_packets[packet.packet_number]
            for handler, arguments in packet.delivery_handlers:
                handler(QuicDeliveryState.LOST, *arguments)

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        for stream in self._crypto_streams.values():
            stream.receiver = _CryptoReceiver()

    def _handle_crypto_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        super()._handle_crypto_frame(context, frame_type, buf)
        if len(self.tls._receive_buffer) > MAX_CRYPTO_BUFFER:
            raise _crypto_buffer_exceeded()

    def _discard_epoch(self, epoch: Epoch) -> None:
        super()._discard_epoch(epoch)
        stream = self._crypto_streams[epoch] = QuicStream(readable=False)
        stream.receiver = _CryptoReceiver()
        stream.receiver.is_finished = True
        self._crypto_buffers[epoch] = Buffer(capacity=0)

    def _get_or_create_stream(self, frame_type: int, stream_id: int) -> QuicStream:
        known = stream_id in self._streams
        stream = super()._get_or_create_stream(frame_type, stream_id)
        if not known:
            for opened in self._streams.values():
                by_peer = opened.stream_id is not None and opened.stream_id & 1 == self._is_client
                if by_peer and not isinstance(opened.receiver, _Receiver):
                    readable = not opened.receiver.is_finished
                    opened.receiver = self._receiver(opened.stream_id, readable=readable)
        return stream

    def _receiver(self, stream_id: int | None, *, readable: bool) -> _Receiver:
        if not self._is_admitted:
            return _Receiver(stream_id, readable=readable, max_gaps=MAX_GAPS_BEFORE_ADMISSION)
        return _Receiver(stream_id, readable=readable, max_gaps=MAX_GAPS, may_keep=self._may_keep)


def _crypto_buffer_exceeded() -> QuicConnectionError:
    return QuicConnectionError(QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, QuicFrameType.CRYPTO, "too much CRYPTO data waits")


def _stop(numbers: range) -> int:
    return numbers.stop
