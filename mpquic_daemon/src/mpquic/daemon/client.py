"""The client: one TUN, one tunnel, and a path over each of its WANs."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING

from mpquic import held
from mpquic.daemon import client_report, credentials, expiry, iteration
from mpquic.daemon.client_path import ClientPath
from mpquic.daemon.client_shared import Shared
from mpquic.daemon.due_timer import DueTimer
from mpquic.daemon.farewell import Farewell
from mpquic.daemon.incarnation import Incarnation
from mpquic.daemon.json_lines import RequestError
from mpquic.daemon.period import Period
from mpquic.daemon.pump import Pump
from mpquic.daemon.server_hold import ServerHold
from mpquic.daemon.statistics import snapshot, tunnel_statistics
from mpquic.daemon.wan_watch import WanWatch
from mpquic.net.kernel import KERNEL
from mpquic.proto.packet.frame import class_octet
from mpquic.proto.path.address import plain_host
from mpquic.proto.path.connector import ConnectorState
from mpquic.proto.tunnel.counters import Counters
from mpquic.proto.tunnel.receiver import RECEIVE_WINDOW, TunnelReceiver
from mpquic.proto.tunnel.scheduler import FailoverScheduler
from mpquic.proto.tunnel.sender import TunnelSender

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic.config import ClientConfig
    from mpquic.daemon.credentials import Dates
    from mpquic.daemon.journal import Journal
    from mpquic.daemon.session import Session
    from mpquic.hold import Hold
    from mpquic.net.kernel import Kernel

TUN_BATCH = 16
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
        self._loop = asyncio.get_running_loop()
        self._incarnation = Incarnation()
        self._state = "connecting"
        self._period = Period(self._loop, kernel)
        self._announced_cause: str | None = None
        self._server_hold = ServerHold(config, self._loop, journal, self._iterate)
        self._farewell: Farewell | None = None
        self._flaps = 0
        """How often the tunnel went from up to not-up."""
        self._session_name = b""
        self._counters = Counters()
        self._scheduler = FailoverScheduler()
        traffic_class = class_octet(config.traffic_class, low_latency=config.low_latency)
        self._sender = TunnelSender(self._scheduler, traffic_class=traffic_class, counters=self._counters)
        self._receiver = TunnelReceiver(counters=self._counters, window=RECEIVE_WINDOW)
        self._paths: list[ClientPath] = []
        self._timer = DueTimer(self._loop, self._iterate)
        self._due: float | None = None
        """When the next iteration is due at the latest."""
        self._more: asyncio.Handle | None = None
        self._suspended = kernel.suspended()
        """For how long the machine was suspended in all when that was looked at last."""
        self._stopping = False

    # Life

    def start(self) -> None:
        """Attach to the TUN and begin to connect; TunError, OSError, CredentialsError."""
        config = self._config
        identity = credentials.load_client(config.tls)
        self._tun = self._kernel.tun(config.tun_name, uso=True)
        self._receiver.coalescer.uso = self._tun.uso
        self._pump = Pump(self._scheduler, self._sender, self._receiver, self._tun.write, self._turn_soon)
        self._shared = Shared(
            config=config,
            identity=identity,
            incarnation=self._incarnation,
            server_hold=self._server_hold,
            journal=self._journal,
            loop=self._loop,
            kernel=self._kernel,
            pump=self._pump,
            receiver=self._receiver,
            iterate=self._iterate,
            iterate_soon=self._turn_soon,
            on_session=self._on_session,
        )
        self._paths = [ClientPath(self._shared, settings) for settings in config.paths]
        for each in self._paths:
            self._scheduler.add(each.path)
        self._wan_watch = WanWatch(
            config.devices, self._kernel, self._loop, self._journal, self._wans_changed, self._iterate
        )
        self._loop.add_reader(self._tun.fileno(), self._on_tun)
        self._server_hold.load()
        self._wans_changed()
        self._iterate()

    async def stop(self, hold: Hold | None = None) -> None:
        """Tell the peer of `hold` if that is the reason, send BYE, and release everything."""
        if hold is not None:
            self._farewell = Farewell(hold, self._registered_sessions)
            self._iterate()
            await self._farewell.done()
        self._stopping = True
        self._server_hold.close()
        self._timer.close()
        if self._more is not None:
            self._more.cancel()
        for path in self._paths:
            path.close("the client stops")
        self._pump.close()
        self._loop.remove_reader(self._tun.fileno())
        self._tun.set_carrier(False)
        self._tun.close()
        self._wan_watch.close()

    def apply(self, config: ClientConfig) -> None:
        """Take over hot keys; the files of the identity are used by the next connection. CredentialsError.

        A connection to a server whose certificate is revoked now ends.
        """
        self._shared.identity = credentials.load_client(config.tls)
        self._config = self._shared.config = config
        for path in self._paths:
            path.apply(self._loop.time())
        self._iterate()

    def reconnect(self, *, silent: bool) -> None:
        """Begin new connections now: beside the present ones, or `silent` after forgetting them as a crash would."""
        active = [path for path in self._paths if path.connector.is_active]
        if not active:
            raise RequestError(f"there is nothing to connect by: {self._reason}")
        for path in active:
            path.reconnect(silent=silent)
        self._iterate()

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
        if self._pump.is_striped:
            self._pump.send(now)
            return
        # Packets don't wait for the rest of an iteration, and don't ask for one: what an iteration looks after comes by
        # a socket or a timer.
        self._send(now)
        if (
            self._due is None
            or self._due <= now
            or any(each.ending is not None for path in self._paths for each in path.connections)
        ):
            self._iterate()
        else:
            self._schedule(now)

    def _wans_changed(self) -> None:
        for path in self._paths:
            if path.settings.bind_device is not None:
                path.look_at_wan(self._wan_watch.state(path.settings.bind_device))
        self._update_state(self._loop.time())

    def _on_session(self, session: bytes) -> None:
        """A path has registered in a session of the server: in another one everything begins anew."""
        if session != self._session_name:
            self._session_name = session
            self._sender.restart()
            self._receiver.restart()

    # The loop: everything that happened is followed by one iteration

    def _turn_soon(self) -> None:
        self._more = self._more or self._loop.call_soon(self._iterate)

    def _iterate(self) -> None:
        if self._stopping:
            return
        now = self._loop.time()
        self._notice_sleep(now)
        if self._more is not None:
            self._more.cancel()
            self._more = None
        self._wan_watch.poll(now)
        try:
            for path in self._paths:
                path.serve(now)
            self._update_state(now)
            self._announce_cause()
            for path in self._paths:
                path.renew_stripe(now)
            if self._farewell is not None:
                self._farewell.advance()
            self._send(now)
        finally:
            # Always set the timer anew, even after an exception.
            self._schedule(now)

    def _notice_sleep(self, now: float) -> None:
        """Find out whether this process, or its machine, has slept since the last iteration."""
        suspended = self._kernel.suspended()
        slept = max(now - self._due if self._due is not None else 0.0, 0.0) + suspended - self._suspended
        self._suspended = suspended
        if slept > iteration.SLEPT:
            for path in self._paths:
                path.slept(now, slept)

    def _send(self, now: float) -> None:
        try:
            if iteration.send(lambda: self._flush(now), lambda: self._pump.send(now)):
                self._turn_soon()
        except Exception as error:
            for path in self._paths:
                if path.current is not None and path.current.session.path is self._sender.sending:
                    path.current.contain.fail(error)
                    return
            raise

    def _flush(self, now: float) -> None:
        for path in self._paths:
            path.flush(now)

    def _schedule(self, now: float) -> None:
        timers = [self._wan_watch.again_at]
        for path in self._paths:
            timers += path.timer(now)
        if self._state != "inactive" and not self._is_carrying():
            timers.append(now + TICK)
        # What is overdue is due now: `_notice_sleep` compares with this.
        self._due = due = min((max(timer, now) for timer in timers if timer is not None), default=None)
        # Never sooner than a moment from now: a timer that stays due must not stop the loop from reading.
        self._timer.set(None if due is None else max(due, now + 0.0005))

    # State

    def _is_carrying(self) -> bool:
        return any(path.is_carrying for path in self._paths)

    def _registered_sessions(self) -> list[Session]:
        return [path.current.session for path in self._paths if path.current is not None]

    def _update_state(self, now: float) -> None:
        """Bring the tunnel's state up to date with those of its paths."""
        states = {path.connector.state for path in self._paths}
        if ConnectorState.UP in states:
            self._set_state("up")
            return
        if states == {ConnectorState.INACTIVE}:
            self._set_state("inactive")
            return
        if self._state == "up":
            self._server_hold.lost(now)
        if self._server_hold.in_force is not None:
            self._set_state("held")
        elif ConnectorState.DOWN in states or self._state in ("up", "held"):
            self._set_state("down")
        else:
            self._set_state("connecting")

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
        used = self._used or self._paths[0]
        fields: dict[str, object] = {
            "path": used.path.name if state == "up" else self._wans,
            "peer": used.settings.endpoint,
        }
        if state == "up" and used.current is not None:
            fields["rtt_ms"] = client_report.rtt_ms(used.current)
            fields["local"] = plain_host(used.current.socket.local_address)
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
        if hold is not None:
            return held.words(hold)
        causes = {path.path.name: path.connector.cause.text for path in self._paths}
        told = {name: text for name, text in causes.items() if text is not None}
        if len(self._paths) == 1 or len(set(told.values())) == 1:
            return next(iter(told.values()), None)
        return "; ".join(f"{name}: {text}" for name, text in told.items()) or None

    @property
    def _wans(self) -> str:
        """The names of the tunnel's paths."""
        return ",".join(path.path.name for path in self._paths)

    @property
    def _used(self) -> ClientPath | None:
        """The path that carries now; of several the one that is preferred."""
        best = self._scheduler.best
        return next((path for path in self._paths if path.path is best), None)

    # What people ask

    @property
    def dates(self) -> Dates:
        """The dates of the client's certificate and of its CA."""
        return self._shared.identity.dates

    def status(self) -> dict[str, object]:
        """Return the row of `mpquicctl status` without the name."""
        self._note_look()
        used = self._used
        current = used.current if used is not None else None
        hold = self._server_hold.in_force if self._state == "held" else None
        return {
            **self._period.status(),
            "peer": (used or self._paths[0]).settings.endpoint,
            "wan": self._wans,
            "class": self._config.class_name,
            **client_report.quality(current),
            "tx_bytes": self._counters.tx_bytes,
            "rx_bytes": self._counters.rx_bytes,
            "reconnects": sum(max(0, path.registrations - 1) for path in self._paths),
            "flaps": self._flaps,
            **self.brief(),
            "hold": held.report(hold),
            "hold_at": "peer" if hold is not None else None,
            "missing": self._paths[0].wan.missing if self._state == "inactive" else None,
            "certificate": expiry.status(self.dates, dt.datetime.now(dt.UTC)),
        }

    def _note_look(self) -> None:
        now = self._loop.time()
        for path in self._paths:
            if path.current is not None and path.current.plane is not None:
                path.current.plane.session.pipes.looked_at(now)

    def brief(self) -> dict[str, object]:
        """Return `state` and `error` of `status` alone."""
        return {"state": self._state, "error": self._reason if not self._is_carrying() else None}

    def paths(self) -> list[dict[str, object]]:
        """Return the rows of `mpquicctl paths`."""
        self._note_look()
        tunnel = {"tunnel": self._config.tunnel_name, "inner": list(self._config.inner_addresses)}
        return [tunnel | path.row() for path in self._paths]

    def counters(self) -> dict[str, object]:
        """Return all counters."""
        self._note_look()
        return {
            "tunnel": snapshot(tunnel_statistics(self._sender, self._receiver)),
            "paths": [path.counters() for path in self._paths],
            "tun": snapshot(self._tun.counters),
            "attempts": self._incarnation.epoch,
            "registrations": sum(path.registrations for path in self._paths),
            "flaps": self._flaps,
        }
