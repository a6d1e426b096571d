"""The process around a client or a server: signals, systemd, reload, control socket."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import signal
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from mpquic import control_client, held
from mpquic.config import ClientConfig, InstanceConfig, ServerConfig, load
from mpquic.config.reload import compare, take_hot
from mpquic.config.schema import ConfigError
from mpquic.daemon import expiry
from mpquic.daemon.control_socket import ControlSocket
from mpquic.daemon.credentials import CredentialsError
from mpquic.daemon.journal import LEVELS, Journal, open_journal, set_level
from mpquic.daemon.json_lines import RequestError
from mpquic.daemon.policy import Policy
from mpquic.net.notify import PINGS_PER_INTERVAL, Notifier
from mpquic.net.tun import TunError
from mpquic.release import RELEASE

if TYPE_CHECKING:
    from pathlib import Path

    from mpquic.daemon.credentials import Dates
    from mpquic.hold import Hold

# Faults of the program in callbacks: one is logged and survived, many mean that only a new process helps.
MAX_FAULTS = 20
FAULT_WINDOW = 10.0
STOP_TIMEOUT = 3.0


class Role(Protocol):
    """A client or a server, as the process sees it."""

    @property
    def dates(self) -> Dates:
        """The dates of its certificate and CA."""

    def start(self) -> None:
        """Attach to everything and begin; TunError, OSError or CredentialsError when that is impossible."""

    async def stop(self, hold: Hold | None = None) -> None:
        """Tell the peers of `hold` if that is the reason, send BYE, and release everything."""

    def apply(self, config: Any) -> None:
        """Take over the hot keys of `config` and read the files it names again; CredentialsError leaves the old."""

    def status(self) -> dict[str, object]:
        """Return the row of `mpquicctl status` without the name."""

    def brief(self) -> dict[str, object]:
        """Return `state` and `error` of `status` alone, which costs little."""

    def paths(self) -> list[dict[str, object]]:
        """Return the rows of `mpquicctl paths`."""

    def counters(self) -> dict[str, object]:
        """Return all counters."""

    def reconnect(self, *, silent: bool) -> None:
        """Begin a new connection, `silent` without telling the peer that the old one ends; RequestError."""

    def hand_over(self, who: str, tunnel: str | None, seconds: float, by: str) -> object:
        """Let another machine take the place of a client, as an operator wants it; RequestError."""


class Service:
    """One instance: implements the control socket's `Instance`, owns the role and the process's life."""

    def __init__(self, path: Path, config: InstanceConfig, journal: Journal, notifier: Notifier) -> None:
        self._path = path
        self._config = config
        self._journal = journal
        self._notifier = notifier
        self._loop = asyncio.get_running_loop()
        self._control = ControlSocket(control_client.socket_path(config.name), self)
        self._policy = Policy(control_client.runtime_dir() / f"{config.name}.policy.json")
        self._expiry: asyncio.TimerHandle | None = None
        self._role = self._make_role(config)
        self._config_error: str | None = None
        self._restart_keys: tuple[str, ...] = ()
        self._stop = asyncio.Event()
        self._exit_status = 0
        self._ends_by_itself = False
        self._faults: deque[float] = deque()
        self._watchdog: asyncio.TimerHandle | None = None
        self._date_check: asyncio.TimerHandle | None = None
        self._started = time.time()

    def _make_role(self, config: InstanceConfig) -> Role:
        # Each instance is one of the two, and shouldn't pay for the other's imports.
        if isinstance(config, ClientConfig):
            from mpquic.daemon.client import Client

            return Client(config, self._journal, self._on_change, self._on_useless)
        from mpquic.daemon.server import Server

        assert isinstance(config, ServerConfig)
        return Server(config, self._journal, self._on_change, self._on_useless)

    async def run(self) -> int:
        """Run until SIGTERM; return the exit status. Raises what `Role.start` raises."""
        self._loop.set_exception_handler(self._on_fault)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        self._loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        self._role.start()
        self._apply_policy()
        try:
            await self._control.open()
            self._journal.info("started", name=self._config.name, role=self._config.role, release=RELEASE)
            self._check_dates()
            self._notifier.ready(str(self._role.status()["state"]))
            self._ping_watchdog()
            await self._stop.wait()
        finally:
            self._notifier.stopping()
            await self._shut_down()
        if not self._ends_by_itself:
            self._journal.info("stopped", name=self._config.name)
        return self._exit_status

    async def _shut_down(self) -> None:
        for timer in (self._watchdog, self._date_check):
            if timer is not None:
                timer.cancel()
        await self._control.close()
        hold = None if self._ends_by_itself else self._why_held()
        if hold is not None:
            self._journal.info("held", reason=held.words(hold))
        try:
            await asyncio.wait_for(self._role.stop(hold), STOP_TIMEOUT)
        except TimeoutError:
            self._journal.warning("stop.timeout", seconds=STOP_TIMEOUT)

    def _why_held(self) -> Hold | None:
        """Return the hold for which this process is stopped, None where it is stopped for another reason."""
        try:
            config = load(self._path)
        except ConfigError:
            enabled = True  # Whatever it says, it can't say that.
        else:
            enabled = config.enabled if isinstance(config, ClientConfig) else True
        return held.find(self._config.name, self._path, enabled=enabled, now=time.time())

    # What the control socket asks

    def get(self, what: str) -> object:
        """Answer `get`."""
        match what:
            case "status":
                return self._status()
            case "paths":
                return self._role.paths()
            case "config":
                return {"running": msgspec.to_builtins(self._config), "policy": self._policy.values()}
            case "counters":
                return self._role.counters()
            case _:
                told = {"release": RELEASE, "peer_releases": self._peer_releases(self._role.status())}
                return {**told, "started": self._started, "pid": os.getpid()}

    def set(self, key: str, value: object, owner: str, ttl: float | None) -> object:
        """Answer `set`: log_level is what can be set at run time."""
        if key != "log_level":
            raise RequestError("key: expected log_level; everything else is set in the instance's file")
        if not isinstance(value, str) or value not in LEVELS:
            raise RequestError(f"value: expected one of {', '.join(LEVELS)}")
        self._policy.put(key, value, owner, None if ttl is None else time.time() + ttl)
        self._apply_policy()
        self._journal.info("policy.set", key=key, value=value, owner=owner, ttl_seconds=ttl)
        return self._policy.values()

    def reload(self) -> object:
        """Answer `reload`: read the file again. A wrong one changes nothing."""
        self._notifier.reloading()
        try:
            return self._reload()
        finally:
            self._notifier.ready()

    def reconnect(self, *, silent: bool) -> object:
        """Answer `reconnect`: begin it; the status tells when it is done."""
        self._role.reconnect(silent=silent)
        return self._status()

    def hand_over(self, who: str, tunnel: str | None, seconds: float, by: str) -> object:
        """Answer `handover`: open it; the journal tells who did."""
        return self._role.hand_over(who, tunnel, seconds, by)

    def _reload(self) -> dict[str, object]:
        try:
            new = load(self._path)
            changes = compare(self._config, new)
            merged = take_hot(self._config, new) if type(new) is type(self._config) else self._config
            self._role.apply(merged)
        except (ConfigError, CredentialsError) as error:
            self._config_error = str(error)
            self._journal.error("config.refused", file=self._path, problem=error)
            self._on_change()
            raise RequestError(f"the old configuration stays in force: {error}") from error
        self._config = merged
        self._config_error = None
        self._restart_keys = changes.restart
        self._apply_policy()
        self._check_dates()
        self._journal.info("config.reloaded", applied=",".join(changes.hot), restart_needed=",".join(changes.restart))
        if changes.restart:
            self._journal.warning("config.restart_needed", keys=",".join(changes.restart))
        self._on_change()
        return {"applied": list(changes.hot), "restart_needed": list(changes.restart)}

    def _status(self) -> dict[str, object]:
        told = self._role.status()
        return self._complete({**told, "release": RELEASE, "peer_releases": self._peer_releases(told)})

    def _peer_releases(self, status: dict[str, object]) -> list[str]:
        """Return what the peers that are registered now run, each release once."""
        peers = status.get("peers")
        rows, key = (peers, "release") if isinstance(peers, list) else (self._role.paths(), "peer_release")
        return sorted({str(row[key]) for row in rows if row.get(key) is not None})

    def _complete(self, told: dict[str, object]) -> dict[str, object]:
        """Add to what the role tells what the process knows."""
        status: dict[str, object] = {"name": self._config.name, "role": self._config.role, **told}
        # First why the tunnel doesn't carry.
        errors = [status["error"]] if status.get("error") is not None else []
        if self._config_error is not None:
            errors.append(f"configuration refused, the old one is in force: {self._config_error}")
        elif self._restart_keys and not errors:
            errors.append(f"restart needed for {', '.join(self._restart_keys)}")
        status["error"] = "; ".join(str(each) for each in errors) or None
        status["restart_needed"] = list(self._restart_keys)
        return status

    # What happens to the process

    def _on_change(self) -> None:
        """A state changed: tell systemd's status line and whoever watches."""
        # A server with a thousand sites has much to tell, and mostly nobody who watches.
        status = self._status() if self._control.is_watched else self._complete(self._role.brief())
        self._notifier.status(f"{status['state']}" + (f" ({status['error']})" if status.get("error") else ""))
        self._control.publish(status)

    def _on_hangup(self) -> None:
        try:
            self.reload()
        except RequestError:
            return  # The reason is in the journal and in the status.

    def _apply_policy(self) -> None:
        """Bring into force what was set at run time, or what the file says where nothing was or its time is over."""
        self._policy.expire(time.time())
        level = self._policy.get("log_level")
        set_level(level if isinstance(level, str) and level in LEVELS else self._config.log_level)
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        due = self._policy.next_expiry()
        if due is not None:
            self._expiry = self._loop.call_later(max(0.0, due - time.time()) + 0.01, self._apply_policy)

    def _ping_watchdog(self) -> None:
        """Ping from the loop itself: a loop that doesn't run any more doesn't ping."""
        interval = self._notifier.watchdog_interval
        if interval is None:
            return
        self._notifier.watchdog()
        self._watchdog = self._loop.call_later(interval / PINGS_PER_INTERVAL, self._ping_watchdog)

    def _check_dates(self) -> None:
        """Warn of certificates that end soon: now, and each day from now on."""
        expiry.warn(self._role.dates, self._journal, dt.datetime.now(dt.UTC))
        if self._date_check is not None:
            self._date_check.cancel()
        self._date_check = self._loop.call_later(expiry.CHECK_INTERVAL, self._check_dates)

    def _on_useless(self, reason: str) -> None:
        """Something outside has changed with which only a new process can go on: systemd starts one."""
        if not self._stop.is_set():
            self._journal.warning("ending", reason=reason)
        self._ends_by_itself = True
        self._stop.set()

    def _on_fatal(self, reason: str) -> None:
        """This process has faults and nothing helps but a new one: end with a status that says so."""
        if not self._stop.is_set():
            self._journal.error("fatal", reason=reason)
        self._ends_by_itself = True
        self._exit_status = 1
        self._stop.set()

    def _on_fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        now = loop.time()
        self._faults.append(now)
        while self._faults[0] < now - FAULT_WINDOW:
            self._faults.popleft()
        if len(self._faults) == 1:
            self._journal.fault("fault", context.get("exception"), message=context.get("message"))
        if len(self._faults) > MAX_FAULTS:
            self._on_fatal(f"more than {MAX_FAULTS} faults in {FAULT_WINDOW:g} s")


async def run(path: Path, config: InstanceConfig) -> int:
    """Run the instance that `path` describes until it is told to stop; return the exit status."""
    journal = open_journal(config.log_level)
    notifier = Notifier()
    try:
        return await Service(path, config, journal, notifier).run()
    except (TunError, CredentialsError, OSError) as error:
        journal.error("start.failed", name=config.name, problem=error)
        return 1
