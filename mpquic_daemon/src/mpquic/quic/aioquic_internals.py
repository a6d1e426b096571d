"""What this project touches of aioquic beyond its public interface, each with the reason.

Packets by the thousand have modules of their own: `aioquic_receive` and `aioquic_send`.

Written against aioquic 1.7. tests/quic/test_aioquic_internals.py fails with the name of whatever a new version changed.
"""

from collections.abc import Callable
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import END_STATES, Limit, QuicConnection, QuicConnectionState
from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicFrameType
from aioquic.quic.recovery import QuicPacketPacer, QuicPacketSpace
from aioquic.quic.stream import QuicStreamSender
from aioquic.tls import Epoch
from cryptography import x509

_DATAGRAM_FRAME_OVERHEAD = 3  # type, length of two bytes
_SHORT_HEADER_OVERHEAD = 1 + 2 + 16  # first byte, packet number, AEAD tag


def pending_datagrams(connection: QuicConnection) -> int:
    """Datagrams that wait in the connection. Its queue is unbounded and tells nothing, so we bound it from outside."""
    return len(connection._datagrams_pending)


def datagram_capacity(connection: QuicConnection) -> int:
    """Bytes of the largest datagram that fits into a packet. A larger one would block the queue for ever.

    Depends on the length of the connection ID that the peer chose, and on the frame size that it accepts, which aioquic
    doesn't check.
    """
    header = len(connection._peer_cid.cid) + _SHORT_HEADER_OVERHEAD
    capacity = connection._max_datagram_size - header - _DATAGRAM_FRAME_OVERHEAD
    accepted = connection._remote_max_datagram_frame_size
    return max(0, min(capacity, (accepted or 0) - _DATAGRAM_FRAME_OVERHEAD))


def packet_size(connection: QuicConnection) -> int:
    """UDP payload in bytes of the largest packet that is sent."""
    return connection._max_datagram_size


def set_packet_size(connection: QuicConnection, size: int) -> list[int]:
    """Send packets of at most `size` bytes of UDP payload from now on; return the sizes of the datagrams that wait.

    Those that fit no longer are dropped.
    """
    shrinks = size < connection._max_datagram_size
    connection._max_datagram_size = size
    pending = connection._datagrams_pending
    if shrinks:
        capacity = datagram_capacity(connection)
        fitting = [datagram for datagram in pending if len(datagram) <= capacity]
        pending.clear()
        pending.extend(fitting)
    return [len(datagram) for datagram in pending]


def forget_pause(connection: QuicConnection, now: float) -> None:
    """Take what is in flight for sent one round trip ago at the earliest, after a time in which this end stood still.

    Its acknowledgements would count that time as the path's: the smoothed RTT, by which packets are paced, stays too
    long for seconds. And what has merely not been read yet would be called lost.
    """
    loss = connection._loss
    if not loss._rtt_initialized:
        return
    earliest = now - loss._rtt_smoothed
    for space in loss.spaces:
        for packet in space.sent_packets.values():
            packet.sent_time = max(packet.sent_time or earliest, earliest)
    last = loss._time_of_last_sent_ack_eliciting_packet
    loss._time_of_last_sent_ack_eliciting_packet = max(last, earliest)


def stream_sender(connection: QuicConnection, stream_id: int) -> QuicStreamSender | None:
    """Send half of a stream: its `next_offset` tells what still waits. None when the stream is gone.

    There is no public measure of what a stream has sent, and its buffer is unbounded.
    """
    stream = connection._streams.get(stream_id)
    return None if stream is None else stream.sender


def kept_bytes(sender: QuicStreamSender) -> int:
    """Bytes that a stream keeps from the first one on that isn't acknowledged, those that wait included."""
    return len(sender._buffer)


def has_decrypted(connection: QuicConnection) -> bool:
    """Whether any packet of the peer could be decrypted."""
    return connection._state is not QuicConnectionState.FIRSTFLIGHT


def is_over(connection: QuicConnection) -> bool:
    """Whether the connection is closing, draining or terminated. The public event comes three PTOs later."""
    return connection._state in END_STATES


def closed_by_peer(connection: QuicConnection) -> bool:
    """Whether the peer's CONNECTION_CLOSE ended the connection."""
    return connection._state is QuicConnectionState.DRAINING


