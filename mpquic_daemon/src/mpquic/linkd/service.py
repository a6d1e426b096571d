"""The loop of `mpquic-linkd`: WAN devices come and go, instances follow, dead paths get their lease renewed.

It runs as root for the private bus of systemd and networkd's D-Bus, with no capability, and knows two kinds of verbs:
start/stop of `mpquic@NAME`, renew/reconfigure of a device that is a WAN of some instance.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import grp
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING

from mpquic.linkd import leases
from mpquic.linkd.instances import InstanceFiles, Wan
from mpquic.linkd.reconcile import Reconciler
from mpquic.linkd.renew import LeaseEvidence, Rediscovery, RenewLimiter, parse_request
from mpquic.linkd.routes import LostRoutes
from mpquic.linkd.systemd import CommandError, ServiceControl
from mpquic.net.netlink import LinkMonitor

if TYPE_CHECKING:
    from pathlib import Path

    from mpquic.daemon.journal import Journal
    from mpquic.net.notify import Notifier

PERIOD = 15.0
# A modem that appears makes a dozen messages within milliseconds: look once after them.
SETTLE = 0.05
GROUP = "mpquic"
MAX_DATAGRAM = 256

Evidence = Callable[[LinkMonitor, str, Collection[int], Collection[str]], Awaitable[LeaseEvidence]]
"""Takes the monitor, a device, the address families that are used on it, and the instances that use it."""


class LinkDaemon:
    """Reconciles units with WAN devices. `control` and `evidence` are seams for tests."""

    def __init__(
        self,
        instances_dir: Path,
        request_socket: Path,
        control: ServiceControl,
        journal: Journal,
        notifier: Notifier,
        evidence: Evidence = leases.gather,
        hold: float = 10.0,
    ) -> None:
        self._files = InstanceFiles(instances_dir)
        self._request_path = request_socket
        self._control = control
        self._journal = journal
        self._notifier = notifier
        self._evidence = evidence
        self._reconciler = Reconciler(hold)
        self._limiter = RenewLimiter()
        self._rediscovery = Rediscovery()
        self._lost_routes = LostRoutes()
        self._monitor = LinkMonitor()
        self._wanted: dict[str, tuple[Wan, ...]] = {}
        self._broken: dict[str, str] = {}
        self._running: set[str] = set()
        self._wake = asyncio.Event()
        self._stopping = False
        self._renewals: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Run until `stop`; OSError when the request socket or netlink can't be had."""
        loop = asyncio.get_running_loop()
        requests = self._open_request_socket()
        loop.add_reader(requests.fileno(), self._on_request, requests)
        loop.add_reader(self._monitor.fileno(), self._on_netlink)
        watchdog = asyncio.create_task(self._watchdog())
        self._notifier.ready()
        self._journal.info("linkd.started", instances=str(self._files.directory))
        try:
            while not self._stopping:
                await self._reconcile()
                await self._rediscover()
                await self._bring_back_routes()
                await self._sleep()
        finally:
            self._notifier.stopping()
            loop.remove_reader(requests.fileno())
            loop.remove_reader(self._monitor.fileno())
            requests.close()
            self._monitor.close()
            self._request_path.unlink(missing_ok=True)
            tasks = (watchdog, *self._renewals.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self) -> None:
        """End `run`."""
        self._stopping = True
        self._wake.set()

    def reconcile_soon(self) -> None:
        """Look again at files, devices and units."""
        self._wake.set()

    async def _sleep(self) -> None:
        timeout = PERIOD
        now = asyncio.get_running_loop().time()
        ends = (
            self._reconciler.next_time(self._running, now),
            self._rediscovery.next_time(),
            self._lost_routes.next_time(),
        )
        for end in ends:
            if end is not None:
                timeout = min(timeout, max(0.0, end - now))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), timeout)
            await asyncio.sleep(SETTLE)
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
            self._running = running = await self._control.running()
            self._monitor.refresh()
        except (CommandError, OSError) as error:
            self._journal.limited("running", now, "linkd.unknown_state", error=error)
            return
        usable = {
            (device, family)
            for device in devices
            for family in (socket.AF_INET, socket.AF_INET6)
            if self._monitor.state(device).usable_for(family)
        }
        for action in self._reconciler.decide(
            self._wanted, self._broken.keys(), usable, running, now, self._files.changed
        ):
            self._journal.info(f"linkd.{action.verb}", instance=action.instance)
            try:
                await (self._control.start if action.verb == "start" else self._control.stop)(action.instance)
            except CommandError as error:
                self._journal.limited(f"unit {action.instance}", now, "linkd.systemd_failed", error=error)

    async def _rediscover(self) -> None:
        """Configure anew, once more, the devices that have had no address since that was done last."""
        now = asyncio.get_running_loop().time()
        for device in self._rediscovery.due(now):
            state = self._monitor.state(device) if device in self._monitor.devices else None
            if state is None or state.addresses or not state.carrier:
                self._rediscovery.ended(device)
                continue
            try:
                await self._control.reconfigure(device)
            except CommandError as error:
                self._journal.limited(f"renew {device}", now, "linkd.renew_failed", device=device, error=error)

    async def _bring_back_routes(self) -> None:
        """Have the default routes of leases set again that somebody has deleted."""
        now = asyncio.get_running_loop().time()
        self._lost_routes.forget(self._monitor.devices)
        for device in self._monitor.devices:
            state = self._monitor.state(device)
            for family in self._families(device):
                route = any(route.family == family for route in state.default_routes)
                self._lost_routes.seen(
                    device, family, state.own_hosts(family), carrier=state.carrier, route=route, now=now
                )
        for device, verb in self._lost_routes.due(now):
            self._journal.warning(f"linkd.{verb}", device=device, reason="its default route was deleted")
            try:
                await (self._control.renew if verb == "renew" else self._control.reconfigure)(device)
            except CommandError as error:
                self._journal.limited(f"renew {device}", now, "linkd.renew_failed", device=device, error=error)

    def _read_instances(self) -> None:
        try:
            wanted, broken = self._files.read()
        except OSError as error:
            # An unreadable directory says nothing about what should run: leave everything as it is.
            self._report_broken(dict.fromkeys(self._wanted, str(error.strerror)))
            return
        self._report_broken(broken)
        self._wanted = wanted

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
            self._limiter.seen(state.device, leases.identity(state, self._families(state.device)))
            self._wake.set()

    def _on_request(self, requests: socket.socket) -> None:
        while True:
            try:
                datagram = requests.recv(MAX_DATAGRAM)
            except BlockingIOError:
                return
            request, device = parse_request(datagram) or (None, None)
            now = asyncio.get_running_loop().time()
            users = [name for name, wans in self._wanted.items() if any(wan == device for wan, _ in wans)]
            if device is not None and users and request == "works":
                self._limiter.works(device)
            elif device is None or not users:
                self._journal.limited("request", now, "linkd.request_refused", request=datagram[:64])
            elif self._limiter.wants(device, now) and device not in self._renewals:
                self._renewals[device] = task = asyncio.create_task(self._renew(device, users))
                task.add_done_callback(functools.partial(self._on_renewed, device))

    def _families(self, device: str) -> set[int]:
        return {family for wans in self._wanted.values() for wan, family in wans if wan == device}

    def _on_renewed(self, device: str, task: asyncio.Task[None]) -> None:
        del self._renewals[device]
        if not task.cancelled() and task.exception() is not None:
            self._journal.fault("linkd.fault", task.exception())

    async def _renew(self, device: str, users: list[str]) -> None:
        now = asyncio.get_running_loop().time()
        if not self._monitor.state(device).carrier:
            return  # networkd asks for a lease by itself when the carrier returns.
        try:
            evidence = await self._evidence(self._monitor, device, self._families(device), users)
            verb = self._limiter.decide(device, evidence, now)
            if verb is None:
                return
            self._journal.warning(f"linkd.{verb}", device=device, asked_by=",".join(users))
            if verb == "reconfigure":
                self._rediscovery.began(device, now)
                self._wake.set()
            await (self._control.renew if verb == "renew" else self._control.reconfigure)(device)
        except (CommandError, OSError) as error:
            self._journal.limited(f"renew {device}", now, "linkd.renew_failed", device=device, error=error)

    def _open_request_socket(self) -> socket.socket:
        requests = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._request_path.unlink(missing_ok=True)
        try:
            requests.bind(str(self._request_path))
            self._request_path.chmod(0o660)
            self._give_to_group()
        except OSError:
            requests.close()
            raise
        return requests

    def _give_to_group(self) -> None:
        """Let the daemons' group write. Without CAP_CHOWN that works only for a group that this process is in."""
        try:
            group = grp.getgrnam(GROUP).gr_gid
        except KeyError:
            return
        if self._request_path.stat().st_gid == group:
            return
        try:
            os.chown(self._request_path, -1, group)
        except PermissionError:
            self._journal.error(
                "linkd.request_group", hint=f"the unit needs Group={GROUP}, or nobody can ask for renewals"
            )

    async def _watchdog(self) -> None:
        interval = self._notifier.watchdog_interval
        while interval is not None:
            self._notifier.watchdog()
            await asyncio.sleep(interval / 2)


def install_signals(daemon: LinkDaemon) -> None:
    """SIGTERM and SIGINT stop, SIGHUP reconciles."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.stop)
    loop.add_signal_handler(signal.SIGHUP, daemon.reconcile_soon)
