"""The server: one UDP port and one TUN for the tunnels of many clients."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from functools import partial
from typing import TYPE_CHECKING

from mpquic.daemon import credentials, expiry, faults, server_report, turn
from mpquic.daemon.admission import Admission
from mpquic.daemon.arrivals import Arrivals
from mpquic.daemon.claims import UNPROVEN, UNREGISTERED, Unproven
from mpquic.daemon.clients import Clients
from mpquic.daemon.due_timer import DueTimer
from mpquic.daemon.farewell import Farewell
from mpquic.daemon.incarnation import CONFLICTS
from mpquic.daemon.json_lines import RequestError
from mpquic.daemon.period import Period
from mpquic.daemon.processor_share import PIECE, ProcessorShare
from mpquic.daemon.server_connection import ServerConnection
from mpquic.daemon.server_planes import ServerPlanes
from mpquic.daemon.server_tunnel import ServerTunnel
from mpquic.daemon.session import IDLE_TIMEOUT, CloseCode
from mpquic.daemon.statistics import TunnelStatistics, snapshot, tunnel_statistics
from mpquic.daemon.stripe_listener import StripeListener
from mpquic.net.kernel import KERNEL
from mpquic.net.send_status import SendStatus
from mpquic.net.udp import split_segments
from mpquic.proto.control.groups import Group, GroupTable, Registration, RegistrationRefusedError
from mpquic.proto.control.messages import Held, RefuseCode, Register, Welcome
from mpquic.proto.control.peers import PeerRule, PeerTable
from mpquic.proto.control.prefix import parse_prefix
from mpquic.proto.control.validity import Validity
from mpquic.proto.packet.frame import FrameError, class_octet
from mpquic.proto.path.path import PathState
from mpquic.proto.tunnel.counters import Counters
from mpquic.proto.tunnel.dispatch import dispatch
from mpquic.quic.configuration import LinkOptions
from mpquic.quic.connection_view import LinkState
from mpquic.quic.listener import QuicListener
from mpquic.quic.memory import QuicBudgets

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from mpquic.config import ServerConfig
    from mpquic.daemon.credentials import Dates
    from mpquic.daemon.journal import Journal
    from mpquic.daemon.session import Inbox, Session
    from mpquic.hold import Hold
    from mpquic.net.kernel import Kernel
    from mpquic.net.udp import Received
    from mpquic.proto.control.handshake import Rejected
    from mpquic.proto.control.identity import Identity
    from mpquic.proto.path.address import Address
    from mpquic.quic.link import QuicLink

TICK = 0.1
"""Seconds between two looks at all connections: probes, silence, deadlines."""
EXPIRY_CHECK = 60.0
"""Seconds between two looks at the dates of the certificates of connected clients."""
COLLECTION_INTERVAL = 5.0
"""Seconds between two looks for striped sessions from which nothing comes."""
STALE_TIME = 1.0
"""Seconds after sleep in which a server that is too busy to empty its socket takes handshakes for old ones, at most."""
TUN_BATCH = 16
"""Packets that are read from the TUN at a time; four times as many while they are for several clients."""
CHANGE_INTERVAL = 1.0
"""Least seconds between two announcements of a change: clients may come and go by the hundred."""
SECOND_MACHINE_INTERVAL = 600.0
"""Least seconds between two journal lines about second machines with a client's identity: they may stay for weeks."""
MAX_CLAIM = 100
"""Characters of a name that an unregistered connection claims, in the journal."""
TRANSPORT_MODES = ("datagram", "reliable")


