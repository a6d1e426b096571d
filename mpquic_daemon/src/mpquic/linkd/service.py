"""The loop of `mpquic-linkd`: WAN devices come and go, instances follow, dead paths get their lease renewed.

It runs as a user of its own without a capability; polkit lets it use two kinds of verbs: start, stop and reset of
`mpquic@NAME`, renew and reconfigure of a device. It takes instances out of service when an operator says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from typing import TYPE_CHECKING

from mpquic.daemon.json_lines import RequestError
from mpquic.hold import Hold
from mpquic.linkd import leases
from mpquic.linkd.control import LinkdSocket
from mpquic.linkd.holds import Holds
from mpquic.linkd.instances import InstanceFiles, Wan
from mpquic.linkd.reconcile import Action, Reconciler
from mpquic.linkd.renewals import Evidence, Renewals
from mpquic.linkd.request_socket import give_to_group, open_request_socket
from mpquic.linkd.systemd import CommandError, NotAllowedError, ServiceControl
from mpquic.linkd.units import ALIVE, STOPPED, Activity, Unit
from mpquic.net.netlink import LinkMonitor
from mpquic.net.notify import PINGS_PER_INTERVAL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mpquic.daemon.journal import Journal
    from mpquic.net.notify import Notifier

PERIOD = 15.0
# Without the message bus there are no events.
RECONNECT_PERIOD = 1.0
# A modem that appears makes a dozen messages within milliseconds: look once after them.
EVENT_DELAY = 0.05
NOT_ALLOWED = (
    "polkit doesn't let mpquic-linkd start and stop instances: is polkitd installed, and its rule there? Run site.yml"
)


class LinkDaemon:
    """Reconciles units with WAN devices. `control` makes what asks systemd; it and `evidence` are seams for tests."""

    def __init__(
        self,
        instances_dir: Path,
        runtime_dir: Path,
        control: Callable[[Callable[[], None]], ServiceControl],
        journal: Journal,
        notifier: Notifier,
        evidence: Evidence = leases.gather,
    ) -> None:
        self._files = InstanceFiles(instances_dir)
        self._request_path = runtime_dir / "request"
        self._control_path = runtime_dir / "control.sock"
        self._control_socket = LinkdSocket(self._control_path, self)
        self._wake = asyncio.Event()
        self._control = control(self._wake.set)
        self._journal = journal
        self._notifier = notifier
        self._reconciler = Reconciler()
        self._monitor = LinkMonitor()
        self._renewals = Renewals(self._control, self._monitor, journal, evidence, self._wake.set)
        self._holds = Holds(journal)
        self._doubtful: set[str] = set()
        """The instances with a hold of an earlier process, of which it isn't known yet whether they run by hand."""
        self._wanted: dict[str, tuple[Wan, ...]] = {}
        self._broken: dict[str, str] = {}
        self._units: dict[str, Unit] = {}
        self._failing: set[str] = set()
        self._problem: str | None = None
        self._stopping = False

    async def run(self) -> None:
        """Run until `stop`; OSError when the sockets or netlink can't be had."""
        loop = asyncio.get_running_loop()
        self._load_holds()
        self._doubtful = set(self._holds.all)
        requests = open_request_socket(self._request_path, self._journal)
        await self._control_socket.open()
        give_to_group(self._control_path, self._journal)
        loop.add_reader(requests.fileno(), self._renewals.on_request, requests)
        loop.add_reader(self._monitor.fileno(), self._on_netlink)
        watchdog = asyncio.create_task(self._watchdog())
        self._notifier.ready()
        self._journal.info("linkd.started", instances=str(self._files.directory))
        try:
            while not self._stopping:
                await self._reconcile()
                await self._renewals.rediscover()
                await self._renewals.bring_back_routes()
                await self._sleep()
        finally:
            self._notifier.stopping()
            loop.remove_reader(requests.fileno())
            loop.remove_reader(self._monitor.fileno())
            requests.close()
            await self._control_socket.close()
            self._monitor.close()
            self._request_path.unlink(missing_ok=True)
            watchdog.cancel()
            await asyncio.gather(watchdog, return_exceptions=True)
            await self._renewals.close()
            await self._control.close()

    def _load_holds(self) -> None:
        try:
            self._holds.load()
        except OSError as error:
            # A tunnel that should be held and runs is less harm than a host on which none is started.
            self._journal.error("linkd.holds_unreadable", error=error, hint="nothing is held until they can be read")

    def stop(self) -> None:
        """End `run`."""
        self._stopping = True
        self._wake.set()

    def reconcile_soon(self) -> None:
        """Look again at files, devices and units."""
        self._wake.set()

    # What the control socket asks

    def instances(self) -> object:
        """Answer `get`: what is done with each instance and why, and what keeps linkd from doing its work."""
        names = sorted(self._wanted.keys() | self._broken.keys() | self._files.disabled)
        return {"instances": [self._row(name) for name in names], "problem": self._problem}

    def hold(self, name: str, by: str, reason: str, seconds: float | None) -> object:
        """Answer `hold`: the record is on disk when this returns, and the unit is stopped afterwards."""
        self._read_instances()
        known = sorted(self._wanted.keys() | self._broken.keys() | self._files.disabled)
        if name not in known:
            raise RequestError(f"there is no instance {name}; there are {', '.join(known) or 'none'}")
        now = time.time()
        record = Hold(by=by, reason=reason, since=now, until=None if seconds is None else now + seconds)
        try:
            self._holds.put(name, record)
        except OSError as error:
            raise RequestError(f"the hold can't be kept on disk, so there is none: {error}") from error
        self._doubtful.discard(name)
        self._journal.info("linkd.hold", instance=name, by=by, reason=reason, seconds=seconds or "-")
        self._wake.set()
        return self._row(name)

    def release(self, name: str, by: str) -> object:
        """Answer `release`; the unit is started afterwards if its WAN can be used."""
        if name not in self._holds.all:
            raise RequestError(self._why_not_released(name))
        self._end_hold(name, f"released by {by}")
        self._wake.set()
        return self._row(name)

    def _why_not_released(self, name: str) -> str:
        if name in self._files.disabled:
            return f"{name} is out of service by the variables (enabled: false): change them and run site.yml"
        if self._units.get(name, STOPPED).masked:
            return f"{name} is out of service by its mask: systemctl unmask mpquic@{name}"
        return f"{name} is not held"

    def _row(self, name: str) -> dict[str, object]:
        unit, hold = self._units.get(name, STOPPED), self._holds.all.get(name)
        wans = self._wanted.get(name, ())
        missing = [
            {"device": device, "missing": state.missing_for(family), "reason": state.reason_for(family)}
            for device, family in wans
            if device in self._monitor.devices and not (state := self._monitor.state(device)).usable_for(family)
        ]
        row: dict[str, object] = {"name": name, "hold": None, "missing": missing, "error": None}
        if hold is not None:
            row |= {"state": "held", "hold": hold.plain()}
        elif name in self._files.disabled:
            row["state"] = "disabled"
        elif name in self._broken:
            row |= {"state": "unreadable", "error": self._broken[name]}
        elif unit.masked and unit.activity not in ALIVE:
            row["state"] = "masked"
        elif wans and len(missing) == len(wans):
            row["state"] = "waiting"
        elif self._reconciler.failing(name):
            row |= {
                "state": "failing",
                "error": f"it is tried every 10 s: journalctl -u mpquic@{name} tells why it ends",
            }
        else:
            row["state"] = "running" if unit.activity is Activity.RUNNING else "starting"
        return row

    def _end_hold(self, name: str, why: str) -> None:
        """Raises RequestError when the record can't be removed: the hold would be back after a restart."""
        try:
            self._holds.end(name)
        except OSError as error:
            raise RequestError(f"the hold of {name} can't be ended: {error}") from error
        self._journal.info("linkd.hold_ended", instance=name, why=why)

    # The loop

    async def _sleep(self) -> None:
        timeout = PERIOD if self._control.connected else RECONNECT_PERIOD
        now = asyncio.get_running_loop().time()
        for end in (self._reconciler.next_time(now), self._renewals.next_time()):
            if end is not None:
                timeout = min(timeout, max(0.0, end - now))
        if (until := self._holds.next_end()) is not None:
            timeout = min(timeout, max(0.0, until - time.time()))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), timeout)
            await asyncio.sleep(EVENT_DELAY)
        self._wake.clear()

    async def _reconcile(self) -> None:
        self._read_instances()
        devices = {device for wans in self._wanted.values() for device, _ in wans}
        for device in devices - set(self._monitor.devices):
            self._monitor.watch(device)
        for device in set(self._monitor.devices) - devices:
            self._monitor.unwatch(device)
        now = asyncio.get_running_loop().time()
        try:
            if self._problem is not None or not self._control.connected:
                await self._check_allowed()
            self._units = await self._control.units()
            await self._look_for_starts_by_hand()
            self._monitor.refresh()
        except (CommandError, OSError) as error:
            self._journal.limited("running", now, "linkd.unknown_state", error=error)
            return
        self._end_holds_that_are_over(now)
        usable = {
            (device, family)
            for device in devices
            for family in (socket.AF_INET, socket.AF_INET6)
            if self._monitor.state(device).usable_for(family)
        }
        actions = self._reconciler.decide(
            self._wanted,
            self._broken.keys(),
            usable,
            self._units,
            now,
            self._files.changed,
            self._holds.all.keys(),
            self._files.disabled,
        )
        self._files.changed.clear()
        self._tell_of_failures()
        for action in actions:
            await self._act(action, now)

    def _tell_of_failures(self) -> None:
        failing = {name for name in self._wanted if self._reconciler.failing(name)}
        for name in sorted(failing - self._failing):
            self._journal.warning("linkd.failing", instance=name, hint="tried every 10 s from now on")
        for name in sorted(self._failing - failing):
            if self._units.get(name, STOPPED).activity is Activity.RUNNING:
                self._journal.info("linkd.recovered", instance=name)
        self._failing = failing

    async def _check_allowed(self) -> None:
        try:
            await self._control.check_allowed()
        except NotAllowedError as error:
            if self._problem is None:
                self._journal.error("linkd.not_allowed", error=error, hint=NOT_ALLOWED)
                self._notifier.status(NOT_ALLOWED)
            self._problem = NOT_ALLOWED
        except CommandError:
            return  # There is no bus: the next look at the units says so.
        else:
            if self._problem is not None:
                self._problem = None
                self._notifier.status("")

    async def _look_for_starts_by_hand(self) -> None:
        """What a process before this one held and runs all the same was started by hand in between, if after that."""
        for name in sorted(self._doubtful):
            alive = self._units.get(name, STOPPED).activity in ALIVE
            started = await self._control.started_at(name) if alive else 0.0
            # Somebody may have released it before the bus was there, or meanwhile.
            hold = self._holds.all.get(name)
            if hold is not None and started > hold.since:
                self._started_by_hand(name)
            self._doubtful.discard(name)

    def _started_by_hand(self, name: str) -> None:
        try:
            self._end_hold(name, f"systemctl start mpquic@{name}")
        except RequestError as error:
            now = asyncio.get_running_loop().time()
            # It is tried again by the next look: at once it would fail for the same reason.
            self._journal.limited(f"hold {name}", now, "linkd.hold_not_ended", error=error)
        else:
            self._wake.set()

    def _end_holds_that_are_over(self, now: float) -> None:
        for name in self._holds.expire(time.time()):
            self._journal.info("linkd.hold_ended", instance=name, why="its time is over")
        try:
            self._holds.tidy()
        except OSError as error:
            # Its own time says to everybody that it holds nothing.
            self._journal.limited("records", now, "linkd.record_not_removed", error=error)

    async def _act(self, action: Action, now: float) -> None:
        if action.verb == "by_hand":
            self._started_by_hand(action.instance)
            return
        self._tell(action)
        request = {"start": self._control.start, "stop": self._control.stop, "reset": self._control.reset}
        try:
            await request[action.verb](action.instance)
        except CommandError as error:
            self._reconciler.not_done(action)
            # systemd passes on what keeps it from asking polkit, under the name of that.
            await self._check_allowed()
            if self._problem is None:
                self._journal.limited(f"unit {action.instance}", now, "linkd.systemd_failed", error=error)

    def _tell(self, action: Action) -> None:
        name = action.instance
        if action.verb == "start" and action.why == "stopped":
            self._journal.info(
                "linkd.start", instance=name, why=f"it was stopped; mpquicctl hold {name} takes it out of service"
            )
        elif action.verb == "reset" and self._reconciler.failing(name):
            self._journal.debug("linkd.reset", instance=name)
        elif action.why == "retry":
            self._journal.debug(f"linkd.{action.verb}", instance=name)
        elif action.verb == "start" or self._units.get(name, STOPPED).activity in ALIVE:
            self._journal.info(f"linkd.{action.verb}", instance=name)

    def _read_instances(self) -> None:
        try:
            wanted, broken = self._files.read()
        except OSError as error:
            # An unreadable directory says nothing about what should run: leave everything as it is.
            self._report_broken(dict.fromkeys(self._wanted, str(error.strerror)))
            return
        self._report_broken(broken)
        self._wanted = self._renewals.wanted = wanted

    def _report_broken(self, broken: dict[str, str]) -> None:
        for name, problem in broken.items():
            if self._broken.get(name) != problem:
                self._journal.error("linkd.instance_unreadable", instance=name, problem=problem)
        self._broken = broken

    def _on_netlink(self) -> None:
        try:
            changed = self._monitor.read()
        except OSError as error:
            self._journal.limited("netlink", asyncio.get_running_loop().time(), "linkd.netlink_failed", error=error)
            changed = []
            self._wake.set()
        for state in changed:
            self._journal.info("linkd.wan", device=state.device, usable=state.usable, reason=state.reason() or "-")
            self._renewals.seen(state)
            self._wake.set()

    async def _watchdog(self) -> None:
        interval = self._notifier.watchdog_interval
        while interval is not None:
            self._notifier.watchdog()
            await asyncio.sleep(interval / PINGS_PER_INTERVAL)


def install_signals(daemon: LinkDaemon) -> None:
    """SIGTERM and SIGINT stop, SIGHUP reconciles."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.stop)
    loop.add_signal_handler(signal.SIGHUP, daemon.reconcile_soon)
