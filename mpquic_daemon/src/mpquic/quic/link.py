"""One QUIC connection, driven sans-IO and in batches.

`receive` takes all datagrams of a read, `pop_events` gives what came of them once, `flush` gives everything that may
leave now.
"""

import datetime as dt
from collections.abc import Callable, Sequence

from aioquic.quic import events as quic_events
from aioquic.quic.packet import QuicErrorCode
from cryptography import x509

from mpquic.proto.path.address import Address
from mpquic.quic import aioquic_internals as internals
from mpquic.quic import congestion, server_certificate
from mpquic.quic.aioquic_bounds import BoundedConnection, PacketDroppedError
from mpquic.quic.aioquic_receive import PlainTaker
from mpquic.quic.aioquic_send import PlainWriter
from mpquic.quic.configuration import ACK_DELAY, HANDSHAKE_PAUSE, WINDOW, WINDOW_BEFORE_ADMISSION, LinkOptions
from mpquic.quic.connection_view import ConnectionView, LinkState
from mpquic.quic.events import Established, EventQueue, LinkEvent, StreamAborted, Terminated
from mpquic.quic.fault_log import faults
from mpquic.quic.memory import QuicBudget
from mpquic.quic.outgoing import Outgoing
from mpquic.quic.pacing import LinkPacer
from mpquic.quic.pmtu import IP_UDP_BYTES, MIN_DATAGRAM_SIZE

_HANDSHAKE_TIMEOUT = "handshake timed out"

PAUSE = 1.0
"""Seconds by which a call is late after which this end has stood still meanwhile."""


