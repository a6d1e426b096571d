"""Plain packets out: DATAGRAM frames, bytes of one stream and acknowledgements, written in batches beside aioquic.

As long as a connection has nothing else to say (`_is_plain`), its packets are made here: aioquic 1.7 spends about 14 µs
on each, since it looks for every kind of frame each time and copies header and payload several times. Everything else
is written by aioquic's `datagrams_to_send`; both use the same packet numbers, windows and records of what was sent.

An acknowledgement goes into the first packet that has room for it, or follows as a short packet of its own: put first,
as aioquic does, it would break the run of equal sizes that leaves in one segmented send.

Written against aioquic 1.7, whose private attributes are used throughout; see `aioquic_internals`. RFC 9000 sections
13.2, 17.3 and 19; RFC 9001 section 5; RFC 9221.
"""

from functools import cache
from struct import Struct
from typing import Any

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.connection import QuicConnection, QuicConnectionState
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicFrameType, QuicPacketType, push_ack_frame
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream
from aioquic.tls import Epoch

from mpquic.quic.aioquic_paths import is_idle
from mpquic.quic.congestion import LinkControl

_TAG_BYTES = 16
_ACK_BYTES = 256
"""Room for an acknowledgement: more than 30 ranges."""
_STREAM_OVERHEAD = 12
"""Type, one byte of stream ID, eight of offset, two of length."""
_TWO_BYTE_NUMBER = 0x41
_ZEROS = bytes(5)
_PING = b"\x01"
_ACK_OF_ACK = 8
_pack_datagram = Struct("!BH").pack
_pack_stream = Struct("!BBQH").pack
_unpack_mask = Struct("!BH2x").unpack


class PlainPacket(QuicSentPacket):
    """Record of a sent packet that elicits an acknowledgement: as aioquic's, with what is the same for all in one."""

    epoch = Epoch.ONE_RTT
    in_flight = True
    is_ack_eliciting = True
    is_crypto_packet = False
    packet_type = QuicPacketType.ONE_RTT

    def __init__(self, number: int, sent_time: float, sent_bytes: int, handlers: list[Any]) -> None:
        self.packet_number = number
        self.sent_time = sent_time
        self.sent_bytes = sent_bytes
        self.delivery_handlers = handlers


