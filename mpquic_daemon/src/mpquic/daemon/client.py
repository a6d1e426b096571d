"""The client: one TUN, one tunnel, one WAN, and a connection to the server that is always there or being made."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from typing import TYPE_CHECKING

from mpquic import held
from mpquic.daemon import client_report, credentials, expiry, faults, turn
from mpquic.daemon.cause import Cause
from mpquic.daemon.client_connection import ClientConnection, Ending, Failure, Phase
from mpquic.daemon.due_timer import DueTimer
from mpquic.daemon.farewell import Farewell
from mpquic.daemon.incarnation import Incarnation
from mpquic.daemon.json_lines import RequestError
from mpquic.daemon.lease_request import LeaseRequest
from mpquic.daemon.period import Period
from mpquic.daemon.retry import RetryPolicy
from mpquic.daemon.server_hold import ServerHold
from mpquic.daemon.session import IDLE_TIMEOUT, CloseCode
from mpquic.daemon.statistics import snapshot, tunnel_statistics
from mpquic.net.kernel import KERNEL
from mpquic.proto.control.messages import Held
from mpquic.proto.packet.frame import FrameError, class_octet
from mpquic.proto.path.address import endpoint, plain_host
from mpquic.proto.path.liveness import QUIET_LIMIT
from mpquic.proto.path.path import PathState
from mpquic.proto.path.traffic import Traffic
from mpquic.proto.stripe.renewal import StripeRenewal
from mpquic.proto.tunnel.scheduler import FailoverScheduler
from mpquic.proto.tunnel.tunnel import RECEIVE_WINDOW, Counters, TunnelReceiver, TunnelSender

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic.config import ClientConfig
    from mpquic.daemon.credentials import Dates
    from mpquic.daemon.journal import Journal
    from mpquic.daemon.session import Session
    from mpquic.daemon.stripe_plane import ClientStripe
    from mpquic.hold import Hold
    from mpquic.net.kernel import Kernel
    from mpquic.net.netlink import Missing, WanState
    from mpquic.proto.control.messages import StripeGrant
    from mpquic.proto.path.path import Carried

RENEW_AFTER = 6.0
LOOK_AGAIN = 1.0
CONFLICT_INTERVAL = 3600.0
"""Seconds between two journal lines that another machine has taken the place of this one."""
TUN_BATCH = 16
FORGOTTEN_MARGIN = 5.0
"""Seconds before the server forgets something, its own clock and the way there allowed for."""
CONTROL_SILENCE = QUIET_LIMIT + 10.0
"""Seconds without a QUIC packet, while pipes are heard, after which the connection is replaced. Both ends probe it each
`QUIET_LIMIT` at the latest."""
STALE_REQUEST = 5.0
"""Seconds after which a reply to a request for a striped session may name one that the server has forgotten."""
NO_STRIPE_INTERVAL = 3600.0
"""Seconds between two journal lines that no pipe carries."""
TICK = 0.5
"""Longest sleep of the loop while something is wanted that has no timer of its own."""


class Client:
    """Implements `Role`. States: inactive, connecting, up, down, held (the server is out of service on purpose)."""

    def __init__(
        self,
        config: ClientConfig,
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
        self._path = config.paths[0]
        self._loop = asyncio.get_running_loop()
        self._incarnation = Incarnation()
        self._state = "connecting"
        self._period = Period(self._loop, kernel)
        self._cause = Cause()
        self._announced_cause: str | None = None
        self._server_hold = ServerHold(config, self._loop, journal, self._turn)
        self._farewell: Farewell | None = None
        self._flaps = 0
        """How often the tunnel went from up to not-up."""
        self._missing: Missing | None = None
        """What the WAN lacks for being usable."""
        self._session_name = b""
        self._registrations = 0
        self._current: ClientConnection | None = None
        self._candidate: ClientConnection | None = None
        self._retry = RetryPolicy(
            random.SystemRandom(),
            reconnect_max=config.reconnect_max_s,
        )
        self._heard_at = self._loop.time()
        """When anything came from the server last, or the WAN changed."""
        self._counters = Counters()
        self._traffic = Traffic()
        self._scheduler = FailoverScheduler()
        traffic_class = class_octet(config.traffic_class, low_latency=config.low_latency)
        self._sender = TunnelSender(self._scheduler, traffic_class=traffic_class, counters=self._counters)
        self._receiver = TunnelReceiver(counters=self._counters, window=RECEIVE_WINDOW)
        self._lease = LeaseRequest(journal)
        self._timer = DueTimer(self._loop, self._turn)
        self._due: float | None = None
        """When the next turn is due at the latest."""
        self._more: asyncio.Handle | None = None
        self._writing: set[int] = set()
        self._generation: int | None = None
        self._own: tuple[str, ...] = ()
        """Addresses of the WAN's device."""
        self._look_again_at: float | None = None
        """When the state of the WAN is read anew, since netlink failed."""
        self._handover_until: float | None = None
        """Until when the server's word that a newer connection has replaced the current one may precede its WELCOME."""
        self._conflict_told_at = float("-inf")
        self._replace = False
        """Whether the WAN has changed under the current connection, so that another must take its place."""
        self._renewal = StripeRenewal()
        self._suspended = kernel.suspended()
        """For how long the machine was suspended in all when that was looked at last."""
        self._stopping = False

    # Life

    def start(self) -> None:
        """Attach to the TUN and begin to connect; TunError, OSError, CredentialsError."""
        self._identity = credentials.load_client(self._config.tls)
        self._tun = self._kernel.tun(self._config.tun_name, uso=True)
        self._receiver.coalescer.uso = self._tun.uso
        self._monitor = self._kernel.monitor(self._config.devices)
        self._loop.add_reader(self._tun.fileno(), self._on_tun)
        if self._config.devices:
            self._loop.add_reader(self._monitor.fileno(), self._on_netlink)
        self._server_hold.load()
        self._wan_changed()
        self._turn()

    async def stop(self, hold: Hold | None = None) -> None:
        """Tell the peer of `hold` if that is the reason, send BYE, and release everything."""
        if hold is not None:
            self._farewell = Farewell(hold, self._registered_sessions)
            self._turn()
            await self._farewell.done()
        self._stopping = True
        self._server_hold.close()
        self._timer.close()
        if self._more is not None:
            self._more.cancel()
        self._drop("_candidate", "the client stops")
        self._drop("_current", "the client stops")
        self._loop.remove_reader(self._tun.fileno())
        self._loop.remove_reader(self._monitor.fileno())
        self._tun.set_carrier(False)
        self._tun.close()
        self._monitor.close()
        self._lease.close()

    def apply(self, config: ClientConfig) -> None:
        """Take over hot keys; the files of the identity are used by the next connection. CredentialsError.

        A connection to a server whose certificate is revoked now ends.
        """
        self._identity = credentials.load_client(config.tls)
        self._config = config
        self._retry.set_reconnect_max(config.reconnect_max_s)
        for connection in (self._current, self._candidate):
            if connection is not None:
                connection.session.retime(config.probe_interval, config.down_after)
                connection.end_if_revoked(self._identity.revoked, self._loop.time())
        self._turn()

    def reconnect(self, *, silent: bool) -> None:
        """Begin a new connection now: beside the present one, or `silent` after forgetting it as a crash would."""
        if self._state == "inactive":
            raise RequestError(f"there is nothing to connect by: {self._cause.text}")
        self._drop("_candidate", None)
        if silent:
            self._drop("_current", None)
        self._retry.changed()
        self._replace = self._current is not None
        self._turn()

    def hand_over(self, who: str, tunnel: str | None, seconds: float, by: str) -> object:  # noqa: ARG002 - a server's
        """Refuse with RequestError: clients come and go at a server."""
        raise RequestError("a client hands nothing over; ask the server")

    # Events

    def _on_tun(self) -> None:
        buffers = self._tun.read_batch(TUN_BATCH)
        if self._tun.gone:
            self._on_useless(f"the TUN device {self._tun.name} was deleted or made anew")
            return
        now = self._loop.time()
        self._sender.enqueue(buffers, now)
        if self._contain(self._current, now, self._push, now):
            return
        # Packets don't wait for the rest of a turn, and don't ask for one: what a turn looks after comes by a socket or
        # a timer.
        self._contain(self._current, now, self._send, now)
        if self._due is None or self._due <= now or (self._current is not None and self._current.ending is not None):
            self._turn()
        else:
            self._schedule(now)

    def _on_netlink(self) -> None:
        self._look_at_wan(self._monitor.read)
        self._turn()

    def _look_at_wan(self, look: Callable[[], object]) -> None:
        """Take the state of the WAN by `look`; when netlink fails, that is done again later, without a notification."""
        now = self._loop.time()
        try:
            look()
        except OSError as error:
            self._look_again_at = now + LOOK_AGAIN
            self._journal.limited("netlink", now, "wan.unknown", wan=self._path.name, error=error)
            return
        self._look_again_at = None
        self._wan_changed()

    def _on_socket(self, connection: ClientConnection) -> None:
        now = self._loop.time()
        self._contain(connection, now, connection.read, now)
        if connection.heard_at is not None:
            self._heard_at = max(self._heard_at, connection.heard_at)
        self._turn()

    def _on_writable(self, connection: ClientConnection) -> None:
        connection.socket.resume()
        self._turn()

    # The loop: everything that happened is followed by one turn

    def _turn(self) -> None:
        if self._stopping:
            return
        now = self._loop.time()
        self._notice_sleep(now)
        if self._more is not None:
            self._more.cancel()
            self._more = None
        if self._look_again_at is not None and now >= self._look_again_at:
            self._look_at_wan(self._monitor.refresh)
        try:
            for connection in (self._current, self._candidate):
                if connection is not None:
                    self._contain(connection, now, self._serve, connection, now)
            self._consider_attempt(now)
            self._settle_state(now)
            self._announce_cause()
            self._renew_stripe(now)
            if self._farewell is not None:
                self._farewell.advance()
            self._contain(self._current, now, self._send, now)
            self._contain(self._current, now, self._push, now)
        finally:
            # A fault costs one turn: without a timer it could be the last.
            self._schedule(now)

    def _contain(
        self, connection: ClientConnection | None, now: float, act: Callable[..., bool | None], *arguments: object
    ) -> bool:
        """Do something for a connection; a fault in it ends that connection, after which the client tries again."""
        try:
            return bool(act(*arguments))
        except Exception as error:
            if connection is None:
                raise
            faults.tell(self._journal, now, "connection.fault", error, path=self._path.name)
            connection.ending = Ending(Failure.ENDED, "internal error")
            self._ended(connection, connection.ending, now)
            self._more = self._more or self._loop.call_soon(self._turn)
            return False

    def _notice_sleep(self, now: float) -> None:
        """Find out whether this process, or its machine, has slept since the last iteration."""
        suspended = self._kernel.suspended()
        slept = max(now - self._due if self._due is not None else 0.0, 0.0) + suspended - self._suspended
        self._suspended = suspended
        if slept <= turn.SLEPT:
            return
        # What wasn't heard meanwhile is nobody's silence. But the server has had its time, and forgets.
        self._heard_at = min(now, self._heard_at + slept)
        self._renewal.changed()
        current = self._current
        if current is None:
            return
        plane = current.plane
        if plane is not None and slept > plane.session.config.idle_timeout - FORGOTTEN_MARGIN:
            self._close_plane(current)
        if max(slept, now - current.silent_since) > IDLE_TIMEOUT - FORGOTTEN_MARGIN:
            self._replace = True

    def _serve(self, connection: ClientConnection, now: float) -> None:
        inbox = connection.advance(now)
        if connection is self._candidate and connection.phase is Phase.REGISTERED:
            self._promote(connection, now)
        for _, message in inbox.messages:
            if isinstance(message, Held) and connection is self._current:
                self._server_hold.told(message, now)
        renewed = connection.renewed_stripe(inbox)
        if renewed is not None and connection is self._current:
            self._open_plane(connection, renewed.stripe, now)
            if now - connection.renewing_since > STALE_REQUEST:
                self._renewal.changed()
        if inbox.datagrams or inbox.stream_bytes:
            try:
                writes = connection.session.writes(inbox, self._receiver, now)
            except FrameError as error:
                self._counters.refuse(f"stream_{error.reason}")
                connection.close(CloseCode.PROTOCOL, "malformed frame on the data stream", now)
                connection.ending = connection.ending or Ending(Failure.ENDED, f"malformed frame: {error.reason}")
            else:
                for buffers in writes:
                    self._tun.write(buffers)
        if connection.ending is not None:
            self._ended(connection, connection.ending, now)

    def _send(self, now: float) -> None:
        if turn.send(lambda: self._flush(now), lambda: self._sender.flush(now)):
            self._more = self._more or self._loop.call_soon(self._turn)

    def _push(self, now: float) -> bool:
        """Let the striped data plane take what waits; False when there is none that carries."""
        plane = self._current.plane if self._current is not None else None
        return plane is not None and plane.push(now)

    def _deliver(self, frames: list[Carried], now: float) -> None:
        write = self._tun.write
        for buffers in self._receiver.receive(frames, now):
            write(buffers)

    def _flush(self, now: float) -> None:
        for connection in (self._current, self._candidate):
            if connection is not None:
                self._contain(connection, now, self._flush_one, connection, now)

    def _flush_one(self, connection: ClientConnection, now: float) -> None:
        connection.flush(now)
        self._watch_writable(connection)

    def _watch_writable(self, connection: ClientConnection) -> None:
        fd = connection.socket.fileno()
        if connection.socket.wants_write and fd not in self._writing:
            self._writing.add(fd)
            self._loop.add_writer(fd, self._on_writable, connection)
        elif not connection.socket.wants_write and fd in self._writing:
            self._writing.discard(fd)
            self._loop.remove_writer(fd)

    def _schedule(self, now: float) -> None:
        timers = [c.timer(now) for c in (self._current, self._candidate) if c is not None]
        timers.append(self._look_again_at)
        current = self._current
        if current is not None:
            silent_at = self._control_silent_at(current)
            if silent_at is not None and silent_at > now:
                timers.append(silent_at)
            if current.session.path.state is PathState.UP and not current.renewing_stripe:
                timers.append(self._renewal.due)
        if self._state != "inactive":
            if self._candidate is None and self._is_wanted(now):
                timers.append(self._retry.next_attempt)
            if not self._is_carrying():
                timers.append(now + TICK)
        # What is overdue is due now: `_notice_sleep` compares with this.
        self._due = due = min((max(timer, now) for timer in timers if timer is not None), default=None)
        # Never sooner than a moment from now: a timer that stays due must not stop the loop from reading.
        self._timer.set(None if due is None else max(due, now + 0.0005))

    # Connections

    def _consider_attempt(self, now: float) -> None:
        if self._state == "inactive" or self._candidate is not None:
            return
        if now < self._retry.next_attempt or not self._is_wanted(now):
            return
        epoch = self._incarnation.next_epoch()
        try:
            connection = ClientConnection(
                self._config,
                self._path,
                self._identity,
                boot_id=self._incarnation.boot_id,
                epoch=epoch,
                now=now,
                own=self._own,
                patience=self._retry.patience,
                kernel=self._kernel,
            )
        except (OSError, ValueError) as error:
            self._cause.failure(f"no socket: {error}")
            self._retry.no_socket(now)
            self._journal.limited("socket", now, "path.no_socket", path=self._path.name, error=error)
            return
        connection.link.count_in(self._traffic)
        self._candidate = connection
        self._loop.add_reader(connection.socket.fileno(), self._on_socket, connection)

    def _is_wanted(self, now: float) -> bool:
        """Whether a new connection is wanted: for want of one that carries, or to replace one that may not last."""
        return self._replace or not self._is_carrying() or self._is_doubtful(now)

    def _promote(self, connection: ClientConnection, now: float) -> None:
        """The candidate has registered: it is the path from now on."""
        welcome, connection.welcome = connection.welcome, None  # The secret in it is used once.
        assert welcome is not None
        old, self._current, self._candidate = self._current, connection, None
        self._replace = False
        self._handover_until = None
        self._server_hold.end()
        if welcome.session != self._session_name:
            self._session_name = welcome.session
            self._sender.restart()
            self._receiver.restart()
        self._scheduler.add(connection.session.path, priority=self._path.priority, weight=self._path.weight)
        if old is not None:
            # Before anything that may fail: nobody knows the old one any more.
            self._release(old, "replaced by a newer connection")
        self._renewal.changed()
        self._open_plane(connection, welcome.stripe, now)
        if connection.server_certificate is not None:
            expiry.warn_of_peer(connection.server_certificate, self._journal, self._peer(), _today(), now)
        self._registrations += 1
        self._incarnation.registered()
        self._retry.registered(now)

    def _open_plane(self, connection: ClientConnection, grant: StripeGrant | None, now: float) -> None:
        """Prefer the striped data plane as soon as a pipe answers; until then, and without one, QUIC carries."""
        if self._path.transport != "stripe":
            return
        self._renewal.granted(now)
        if grant is None:
            self._tell_no_stripe("the server grants none", now)
            return
        self._close_plane(connection)
        try:
            plane = connection.open_plane(grant, self._sender, self._deliver)
        except (OSError, ValueError) as error:
            self._tell_no_stripe(error, now)
            return
        plane.on_change = self._on_stripe_change
        plane.on_fault = lambda error: self._on_stripe_fault(connection, plane, error)
        self._scheduler.add(plane.path, priority=self._path.priority - 1, weight=self._path.weight)

    def _on_stripe_change(self) -> None:
        plane = self._current.plane if self._current is not None else None
        if plane is not None and plane.path.state is PathState.UP:
            self._journal.info("path.striped", path=self._path.name, session=f"{plane.session.session:08x}")
        self._turn()

    def _on_stripe_fault(self, connection: ClientConnection, plane: ClientStripe, error: Exception) -> None:
        """Another session is requested, in the pauses of `StripeRenewal`; QUIC carries meanwhile."""
        faults.tell(self._journal, self._loop.time(), "stripe.fault", error, path=self._path.name)
        if connection.plane is plane:
            self._close_plane(connection)
            self._turn()

    def _close_plane(self, connection: ClientConnection) -> None:
        if connection.plane is not None:
            self._scheduler.remove(connection.plane.path)
            connection.close_plane()

    def _tell_no_stripe(self, cause: object, now: float) -> None:
        self._journal.limited(
            f"stripe {cause}", now, "path.no_stripe", NO_STRIPE_INTERVAL, path=self._path.name, error=cause
        )

    def _renew_stripe(self, now: float) -> None:
        """Give up a striped session that is silent or has used up its keys, and request another when that may help."""
        current = self._current
        if current is None or self._path.transport != "stripe":
            return
        plane = current.plane
        if plane is not None and plane.session.idle(now):
            self._close_plane(current)
            plane = None
        usable = plane is not None and not plane.session.exhausted
        control = {PathState.UP: True, PathState.DOWN: False}.get(current.session.path.state)
        rtt = current.session.liveness.rtt.minimum
        due = self._renewal.poll(now, control=control, carries=usable and self._is_striped(), usable=usable, rtt=rtt)
        if due and not current.renewing_stripe:
            if usable and self._renewal.unanswered:
                self._tell_no_stripe("no pipe gets a reply; QUIC carries", now)
            current.renew_stripe(now)

    def _ended(self, connection: ClientConnection, ending: Ending, now: float) -> None:
        """A connection or attempt has come to its end: drop it and decide when to try again."""
        was_current = connection is self._current
        if was_current:
            self._current = None
        elif connection is self._candidate:
            self._candidate = None
        self._release(connection, None)
        if connection.shortage is not None:
            self._cause.shortage = connection.shortage
            self._journal.limited("mtu", now, "path.mtu", path=self._path.name, cause=connection.shortage)
        candidate = self._candidate
        if was_current and ending.failure is Failure.REPLACED:
            if candidate is not None:
                # By our own: its WELCOME is still on its way, or it was given up for another since the WAN has changed.
                # The TUN keeps its carrier, packets wait meanwhile.
                self._handover_until = now + self._config.down_after
                return
            if connection.epoch == self._incarnation.epoch:
                self._incarnation.displaced()
                self._tell_of_conflict(now)
        else:
            self._handover_until = None
        if ending.failure is Failure.IN_USE and not self._is_carrying():
            self._incarnation.displaced()
            # Were this machine's own old connection what the server hears, it would be in its own way.
            self._drop("_current", None)
        if self._is_carrying():
            self._retry.second_ended(ending, now)
            return
        self._retry.ended(ending, now)
        refused = ending.failure in (Failure.REFUSED, Failure.IN_USE, Failure.HANDED_OVER)
        if refused:
            # A server that refuses runs again.
            self._server_hold.end()
        if ending.failure is Failure.SILENT or ending.unheard:
            self._cause.silence(ending.reason)
        else:
            self._cause.failure(ending.reason)
        if refused:
            self._journal.limited("refused", now, "path.refused", path=self._path.name, reason=ending.reason)
        elif was_current:
            self._journal.info("path.ended", path=self._path.name, reason=ending.reason)

    def _tell_of_conflict(self, now: float) -> None:
        if now - self._conflict_told_at >= CONFLICT_INTERVAL:
            self._conflict_told_at = now
            cause = "another client has this identity and tunnel: a copy of this machine, or of its certificate and key"
            self._journal.error("path.taken_over", path=self._path.name, cause=cause)

    def _drop(self, which: str, reason: str | None) -> None:
        connection: ClientConnection | None = getattr(self, which)
        if connection is not None:
            setattr(self, which, None)
            self._release(connection, reason)

    def _release(self, connection: ClientConnection, farewell: str | None) -> None:
        """Close a connection; with a reason the peer is told, without one nothing is sent any more."""
        if farewell is not None and connection.phase is not Phase.OVER:
            connection.close(CloseCode.NONE, farewell, self._loop.time())
        fd = connection.socket.fileno()
        self._loop.remove_reader(fd)
        if fd in self._writing:
            self._writing.discard(fd)
            self._loop.remove_writer(fd)
        self._scheduler.remove(connection.session.path)
        self._close_plane(connection)
        connection.release()

    # State

    def _is_carrying(self) -> bool:
        return self._current is not None and self._current.session.path.state is not PathState.DOWN

    def _registered_sessions(self) -> list[Session]:
        return [self._current.session] if self._current is not None else []

    def _is_striped(self) -> bool:
        plane = self._current.plane if self._current is not None else None
        return plane is not None and plane.path.state is PathState.UP

    def _control_silent_at(self, current: ClientConnection) -> float | None:
        """When a connection whose path counts as up is to be replaced, since only pipes have been heard for long.

        The NAT may have forgotten its port, or a firewall drop it: QUIC would end it, and the pipes with it.
        """
        return current.silent_since + CONTROL_SILENCE if self._is_striped() else None

    def _is_doubtful(self, now: float) -> bool:
        """Whether the current connection still counts as up but a new one should be tried beside it."""
        current = self._current
        if current is None:
            return False
        silent_at = self._control_silent_at(current)
        if silent_at is not None and now >= silent_at:
            return True
        return current.doubtful and current.session.path.state is PathState.SUSPECT

    def _wan_changed(self) -> None:
        """Look at the WAN: unusable means inactive; another device, address or gateway means a new connection now."""
        if self._path.bind_device is None:
            return
        wan = self._monitor.state(self._path.bind_device)
        if not wan.usable_for(self._path.family):
            # Without address or route the kernel would send by another WAN's address: nothing leaves any more.
            self._drop("_candidate", None)
            self._drop("_current", None)
            self._generation = None
            self._own = ()
            self._missing = wan.missing_for(self._path.family)
            self._cause.obstacle = None
            self._cause.failure(wan.reason_for(self._path.family))
            self._set_state("inactive")
            return
        self._missing = None
        self._cause.obstacle = self._find_obstacle(wan)
        generation = wan.generations[self._path.family]
        if generation == self._generation:
            return
        if self._generation is not None:
            self._journal.info("wan.changed", wan=self._path.name, device=wan.device)
        self._generation = generation
        self._own = wan.own_hosts(self._path.family)
        self._drop("_candidate", None)
        if self._current is not None:
            self._current.keep_to(self._own)
        self._retry.changed()
        self._heard_at = self._loop.time()
        self._lease.reset()
        self._replace = self._current is not None
        # What the WAN was before explains nothing any more.
        self._cause.clear()
        if self._state in ("inactive", "down", "held"):
            self._set_state("connecting" if self._server_hold.in_force is None else "held")

    def _find_obstacle(self, wan: WanState) -> str | None:
        subnet, server = wan.covering(self._path.remote_addr), self._path.remote_addr
        if subnet is None:
            return None
        return (
            f"the lease {subnet} of {wan.device} covers the VPS's address {server}: it is looked for at the modem, "
            "which must give another subnet"
        )

    def _settle_state(self, now: float) -> None:
        if self._state == "inactive":
            return
        if self._is_carrying():
            self._cause.clear()
            if (
                self._candidate is not None
                and self._candidate.phase is Phase.HANDSHAKE
                and not self._wants_candidate(now)
            ):
                # The old connection came back by itself before the new one had registered.
                self._drop("_candidate", None)
            self._set_state("up")
            return
        if self._handover_until is not None and now < self._handover_until and self._candidate is not None:
            return
        if self._state == "up":
            self._lease.reset()
            self._server_hold.lost(now)
            if not self._cause.is_known:
                self._cause.silence(f"no answer from the server for {self._config.down_after:g} s")
            if self._current is not None:
                # Silent, but not over: it goes on probing while others are tried.
                self._retry.lost(now)
                self._consider_attempt(now)
        if self._server_hold.in_force is not None:
            self._set_state("held")
        elif self._retry.failures or self._state in ("up", "held"):
            self._set_state("down")
        if self._path.bind_device is not None and now - self._heard_at >= RENEW_AFTER:
            self._lease.ask(self._path.bind_device, now)

    def _wants_candidate(self, now: float) -> bool:
        return self._replace or self._is_doubtful(now)

    def _announce_cause(self) -> None:
        """Tell of another cause in the same state; a change of state tells of both."""
        if self._reason != self._announced_cause:
            self._announced_cause = self._reason
            if self._state != "up":
                self._on_change()

    def _set_state(self, state: str) -> None:
        if state == self._state:
            return
        self._flaps += self._state == "up"
        self._state = state
        self._period.restart()
        self._tun.set_carrier(state == "up")
        fields: dict[str, object] = {"path": self._path.name, "peer": self._peer()}
        if state == "up" and self._path.bind_device is not None:
            self._lease.works(self._path.bind_device, self._loop.time())
        if state == "up" and self._current is not None:
            fields["rtt_ms"] = client_report.rtt_ms(self._current)
            fields["local"] = plain_host(self._current.socket.local_address)
        elif self._reason is not None:
            fields["reason"] = self._reason
        write = self._journal.warning if state == "down" else self._journal.info
        write(f"tunnel.{state}", **fields)
        self._announced_cause = self._reason
        self._on_change()

    @property
    def _reason(self) -> str | None:
        """Why the tunnel doesn't carry, in words."""
        hold = self._server_hold.in_force if self._state == "held" else None
        return self._cause.text if hold is None else held.words(hold)

    # What people ask

    @property
    def dates(self) -> Dates:
        """The dates of the client's certificate and of its CA."""
        return self._identity.dates

    def status(self) -> dict[str, object]:
        """Return the row of `mpquicctl status` without the name."""
        current = self._current if self._is_carrying() else None
        hold = self._server_hold.in_force if self._state == "held" else None
        return {
            **self._period.status(),
            "peer": self._peer(),
            "wan": self._path.name,
            "class": self._config.class_name,
            **client_report.quality(current),
            "tx_bytes": self._counters.tx_bytes,
            "rx_bytes": self._counters.rx_bytes,
            "reconnects": max(0, self._registrations - 1),
            "flaps": self._flaps,
            **self.brief(),
            "hold": held.report(hold),
            "hold_at": "peer" if hold is not None else None,
            "missing": self._missing,
            "certificate": expiry.status(self.dates, _today()),
        }

    def brief(self) -> dict[str, object]:
        """Return `state` and `error` of `status` alone."""
        return {"state": self._state, "error": self._reason if not self._is_carrying() else None}

    def paths(self) -> list[dict[str, object]]:
        """Return the rows of `mpquicctl paths`."""
        row: dict[str, object] = {
            "path": self._path.name,
            "state": self._state,
            "peer": self._peer(),
            "device": self._path.bind_device,
            "tunnel": self._config.tunnel_name,
            "inner": list(self._config.inner_addresses),
        }
        return [row | client_report.path(self._current, self._traffic)]

    def counters(self) -> dict[str, object]:
        """Return all counters."""
        return {
            "tunnel": snapshot(tunnel_statistics(self._sender, self._receiver)),
            "paths": [{"path": self._path.name, **client_report.path_counters(self._current, self._traffic)}],
            "tun": snapshot(self._tun.counters),
            "attempts": self._incarnation.epoch,
            "registrations": self._registrations,
            "flaps": self._flaps,
        }

    def _peer(self) -> str:
        return endpoint(self._path.remote_addr, self._path.remote_port)


def _today() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