class QuicLink(ConnectionView):
    """A QUIC connection. Made by `mpquic.quic.connect.connect` on the client and by a QuicListener on the server.

    `on_output` is called when something was put in that `flush` will send; `on_connection_ids` with the IDs that the
    connection issued and retired. `certificate` is the server's own, None on a client; `wall_clock` gives the time by
    which a client judges that of the server.
    """

    def __init__(
        self,
        make_connection: Callable[[], BoundedConnection],
        options: LinkOptions,
        *,
        now: float,
        wall_clock: Callable[[], dt.datetime] | None = None,
        certificate: x509.Certificate | None = None,
    ) -> None:
        with congestion.capture() as made:
            connection = make_connection()
        super().__init__(connection, made[-1], certificate)
        self._is_client = certificate is None
        self._wall_clock = wall_clock
        self.created_at = now
        self.dscp = 0
        """DSCP of its packets, for whoever owns the socket."""
        self.established_at: float | None = None
        self._deadline: float | None = now + options.handshake_timeout
        self._events = EventQueue()
        self._inbound = self._events.inbound
        self.outgoing = Outgoing(connection, self._control, options.max_datagram_size)
        self._dirty = True
        """Whether something happened since the last flush: else nothing is to be sent, and finding that out costs."""
        self._timer: float | None = None
        self._connection_due = float("inf")
        """When the connection itself wanted to be called at the latest, as it was found out last."""
        self._timer_known = False
        self.dropped = 0
        """Packets of the peer that were dropped since there was no room for what they hold."""
        self.on_output: Callable[[], None] | None = None
        self.on_connection_ids: Callable[[list[bytes], list[bytes]], None] | None = None
        size = connection.configuration.max_datagram_size
        internals.set_ack_delay(connection, ACK_DELAY)
        internals.install_pacer(connection, LinkPacer(self._control.pacer, max_datagram_size=size))
        internals.after_loss_detection(connection, self._control.finish)
        internals.bound_handshake_pauses(connection, HANDSHAKE_PAUSE)
        self._taker = PlainTaker(connection, self._inbound)
        self._writer = PlainWriter(connection, self._control)
        # Only what passes is raised, by discovery; windows and pacing count in the local link's packets all the time.
        internals.set_packet_size(connection, MIN_DATAGRAM_SIZE)
        self._control.on_lost = self._mtu.on_lost
        # The client trusts the server from the handshake on; the server widens the window on admission.
        self._window = internals.ReceiveWindow(WINDOW if self._is_client else WINDOW_BEFORE_ADMISSION)
        internals.install_receive_window(connection, self._window)

    def start(self, address: Address, now: float) -> None:
        """Begin the handshake of a client; `flush` gives its first packets."""
        self._connection.connect(address, now)

    def admit(self) -> None:
        """The peer proved who it is: open the flow control window, and find out which packets reach it."""
        self._connection.admit()
        self._window.widen(WINDOW)
        self._mtu.start()
        self._request_flush()

    def share_budget(self, budget: QuicBudget) -> None:
        """Count what streams keep in the budget of a client, over all its connections."""
        self._connection.share(budget)

    # In

    def receive(self, datagrams: Sequence[bytes], address: Address, now: float) -> None:
        """Take datagrams from the network. Never raises: a datagram that can't be used is dropped."""
        if self.state is LinkState.CLOSED:
            return
        self._notice_pause(now)
        self._mark_dirty()
        self.traffic.received(len(datagrams), sum(map(len, datagrams)))
        index = 0
        try:
            while True:
                index = self._taker.take(datagrams, index, address, now)
                if index >= len(datagrams):
                    break
                self._taker.process_acks()
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
            faults.write(now, "a received datagram", address)
            self._fail()

    def pop_events(self) -> list[LinkEvent]:
        """What happened since the last call, in order; stream bytes and datagrams gathered, the end last."""
        return self._events.pop()

    @property
    def has_events(self) -> bool:
        """Whether `pop_events` would give something."""
        return bool(self._events)

    # Out

    def datagram_budget(self) -> int:
        """Bytes of datagram payload that are worth handing over now; at most 0 when none are."""
        return self.outgoing.datagram_budget() if self.state is LinkState.ESTABLISHED else 0

    def stream_budget(self, stream_id: int) -> int:
        """Bytes that are worth writing to the stream now; at most 0 when none are."""
        return self.outgoing.stream_budget(stream_id) if self.state is LinkState.ESTABLISHED else 0

    def send_datagrams(self, payloads: Sequence[bytes]) -> int:
        """Queue datagrams; gives how many were taken. Stops at one that is larger than `datagram_capacity`."""
        taken = self.outgoing.send_datagrams(payloads, self.datagram_capacity)
        if taken:
            self._dirty = True  # and nothing but that: datagrams change neither timers nor streams
            self._tell_output()
        return taken

    def send_apart(self, payload: bytes) -> None:
        """Have the next `flush` send a small datagram first, in a packet that waits for no window: a few a second."""
        self._writer.apart.append(payload)
        self._request_flush()

    def open_stream(self) -> int:
        """Reserve a bidirectional stream and give its identifier. The peer learns of it with the first bytes."""
        return self.outgoing.open_stream()

    def send_stream(self, stream_id: int, data: bytes, *, end: bool = False) -> bool:
        """Write to a stream. False when the stream or the connection is gone, or a megabyte waits already.

        False as well when the peer has left too much unacknowledged, see `mpquic.quic.memory`.
        """
        if self.state is LinkState.CLOSED or not self.outgoing.send_stream(stream_id, data, end=end):
            return False
        self._request_flush()
        return True

    def reset_stream(self, stream_id: int, code: int) -> None:
        """Abort a stream: stop sending on it and ask the peer to stop, as far as its direction allows either."""
        if self.outgoing.reset_stream(stream_id, code, is_client=self._is_client):
            self._request_flush()

    def flush(self, now: float) -> list[tuple[bytes, Address]]:
        """Everything that may leave now, as (datagram, destination), oldest first."""
        if not self._dirty or self.state is LinkState.CLOSED:
            return []
        address = self.peer_address
        if address is None:
            return []
        self._notice_pause(now)
        self._mark_dirty()
        self._dirty = False
        try:
            self._taker.process_acks()
            probes = self._probe_path(now, address) if now >= self._mtu.due else []
            if self._writer.apart:
                probes += [(datagram, address) for datagram in self._writer.write_apart(now)]
            plain = self._writer.write(now)
            out: list[tuple[bytes, Address]]
            if plain is None:
                out = self._connection.datagrams_to_send(now)
                self._drain(now)
            else:
                out = [(datagram, address) for datagram in plain]
            self.outgoing.forget_sent()
            self._connection.forget_unacknowledged()
        except Exception:  # noqa: BLE001 - logged below
            # What is sent depends on what the peer sent: see `receive`.
            faults.write(now, "sending", address)
            self._fail()
            return []
        # In front, where the small ones can't end the segmented send of larger ones and share their fate.
        found = probes + out if probes else out
        if found:
            self.traffic.sent(len(found), sum([len(datagram) for datagram, _ in found]))
        return found

    def close(self, code: int = 0, reason: str = "") -> None:
        """End the connection; the next `flush` tells the peer, then the connection is closed."""
        if self.state is LinkState.CLOSED:
            return
        self._connection.close(error_code=code, reason_phrase=reason)
        self._request_flush()

    def abandon(self, reason: str) -> None:
        """End the connection without a word to the peer."""
        self._finish(QuicErrorCode.NO_ERROR, reason, by_peer=False)

    def on_path_mtu(self, mtu: int, version: int) -> None:
        """The kernel believes in a path MTU of `mtu` bytes over this version of IP, because of ICMP."""
        self._mtu.on_hint(mtu - IP_UDP_BYTES[version])
        self._request_flush()

    def doubt_size(self) -> None:
        """Large packets of others to the same peer don't pass: have a look whether ours do."""
        self._mtu.doubt()
        self._request_flush()

    def on_too_large(self, size: int, now: float) -> None:
        """The kernel refused a packet of `size` bytes, since the device takes no such packets."""
        self._mtu.on_too_large(size, now)
        self._resize()
        self._request_flush()

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
        rest of an iteration in which little happens.
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
        self._mark_dirty()
        try:
            self._act_on_time(now)
        except Exception:  # noqa: BLE001 - logged below
            # What is lost and resent depends on what the peer sent: see `receive`.
            faults.write(now, "a timer", self.peer_address)
            self._fail()

    # Inside

    def _mark_dirty(self) -> None:
        """Invalidate cached state: something happens to the connection, and there may be output."""
        self._dirty = True
        self._timer_known = False
        self._capacity = self.outgoing.has_unsent = None

    def _notice_pause(self, now: float) -> None:
        """Time in which nobody called tells nothing of the path: the process, or its machine, stood still."""
        if now - self._connection_due > PAUSE:
            self._connection_due = float("inf")
            internals.forget_pause(self._connection, now)

    def _request_flush(self) -> None:
        """Mark dirty, and tell the owner that there is something to flush."""
        self._mark_dirty()
        self._tell_output()

    def _tell_output(self) -> None:
        if self.on_output is not None:
            self.on_output()

    def _act_on_time(self, now: float) -> None:
        if self._deadline is not None and now >= self._deadline:
            self._deadline = None
            if self.peer_address is None:  # nothing usable has come: nobody to tell
                self._finish(QuicErrorCode.CONNECTION_REFUSED, _HANDSHAKE_TIMEOUT, by_peer=False)
                return
            self._connection.close(error_code=QuicErrorCode.CONNECTION_REFUSED, reason_phrase=_HANDSHAKE_TIMEOUT)
        self._taker.process_acks()
        timer = self._connection.get_timer() if self.peer_address is not None else None
        if timer is not None and now >= timer:
            self._connection.handle_timer(now)
            self._drain(now)

    def _probe_path(self, now: float, address: Address) -> list[tuple[bytes, Address]]:
        """Go on with path MTU discovery; return its packets."""
        if not self._writer.can_probe():
            self._mtu.postpone(now)
            return []
        probes = self._mtu.poll(now, self.estimators.rtt.smoothed)
        self._resize()
        write, delivered = self._writer.write_probe, self._mtu.on_delivery
        return [(write(probe.size, (delivered, (probe,)), now), address) for probe in probes]

    def _resize(self) -> None:
        """Send packets of the size that was found, and drop the datagrams that don't fit any more."""
        if self._mtu.size == internals.packet_size(self._connection):
            return
        self.outgoing.resize(self._mtu.size)
        self._capacity = None

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
                    self._events.ended.add(event.stream_id)
            elif isinstance(event, quic_events.ConnectionIdIssued):
                issued.append(event.connection_id)
            elif isinstance(event, quic_events.ConnectionIdRetired):
                retired.append(event.connection_id)
            elif isinstance(event, quic_events.HandshakeCompleted):
                self._on_handshake(now)
            elif isinstance(event, quic_events.StreamReset | quic_events.StopSendingReceived):
                self.outgoing.forget_stream(event.stream_id)
                self._events.others.append(StreamAborted(event.stream_id))
            elif isinstance(event, quic_events.ConnectionTerminated):
                self._finish(event.error_code, event.reason_phrase, by_peer=False)
        if self.on_connection_ids is not None and (issued or retired):
            self.on_connection_ids(issued, retired)
        if self.state is not LinkState.CLOSED and internals.is_over(self._connection):
            why = internals.close_event(self._connection)
            by_peer = internals.closed_by_peer(self._connection)
            self._finish(why.error_code if why else 0, why.reason_phrase if why else "", by_peer=by_peer)

    def _on_handshake(self, now: float) -> None:
        if self._is_client:
            certificate = internals.peer_certificate(self._connection)
            refusal = server_certificate.refusal(certificate)
            if refusal:
                # As TLS would: the alert bad_certificate.
                self._connection.close(error_code=QuicErrorCode.CRYPTO_ERROR + 42, reason_phrase=refusal)
                return
            self._server_certificate = certificate
        self._deadline = None
        self.state = LinkState.ESTABLISHED
        self._mark_dirty()
        self.established_at = now
        if self._is_client:
            self._mtu.start()
        self._events.others.append(Established())

    def _fail(self) -> None:
        self._finish(QuicErrorCode.INTERNAL_ERROR, "internal error", by_peer=False)

    def _finish(self, code: int, reason: str, *, by_peer: bool) -> None:
        if self.state is not LinkState.CLOSED:
            if self._wall_clock is not None and not by_peer and code in server_certificate.CERTIFICATE_ALERTS:
                reason = server_certificate.problem(self._connection, self._wall_clock()) or reason
            self.state = LinkState.CLOSED
            self._deadline = None
            self.outgoing.clear()
            self._connection.release()
            self._mark_dirty()
            self._events.others.append(Terminated(int(code), reason, by_peer))
