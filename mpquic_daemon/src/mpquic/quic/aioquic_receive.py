"""Plain packets in: what a tunnel receives by the thousand, taken in batches beside aioquic's `receive_datagram`.

A plain packet has a short header of the present key phase, comes from the address in use, which is proven, and
carries DATAGRAM frames, the next bytes of a stream, acknowledgements or a PING. Everything else is left to aioquic,
bytes and all: such a packet has changed nothing here. aioquic 1.7 spends about 11 µs on each packet, most of it on
steps that a batch needs once (path, timers, ACK ranges) or never (long headers, logs, copies of header and payload);
this is about a third.

Written against aioquic 1.7, whose private attributes are used throughout; see `aioquic_internals`. RFC 9000 sections
12.3, 17.3 and 19; RFC 9001 section 5; RFC 9221.
"""

from collections.abc import Sequence
from struct import Struct
from typing import TYPE_CHECKING, Any

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.connection import QuicConnection, QuicConnectionState
from aioquic.quic.packet import QuicFrameType, pull_ack_frame
from aioquic.quic.recovery import MAX_ACK_RANGES, QuicPacketSpace
from aioquic.tls import Epoch
from cryptography.exceptions import InvalidTag

from mpquic.proto.path.address import Address
from mpquic.quic.aioquic_internals import ReceiveWindow

if TYPE_CHECKING:
    from aioquic.quic.crypto import CryptoContext
    from aioquic.quic.rangeset import RangeSet

CONNECTION_ID_BYTES = 8
"""Length of the connection IDs that this end issues."""
_HEADER_BYTES = 1 + CONNECTION_ID_BYTES + 2
_SAMPLE = slice(1 + CONNECTION_ID_BYTES + 4, 1 + CONNECTION_ID_BYTES + 20)
_SHORTEST = _HEADER_BYTES + 4 + 16  # four bytes of frames, so that the fields of a DATAGRAM frame are there
_TWO_BYTE_NUMBER = 0x41
_SPIN_BIT = 0x20
_ZEROS = bytes(5)
_DATAGRAM = 0x31
_STREAM_KINDS = (0x08, 0x0A, 0x0C, 0x0E)  # without FIN
_pack_header = Struct(f"!B{CONNECTION_ID_BYTES}sH").pack
_unpack_mask = Struct("!BH2x").unpack


class Inbound:
    """What plain packets brought: payloads of DATAGRAM frames, and for each stream its bytes in order."""

    __slots__ = ("chunks", "payloads")

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.chunks: dict[int, list[bytes]] = {}


