"""The server: one UDP port and one TUN for the tunnels of many clients, and the iteration that serves them in order."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from mpquic.daemon import credentials, iteration, server_status
from mpquic.daemon.announcer import Announcer
from mpquic.daemon.authorization import Authorization
from mpquic.daemon.clients import Clients
from mpquic.daemon.connection_events import ConnectionEvents
from mpquic.daemon.due_timer import DueTimer
from mpquic.daemon.farewell import Farewell
from mpquic.daemon.json_lines import RequestError
from mpquic.daemon.period import Period
from mpquic.daemon.processor_share import ProcessorShare
from mpquic.daemon.quic_port import QuicPort
from mpquic.daemon.registry import Registry
from mpquic.daemon.server_connections import ServerConnections
from mpquic.daemon.server_planes import ServerPlanes
from mpquic.daemon.server_status import ServerStatus
from mpquic.daemon.server_tun import ServerTun
from mpquic.daemon.server_tunnels import ServerTunnels
from mpquic.daemon.session import IDLE_TIMEOUT, CloseCode
from mpquic.daemon.stripe_listener import StripeListener
from mpquic.net.kernel import KERNEL
from mpquic.proto.control.groups import GroupTable
from mpquic.quic.configuration import LinkOptions
from mpquic.quic.listener import QuicListener

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic.config import ServerConfig
    from mpquic.daemon.credentials import Dates
    from mpquic.daemon.journal import Journal
    from mpquic.daemon.server_connection import ServerConnection
    from mpquic.daemon.server_tunnel import ServerTunnel
    from mpquic.hold import Hold
    from mpquic.net.kernel import Kernel

TICK = 0.1
"""Seconds between two looks at all connections: probes, silence, deadlines."""
EXPIRY_CHECK = 60.0
"""Seconds between two looks at the dates of the certificates of connected clients."""
COLLECTION_INTERVAL = 5.0
"""Seconds between two looks for striped sessions from which nothing comes."""


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
        self._on_useless = on_useless
        self._loop = asyncio.get_running_loop()
        self._share = ProcessorShare(self._loop, kernel.processor_time, self._after_pass, kernel.idle_time)
        self._period = Period(self._loop, kernel)
        self._announcer = Announcer(self._loop, on_change)
        self._table: GroupTable[ServerConnection] = GroupTable(os.urandom)
        self._clients = Clients(config, self._loop, self._period, journal, self._table, self._announcer.announce)
        self._farewell: Farewell | None = None
        self._timer = DueTimer(self._loop, self._iterate)
        self._due: float | None = None
        """When the next iteration is due at the latest."""
        self._more: asyncio.Handle | None = None
        self._next_tick = 0.0
        self._next_expiry_check = 0.0
        self._next_collection = 0.0
        self._stopping = False

    # Life

    def start(self) -> None:
        """Attach to the TUN and listen; TunError, OSError, CredentialsError."""
        config, loop, journal, table, share = self._config, self._loop, self._journal, self._table, self._share
        authorization = Authorization(config)
        device = self._kernel.tun(config.tun_name, uso=True)
        self._listener = listener = self._listen()
        host = config.bind_address or "::"
        socket = self._kernel.udp((host, config.bind_port), device=config.bind_device, gso=config.udp_gso)
        self._stripe = StripeListener(config, share, self._kernel) if config.stripe_enabled else None
        self._planes = planes = ServerPlanes(self._stripe, table, loop, self._on_plane)
        self._connections = connections = ServerConnections(listener, planes, journal, loop, self._turn_soon)
        self._port = port = QuicPort(socket, listener, connections, share, loop, self._notice_sleep, self._iterate)
        self._tunnels = tunnels = ServerTunnels(
            table, share, device, self._turn_soon, port.forget, connections.fault_of_tunnel
        )
        self._tun = tun = ServerTun(device, loop, table, tunnels, share, journal, self._on_useless)
        self._registry = registry = Registry(
            config, authorization, table, self._clients, connections, tunnels, planes, listener, journal, loop
        )
        self._events = ConnectionEvents(
            connections,
            registry,
            self._clients,
            tunnels,
            planes,
            listener,
            port,
            tun,
            share,
            self._announcer,
            journal,
        )
        self._status = ServerStatus(
            self._period,
            table,
            registry,
            self._clients,
            connections,
            tunnels,
            tun,
            listener,
            port,
            self._stripe,
            config.bind_device,
        )
        self._clients.load()
        self._iterate()

    def _listen(self) -> QuicListener:
        config = self._config
        with credentials.usable(config.tls):
            return QuicListener(
                cert_file=config.tls.cert_file,
                key_file=config.tls.key_file,
                options=LinkOptions(config.congestion_algorithm, config.max_datagram_size, IDLE_TIMEOUT),
                entropy=os.urandom,
                processor_time=self._kernel.processor_time,
                time_passed=self._loop.time,
            )

    async def stop(self, hold: Hold | None = None) -> None:
        """Tell every client of `hold` if that is the reason, send BYE, and release everything."""
        if hold is not None:
            self._farewell = Farewell(hold, lambda: self._registry.sessions)
            self._iterate()
            await self._farewell.done()
        self._stopping = True
        self._share.close()
        self._clients.close()
        self._timer.close()
        self._announcer.close()
        if self._more is not None:
            self._more.cancel()
        now = self._loop.time()
        for connection in self._connections:
            connection.say_goodbye("the server stops")
        self._port.flush(now)
        for connection in self._connections:
            connection.link.close(CloseCode.SHUTDOWN, "the server stops")
        self._port.flush(now)
        for connection in self._connections:
            self._planes.drop(connection)
        if self._stripe is not None:
            self._stripe.close()
        self._tun.close()
        self._port.close()

    def reconnect(self, *, silent: bool) -> None:  # noqa: ARG002 - what the client's takes
        """Refuse with RequestError: clients connect, servers answer."""
        raise RequestError("a server makes no connections; have the client reconnect")

    def hand_over(self, who: str, tunnel: str | None, seconds: float, by: str) -> object:
        """Let the next machine that registers as `who` take over; see `Clients.hand_over`. RequestError."""
        return self._clients.hand_over(who, tunnel, seconds, by)

    def apply(self, config: ServerConfig) -> None:
        """Take over hot keys and the files of the identity; close what they no longer allow. CredentialsError."""
        authorization = Authorization(config)
        with credentials.usable(config.tls):
            self._listener.reload_certificate(config.tls.cert_file, config.tls.key_file)
        self._config = config
        self._registry.configure(config, authorization)
        self._clients.configure(config.peers)
        self._iterate()

    # The loop: everything that happened is followed by one iteration

    def _on_plane(self, tunnel: ServerTunnel) -> None:
        """A striped data plane carries from now on, or no more: what waits in the tunnel may be for another path."""
        self._tunnels.resume(tunnel)
        self._tun.show_carrier()
        self._turn_soon()

    def _after_pass(self) -> None:
        received, queued = self._port.has_received, self._tunnels.has_queued
        self._port.has_received = self._tunnels.has_queued = False
        if self._stopping or not (received or queued):
            return
        if not received:
            # Packets don't wait for the rest of an iteration, and don't ask for one: what an iteration looks after
            # comes by a socket or a timer.
            now = self._loop.time()
            self._send(now)
            if self._due is not None and self._due > now and not self._connections.has_changed:
                self._schedule(now)
                return
        self._run_turn()

    def _notice_sleep(self, now: float) -> None:
        """After sleep what was sent meanwhile waits to be read: so nobody was silent, and no handshake in it is new."""
        if self._due is not None and now - self._due > iteration.SLEPT:
            self._next_collection = now + COLLECTION_INTERVAL
            self._port.after_sleep(now)

    def _iterate(self) -> None:
        if not self._stopping:
            self._share.charge(None)
            self._run_turn()

    def _turn_soon(self) -> None:
        self._more = self._more or self._loop.call_soon(self._iterate)

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
            self._events.serve_ready(now)
            if now >= self._next_tick:
                self._tick(now)
            self._events.decide(now)
            self._events.close_ended(now)
            if self._farewell is not None:
                self._farewell.advance()
            self._send(now)
        finally:
            # Always set the timer anew, even after an exception.
            self._schedule(now)

    def _tick(self, now: float) -> None:
        self._next_tick = now + TICK
        if now >= self._next_collection:
            self._next_collection = now + COLLECTION_INTERVAL
            self._planes.drop_idle(self._connections, now)
        if now >= self._next_expiry_check:
            self._next_expiry_check = now + EXPIRY_CHECK
            self._registry.expel_objectionable()
        self._events.poll(now)

    def _send(self, now: float) -> None:
        if iteration.send(lambda: self._port.flush_each(now), lambda: self._tunnels.fill(now)):
            self._turn_soon()

    def _schedule(self, now: float) -> None:
        timers = [self._listener.timer(), self._tunnels.next_allowance(now)]
        if self._connections:
            timers += [self._next_tick, self._registry.admission.due]
        self._due = due = min((max(timer, now) for timer in timers if timer is not None), default=None)
        self._timer.set(None if due is None else max(due, now + 0.0005))

    # What people ask

    @property
    def dates(self) -> Dates:
        """The dates of the server's certificate and of its CA."""
        return self._registry.authorization.dates

    def status(self) -> dict[str, object]:
        """Return the row of `mpquicctl status` without the name."""
        return self._status.status()

    def brief(self) -> dict[str, object]:
        """Return `state` and `error` of `status` alone."""
        return server_status.brief()

    def paths(self) -> list[dict[str, object]]:
        """Return the rows of `mpquicctl paths`."""
        return self._status.paths()

    def counters(self) -> dict[str, object]:
        """Return all counters, with the size of every table."""
        return self._status.counters()
