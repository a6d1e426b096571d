"""One QUIC connection, driven sans-IO and in batches.

`receive` takes all datagrams of a read, `pop_events` gives what came of them once, `flush` gives everything that may
leave now. What waits inside is bounded: `datagram_budget` and `stream_budget` follow congestion window and pacing, so
that packets wait in the tunnel's own queues, where something decides which are worth sending.
"""

import datetime as dt
import enum
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aioquic.quic import events as quic_events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicErrorCode, QuicProtocolVersion
from aioquic.tls import CipherSuite
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mpquic.proto.control import certificate_problem
from mpquic.proto.control.identity import IdentityError, certificate_sha256, check_server_certificate
from mpquic.proto.path.address import Address
from mpquic.quic import aioquic_internals as internals
from mpquic.quic import congestion
from mpquic.quic.aioquic_bounds import BoundedConnection, PacketDroppedError
from mpquic.quic.aioquic_receive import CONNECTION_ID_BYTES, Inbound, PlainTaker
from mpquic.quic.aioquic_send import PlainWriter
from mpquic.quic.memory import FLOOR, QuicBudget
from mpquic.quic.pacing import BurstPacer
from mpquic.quic.pmtu import IP_UDP_BYTES, MIN_DATAGRAM_SIZE, QuicPathMtu

ALPN = "mpquic/1"
ACK_DELAY = 0.004
WINDOW_BEFORE_ADMISSION = 64 << 10
"""Bytes that a peer may send on streams before it has proved who it is: enough for the registration."""
WINDOW = 16 << 20
"""Flow control window in bytes: 500 Mbit/s at 250 ms."""
_UNLIMITED = 1 << 50  # streams are limited by the connection's window alone
_MAX_PENDING = 256 << 10
_PENDING_SECONDS = 0.004
_MAX_UNSENT = 1 << 20
_HANDSHAKE_TIMEOUT = "handshake timed out"

_CERTIFICATE_ALERTS = range(QuicErrorCode.CRYPTO_ERROR + 42, QuicErrorCode.CRYPTO_ERROR + 49)
"""Error codes of an end that has refused its peer's certificate (RFC 8446 section 6, RFC 9001 section 4.8)."""
_FAULT_PAUSE = 60.0

PAUSE = 1.0
"""Seconds by which a call is late after which this end has stood still meanwhile."""

_logger = logging.getLogger(__name__)


class _FaultLog:
    """Writes the traceback of a fault, one a minute for all connections: anybody may be able to cause them."""

    def __init__(self) -> None:
        self._last: float | None = None

    def write(self, now: float, doing: str, peer: Address | None) -> None:
        """Log the exception that is being handled."""
        if self._last is None or not 0 <= now - self._last < _FAULT_PAUSE:
            self._last = now
            _logger.exception("QUIC connection with %s failed on %s", peer, doing)


_faults = _FaultLog()


class LinkState(enum.Enum):
    """Where a connection is in its life."""

    HANDSHAKE = "handshake"
    ESTABLISHED = "established"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """What may differ between connections. Sizes in bytes, times in seconds."""

    congestion_algorithm: str = "cubic"
    max_datagram_size: int = 1452
    """UDP payload that the local link takes, without IP and UDP headers; what the path takes is found out."""
    idle_timeout: float = 30.0
    handshake_timeout: float = 5.0


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


def quic_configuration(options: LinkOptions, *, is_client: bool) -> QuicConfiguration:
    """Settings that both ends share.

    ChaCha20-Poly1305 is the only suite: AES-GCM is limited to 2^23 packets a key (RFC 9001 section 6.6), which aioquic
    neither counts nor acts on. QUIC version 1 is the only version.
    """
    configuration = QuicConfiguration(
        alpn_protocols=[ALPN],
        congestion_control_algorithm=congestion.registered_name(options.congestion_algorithm),
        connection_id_length=CONNECTION_ID_BYTES,
        idle_timeout=options.idle_timeout,
        is_client=is_client,
        max_data=WINDOW_BEFORE_ADMISSION,
        max_datagram_size=max(MIN_DATAGRAM_SIZE, options.max_datagram_size),
        max_stream_data=_UNLIMITED,
    )
    return internals.restrict(
        configuration,
        cipher_suites=[CipherSuite.CHACHA20_POLY1305_SHA256],
        max_datagram_frame_size=65535,
        supported_versions=[QuicProtocolVersion.VERSION_1],
    )