def close_event(connection: QuicConnection) -> ConnectionTerminated | None:
    """Why the connection ends, before the public event tells it."""
    return connection._close_event


def newest_received(connection: QuicConnection) -> int:
    """Highest packet number received in 1-RTT packets, which are authenticated; -1 before the first."""
    space = connection._spaces.get(Epoch.ONE_RTT)
    return -1 if space is None else int(space.largest_received_packet)


def set_ack_delay(connection: QuicConnection, seconds: float) -> None:
    """Acknowledge after this time rather than after 1 ms: one ACK then covers a whole batch. Announced is 25 ms."""
    connection._ack_delay = seconds


def install_pacer(connection: QuicConnection, pacer: QuicPacketPacer) -> None:
    """Replace the pacer; aioquic has no way to choose one."""
    connection._loss._pacer = pacer


def after_loss_detection(connection: QuicConnection, call: Callable[[float], None]) -> None:
    """Call with the time whenever an acknowledgement was processed or the loss timer was due, losses included.

    aioquic tells its congestion control of packets one by one, and not which of them belong together.
    """
    loss = connection._loss
    detect = loss._detect_loss

    def detect_and_tell(*, now: float, space: QuicPacketSpace) -> None:
        detect(now=now, space=space)
        call(now)

    loss._detect_loss = detect_and_tell  # type: ignore[method-assign]


def bound_handshake_pauses(connection: QuicConnection, longest: float) -> None:
    """Repeat what is unacknowledged of a handshake after `longest` seconds at most, or after the bare PTO if longer.

    By RFC 9002 section 6.2.1 each repetition doubles the pause before the next one: a path that heals waits for what is
    left of the last. A handshake lasts for seconds, and anti-amplification limits what its repetitions send.
    """
    loss = connection._loss
    on_timeout = loss.on_loss_detection_timeout

    def on_timeout_and_bound(*, now: float) -> None:
        on_timeout(now=now)
        if not connection._handshake_complete:
            while loss._pto_count and loss.get_probe_timeout() * 2**loss._pto_count > longest:
                loss._pto_count -= 1

    loss.on_loss_detection_timeout = on_timeout_and_bound  # type: ignore[method-assign]


class ReceiveWindow(Limit):
    """Connection flow control that opens by what was consumed.

    aioquic doubles its limit whenever half of it is claimed by offsets, consumed or not: a peer that skips ahead in a
    stream makes the receiver allocate the gap, twice as much each time, without end. Here the limit is always what was
    delivered, plus the window.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.consumed = 0
        self._value = window
        super().__init__(frame_type=QuicFrameType.MAX_DATA, name="max_data", value=window)

    @property
    def value(self) -> int:
        """Highest sum of stream offsets that the peer may reach."""
        return self._value

    @value.setter
    def value(self, _doubled: int) -> None:
        target = self.consumed + self.window
        # In quarters, or each packet would carry a MAX_DATA frame.
        if target - self._value >= self.window // 4:
            self._value = target

    def widen(self, window: int) -> None:
        """Set the window; a larger one is announced with the next packet."""
        self.window = window
        self._value = max(self._value, self.consumed + window)


def install_receive_window(connection: QuicConnection, window: ReceiveWindow) -> None:
    """Replace the flow control of the connection, before its first packet."""
    connection._local_max_data = window


def peer_chain(connection: QuicConnection) -> list[x509.Certificate]:
    """Certificates that the peer has sent beside its own."""
    tls = getattr(connection, "tls", None)
    return [] if tls is None else list(tls._peer_certificate_chain)


def peer_certificate(connection: QuicConnection) -> x509.Certificate | None:
    """Leaf certificate that the peer proved to own; None before. aioquic checks chain, name and dates, not the use."""
    tls = getattr(connection, "tls", None)
    return None if tls is None else tls._peer_certificate


def restrict(configuration: QuicConfiguration, **fields: Any) -> QuicConfiguration:
    """Set fields that aioquic marks as internal: cipher_suites, max_datagram_frame_size, supported_versions, cafile."""
    for name, value in fields.items():
        if not hasattr(configuration, name):
            raise AttributeError(f"this version of aioquic has no QuicConfiguration.{name}")
        setattr(configuration, name, value)
    return configuration
