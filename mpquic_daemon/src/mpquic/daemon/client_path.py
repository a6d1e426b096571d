"""One path of a client: the connection over one WAN that is always there or being made, and its striped data plane."""

from __future__ import annotations

import datetime as dt
import random
from functools import partial
from typing import TYPE_CHECKING

from mpquic.daemon import client_report, expiry, faults
from mpquic.daemon.client_connection import ClientConnection, Phase
from mpquic.daemon.client_path_stripe import ClientPathStripe, is_striped
from mpquic.daemon.client_wan import ClientWan
from mpquic.daemon.session import IDLE_TIMEOUT, CloseCode
from mpquic.proto.control.messages import Held
from mpquic.proto.packet.frame import FrameError
from mpquic.proto.path.connector import Connector, ConnectorState
from mpquic.proto.path.ending import Ending, Failure
from mpquic.proto.path.liveness import QUIET_LIMIT
from mpquic.proto.path.path import Path, PathState
from mpquic.proto.path.traffic import Traffic

if TYPE_CHECKING:
    from mpquic.config import PathConfig
    from mpquic.daemon.client_shared import Shared
    from mpquic.net.netlink import WanState

FORGOTTEN_MARGIN = 5.0
"""Seconds before the server forgets something, its own clock and the way there allowed for."""
CONTROL_SILENCE = QUIET_LIMIT + 10.0
"""Seconds without a QUIC packet, while pipes are heard, after which the connection is replaced. Both ends probe it each
`QUIET_LIMIT` at the latest."""
UNPROVED = 15.0
"""Seconds without a reply to any probe, while other packets come in, after which another connection is tried beside."""
STALE_REQUEST = 5.0
"""Seconds after which a reply to a request for a striped session may name one that the server has forgotten."""


