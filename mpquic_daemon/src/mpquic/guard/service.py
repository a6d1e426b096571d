"""The loop of `mpquic-guard`: an event, a look at all that is wanted, a repair of what is missing.

Everything is done in one thread and one after the other; nothing that is asked of the kernel takes long.
"""

from __future__ import annotations

import selectors
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpquic.guard.barrier import Barrier
from mpquic.guard.files import WantedFile
from mpquic.guard.filtering import FilterGuard
from mpquic.guard.kernel import Kernel, NetworkEvents
from mpquic.guard.network import NetworkGuard
from mpquic.guard.nftables import Filter, FilterEvents

if TYPE_CHECKING:
    from mpquic.daemon.journal import Journal
    from mpquic.net.notify import Notifier

PERIOD = 15.0
"""Seconds after which everything is looked at without an event."""
FILES_PERIOD = 2.0
EVENT_DELAY = 0.02
"""Seconds from an event of the network to a look, since most come in groups."""
SHARE = 10.0
"""A look waits this many times as long as the last one took: the guard takes at most a tenth of a processor."""


@dataclass(frozen=True, slots=True)
class Places:
    """What the process works with."""

    wanted: Path = Path("/etc/mpquic/guard.json")
    note: Path = Path("/run/mpquic-guard/table.json")
    owner: str = "mpquic"
    """User that may attach to TUN devices, with the user's own group."""


class Guard:
    """Everything that the process does; OSError when netlink can't be had."""

    def __init__(self, places: Places, journal: Journal, notifier: Notifier) -> None:
        self._journal = journal
        self._notifier = notifier
        self._wanted = WantedFile(places.wanted)
        # The events first, so that no change falls between the first look and them.
        self._filter_events = FilterEvents()
        self._network_events = NetworkEvents()
        self._filter_kernel = Filter(alive=notifier.watchdog)
        self._kernel = Kernel()
        self._filter = FilterGuard(places.note, self._filter_kernel, journal)
        self._network = NetworkGuard(self._kernel, places.owner, journal)
        self._barrier = Barrier()
        self._stopping = False
        self._network_due = 0.0
        self._network_not_before = 0.0
        self._filter_due = 0.0

    def run(self) -> None:
        """Run until SIGTERM or SIGINT; SIGHUP has everything looked at."""
        signals, wake = socket.socketpair()
        for end in (signals, wake):
            end.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        with selectors.DefaultSelector() as selector:
            for source in (self._filter_events, self._network_events, signals):
                selector.register(source, selectors.EVENT_READ)
            self._look("")
            self._notifier.ready()
            self._journal.info("guard.started", wanted=self._wanted.path)
            while not self._stopping:
                self._wait(selector, signals)
        self._notifier.stopping()
        self._filter_events.close()
        self._network_events.close()
        self._filter_kernel.close()
        self._barrier.close()
        self._kernel.close()
        signals.close()
        wake.close()

    def _wait(self, selector: selectors.BaseSelector, signals: socket.socket) -> None:
        process = ""
        for key, _ in selector.select(self._timeout()):
            if key.fileobj is self._filter_events:
                change = self._filter_events.read()
                process = change.process
                if change.ours:
                    self._filter_due = 0.0
            elif key.fileobj is self._network_events:
                self._network_events.drain()
                self._network_due = min(self._network_due, time.monotonic() + EVENT_DELAY)
            else:
                signals.recv(64)
                self._filter_due = self._network_due = 0.0
        if not self._stopping:
            self._look(process)
            self._notifier.watchdog()

    def _timeout(self) -> float:
        network = max(self._network_due, self._network_not_before)
        due = min(self._filter_due, network, time.monotonic() + FILES_PERIOD)
        return max(0.0, due - time.monotonic())

    def _look(self, process: str) -> None:
        now = time.monotonic()
        if self._wanted.refresh():
            self._filter_due = self._network_due = now
            if self._wanted.problem:
                self._journal.error("guard.wanted_unreadable", file=self._wanted.path, problem=self._wanted.problem)
        wanted = self._wanted.content
        if now >= self._filter_due:
            self._raise_barrier(now)
            loaded = self._filter.loaded
            if wanted.filter_file:
                self._filter.look(Path(wanted.filter_file), now, process)
            # While the rules can't be loaded, their file is looked at more often: somebody mends it.
            self._filter_due = _earliest(
                now + (PERIOD if self._filter.loaded else FILES_PERIOD), self._filter.next_time()
            )
            if loaded != self._filter.loaded:
                self._network_due = self._network_not_before = now
        if now >= max(self._network_due, self._network_not_before):
            self._look_at_network(now)

    def _raise_barrier(self, now: float) -> None:
        try:
            self._barrier.keep((each.device, each.prefix) for each in self._wanted.content.masqueraded)
        except OSError as error:
            self._journal.limited("barrier", now, "guard.barrier_refused", error=error)

    def _look_at_network(self, now: float) -> None:
        try:
            self._network.look(self._wanted.content, now, forward=self._filter.loaded)
        except OSError as error:
            self._journal.limited("network", now, "guard.network_unknown", error=error)
        end = time.monotonic()
        self._network_due = _earliest(end + PERIOD, self._network.next_time())
        self._network_not_before = end + (end - now) * SHARE

    def _on_signal(self, number: int, _frame: object) -> None:
        self._stopping = self._stopping or number != signal.SIGHUP


def _earliest(time_: float, other: float | None) -> float:
    return time_ if other is None else min(time_, other)