class Server:
    """Implements `Role`. Its state is up while it listens."""

    def __init__(
        self,
        config: ServerConfig,
        journal: Journal,
        on_change: Callable[[], None],
        on_useless: Callable[[str], None],
        kernel: Kernel = KERNEL,
    ) -> None:
        self._kernel = kernel
        self._config = config
        self._journal = journal
        self._on_change = on_change
        self._on_useless = on_useless
        self._loop = asyncio.get_running_loop()
        self._share = ProcessorShare(self._loop, kernel.processor_time, self._after_pass, kernel.idle_time)
        self._period = Period(self._loop, kernel)
        self._table: GroupTable[ServerConnection] = GroupTable(os.urandom)
        self._tunnels: dict[Group[ServerConnection], ServerTunnel] = {}
        self._connections: dict[QuicLink, ServerConnection] = {}
        self._changed: dict[ServerConnection, None] = {}
        self._waiting: dict[ServerTunnel, None] = {}
        """Tunnels in which packets wait, in order of their turn."""
        self._counters = Counters()
        self._past = TunnelStatistics()
        self._registrations = 0
        self._clients = Clients(config, self._loop, self._period, journal, self._table, self._announce)
        self._admission = Admission(self._table, self._clients)
        self._budgets = QuicBudgets()
        self._farewell: Farewell | None = None
        self._timer = DueTimer(self._loop, self._turn)
        self._due: float | None = None
        """When the next turn is due at the latest."""
        self._more: asyncio.Handle | None = None
        self._announcement: asyncio.TimerHandle | None = None
        self._announced_at = float("-inf")
        self._writing = False
        self._tun_batch = TUN_BATCH
        self._has_received = self._has_queued = False
        """Whether QUIC has been given datagrams in this pass, and packets wait for it."""
        self._next_tick = 0.0
        self._next_expiry_check = 0.0
        self._next_collection = 0.0
        self._accept_at = 0.0
        """When new connections are accepted again at the latest."""
        self._stopping = False

    # Life

    def start(self) -> None:
        """Attach to the TUN and listen; TunError, OSError, CredentialsError."""
        config = self._config
        self._identity = credentials.load_server(config.tls)
        self._verifier = self._identity.verifier
        self._peers = _peer_table(config)
        self._tun = self._kernel.tun(config.tun_name, uso=True)
        options = LinkOptions(config.congestion_algorithm, config.max_datagram_size, IDLE_TIMEOUT)
        with credentials.usable(config.tls):
            self._listener = QuicListener(
                cert_file=config.tls.cert_file,
                key_file=config.tls.key_file,
                options=options,
                entropy=os.urandom,
                processor_time=self._kernel.processor_time,
                time_passed=self._loop.time,
            )
        host = config.bind_address or "::"
        self._socket = self._kernel.udp((host, config.bind_port), device=config.bind_device, gso=config.udp_gso)
        self._arrivals: Arrivals[Hashable] = Arrivals(self._socket, self._claim, self._on_arrival)
        self._stripe = StripeListener(config, self._share, self._kernel) if config.stripe_enabled else None
        self._planes = ServerPlanes(self._stripe, self._table, self._loop, self._on_plane, self._on_plane_fault)
        self._loop.add_reader(self._tun.fileno(), self._on_tun)
        self._loop.add_reader(self._socket.fileno(), self._on_socket)
        self._clients.load()
        self._turn()

    async def stop(self, hold: Hold | None = None) -> None:
        """Tell every client of `hold` if that is the reason, send BYE, and release everything."""
        if hold is not None:
            self._farewell = Farewell(hold, self._registered_sessions)
            self._turn()
            await self._farewell.done()
        self._stopping = True
        self._share.close()
        self._clients.close()
        self._timer.close()
        for handle in (self._more, self._announcement):
            if handle is not None:
                handle.cancel()
        now = self._loop.time()
        for connection in self._connections.values():
            connection.say_goodbye("the server stops")
        self._transmit(self._listener.flush(now))
        for link in self._connections:
            link.close(CloseCode.SHUTDOWN, "the server stops")
        self._transmit(self._listener.flush(now))
        self._loop.remove_reader(self._tun.fileno())
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        for connection in self._connections.values():
            self._planes.drop(connection)
        if self._stripe is not None:
            self._stripe.close()
        self._tun.set_carrier(False)
        self._tun.close()
        self._socket.close()

    def reconnect(self, *, silent: bool) -> None:  # noqa: ARG002 - what the client's takes
        """Refuse with RequestError: clients connect, servers answer."""
        raise RequestError("a server makes no connections; have the client reconnect")

    def hand_over(self, who: str, tunnel: str | None, seconds: float, by: str) -> object:
        """Let the next machine that registers as `who` take over; see `Clients.hand_over`. RequestError."""
        return self._clients.hand_over(who, tunnel, seconds, by)

    def apply(self, config: ServerConfig) -> None:
        """Take over hot keys and the files of the identity; close what they no longer allow. CredentialsError."""
        identity = credentials.load_server(config.tls)
        verifier = identity.verifier
        with credentials.usable(config.tls):
            self._listener.reload_certificate(config.tls.cert_file, config.tls.key_file)
        self._config, self._identity, self._verifier, self._peers = config, identity, verifier, _peer_table(config)
        for connection in self._connections.values():
            connection.session.retime(config.probe_interval, config.down_after)
            admitted = connection.admitted
            if admitted is not None and verifier.is_revoked(admitted.identity.serials):
                self._expel(connection, "certificate revoked")
        for connection in self._table.revoke(self._is_revoked):
            self._expel(connection, "not allowed any more")
        self._clients.configure(config.peers)
        self._turn()

    def _registered_sessions(self) -> list[Session]:
        groups = (group.members.values() for group in self._table)
        return [member.connection.session for members in groups for member in members]

    def _is_revoked(self, registration: Registration) -> bool:
        return not self._peers.still_permits(registration.identity, registration.tunnel, registration.prefixes)

    def _expel(self, connection: ServerConnection, reason: str) -> None:
        connection.end(CloseCode.REVOKED, reason)
        self._changed[connection] = None

    def _expel_expired(self) -> None:
        today = dt.datetime.now(dt.UTC)
        for connection in self._connections.values():
            if connection.admitted is not None and connection.admitted.identity.not_after <= today:
                self._expel(connection, "certificate expired")

    # Events

    def _on_tun(self) -> None:
        now = self._loop.time()
        buffers = self._tun.read_batch(self._tun_batch)
        if self._tun.gone:
            self._on_useless(f"the TUN device {self._tun.name} was deleted or made anew")
            return
        found = dispatch(buffers, self._table.owner_of, self._counters)
        self._tun_batch = 4 * TUN_BATCH if len(found) > 1 else TUN_BATCH
        for group, packets in found:
            tunnel = self._tunnels.get(group)
            if tunnel is None:
                continue
            try:
                tunnel.sender.enqueue_packets(packets, now)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is of this tunnel
                self._fault_of_tunnel(tunnel, error, now)
                continue
            octets = sum([len(packet.payload) for packet in packets])
            if len(found) == 1:
                self._share.do(tunnel, tunnel.work, octets, now)
                return
            self._share.carry(tunnel, octets)
            self._share.add(tunnel, tunnel.work)
        self._share.start()

    def _on_socket(self) -> None:
        now = self._loop.time()
        self._notice_sleep(now)
        alone = self._arrivals.read_alone(ServerTunnel, now) if self._share.is_idle else None
        if alone is None:
            is_empty = self._share.read(self._arrivals, _payer, now)
            self._share.start()
        else:
            is_empty = self._socket.drained
            tunnel, batch = alone
            self._share.do(tunnel, partial(self._take, batch), sum([len(read[0]) for read in batch]), now)
        if (is_empty and not self._arrivals) or now >= self._accept_at:
            self._listener.accepting = True

    def _claim(self, read: Received) -> Hashable:
        link = self._listener.claimant(read[0])
        connection = self._connections.get(link) if link is not None else None
        if connection is None or connection.tunnel is None:
            return UNREGISTERED
        return connection.tunnel if connection.link.peer_address == read[2] else connection.unproven

    def _client_of(self, link: QuicLink | None) -> Hashable:
        """Return who is charged for what a connection asks for."""
        connection = self._connections.get(link) if link is not None else None
        return UNREGISTERED if connection is None else connection.tunnel or UNREGISTERED

    def _on_arrival(self, client: Hashable) -> None:
        self._share.add(_payer(client), partial(self._receive, client))

    # What clients have done in their turn

    def _receive(self, client: Hashable, now: float) -> None:
        # A first packet costs much more than a client's data: sockets are read between two pieces in any case.
        limit = self._share.piece if isinstance(client, ServerTunnel) else PIECE
        batch = self._arrivals.take(client, limit)
        self._share.carry(_payer(client), sum([len(read[0]) for read in batch]))
        self._take(batch, now)
        if client in self._arrivals:
            self._on_arrival(client)

    def _take(self, batch: list[Received], now: float) -> None:
        for data, segment, address in batch:
            try:
                self._listener.receive(split_segments(data, segment), address, now)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is of this sender
                self._fault_of_sender(data, error, now)
        self._has_received = True

    def _push(self, tunnel: ServerTunnel, now: float) -> None:
        try:
            carried = tunnel.push(now)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is of this tunnel
            self._fault_of_tunnel(tunnel, error, now)
            return
        if not carried:
            self._waiting[tunnel] = None
            self._has_queued = True

    def _on_plane(self, tunnel: ServerTunnel) -> None:
        """A striped data plane carries from now on, or no more: what waits in the tunnel may be for another path."""
        if tunnel.sender.waiting:
            self._waiting[tunnel] = None
        self._set_carrier()
        self._turn_soon()

    def _on_plane_fault(self, connection: ServerConnection, error: Exception) -> None:
        self._fault(connection, error, self._loop.time())

    def _after_pass(self) -> None:
        received, queued, self._has_received, self._has_queued = self._has_received, self._has_queued, False, False
        if self._stopping or not (received or queued):
            return
        if not received:
            # Packets don't wait for the rest of a turn, and don't ask for one: what a turn looks after comes by a
            # socket or a timer.
            now = self._loop.time()
            self._send(now)
            if self._due is not None and self._due > now and not self._changed:
                self._schedule(now)
                return
        self._run_turn()

    def _notice_sleep(self, now: float) -> None:
        """After sleep what was sent meanwhile waits to be read: so nobody was silent, and no handshake in it is new."""
        if self._due is not None and now - self._due > turn.SLEPT:
            self._next_collection = now + COLLECTION_INTERVAL
            self._listener.accepting, self._accept_at = False, now + STALE_TIME

    def _on_writable(self) -> None:
        self._socket.resume()
        self._turn()

    # The loop: everything that happened is followed by one turn

    def _turn(self) -> None:
        if not self._stopping:
            self._share.charge(None)
            self._run_turn()

    def _turn_soon(self) -> None:
        self._more = self._more or self._loop.call_soon(self._turn)

    def _run_turn(self) -> None:
        now = self._loop.time()
        self._notice_sleep(now)
        if self._more is not None:
            self._more.cancel()
            self._more = None
        try:
            self._listener.handle_timer(now)
            if self._share.is_short:
                self._share.charge(None)
            self._serve_ready(now)
            if now >= self._next_tick:
                self._tick(now)
            for connection in self._admission.poll(now):
                connection.is_decided = True
                self._serve_guarded(connection, now)
                self._share.charge(connection.tunnel or UNREGISTERED)
            self._close_ended(now)
            if self._farewell is not None:
                self._farewell.advance()
            self._send(now)
        finally:
            # Always set the timer anew, even after an exception.
            self._schedule(now)

    def _serve_ready(self, now: float) -> None:
        ready = self._listener.pop_ready()
        # What is done for one alone is charged with what is sent for it then.
        each = len(ready) > 1 or self._share.is_short
        for link in ready:
            connection = self._connections.get(link)
            if connection is None and link.state is LinkState.CLOSED:
                link.pop_events()  # Forgotten already, or never came as far as to be known.
                continue
            if connection is None:
                connection = ServerConnection(
                    link,
                    self._verifier,
                    self._admit,
                    now,
                    probe_interval=self._config.probe_interval,
                    down_after=self._config.down_after,
                )
                self._connections[link] = connection
            self._serve_guarded(connection, now)
            if each:
                self._share.charge(connection.tunnel or UNREGISTERED)

    def _serve_guarded(self, connection: ServerConnection, now: float) -> None:
        try:
            self._serve(connection, now)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is of this connection
            self._fault(connection, error, now)

    def _serve(self, connection: ServerConnection, now: float) -> None:
        was_admitted = connection.admitted is not None
        if was_admitted:
            inbox = connection.advance(now)
        else:
            with self._listener.counting(connection.link, now):
                inbox = connection.advance(now)
        if connection.admitted is not None and not was_admitted:
            self._listener.admit(connection.link, now)
            connection.link.share_budget(self._budgets.of(connection.admitted.identity.uri))
            self._welcome(connection)
        tunnel = connection.tunnel
        if tunnel is not None:
            for _, message in inbox.messages:
                if isinstance(message, Held):
                    self._clients.told(connection, message, now)
            if not connection.wants_data_stream and connection.ending is None and not connection.over:
                self._use(connection, tunnel)
            self._planes.renew(connection, tunnel, inbox, now)
            self._deliver(connection, tunnel, inbox, now)
        if connection.ending is not None or connection.over:
            self._changed[connection] = None

    def _fault(self, connection: ServerConnection, error: Exception, now: float) -> None:
        """A defect that one connection brought to light ends that connection and no other."""
        faults.tell(self._journal, now, "connection.fault", error, peer=connection.peer)
        self._planes.drop(connection)
        connection.end(CloseCode.INTERNAL, "internal error")
        self._changed[connection] = None
        self._turn_soon()

    def _fault_of_sender(self, data: memoryview, error: Exception, now: float) -> None:
        """The same for the connection of which a datagram claims to be, which may be nobody's."""
        link = self._listener.claimant(data)
        connection = self._connections.get(link) if link is not None else None
        if connection is not None:
            self._fault(connection, error, now)
            return
        faults.tell(self._journal, now, "connection.fault", error)
        if link is not None:
            link.abandon("internal error")

    def _fault_of_tunnel(self, tunnel: ServerTunnel, error: Exception, now: float) -> None:
        """The same for what all connections of a tunnel share."""
        for connection in [each for each in self._connections.values() if each.tunnel is tunnel]:
            self._fault(connection, error, now)
        self._waiting.pop(tunnel, None)

    def _deliver(self, connection: ServerConnection, tunnel: ServerTunnel, inbox: Inbox, now: float) -> None:
        if not (inbox.datagrams or inbox.stream_bytes):
            return
        try:
            writes = connection.session.writes(inbox, tunnel.receiver, now)
        except FrameError as error:
            tunnel.counters.refuse(f"stream_{error.reason}")
            connection.end(CloseCode.PROTOCOL, "malformed frame on the data stream")
            return
        for buffers in writes:
            self._tun.write(buffers)

    def _tick(self, now: float) -> None:
        self._next_tick = now + TICK
        if now >= self._next_collection:
            self._next_collection = now + COLLECTION_INTERVAL
            self._planes.drop_idle(self._connections.values(), now)
        if now >= self._next_expiry_check:
            self._next_expiry_check = now + EXPIRY_CHECK
            self._expel_expired()
        for connection in self._connections.values():
            if now < connection.next_poll:
                continue
            before = connection.session.path.state
            try:
                connection.poll(now)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is of this connection
                self._fault(connection, error, now)
            after = connection.session.path.state
            if before is not after and PathState.DOWN in (before, after) and connection.admitted is not None:
                self._journal.info(f"path.{after.value}", **server_report.names(connection))
                self._clients.note(connection, now)
            if connection.ending is not None:
                self._changed[connection] = None
        self._set_carrier()

    def _send(self, now: float) -> None:
        if turn.send(lambda: self._flush(now), lambda: self._fill(now)):
            self._turn_soon()

    def _flush(self, now: float) -> None:
        """Send what QUIC holds."""
        for link, groups in self._listener.flush_each(now):
            self._transmit(groups, 0 if link is None else link.dscp)
            self._share.charge(self._client_of(link))

    def _fill(self, now: float) -> int:
        """Give the paths what they take of what waits; return its bytes. Of several, who had least comes first."""
        if not self._waiting:
            return 0
        waiting, limit = list(self._waiting), self._share.piece
        if len(waiting) > 1:
            waiting.sort(key=self._share.charged)
            limit = PIECE
        moved = 0
        for tunnel in waiting:
            if self._share.put_off(tunnel, tunnel.work):
                continue
            try:
                moved += tunnel.pump.send(now, limit)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is of this tunnel
                self._fault_of_tunnel(tunnel, error, now)
                continue
            if not tunnel.sender.waiting:
                del self._waiting[tunnel]
            self._share.charge(tunnel)
            if moved >= turn.TURN_BYTES and limit is not None:
                break
        return moved

    def _transmit(self, groups: list[tuple[list[bytes], Address]], dscp: int = 0) -> None:
        for datagrams, address in groups:
            if self._socket.send_batch(datagrams, address, dscp) is SendStatus.TOO_LARGE:
                self._on_too_large(address, max(map(len, datagrams)))
        if self._socket.wants_write != self._writing:
            self._writing = self._socket.wants_write
            if self._writing:
                self._loop.add_writer(self._socket.fileno(), self._on_writable)
            else:
                self._loop.remove_writer(self._socket.fileno())

    def _on_too_large(self, address: Address, size: int) -> None:
        """The device towards an address takes no packets of this size."""
        for link in self._listener.links:
            if link.peer_address == address:
                link.on_too_large(size, self._loop.time())

    def _schedule(self, now: float) -> None:
        timers = [self._listener.timer()]
        if self._connections:
            timers += [self._next_tick, self._admission.due]
        timers += [tunnel.next_allowance(now) for tunnel in self._waiting]
        self._due = due = min((max(timer, now) for timer in timers if timer is not None), default=None)
        self._timer.set(None if due is None else max(due, now + 0.0005))

    # Registration and its end

    def _admit(self, connection: ServerConnection, identity: Identity, register: Register) -> Welcome | None:
        """Authorise a client whose identity is proven and enter it, None while it waits; RegistrationRefusedError."""
        if self._verifier.is_revoked(identity.serials):  # since it has begun to wait
            raise RegistrationRefusedError(RefuseCode.AUTHENTICATION, "client not authenticated")
        if register.transport_mode not in TRANSPORT_MODES:
            raise RegistrationRefusedError(RefuseCode.FEATURE, f"no transport mode {register.transport_mode} here")
        rule, prefixes = self._peers.authorize(identity.uri, register.tunnel, register.inner)
        registration = Registration(
            identity=identity.uri,
            tunnel=register.tunnel,
            path=register.path,
            boot_id=register.boot_id,
            epoch=register.epoch,
            prefixes=prefixes,
            wan=register.wan,
            traffic_class=rule.traffic_class,
            weight=rule.weight,
            priority=register.priority,
        )
        now = self._loop.time()
        place = self._admission.judge(registration, connection, now)
        if place is None:
            self._listener.identify(connection.link, identity.uri, now)
            return None
        joined = self._table.register(registration, connection, now, takeover=place.replaces)
        self._admission.entered(registration, connection, place, joined)
        group = joined.group
        for replaced in joined.replaced:
            replaced.end(*place.ending(connection.peer))
            self._changed[replaced] = None
        self._forget_empty_groups()
        tunnel = self._tunnels.get(group)
        if tunnel is None:
            octet = class_octet(rule.traffic_class, low_latency=rule.low_latency)
            tunnel = ServerTunnel(
                octet, lambda source: self._table.owner_of(source) is group, self._tun.write, self._turn_soon
            )
            tunnel.work = partial(self._push, tunnel)
            tunnel.receiver.coalescer.uso = self._tun.uso
            self._tunnels[group] = tunnel
        connection.tunnel = tunnel
        tunnel.add(connection.session, registration)
        connection.link.dscp = rule.dscp
        connection.session.budget.limit(rule.max_rate)
        inner = [str(prefix) for prefix in prefixes]
        grant = self._planes.grant(connection, tunnel, register.stripe, registration)
        return Welcome(session=group.session, inner=inner, tun_mtu=self._config.tun_mtu, stripe=grant)

    def _welcome(self, connection: ServerConnection) -> None:
        self._registrations += 1
        assert connection.admitted is not None
        inner = ",".join(connection.admitted.register.inner)
        self._journal.info("client.registered", inner=inner, **server_report.names(connection))
        self._clients.registered(connection)
        identity = connection.admitted.identity
        dates = Validity.of(identity.leaf)
        expiry.warn_of_peer(dates, self._journal, identity.uri, dt.datetime.now(dt.UTC), self._loop.time())
        self._announce()

    def _use(self, connection: ServerConnection, tunnel: ServerTunnel) -> None:
        if tunnel.use(connection.session):
            self._set_carrier()

    def _close_ended(self, now: float) -> None:
        """Close what is to be closed, and forget what is over: at once, with everything that it had."""
        if not self._changed:
            return
        changed, self._changed = self._changed, {}
        # A REFUSE or an answer to a goodbye leaves first: a closing connection sends nothing of its streams.
        self._transmit(self._listener.flush(now))
        for connection in changed:
            try:
                if not connection.over and connection.ending is not None:
                    connection.link.close(*connection.ending)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is of this connection
                faults.tell(self._journal, now, "connection.fault", error, peer=connection.peer)
            self._forget(connection, now)
        self._transmit(self._listener.flush(now))
        self._forget_empty_groups()
        self._set_carrier()
        self._announce()

    def _announce(self) -> None:
        """Tell of a change, at once if the last was told long enough ago."""
        if self._announcement is None and not self._stopping:
            due = max(self._announced_at + CHANGE_INTERVAL, self._loop.time())
            self._announcement = self._loop.call_at(due, self._announce_now)

    def _announce_now(self) -> None:
        self._announcement = None
        self._announced_at = self._loop.time()
        self._on_change()

    def _forget(self, connection: ServerConnection, now: float) -> None:
        if self._connections.pop(connection.link, None) is None:
            return
        group = self._table.remove(connection)
        if group is not None:
            self._admission.gone(group, connection, now)
        self._admission.abandon(connection)
        self._arrivals.forget(connection.unproven)
        self._planes.drop(connection)
        if connection.tunnel is not None:
            connection.tunnel.remove(connection.session)
        if connection.admitted is not None:
            reason = connection.ending[1] if connection.ending is not None else "closed by the client"
            self._journal.info("client.gone", reason=reason, **server_report.names(connection))
            self._clients.note(connection, now)
        elif connection.refusal is not None:
            self._refused(connection.peer, connection.refusal, now)

    def _refused(self, peer: str, refusal: Rejected, now: float) -> None:
        """Tell why a registration was refused: of each client that we know, and of all others together."""
        reason = f"{refusal.code}: {refusal.reason}"
        if refusal.identity is None:
            # Anybody can cause these lines: one a minute.
            claims = refusal.claims[:MAX_CLAIM] if refusal.claims is not None else "nobody"
            self._journal.limited("refused", now, "client.refused", peer=peer, claims=claims, reason=reason)
            return
        # A client may name as many tunnels as it likes.
        known = refusal.tunnel if self._clients.refused((refusal.identity, refusal.tunnel), reason) else "-"
        self._journal.limited(
            f"refused {refusal.identity} {known}",
            now,
            "client.refused",
            SECOND_MACHINE_INTERVAL if refusal.code in CONFLICTS else 60.0,
            peer=peer,
            identity=refusal.identity,
            tunnel=refusal.tunnel,
            reason=reason,
        )

    def _forget_empty_groups(self) -> None:
        for group in [group for group in self._tunnels if not group.members]:
            tunnel = self._tunnels.pop(group)
            self._waiting.pop(tunnel, None)
            self._share.forget(tunnel)
            self._arrivals.forget(tunnel)
            self._past.add(tunnel_statistics(tunnel.sender, tunnel.receiver).drained())

    def _set_carrier(self) -> None:
        carrying = any(tunnel.is_carrying for tunnel in self._tunnels.values())
        if carrying != self._tun.carrier:
            self._tun.set_carrier(carrying)
            self._journal.info("tun.carrier", device=self._tun.name, on=carrying)

    # What people ask

    @property
    def dates(self) -> Dates:
        """The dates of the server's certificate and of its CA."""
        return self._identity.dates

    def status(self) -> dict[str, object]:
        """Return the row of `mpquicctl status` without the name."""
        count = self._table.connection_count
        totals = self._totals()
        peers = self._clients.rows()
        return {
            **self.brief(),
            **self._period.status(),
            "peer": server_report.peer_summary(peers),
            "peers": peers,
            "wan": None,
            "class": None,
            "rtt_seconds": None,
            "loss_ratio": None,
            "tx_bytes": totals.tx_bytes,
            "rx_bytes": totals.rx_bytes,
            "reconnects": max(0, self._registrations - count),
            "flaps": self._clients.log.flaps,
            "hold": None,
            "hold_at": None,
            "certificate": expiry.status(self.dates, dt.datetime.now(dt.UTC)),
        }

    def brief(self) -> dict[str, object]:
        """Return `state` and `error` of `status` alone."""
        return {"state": "up", "error": None}

    def paths(self) -> list[dict[str, object]]:
        """Return the rows of `mpquicctl paths`."""
        return server_report.paths(self._table, self._config.bind_device)

    def counters(self) -> dict[str, object]:
        """Return all counters, with the size of every table."""
        return {
            "tunnel": snapshot(self._totals()),
            "unrouted": dict(self._counters.refused),
            "tun": snapshot(self._tun.counters),
            "udp": snapshot(self._socket.counters),
            "dropped_waiting": self._arrivals.dropped,
            "listener": snapshot(self._listener.counters),
            "stripe": self._stripe.counters() if self._stripe is not None else None,
            "registrations": self._registrations,
            "flaps": self._clients.log.flaps,
            "tables": {
                "groups": len(self._table),
                "registered": self._table.connection_count,
                "tunnels": len(self._tunnels),
                "connections": len(self._connections),
                "quic_connections": len(self._listener.links),
                "unregistered": self._listener.unregistered,
                "waiting_registrations": self._admission.waiting,
                "stripe_sessions": len(self._stripe.table) if self._stripe is not None else 0,
            },
        }

    def _totals(self) -> TunnelStatistics:
        totals = TunnelStatistics()
        totals.add(self._past)
        for tunnel in self._tunnels.values():
            totals.add(tunnel_statistics(tunnel.sender, tunnel.receiver))
        return totals


def _peer_table(config: ServerConfig) -> PeerTable:
    return PeerTable(
        PeerRule(
            identity=peer.identity,
            tunnel=peer.tunnel,
            allowed=tuple(parse_prefix(prefix) for prefix in peer.allowed),
            traffic_class=peer.traffic_class,
            weight=float(peer.weight),
            priority=peer.priority,
            dscp=peer.dscp,
            low_latency=peer.low_latency,
            max_rate=peer.max_rate,
        )
        for peer in config.peers
    )


def _payer(claim: Hashable) -> Hashable:
    """Return who is charged for what waits under a key of `Server._arrivals`."""
    return UNPROVEN if isinstance(claim, Unproven) else claim