class ClientPath:
    """`path` is what the tunnel sees of it."""

    def __init__(self, shared: Shared, settings: PathConfig) -> None:
        self._shared = shared
        self.settings = settings
        self.path = Path(settings.name, priority=settings.priority, weight=settings.weight)
        self.current: ClientConnection | None = None
        """The connection that carries, or did."""
        self.candidate: ClientConnection | None = None
        """The attempt beside it."""
        self.registrations = 0
        self.traffic = Traffic()
        """What all its connections have sent and received."""
        now, config = shared.loop.time(), shared.config
        self.connector = Connector(
            random.SystemRandom(), now, reconnect_max=config.reconnect_max_s, down_after=config.down_after
        )
        self.wan = ClientWan(settings, shared.journal)
        self.stripe = ClientPathStripe(shared, settings, self.path)
        self._epoch = 0
        """That of the newest attempt."""

    # What is known of it

    @property
    def connections(self) -> list[ClientConnection]:
        """The current connection and the candidate, as far as there are any."""
        return [each for each in (self.current, self.candidate) if each is not None]

    @property
    def is_carrying(self) -> bool:
        """Whether the current connection isn't down."""
        return self.current is not None and self.current.session.path.state is not PathState.DOWN

    def _control_silent_at(self, current: ClientConnection) -> float | None:
        """When a connection whose path counts as up is to be replaced, since only pipes have been heard for long.

        The NAT may have forgotten its port, or a firewall drop it: QUIC would end it, and the pipes with it.
        """
        return current.silent_since + CONTROL_SILENCE if is_striped(current) else None

    def _is_doubtful(self, now: float) -> bool:
        """Whether the current connection still counts as up but a new one should be tried beside it."""
        current = self.current
        if current is None:
            return False
        silent_at = self._control_silent_at(current)
        if (silent_at is not None and now >= silent_at) or current.session.liveness.unproved(now) >= UNPROVED:
            return True
        return current.doubtful and current.session.path.state is PathState.SUSPECT

    # Events

    def _on_fault(self, connection: ClientConnection, error: Exception) -> None:
        """A fault has ended a connection: the client tries again."""
        now = self._shared.loop.time()
        faults.tell(self._shared.journal, now, "connection.fault", error, path=self.path.name)
        self._ended(connection, connection.ending or Ending(Failure.ENDED, "internal error"), now)
        self._shared.iterate_soon()

    def _on_socket(self, connection: ClientConnection) -> None:
        now = self._shared.loop.time()
        connection.contain(connection.read, now)
        if connection.heard_at is not None:
            self.connector.heard_at = max(self.connector.heard_at, connection.heard_at)
        self._shared.iterate()

    def look_at_wan(self, state: WanState) -> None:
        """Compare the WAN: unusable means inactive; another device, address or gateway means a new connection now."""
        family, connector = self.settings.family, self.connector
        if not self.wan.look(state):
            # Without address or route the kernel would send by another WAN's address: nothing leaves any more.
            self.drop_candidate(None)
            self.drop_current(None)
            connector.wan_lost(state.reason_for(family))
            return
        was_usable = connector.was_usable
        changed = connector.wan_usable(
            state.generations[family],
            self._shared.loop.time(),
            obstacle=self.wan.obstacle(state),
            has_current=self.current is not None,
        )
        if not changed:
            return
        if was_usable:
            self._shared.journal.info("wan.changed", wan=self.path.name, device=state.device)
        self.drop_candidate(None)
        if self.current is not None:
            self.current.keep_to(self.wan.own)
        self.wan.lease.reset()

    def slept(self, now: float, seconds: float) -> None:
        """This process, or its machine, has slept: the server has had its time, and forgets."""
        self.stripe.renewal.changed()
        current, forgotten = self.current, False
        if current is not None:
            plane = current.plane
            if plane is not None and seconds > plane.session.config.idle_timeout - FORGOTTEN_MARGIN:
                self.stripe.close(current)
            forgotten = max(seconds, now - current.silent_since) > IDLE_TIMEOUT - FORGOTTEN_MARGIN
        self.connector.slept(now, seconds, forgotten=forgotten)

    def apply(self, now: float) -> None:
        """Take over hot keys; a connection to a server whose certificate is revoked now ends."""
        config = self._shared.config
        self.connector.retry.set_reconnect_max(config.reconnect_max_s)
        self.connector.down_after = config.down_after
        for connection in self.connections:
            connection.session.retime(config.probe_interval, config.down_after)
            connection.end_if_revoked(self._shared.identity.revoked, now)

    def reconnect(self, *, silent: bool) -> None:
        """Begin a new connection now: beside the present one, or `silent` after forgetting it as a crash would."""
        self.drop_candidate(None)
        if silent:
            self.drop_current(None)
        self.connector.reconnect(has_current=self.current is not None)

    # An iteration

    def serve(self, now: float) -> None:
        """Let time pass for the connections, begin an attempt that is due, and bring the state up to date."""
        for connection in self.connections:
            connection.contain(self._serve, connection, now)
        self._consider_attempt(now)
        self._update_state(now)

    def _serve(self, connection: ClientConnection, now: float) -> None:
        shared = self._shared
        inbox = connection.advance(now)
        if connection is self.candidate and connection.phase is Phase.REGISTERED:
            self._promote(connection, now)
        for _, message in inbox.messages:
            if isinstance(message, Held) and connection is self.current:
                shared.server_hold.told(message, now)
        renewed = connection.stripe_requests.reply(inbox.messages)
        if renewed is not None and connection is self.current:
            self.stripe.open(connection, renewed.stripe, now)
            if now - connection.stripe_requests.since > STALE_REQUEST:
                self.stripe.renewal.changed()
        if connection.session.has_frames:
            self._deliver(connection, now)
        if connection.ending is not None:
            self._ended(connection, connection.ending, now)

    def _deliver(self, connection: ClientConnection, now: float) -> None:
        receiver = self._shared.receiver
        try:
            writes = connection.session.writes(receiver, now)
        except FrameError as error:
            receiver.counters.refuse(f"stream_{error.reason}")
            connection.close(CloseCode.PROTOCOL, "malformed frame on the data stream", now)
            connection.ending = connection.ending or Ending(Failure.ENDED, f"malformed frame: {error.reason}")
            return
        self._shared.pump.put(writes)

    def _consider_attempt(self, now: float) -> None:
        shared, connector = self._shared, self.connector
        if self.candidate is not None or not connector.may_try(
            now, carrying=self.is_carrying, doubtful=self._is_doubtful(now)
        ):
            return
        self._epoch = shared.incarnation.next_epoch()
        try:
            connection = ClientConnection(
                shared.config,
                self.settings,
                shared.identity,
                boot_id=shared.incarnation.boot_id,
                epoch=self._epoch,
                now=now,
                own=self.wan.own,
                patience=connector.retry.patience,
                kernel=shared.kernel,
            )
        except (OSError, ValueError) as error:
            connector.no_socket(error, now)
            shared.journal.limited(f"socket {self.path.name}", now, "path.no_socket", path=self.path.name, error=error)
            return
        connection.on_fault = partial(self._on_fault, connection)
        connection.link.count_in(self.traffic)
        self.candidate = connection
        connection.watch(shared.loop, partial(self._on_socket, connection), shared.iterate)

    def _update_state(self, now: float) -> None:
        connector, was = self.connector, self.connector.state
        carrying = self.is_carrying
        candidate = self.candidate
        if (
            carrying
            and candidate is not None
            and candidate.phase is Phase.HANDSHAKE
            and not connector.wants(carrying=True, doubtful=self._is_doubtful(now))
        ):
            # The old connection came back by itself before the new one had registered.
            self.drop_candidate(None)
        begins = connector.update(
            now, carrying=carrying, has_current=self.current is not None, has_candidate=candidate is not None
        )
        is_up = connector.state is ConnectorState.UP
        if begins:
            self._consider_attempt(now)
        if connector.is_active:
            was_up = was is ConnectorState.UP
            self.wan.follow(now, was_up=was_up, is_up=is_up, heard_at=connector.heard_at)

    def timer(self, now: float) -> list[float | None]:
        """When `serve` is due."""
        times: list[float | None] = [each.timer(now) for each in self.connections]
        current = self.current
        if current is not None:
            silent_at = self._control_silent_at(current)
            if silent_at is not None and silent_at > now:
                times.append(silent_at)
            if current.session.path.state is PathState.UP and not current.stripe_requests.is_open:
                times.append(self.stripe.renewal.due)
        if self.candidate is None:
            times.append(self.connector.next_time(carrying=self.is_carrying, doubtful=self._is_doubtful(now)))
        return times

    def renew_stripe(self, now: float) -> None:
        """Request another striped session where that may help."""
        if self.current is not None:
            self.stripe.renew(self.current, now)

    def flush(self, now: float) -> None:
        """Send what QUIC holds."""
        for connection in self.connections:
            connection.contain(connection.flush, now)

    # Connections

    def _promote(self, connection: ClientConnection, now: float) -> None:
        """The candidate has registered: it is the path from now on."""
        shared = self._shared
        welcome, connection.welcome = connection.welcome, None  # The secret in it is used once.
        assert welcome is not None
        old, self.current, self.candidate = self.current, connection, None
        shared.server_hold.end()
        shared.on_session(welcome.session)
        self.path.control = connection.session.path
        if old is not None:
            # Before anything that may fail: nobody knows the old one any more.
            self._release(old, "replaced by a newer connection")
        self.stripe.renewal.changed()
        self.stripe.open(connection, welcome.stripe, now)
        if connection.server_chain is not None:
            today = dt.datetime.now(dt.UTC)
            expiry.warn_of_peer(connection.server_chain.own, shared.journal, self.settings.endpoint, today, now)
        self.registrations += 1
        shared.incarnation.registered()
        self.connector.registered(now)

    def _ended(self, connection: ClientConnection, ending: Ending, now: float) -> None:
        """A connection or attempt has come to its end: drop it and decide when to try again."""
        shared, connector = self._shared, self.connector
        was_current = connection is self.current
        if was_current:
            self.current = None
        elif connection is self.candidate:
            self.candidate = None
        self._release(connection, None)
        if connection.shortage is not None:
            connector.cause.shortage = connection.shortage
            shared.journal.limited("mtu", now, "path.mtu", path=self.path.name, cause=connection.shortage)
        replaced = was_current and ending.failure is Failure.REPLACED
        if connector.is_handed_over(now, replaced=replaced, has_candidate=self.candidate is not None):
            return
        if replaced and connection.epoch == self._epoch:
            shared.incarnation.displaced()
            shared.incarnation.tell_of_conflict(shared.journal, self.path.name, now)
        if ending.failure is Failure.IN_USE and not self.is_carrying:
            shared.incarnation.displaced()
            # Were this machine's own old connection what the server hears, it would be in its own way.
            self.drop_current(None)
        carrying = self.is_carrying
        connector.ended(ending, now, carrying=carrying)
        if carrying:
            return
        if ending.failure in (Failure.REFUSED, Failure.IN_USE, Failure.HANDED_OVER):
            # A server that refuses runs again.
            shared.server_hold.end()
            shared.journal.limited("refused", now, "path.refused", path=self.path.name, reason=ending.reason)
        elif was_current:
            shared.journal.info("path.ended", path=self.path.name, reason=ending.reason)

    def drop_current(self, farewell: str | None) -> None:
        """Close the current connection; with a reason the peer is told, without one nothing is sent any more."""
        connection, self.current = self.current, None
        if connection is not None:
            self._release(connection, farewell)

    def drop_candidate(self, farewell: str | None) -> None:
        """Close the attempt, in the same way."""
        connection, self.candidate = self.candidate, None
        if connection is not None:
            self._release(connection, farewell)

    def _release(self, connection: ClientConnection, farewell: str | None) -> None:
        if farewell is not None and connection.phase is not Phase.OVER:
            connection.close(CloseCode.NONE, farewell, self._shared.loop.time())
        if self.path.control is connection.session.path:
            self.path.control = None
        self.stripe.close(connection)
        connection.release()

    def close(self, farewell: str) -> None:
        """Close all connections and tell the peer why."""
        self.drop_candidate(farewell)
        self.drop_current(farewell)
        self.wan.lease.close()

    # What people ask

    def row(self) -> dict[str, object]:
        """Return what `mpquicctl paths` shows of it, but for what belongs to the tunnel."""
        row: dict[str, object] = {
            "path": self.path.name,
            "state": self.connector.state.value,
            "peer": self.settings.endpoint,
            "device": self.settings.bind_device,
        }
        return row | client_report.path(self.current, self.traffic)

    def counters(self) -> dict[str, object]:
        """Return the statistics of the path, with those of the socket of its connection."""
        return {"path": self.path.name, **client_report.path_counters(self.current, self.traffic)}