class QuicLink:
    """A QUIC connection. Made by `connect` on the client and by a QuicListener on the server.

    `on_output` is called when something was put in that `flush` will send; `on_connection_ids` with the IDs that the
    connection issued and retired.
    """

    def __init__(
        self,
        make_connection: Callable[[], BoundedConnection],
        options: LinkOptions,
        *,
        now: float,
        server_certificate: x509.Certificate | None = None,
    ) -> None:
        with congestion.capture() as made:
            self._connection = make_connection()
        self._control = made[-1]
        self._options = options
        self._is_client = server_certificate is None
        self._server_certificate = server_certificate
        self.state = LinkState.HANDSHAKE
        self.created_at = now
        self.dscp = 0
        """DSCP of its packets, for whoever owns the socket."""
        self.established_at: float | None = None
        self._deadline: float | None = now + options.handshake_timeout
        self._events: list[LinkEvent] = []
        self._inbound = Inbound()
        self._ended: set[int] = set()
        self._pending: deque[int] = deque()
        self._pending_bytes = 0
        self._written: dict[int, int] = {}
        self._stirred = True
        """Whether something happened since the last flush: else nothing is to be sent, and finding that out costs."""
        self._timer: float | None = None
        self._connection_due = float("inf")
        """When the connection itself wanted to be called at the latest, as it was found out last."""
        # What follows from the connection and is asked for several times a turn; None when it has to be found out.
        self._timer_known = False
        self._stream_waits: bool | None = None
        self._capacity: int | None = None
        self.dropped = 0
        """Packets of the peer that were dropped since there was no room for what they hold."""
        self.on_output: Callable[[], None] = _nothing
        self.on_connection_ids: Callable[[list[bytes], list[bytes]], None] = _ignore_connection_ids
        connection = self._connection
        size = connection.configuration.max_datagram_size
        internals.set_ack_delay(connection, ACK_DELAY)
        pacer = BurstPacer(max_datagram_size=size)
        internals.install_pacer(connection, pacer)
        self._taker = PlainTaker(connection, self._inbound)
        self._writer = PlainWriter(connection, self._control, pacer)
        # Only what passes is raised, by discovery; windows and pacing count in the local link's packets all the time.
        internals.set_packet_size(connection, MIN_DATAGRAM_SIZE)
        self._mtu = QuicPathMtu(size, self._control.meter)
        self._control.on_lost = self._mtu.on_lost
        # The client trusts the server from the handshake on; the server widens the window on admission.
        self._window = internals.ReceiveWindow(WINDOW if self._is_client else WINDOW_BEFORE_ADMISSION)
        internals.install_receive_window(connection, self._window)

    # What the connection is

    @property
    def meter(self) -> congestion.PathMeter:
        """Measurements of the congestion controller."""
        return self._control.meter

    @property
    def rate(self) -> float:
        """Bytes per second that the congestion window allows; 0.0 before the first RTT sample."""
        return self._control.rate

    @property
    def congestion_window(self) -> int:
        """Congestion window in bytes."""
        return self._control.congestion_window

    @property
    def bytes_in_flight(self) -> int:
        """Bytes sent and neither acknowledged nor lost."""
        return self._control.bytes_in_flight

    @property
    def peer_address(self) -> Address | None:
        """Where packets go now. On a server it follows the client, once a new address has been validated."""
        return self._connection.get_peer_address()

    @property
    def newest_received(self) -> int:
        """Number of the newest packet that the peer has sent with the keys of the connection; -1 before the first."""
        return internals.newest_received(self._connection)

    @property
    def has_decrypted(self) -> bool:
        """Whether any packet of the peer could be decrypted."""
        return internals.has_decrypted(self._connection)

    @property
    def is_closing(self) -> bool:
        """Whether either end has begun to close the connection, although the state may not show it before `flush`."""
        return self.state is LinkState.CLOSED or internals.close_event(self._connection) is not None

    @property
    def connection_id(self) -> bytes:
        """Connection ID that this end chose first."""
        return bytes(self._connection.host_cid)

    @property
    def max_datagram_size(self) -> int:
        """UDP payload in bytes of the largest packet that is sent now."""
        return self._mtu.size

    @property
    def base_fails(self) -> bool:
        """Whether the path doesn't carry packets of `MIN_DATAGRAM_SIZE`, as it must, but smaller ones."""
        return self._mtu.base_fails

    @property
    def black_holes(self) -> int:
        """How often the path was found to have shrunk."""
        return self._mtu.black_holes

    @property
    def datagram_capacity(self) -> int:
        """Largest payload in bytes that `send_datagrams` takes; 0 before the handshake is complete."""
        if self._capacity is None:
            established = self.state is LinkState.ESTABLISHED
            self._capacity = internals.datagram_capacity(self._connection) if established else 0
        return self._capacity

    @property
    def server_certificate(self) -> bytes | None:
        """The server's certificate in DER, to which a registration is bound; None before the client accepted it."""
        certificate = self._server_certificate
        return None if certificate is None else certificate.public_bytes(Encoding.DER)

    @property
    def server_chain(self) -> list[x509.Certificate]:
        """The server's certificate and those that it has sent with it; on a client, once it has accepted them."""
        certificate = self._server_certificate
        return [] if certificate is None else [certificate, *internals.peer_chain(self._connection)]

    @property
    def server_certificate_sha256(self) -> bytes | None:
        """SHA-256 of the server's certificate in DER."""
        certificate = self.server_certificate
        return None if certificate is None else certificate_sha256(certificate)

    def admit(self) -> None:
        """The peer proved who it is: open the flow control window, and find out which packets reach it."""
        self._connection.admit()
        self._window.widen(WINDOW)
        self._mtu.start()
        self._put_in()

    def share_budget(self, budget: QuicBudget) -> None:
        """Count what streams keep in the budget of a client, over all its connections."""
        self._connection.share(budget)

    # In

    def receive(self, datagrams: Sequence[bytes], address: Address, now: float) -> None:
        """Take datagrams from the network. Never raises: a datagram that can't be used is dropped."""
        if self.state is LinkState.CLOSED:
            return
        self._notice_pause(now)
        self._stir()
        index = 0
        try:
            while True:
                index = self._taker.take(datagrams, index, address, now)
                if index >= len(datagrams):
                    break
                self._taker.settle()
                try:
                    self._connection.receive_datagram(datagrams[index], address, now)
                except PacketDroppedError:
                    self.dropped += 1
                # At once: bytes of a stream that come in plain packets after this one must not overtake it.
                self._drain(now)
                index += 1
        except Exception:  # noqa: BLE001 - logged below
            # Bytes from the network run through the library's parsers, before anyone is authenticated. A defect there
            # costs this connection, not the process.
            _faults.write(now, "a received datagram", address)
            self._fail()

    def pop_events(self) -> list[LinkEvent]:
        """What happened since the last call, in order; stream bytes and datagrams gathered."""
        inbound = self._inbound
        for stream_id, chunks in inbound.chunks.items():
            self._events.append(StreamReceived(stream_id, b"".join(chunks), stream_id in self._ended))
        if inbound.payloads:
            self._events.append(DatagramsReceived(inbound.payloads))
            inbound.payloads = []
        if inbound.chunks:
            inbound.chunks = {}
            self._ended = set()
        events, self._events = self._events, []
        # The end comes last, whatever came with it.
        events.sort(key=_comes_last)
        return events

    @property
    def has_events(self) -> bool:
        """Whether `pop_events` would give something."""
        return bool(self._events or self._inbound.payloads or self._inbound.chunks)

    # Out

    def datagram_budget(self) -> int:
        """Bytes of datagram payload that are worth handing over now; at most 0 when none are."""
        if self.state is not LinkState.ESTABLISHED or self._has_unsent():
            # Datagrams go before stream bytes in each packet: without a pause a full pipe would starve the control
            # stream, and with it the probes that tell whether the path lives.
            return 0
        return self._allowance() - self._pending_bytes

    def stream_budget(self, stream_id: int) -> int:
        """Bytes that are worth writing to the stream now; at most 0 when none are."""
        if self.state is not LinkState.ESTABLISHED or not self._may_write(stream_id):
            return 0
        return self._allowance() - self._unsent(stream_id)

    def send_datagrams(self, payloads: Sequence[bytes]) -> int:
        """Queue datagrams; gives how many were taken. Stops at one that is larger than `datagram_capacity`."""
        capacity = self.datagram_capacity
        send = self._connection.send_datagram_frame
        taken = 0
        for payload in payloads:
            size = len(payload)
            if size > capacity or self._pending_bytes >= _MAX_PENDING:
                break
            send(payload)
            self._pending.append(size)
            self._pending_bytes += size
            taken += 1
        if taken:
            self._stirred = True  # and nothing but that: datagrams change neither timers nor streams
            self.on_output()
        return taken

    def open_stream(self) -> int:
        """Reserve a bidirectional stream and give its identifier. The peer learns of it with the first bytes."""
        stream_id = self._connection.get_next_available_stream_id()
        self._connection.send_stream_data(stream_id, b"")
        self._written[stream_id] = 0
        return int(stream_id)

    def send_stream(self, stream_id: int, data: bytes, *, end: bool = False) -> bool:
        """Write to a stream. False when the stream or the connection is gone, or a megabyte waits already.

        False as well when the peer has left too much unacknowledged, see `quic_memory`.
        """
        if self.state is LinkState.CLOSED or self._unsent(stream_id) > _MAX_UNSENT or not self._may_write(stream_id):
            return False
        try:
            self._connection.send_stream_data(stream_id, data, end)
        except (ValueError, RuntimeError):  # finished, or reset by the peer
            return False
        self._written[stream_id] = self._written.get(stream_id, 0) + len(data)
        self._put_in()
        return True

    def reset_stream(self, stream_id: int, code: int) -> None:
        """Abort a stream: stop sending on it and ask the peer to stop, as far as its direction allows either."""
        self._written.pop(stream_id, None)
        unidirectional = stream_id & 2
        own = (stream_id & 1 == 0) is self._is_client  # RFC 9000 section 2.1
        try:
            if own or not unidirectional:
                self._connection.reset_stream(stream_id, code)
            if not own or not unidirectional:
                self._connection.stop_stream(stream_id, code)
        except ValueError:
            return  # it has gone already
        self._put_in()

    def flush(self, now: float) -> list[tuple[bytes, Address]]:
        """Everything that may leave now, as (datagram, destination), oldest first."""
        if not self._stirred or self.state is LinkState.CLOSED:
            return []
        address = self.peer_address
        if address is None:
            return []
        self._notice_pause(now)
        self._stir()
        self._stirred = False
        try:
            self._taker.settle()
            probes = self._probe_path(now, address) if now >= self._mtu.due else []
            plain = self._writer.write(now)
            out: list[tuple[bytes, Address]]
            if plain is None:
                out = self._connection.datagrams_to_send(now)
                self._drain(now)
            else:
                out = [(datagram, address) for datagram in plain]
            self._settle()
            self._connection.forget_unacknowledged()
        except Exception:  # noqa: BLE001 - logged below
            # What is sent depends on what the peer sent: see `receive`.
            _faults.write(now, "sending", address)
            self._fail()
            return []
        # In front, where the small ones can't end the segmented send of larger ones and share their fate.
        return probes + out if probes else out

    def close(self, code: int = 0, reason: str = "") -> None:
        """End the connection; the next `flush` tells the peer, then the connection is closed."""
        if self.state is LinkState.CLOSED:
            return
        self._connection.close(error_code=code, reason_phrase=reason)
        self._put_in()

    def abandon(self, reason: str) -> None:
        """End the connection without a word to the peer."""
        self._finish(QuicErrorCode.NO_ERROR, reason, by_peer=False)

    def on_path_mtu(self, mtu: int, version: int) -> None:
        """The kernel believes in a path MTU of `mtu` bytes over this version of IP, because of ICMP."""
        self._mtu.on_hint(mtu - IP_UDP_BYTES[version])
        self._put_in()

    def doubt_size(self) -> None:
        """Large packets of others to the same peer don't pass: have a look whether ours do."""
        self._mtu.doubt()
        self._put_in()

    def on_too_large(self, size: int, now: float) -> None:
        """The kernel refused a packet of `size` bytes, since the device takes no such packets."""
        self._mtu.on_too_large(size, now)
        self._resize()
        self._put_in()

    # Time

    def timer(self) -> float | None:
        """When `handle_timer` wants to be called; None when the connection is closed."""
        if self.state is LinkState.CLOSED:
            return None
        if not self._timer_known:
            self._timer = self._connection.get_timer() if self.peer_address is not None else None
            self._connection_due = float("inf") if self._timer is None else self._timer
            if self._mtu.due < self._connection_due:
                self._timer = self._mtu.due
            self._timer_known = True
        timer = self._timer
        if self._deadline is not None and (timer is None or self._deadline < timer):
            return self._deadline
        return timer

    def is_due(self, now: float) -> bool:
        """Whether it is time for `handle_timer`.

        What came in meanwhile is not asked for its timers: they lie ahead, and finding the next one costs more than the
        rest of a turn in which little happens.
        """
        if self._timer is None:
            at = self.timer()
            return at is not None and at <= now
        return self._timer <= now or (self._deadline is not None and self._deadline <= now)

    def handle_timer(self, now: float) -> None:
        """Act on what is due: losses, acknowledgements, pacing, timeouts. Call `flush` afterwards."""
        if self.state is LinkState.CLOSED:
            return
        self._notice_pause(now)
        self._stir()
        try:
            self._act_on_time(now)
        except Exception:  # noqa: BLE001 - logged below
            # What is lost and resent depends on what the peer sent: see `receive`.
            _faults.write(now, "a timer", self.peer_address)
            self._fail()

    # Inside

    def _stir(self) -> None:
        """Something happens to the connection: what is known of it is known no more, and there may be output."""
        self._stirred = True
        self._timer_known = False
        self._stream_waits = self._capacity = None

    def _notice_pause(self, now: float) -> None:
        """Time in which nobody called tells nothing of the path: the process, or its machine, stood still."""
        if now - self._connection_due > PAUSE:
            self._connection_due = float("inf")
            internals.forget_pause(self._connection, now)

    def _put_in(self) -> None:
        """There is something to flush."""
        self._stir()
        self.on_output()

    def _act_on_time(self, now: float) -> None:
        if self._deadline is not None and now >= self._deadline:
            self._deadline = None
            if self.peer_address is None:  # nothing usable has come: nobody to tell
                self._finish(QuicErrorCode.CONNECTION_REFUSED, _HANDSHAKE_TIMEOUT, by_peer=False)
                return
            self._connection.close(error_code=QuicErrorCode.CONNECTION_REFUSED, reason_phrase=_HANDSHAKE_TIMEOUT)
        self._taker.settle()
        timer = self._connection.get_timer() if self.peer_address is not None else None
        if timer is not None and now >= timer:
            self._connection.handle_timer(now)
            self._drain(now)

    def _probe_path(self, now: float, address: Address) -> list[tuple[bytes, Address]]:
        """Go on with path MTU discovery; return its packets."""
        if not self._writer.can_probe():
            self._mtu.postpone(now)
            return []
        probes = self._mtu.poll(now, self._control.meter.rtt_smoothed)
        self._resize()
        write, delivered = self._writer.write_probe, self._mtu.on_delivery
        return [(write(probe.size, (delivered, (probe,)), now), address) for probe in probes]

    def _resize(self) -> None:
        """Send packets of the size that was found, and drop the datagrams that don't fit any more."""
        if self._mtu.size == internals.packet_size(self._connection):
            return
        self._pending = deque(internals.set_packet_size(self._connection, self._mtu.size))
        self._pending_bytes = sum(self._pending)
        self._capacity = None

    def _allowance(self) -> int:
        """What may wait inside: a few milliseconds of the rate, and no more than the window has room for."""
        control = self._control
        room = control.congestion_window - control.bytes_in_flight
        wait = max(2 * self._options.max_datagram_size, int(control.rate * _PENDING_SECONDS))
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

    def _has_unsent(self) -> bool:
        if self._stream_waits is None:
            self._stream_waits = False
            for stream_id in list(self._written):
                if self._unsent(stream_id):
                    self._stream_waits = True
        return self._stream_waits

    def _settle(self) -> None:
        """Forget the datagrams that left."""
        pending = self._pending
        for _ in range(len(pending) - internals.pending_datagrams(self._connection)):
            self._pending_bytes -= pending.popleft()

    def _drain(self, now: float) -> None:
        """Take the events of the connection; the frequent kinds first."""
        issued: list[bytes] = []
        retired: list[bytes] = []
        next_event = self._connection.next_event
        while (event := next_event()) is not None:
            if isinstance(event, quic_events.DatagramFrameReceived):
                self._inbound.payloads.append(event.data)
            elif isinstance(event, quic_events.StreamDataReceived):
                self._window.consumed += len(event.data)
                self._inbound.chunks.setdefault(event.stream_id, []).append(event.data)
                if event.end_stream:
                    self._ended.add(event.stream_id)
            elif isinstance(event, quic_events.ConnectionIdIssued):
                issued.append(event.connection_id)
            elif isinstance(event, quic_events.ConnectionIdRetired):
                retired.append(event.connection_id)
            elif isinstance(event, quic_events.HandshakeCompleted):
                self._on_handshake(now)
            elif isinstance(event, quic_events.StreamReset | quic_events.StopSendingReceived):
                self._written.pop(event.stream_id, None)
                self._events.append(StreamAborted(event.stream_id))
            elif isinstance(event, quic_events.ConnectionTerminated):
                self._finish(event.error_code, event.reason_phrase, by_peer=False)
        if issued or retired:
            self.on_connection_ids(issued, retired)
        if self.state is not LinkState.CLOSED and internals.is_over(self._connection):
            why = internals.close_event(self._connection)
            by_peer = internals.closed_by_peer(self._connection)
            self._finish(why.error_code if why else 0, why.reason_phrase if why else "", by_peer=by_peer)

    def _on_handshake(self, now: float) -> None:
        if self._is_client:
            certificate = internals.peer_certificate(self._connection)
            refusal = _refuse_server(certificate)
            if refusal:
                # As TLS would: the alert bad_certificate.
                self._connection.close(error_code=QuicErrorCode.CRYPTO_ERROR + 42, reason_phrase=refusal)
                return
            self._server_certificate = certificate
        self._deadline = None
        self.state = LinkState.ESTABLISHED
        self._stir()
        self.established_at = now
        if self._is_client:
            self._mtu.start()
        self._events.append(Established())

    def _server_problem(self) -> str | None:
        """Say what is wrong with the certificate for which our end has refused the server: TLS says little of it."""
        certificate = internals.peer_certificate(self._connection)
        configuration = self._connection.configuration
        if certificate is None or configuration.cadata is None:
            return None
        chain = internals.peer_chain(self._connection)
        name = configuration.server_name or ""
        return certificate_problem.of_server(certificate, chain, configuration.cadata, name, dt.datetime.now(dt.UTC))

    def _fail(self) -> None:
        self._finish(QuicErrorCode.INTERNAL_ERROR, "internal error", by_peer=False)

    def _finish(self, code: int, reason: str, *, by_peer: bool) -> None:
        if self.state is not LinkState.CLOSED:
            if self._is_client and not by_peer and code in _CERTIFICATE_ALERTS:
                reason = self._server_problem() or reason
            self.state = LinkState.CLOSED
            self._deadline = None
            self._pending.clear()
            self._pending_bytes = 0
            self._written.clear()
            self._connection.release()
            self._stir()
            self._events.append(Terminated(int(code), reason, by_peer))