class PlainTaker:
    """Takes the plain packets of a connection and puts what they bring into `inbound`."""

    def __init__(self, connection: QuicConnection, inbound: Inbound) -> None:
        self._connection = connection
        self._inbound = inbound
        # Both stay the same objects from the end of the handshake on; aioquic finds them by an Enum's slow hash.
        self._crypto: CryptoContext | None = None
        self._space: QuicPacketSpace | None = None
        self._acks: list[tuple[RangeSet, int, float]] = []

    def take(self, datagrams: Sequence[bytes], start: int, address: Address, now: float) -> int:
        """Take plain packets from index `start` on; give the index of the first datagram that isn't one. See
        `process_acks`.

        aioquic's events must have been drained before, or the bytes of a stream change their order.
        """
        connection, crypto, space = self._connection, self._crypto, self._space
        if not _is_plain(connection, address):
            return start
        if crypto is None or space is None:
            if connection._cryptos[Epoch.ZERO_RTT].recv.is_valid():
                return start
            crypto = self._crypto = connection._cryptos[Epoch.ONE_RTT].recv
            space = self._space = connection._spaces[Epoch.ONE_RTT]
        if crypto.aead is None or crypto.hp is None or not crypto.hp._is_chacha20:
            return start
        decrypt, iv = crypto.aead._aead.decrypt, crypto.aead._iv
        encryptor: Any = crypto.hp._encryptor
        reset_nonce, update = encryptor.reset_nonce, encryptor.update
        cid = connection.host_cid
        wanted = _TWO_BYTE_NUMBER | crypto.key_phase << 2
        payloads = self._inbound.payloads
        expected, largest = space.expected_packet_number, space.largest_received_packet
        # Numbers that arrived one after the other are entered together.
        run_start = run_stop = largest + 1
        spin = -1
        eliciting = False
        taken = start
        for datagram in datagrams[start:] if start else datagrams:
            if len(datagram) < _SHORTEST or datagram[1 : 1 + CONNECTION_ID_BYTES] != cid:
                break
            reset_nonce(datagram[_SAMPLE])
            mask, number_mask = _unpack_mask(update(_ZEROS))
            first = datagram[0] ^ mask & 0x1F
            if first & ~_SPIN_BIT != wanted:
                break
            low = (datagram[9] << 8 | datagram[10]) ^ number_mask
            number = expected & -0x10000 | low
            if number <= expected - 0x8000:
                number += 0x10000
            elif number > expected + 0x8000 and number >= 0x10000:
                number -= 0x10000
            try:
                payload = decrypt(
                    (iv ^ number).to_bytes(12, "big"), datagram[_HEADER_BYTES:], _pack_header(first, cid, low)
                )
            except InvalidTag:
                break
            late = number <= largest
            if late or number != run_stop:
                _enter(space, run_start, run_stop)
                run_start = run_stop = number
                if late and number in space.received_packets:
                    run_start = run_stop = largest + 1
                    taken += 1
                    continue
            if (
                payload[0] == _DATAGRAM
                and (payload[1] << 8 | payload[2]) - 0x4000 == len(payload) - 3  # a length of two bytes
            ):
                payloads.append(payload[3:])
                eliciting = True
            else:
                elicits = self._deliver(payload, now)
                if elicits is None:
                    break
                eliciting = eliciting or elicits
            taken += 1
            run_stop += 1
            if late:
                _enter(space, run_start, run_stop)
                run_start = run_stop = largest + 1
                continue
            largest = number
            spin = first & _SPIN_BIT
            if number >= expected:
                expected = number + 1
        if taken == start:
            return start
        _enter(space, run_start, run_stop)
        if spin >= 0:
            space.expected_packet_number = expected
            space.largest_received_packet = largest
            space.largest_received_time = now
            if largest > connection._spin_highest_pn:
                connection._spin_highest_pn = largest
                connection._spin_bit = not spin if connection._is_client else bool(spin)
        if eliciting and space.ack_at is None:
            space.ack_at = now + connection._ack_delay
        connection._close_at = now + connection._idle_timeout()
        connection._ack_eliciting_sent_since_receipt = False
        return taken

    def process_acks(self) -> None:
        """Act on the acknowledgements that were taken.

        Not at once, since data that came with them can go on before; but before anything is sent or found lost, and
        before aioquic takes another packet.
        """
        if not self._acks:
            return
        connection, space = self._connection, self._space
        assert space is not None
        acks, self._acks = self._acks, []
        for ranges, delay, now in acks:
            connection._loss.on_ack_received(
                ack_rangeset=ranges,
                ack_delay=(delay << connection._remote_ack_delay_exponent) / 1000000,
                now=now,
                space=space,
            )

    def _deliver(self, payload: bytes, now: float) -> bool | None:
        """Deliver the frames of a packet and tell whether it elicits an acknowledgement.

        None, and nothing has happened, when one of them is aioquic's business.
        """
        found: list[bytes] = []
        piece: tuple[int, int, bytes] | None = None
        ack: tuple[RangeSet, int] | None = None
        eliciting = False
        position, end = 0, len(payload)
        try:
            while position < end:
                kind = payload[position]
                length = 0
                if kind == _DATAGRAM:
                    length, position = _varint(payload, position + 1)
                    found.append(payload[position : position + length])
                elif kind in _STREAM_KINDS and piece is None:
                    stream_id, position = _varint(payload, position + 1)
                    offset, position = _varint(payload, position) if kind & 4 else (0, position)
                    length, position = _varint(payload, position) if kind & 2 else (end - position, position)
                    piece = stream_id, offset, payload[position : position + length]
                elif kind == QuicFrameType.ACK and ack is None:
                    buffer = Buffer(data=payload[position + 1 :])
                    ack = pull_ack_frame(buffer)
                    position += 1 + buffer.tell()
                    continue
                elif kind == QuicFrameType.PING:
                    position += 1
                else:
                    return None
                eliciting = True
                position += length
        except (IndexError, ValueError):  # cut off, or negative numbers
            return None
        if position > end or (piece is not None and not self._advance(*piece)):
            return None
        self._inbound.payloads += found
        if ack is not None:
            self._acks.append((*ack, now))
        return eliciting

    def _advance(self, stream_id: int, offset: int, data: bytes) -> bool:
        """Take bytes of a stream if they are the next ones and within the limits."""
        stream = self._connection._streams.get(stream_id)
        if stream is None or not data:
            return False
        receiver, window = stream.receiver, self._connection._local_max_data
        stop = offset + len(data)
        if (
            receiver._buffer
            or offset != receiver._buffer_start
            or offset != receiver.highest_offset
            or receiver.is_finished
            or receiver._final_size is not None
            or stop > stream.max_stream_data_local
            or window.used + len(data) > window.value
        ):
            return False
        receiver._buffer_start = receiver.highest_offset = stop
        window.used += len(data)
        if isinstance(window, ReceiveWindow):
            window.consumed += len(data)
        self._inbound.chunks.setdefault(stream_id, []).append(data)
        return True


def _is_plain(connection: QuicConnection, address: Address) -> bool:
    """Whether packets of this address can be plain now: nothing is open in handshake, migration or keys."""
    paths = connection._network_paths
    return not (
        connection._state is not QuicConnectionState.CONNECTED
        or connection._close_pending
        or not connection._handshake_confirmed
        or connection._quic_logger is not None
        or not paths[0].is_validated
        or paths[0].addr != address
        or len(connection.host_cid) != CONNECTION_ID_BYTES
        or not connection._loss.peer_completed_address_validation
    )


def _enter(space: QuicPacketSpace, start: int, stop: int) -> None:
    """Enter packet numbers into what is acknowledged and what is a duplicate from now on."""
    if start >= stop:
        return
    space.ack_queue.add(start, stop)
    if len(space.ack_queue) > MAX_ACK_RANGES:
        space.ack_queue.shift()
    window = space.received_packets
    # The last one moves the window, which forgets those that it has left behind.
    window._received.update(range(start, stop - 1))
    window.add(stop - 1)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Read a variable-length integer (RFC 9000 section 16); IndexError when it is cut off."""
    first = data[position]
    length = 1 << (first >> 6)
    if length == 1:
        return first, position + 1
    stop = position + length
    if stop > len(data):
        raise IndexError
    return int.from_bytes(data[position:stop], "big") & (1 << (8 * length - 2)) - 1, stop