class PlainWriter:
    """Writes the plain packets of a connection."""

    def __init__(self, connection: QuicConnection, control: LinkControl) -> None:
        self._connection = connection
        self._control = control
        self._pacer = control.pacer
        # Both stay the same objects from the end of the handshake on; aioquic finds them by an Enum's slow hash.
        self._pair: CryptoPair | None = None
        self._space: QuicPacketSpace | None = None
        self._acknowledged_at = 0.0
        self.apart: list[bytes] = []
        """Payloads of datagrams that wait for nothing but `write_apart`."""

    def write(self, now: float) -> list[bytes] | None:
        """Make the packets that may leave now; None when that is for aioquic."""
        connection, pair, space = self._connection, self._pair, self._space
        if not _is_plain(connection):
            return None
        if pair is None or space is None:
            pair = self._pair = connection._cryptos[Epoch.ONE_RTT]
            space = self._space = connection._spaces[Epoch.ONE_RTT]
        send = pair.send
        if pair._update_key_requested or send.aead is None or send.hp is None or not send.hp._is_chacha20:
            return None
        stream: QuicStream | None = None
        for candidate in connection._streams_queue:
            sender = candidate.sender
            if candidate.receiver.stop_pending or sender.reset_pending or candidate.is_finished:
                return None
            if not sender.buffer_is_empty:
                if stream is not None or candidate.is_blocked or (candidate.stream_id or 0) > 63:
                    return None
                stream = candidate
        pending = connection._datagrams_pending
        if stream is not None and (pending or stream.sender._buffer_fin is not None):
            return None
        connection._pacing_at = None
        has_data = stream is not None or len(pending) > 0
        ack_at = space.ack_at
        is_due = ack_at is not None and ack_at <= now
        if not has_data and not is_due:
            return []
        batch = _Batch(connection, pair, space, now)
        # Along with data an acknowledgement may leave sooner, no more often: it saves a packet of its own.
        if is_due or (ack_at is not None and now - self._acknowledged_at >= connection._ack_delay):
            batch.acknowledge(may_elicit=self._control.bytes_in_flight < self._control.congestion_window)
        if has_data:
            flight = self._control.congestion_window - self._control.bytes_in_flight
            # A packet that begins within the allowance may leave whole.
            allowed = -(-self._pacer.allowance(now) // connection._max_datagram_size)
            if stream is None:
                batch.add_datagrams(allowed, flight)
            else:
                batch.add_stream(stream, allowed, flight)
            self._pacer.spend(batch.size)
            if pending or (stream is not None and not stream.sender.buffer_is_empty):
                at = self._pacer.next_allowance(now)
                connection._pacing_at = at if at > now else None
        if is_due:
            batch.add_acknowledgement()
        if space.ack_at is None and ack_at is not None:
            self._acknowledged_at = now
        datagrams = batch.finish(self._control)
        if not pending and (stream is None or stream.sender.buffer_is_empty):
            self._control.mark_app_limited()
        return datagrams

    def can_probe(self) -> bool:
        """Whether `write_probe` may be called: the connection has nothing to say that comes first."""
        connection = self._connection
        if not _is_plain(connection):
            return False
        self._pair, self._space = connection._cryptos[Epoch.ONE_RTT], connection._spaces[Epoch.ONE_RTT]
        return True

    def write_probe(self, size: int, handler: tuple[Any, tuple[Any, ...]], now: float) -> bytes:
        """Make a packet of exactly `size` bytes that elicits an acknowledgement and is otherwise padding.

        Its loss says nothing of congestion (RFC 9000 section 14.4), and a timeout doesn't repeat it.
        """
        assert self._pair is not None
        assert self._space is not None
        batch = _Batch(self._connection, self._pair, self._space, now)
        batch.add_probe(size, handler)
        return batch.finish(self._control)[0]

    def write_apart(self, now: float) -> list[bytes]:
        """Make a packet of each datagram in `apart`; aioquic writes them soon where it has something to say first.

        Their loss says nothing of congestion, and a timeout doesn't repeat them.
        """
        apart, self.apart = self.apart, []
        if not self.can_probe():
            for payload in apart:
                self._connection.send_datagram_frame(payload)
            return []
        assert self._pair is not None
        assert self._space is not None
        batch = _Batch(self._connection, self._pair, self._space, now)
        for payload in apart:
            batch.add_apart(payload)
        return batch.finish(self._control)


class _Batch:
    """Packets of one call, as they grow. `size` counts what is in flight, in bytes."""

    def __init__(self, connection: QuicConnection, pair: CryptoPair, space: QuicPacketSpace, now: float) -> None:
        self._connection = connection
        self._space = space
        self._now = now
        assert pair.send.aead is not None
        assert pair.send.hp is not None
        self._encrypt, self._iv = pair.send.aead._aead.encrypt, pair.send.aead._iv
        encryptor: Any = pair.send.hp._encryptor
        self._reset_nonce, self._update = encryptor.reset_nonce, encryptor.update
        self._cid = connection._peer_cid.cid
        self._pack = _header(len(self._cid))
        self._first = _TWO_BYTE_NUMBER | connection._spin_bit << 5 | pair.key_phase << 2
        self._number = connection._packet_number
        self._overhead = 3 + len(self._cid) + _TAG_BYTES
        self._room = connection._max_datagram_size - self._overhead
        self._ack = b""
        self._ack_eliciting = False
        self._datagrams: list[bytes] = []
        self._packets: list[QuicSentPacket] = []
        self.size = 0

    def acknowledge(self, *, may_elicit: bool) -> None:
        """Put an acknowledgement of everything received into the first packet that has room for it.

        `may_elicit` tells whether the packet may be in flight: without room in the window nothing is added to that.
        """
        connection, space = self._connection, self._space
        assert space.largest_received_time is not None
        delay = int((self._now - space.largest_received_time) * 1000000) >> connection._local_ack_delay_exponent
        buffer = Buffer(capacity=_ACK_BYTES)
        buffer.push_uint_var(QuicFrameType.ACK)
        ranges = push_ack_frame(buffer, space.ack_queue, max(0, delay), _ACK_BYTES - 1)
        self._ack = buffer.data
        if may_elicit and ranges > 1 and self._number % _ACK_OF_ACK == 0:
            # Once the peer has acknowledged this, old ranges need not be told any more.
            self._ack += _PING
            self._ack_eliciting = True

    def add_acknowledgement(self) -> None:
        """Send the acknowledgement in a packet of its own if it has found no room."""
        if self._ack:
            packet = self._add([], 0, [])
            # By itself an acknowledgement is not in flight (RFC 9002 section 2).
            if not self._ack_eliciting:
                packet.in_flight = packet.is_ack_eliciting = False
                self.size -= packet.sent_bytes

    def add_probe(self, size: int, handler: tuple[Any, tuple[Any, ...]]) -> None:
        """Make a PING, padded to a packet of `size` bytes, that isn't in flight."""
        packet = self._add([_PING.ljust(size - self._overhead, b"\0")], 0, [handler])
        packet.in_flight = packet.is_ack_eliciting = False
        self.size -= packet.sent_bytes

    def add_apart(self, payload: bytes) -> None:
        """Make a packet with a datagram that isn't in flight."""
        head = _pack_datagram(QuicFrameType.DATAGRAM_WITH_LENGTH, 0x4000 | len(payload))
        packet = self._add([head, payload], 0, [])
        packet.in_flight = packet.is_ack_eliciting = False
        self.size -= packet.sent_bytes

    def add_datagrams(self, allowed: int, flight: int) -> None:
        """Send at most `allowed` packets of the datagrams that wait, within `flight` bytes."""
        pending = self._connection._datagrams_pending
        room, overhead = self._room, self._overhead
        for _ in range(allowed):
            limit = min(room, flight - self.size - overhead)
            used = 0
            parts: list[bytes] = []
            while pending and used + len(pending[0]) + 3 <= limit:
                data = pending.popleft()
                parts += (_pack_datagram(QuicFrameType.DATAGRAM_WITH_LENGTH, 0x4000 | len(data)), data)
                used += len(data) + 3
            if not parts:
                return
            self._add(parts, used, [])

    def add_stream(self, stream: QuicStream, allowed: int, flight: int) -> None:
        """Send what the stream has to send, worth `allowed` full packets at most and within `flight` bytes.

        What was lost is in many ranges, mostly of a packet each: all that may leave does, since nothing calls again
        before the peer acknowledges or a timer is due.
        """
        full = self._room + self._overhead
        while (paced := allowed * full - self.size) > 0 and flight - self.size >= full:
            if not self._add_range(stream, min(-(-paced // full), (flight - self.size) // full)):
                break

    def _add_range(self, stream: QuicStream, packets: int) -> bool:
        """Send at most so many packets of the first range that waits; False when none may be sent."""
        connection, sender = self._connection, stream.sender
        step = self._room - _STREAM_OVERHEAD
        before = sender.highest_offset
        room = connection._remote_max_data - connection._remote_max_data_used
        # One piece for all packets: the sender's bookkeeping of ranges costs as much as the encryption of a packet.
        frame = sender.get_frame(packets * step, min(before + room, stream.max_stream_data_remote))
        if frame is None:
            return False
        if not len(sender._pending):
            sender.buffer_is_empty = True  # which get_frame would find out with the next call
        connection._remote_max_data_used += sender.highest_offset - before
        data, delivered = frame.data, sender.on_data_delivery
        for position in range(0, len(data), step):
            piece = data[position : position + step]
            offset = frame.offset + position
            head = _pack_stream(
                QuicFrameType.STREAM_BASE | 6, stream.stream_id, offset | 0xC000000000000000, 0x4000 | len(piece)
            )
            handler = (delivered, (offset, offset + len(piece), False))
            self._add([head, piece], len(piece) + _STREAM_OVERHEAD, [handler])
        return not sender.buffer_is_empty

    def finish(self, control: LinkControl) -> list[bytes]:
        """Record what was made and give it."""
        if not self._datagrams:
            return []
        connection, now = self._connection, self._now
        connection._packet_number = self._number
        connection._network_paths[0].bytes_sent += sum(map(len, self._datagrams))
        space, loss = self._space, connection._loss
        for packet in self._packets:
            space.sent_packets[packet.packet_number] = packet
        eliciting_packets = [packet for packet in self._packets if packet.in_flight]
        if eliciting_packets:
            space.ack_eliciting_in_flight += len(eliciting_packets)
            loss._time_of_last_sent_ack_eliciting_packet = now
            control.on_packets_sent(eliciting_packets, self.size)
            if not connection._ack_eliciting_sent_since_receipt:
                connection._close_at = now + connection._idle_timeout()
                connection._ack_eliciting_sent_since_receipt = True
        return self._datagrams

    def _add(self, parts: list[bytes], used: int, handlers: list[Any]) -> PlainPacket:
        """Make a packet of frames, with the acknowledgement if there is room for it."""
        if self._ack and used + len(self._ack) <= self._room:
            space = self._space
            parts.append(self._ack)
            handlers.append((self._connection._on_ack_delivery, (space, space.largest_received_packet)))
            space.ack_at = None
            self._ack = b""
        number = self._number
        size = self._seal(b"".join(parts))
        packet = PlainPacket(number, self._now, size, handlers)
        self._packets.append(packet)
        self.size += size
        return packet

    def _seal(self, payload: bytes) -> int:
        """Encrypt payload and header (RFC 9001 sections 5.3 and 5.4); give the size of the datagram."""
        number, first, cid, pack = self._number, self._first, self._cid, self._pack
        self._number = number + 1
        low = number & 0xFFFF
        sealed = self._encrypt((self._iv ^ number).to_bytes(12, "big"), payload, pack(first, cid, low))
        self._reset_nonce(sealed[2:18])
        mask, number_mask = _unpack_mask(self._update(_ZEROS))
        datagram = pack(first ^ mask & 0x1F, cid, low ^ number_mask) + sealed
        self._datagrams.append(datagram)
        return len(datagram)


def _is_plain(connection: QuicConnection) -> bool:
    """Whether the connection has nothing to say but datagrams, bytes of streams and acknowledgements."""
    paths = connection._network_paths
    if (
        connection._state is not QuicConnectionState.CONNECTED
        or connection._close_pending
        or not connection._handshake_confirmed
        or connection._quic_logger is not None
        or connection._handshake_done_pending
        or connection._probe_pending
        or connection._ping_pending
        or connection._retire_connection_ids
        or connection._streams_blocked_pending
        or connection._remote_preferred_address is not None
        or not paths[0].is_validated
        or paths[0].remote_challenges
        or not connection._crypto_streams[Epoch.ONE_RTT].sender.buffer_is_empty
    ):
        return False
    if len(paths) > 1 and not all(is_idle(connection, path) for path in paths[1:]):
        return False
    for connection_id in connection._host_cids:
        if not connection_id.was_sent:
            return False
    window = connection._local_max_data
    if window.used * 2 > window.value:
        window.value *= 2  # as aioquic has it raised; a ReceiveWindow decides for itself
    if window.value != window.sent:
        return False
    for limit in (connection._local_max_streams_bidi, connection._local_max_streams_uni):
        if limit.value != limit.sent and limit.sent - limit.used < limit.value - limit.sent:
            return False
    for stream in connection._streams.values():
        if (
            stream.max_stream_data_local_sent != stream.max_stream_data_local
            or stream.receiver.highest_offset * 2 > stream.max_stream_data_local
        ):
            return False
    return True


@cache
def _header(connection_id_bytes: int) -> Any:
    """Packer of a short header: first byte, connection ID, packet number of two bytes."""
    return Struct(f"!B{connection_id_bytes}sH").pack
