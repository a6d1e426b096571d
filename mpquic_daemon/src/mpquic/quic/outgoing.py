"""What waits inside a QUIC connection until it is sent: datagrams, and the bytes of streams.

It is bounded: the budgets follow congestion window and pacing, so that packets wait in the tunnel's own queues, where
something decides which are worth sending.
"""

from collections import deque
from collections.abc import Sequence

from mpquic.quic import aioquic_internals as internals
from mpquic.quic.aioquic_bounds import BoundedConnection
from mpquic.quic.congestion import LinkControl
from mpquic.quic.memory import FLOOR

_MAX_PENDING = 256 << 10
_PENDING_SECONDS = 0.004
_MAX_UNSENT = 1 << 20


class Outgoing:
    """Datagrams and stream bytes of one connection. `max_datagram_size` is that of the local link, in bytes."""

    def __init__(self, connection: BoundedConnection, control: LinkControl, max_datagram_size: int) -> None:
        self._connection = connection
        self._control = control
        self._two_packets = 2 * max_datagram_size
        self._pending: deque[int] = deque()
        self.pending_bytes = 0
        """Payload of the datagrams that wait."""
        self._written: dict[int, int] = {}
        self.has_unsent: bool | None = False
        """Whether stream bytes wait; None when that has to be found out."""

    def datagram_budget(self) -> int:
        """Bytes of datagram payload that are worth handing over now; at most 0 when none are."""
        if self.has_unsent is None:
            self.has_unsent = self._find_unsent()
        if self.has_unsent:
            # Datagrams go before stream bytes in each packet: without a pause a full pipe would starve the control
            # stream, and with it the probes that tell whether the path lives.
            return 0
        return self._allowance() - self.pending_bytes

    def stream_budget(self, stream_id: int) -> int:
        """Bytes that are worth writing to the stream now; at most 0 when none are."""
        return self._allowance() - self._unsent(stream_id) if self._may_write(stream_id) else 0

    def send_datagrams(self, payloads: Sequence[bytes], capacity: int) -> int:
        """Queue datagrams; gives how many were taken. Stops at one that is larger than `capacity`."""
        send, pending = self._connection.send_datagram_frame, self._pending
        taken = 0
        for payload in payloads:
            size = len(payload)
            if size > capacity or self.pending_bytes >= _MAX_PENDING:
                break
            send(payload)
            pending.append(size)
            self.pending_bytes += size
            taken += 1
        return taken

    def open_stream(self) -> int:
        """Reserve a bidirectional stream and give its identifier."""
        stream_id = self._connection.get_next_available_stream_id()
        self._connection.send_stream_data(stream_id, b"")
        self._written[stream_id] = 0
        return int(stream_id)

    def send_stream(self, stream_id: int, data: bytes, *, end: bool) -> bool:
        """Write to a stream; False when it is gone, or too much of it waits or is unacknowledged."""
        if self._unsent(stream_id) > _MAX_UNSENT or not self._may_write(stream_id):
            return False
        try:
            self._connection.send_stream_data(stream_id, data, end)
        except (ValueError, RuntimeError):  # finished, or reset by the peer
            return False
        self._written[stream_id] = self._written.get(stream_id, 0) + len(data)
        return True

    def stream_progress(self, stream_id: int) -> tuple[int, int]:
        """Return how many bytes were written to a stream, and how many of them are acknowledged in one piece."""
        sender = internals.stream_sender(self._connection, stream_id)
        written = self._written.get(stream_id, 0)
        return written, written if sender is None else written - internals.kept_bytes(sender)

    def reset_stream(self, stream_id: int, code: int, *, is_client: bool) -> bool:
        """Abort a stream in the directions that it has; False when it has gone already."""
        self.forget_stream(stream_id)
        unidirectional = stream_id & 2
        own = (stream_id & 1 == 0) is is_client  # RFC 9000 section 2.1
        try:
            if own or not unidirectional:
                self._connection.reset_stream(stream_id, code)
            if not own or not unidirectional:
                self._connection.stop_stream(stream_id, code)
        except ValueError:
            return False
        return True

    def forget_stream(self, stream_id: int) -> None:
        """Count what was written to a stream no more: it was aborted."""
        self._written.pop(stream_id, None)

    def forget_sent(self) -> None:
        """Count the datagrams that have left no more."""
        pending = self._pending
        for _ in range(len(pending) - internals.pending_datagrams(self._connection)):
            self.pending_bytes -= pending.popleft()

    def resize(self, packet_size: int) -> None:
        """Send packets of this size in bytes, and drop the datagrams that don't fit any more."""
        self._pending = deque(internals.set_packet_size(self._connection, packet_size))
        self.pending_bytes = sum(self._pending)

    def clear(self) -> None:
        """Forget everything: the connection is over."""
        self._pending.clear()
        self.pending_bytes = 0
        self._written.clear()

    def _allowance(self) -> int:
        """What may wait inside: a few milliseconds of the rate, and no more than the window has room for."""
        control = self._control
        room = control.congestion_window - control.bytes_in_flight
        wait = max(self._two_packets, int(control.rate * _PENDING_SECONDS))
        return min(room, wait, _MAX_PENDING)

    def _may_write(self, stream_id: int) -> bool:
        """Whether the budget allows to keep more: a peer may acknowledge all but the first byte of a stream."""
        sender = internals.stream_sender(self._connection, stream_id)
        if sender is None or internals.kept_bytes(sender) <= FLOOR:
            return True
        return self._connection.budget.may_send()

    def _unsent(self, stream_id: int) -> int:
        written = self._written.get(stream_id)
        if not written:
            return 0
        sender = internals.stream_sender(self._connection, stream_id)
        if sender is None:
            del self._written[stream_id]
            return 0
        return max(0, written - int(sender.next_offset))

    def _find_unsent(self) -> bool:
        return any(self._unsent(stream_id) for stream_id in list(self._written))
