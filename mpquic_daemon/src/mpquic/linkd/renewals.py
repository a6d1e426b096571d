"""Leases on behalf of dead paths: what instances ask for, and devices that have lost theirs."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING

from mpquic.linkd import leases
from mpquic.linkd.renew import LeaseEvidence, Rediscovery, RenewLimiter, parse_request
from mpquic.linkd.request_socket import MAX_DATAGRAM
from mpquic.linkd.routes import LostRoutes
from mpquic.linkd.systemd import CommandError
from mpquic.net.netlink import LinkMonitor

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from mpquic.daemon.journal import Journal
    from mpquic.linkd.instances import Wan
    from mpquic.linkd.systemd import ServiceControl
    from mpquic.net.netlink import WanState

Evidence = Callable[[LinkMonitor, str, Collection[int], Collection[str]], Awaitable[LeaseEvidence]]
"""Takes the monitor, a device, the address families that are used on it, and the instances that use it."""


class Renewals:
    """Does what the limiter decides. `on_change` is called when there is another time to wait for."""

    def __init__(
        self,
        control: ServiceControl,
        monitor: LinkMonitor,
        journal: Journal,
        evidence: Evidence,
        on_change: Callable[[], None],
    ) -> None:
        self._control = control
        self._monitor = monitor
        self._journal = journal
        self._evidence = evidence
        self._on_change = on_change
        self._limiter = RenewLimiter()
        self._rediscovery = Rediscovery()
        self._lost_routes = LostRoutes()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.wanted: Mapping[str, tuple[Wan, ...]] = {}
        """The WANs of each instance."""

    def next_time(self) -> float | None:
        """Return when `rediscover` or `bring_back_routes` has something to do; None when neither has."""
        ends = (self._rediscovery.next_time(), self._lost_routes.next_time())
        return min((end for end in ends if end is not None), default=None)

    def seen(self, state: WanState) -> None:
        """Take notice of what a device has now."""
        self._limiter.seen(state.device, leases.identity(state, self._families(state.device)))

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def rediscover(self) -> None:
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

    async def bring_back_routes(self) -> None:
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

    def on_request(self, requests: socket.socket) -> None:
        """Take all requests that have come."""
        while True:
            try:
                datagram = requests.recv(MAX_DATAGRAM)
            except BlockingIOError:
                return
            request, device = parse_request(datagram) or (None, None)
            now = asyncio.get_running_loop().time()
            users = [name for name, wans in self.wanted.items() if any(wan == device for wan, _ in wans)]
            if device is not None and users and request == "works":
                self._limiter.works(device)
            elif device is None or not users:
                self._journal.limited("request", now, "linkd.request_refused", request=datagram[:64])
            elif self._limiter.wants(device, now) and device not in self._tasks:
                self._tasks[device] = task = asyncio.create_task(self._renew(device, users))
                task.add_done_callback(functools.partial(self._on_renewed, device))

    def _families(self, device: str) -> set[int]:
        return {family for wans in self.wanted.values() for wan, family in wans if wan == device}

    def _on_renewed(self, device: str, task: asyncio.Task[None]) -> None:
        del self._tasks[device]
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
                self._on_change()
            await (self._control.renew if verb == "renew" else self._control.reconfigure)(device)
        except (CommandError, OSError) as error:
            self._journal.limited(f"renew {device}", now, "linkd.renew_failed", device=device, error=error)