def connect(
    address: Address,
    *,
    ca_data: bytes,
    server_name: str,
    options: LinkOptions,
    now: float,
) -> QuicLink:
    """Begin a connection to a server; `flush` gives its first packets.

    The chain up to a certificate of `ca_data` (PEM), the name (DNS or IP), the dates and the extended key usage of the
    server's certificate are always verified. `address` is the form in which the socket shows the peer
    (UdpSocket.peer_address).
    """
    configuration = quic_configuration(options, is_client=True)
    configuration.server_name = server_name
    configuration.load_verify_locations(cadata=ca_data)
    link = QuicLink(lambda: BoundedConnection(configuration=configuration), options, now=now)
    link._connection.connect(address, now)
    return link


def _refuse_server(certificate: x509.Certificate | None) -> str:
    """Why a certificate doesn't make its owner a server; empty when it does. aioquic ignores the extended key usage."""
    if certificate is None:
        return "the server showed no certificate"
    try:
        check_server_certificate(certificate)
    except IdentityError as error:
        return str(error)
    return ""


def _nothing() -> None:
    """Stand in for a callback that nobody set."""


def _ignore_connection_ids(_issued: list[bytes], _retired: list[bytes]) -> None:
    """Stand in for a callback that nobody set."""


def _comes_last(event: LinkEvent) -> bool:
    return isinstance(event, Terminated)
