"""A QuicConnection that stores a bounded amount for its peer, whoever that is.

aioquic bounds most of what it keeps: connection IDs, challenges, paths, ACK ranges; and it keeps no packet that it
can't decrypt. What it leaves open is bounded here: 512 KiB of CRYPTO data out of order in each epoch, a TLS message of
16 MiB that is never completed, gaps in streams at 100 bytes of memory for each byte that arrives, 256 streams at once,
the buffers of epochs that are over, and what is sent to a peer that acknowledges nothing.

Written against aioquic 1.7, whose private attributes are used; see `aioquic_internals`.
"""

from bisect import bisect_left
from typing import Any

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.connection import QuicConnectionError, QuicReceiveContext
from aioquic.quic.events import StreamDataReceived
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, QuicStreamFrame
from aioquic.quic.packet_builder import QuicDeliveryState
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.stream import QuicStream, QuicStreamReceiver
from aioquic.tls import Epoch

from mpquic.net.aioquic_paths import RoamingConnection

MAX_CRYPTO_BUFFER = 16 << 10
"""Bytes of CRYPTO data that may wait in an epoch, for a gap or for the rest of a message (RFC 9000 section 7.5)."""
MAX_CRYPTO_GAPS = 32
MAX_STREAMS = 8
"""Streams of each direction that the peer may have open: the protocol has two, one of each end's making."""
MAX_GAPS_BEFORE_ADMISSION = 32
MAX_GAPS = 4096
"""Gaps in one stream. 16 MiB in flight, of which every third packet is lost, have about 2500."""


MAX_UNACKNOWLEDGED = 2048
"""Packets of ours that elicit no acknowledgement and are remembered until the peer acknowledges a later one: at one in
5 ms, those of ten seconds."""


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


class _Receiver(QuicStreamReceiver):
    """Receiving half of a stream with at most `max_gaps` gaps."""

    def __init__(self, stream_id: int | None, *, readable: bool, max_gaps: int) -> None:
        super().__init__(stream_id, readable)
        self._ranges = SortedRanges()
        self.max_gaps = max_gaps

    def handle_frame(self, frame: QuicStreamFrame) -> StreamDataReceived | None:
        event = super().handle_frame(frame)
        if len(self._ranges) > self.max_gaps:
            raise QuicConnectionError(QuicErrorCode.INTERNAL_ERROR, QuicFrameType.STREAM_BASE, "too many gaps")
        return event


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
    """See above. `admit` allows as many gaps as a lossy path makes; before, a peer has the few of a registration."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._max_gaps = MAX_GAPS if self._is_client else MAX_GAPS_BEFORE_ADMISSION
        for limit in (self._local_max_streams_bidi, self._local_max_streams_uni):
            limit.value = limit.sent = MAX_STREAMS

    def admit(self) -> None:
        """The peer proved who it is."""
        self._max_gaps = MAX_GAPS
        for stream in self._streams.values():
            if isinstance(stream.receiver, _Receiver):
                stream.receiver.max_gaps = MAX_GAPS

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
                    opened.receiver = _Receiver(opened.stream_id, readable=readable, max_gaps=self._max_gaps)
        return stream


def _crypto_buffer_exceeded() -> QuicConnectionError:
    return QuicConnectionError(QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, QuicFrameType.CRYPTO, "too much CRYPTO data waits")


def _stop(numbers: range) -> int:
    return numbers.stop
