"""The watch of a client over its WANs: by netlink, which may fail and is then read again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from mpquic.daemon.journal import Journal
    from mpquic.net.kernel import Kernel
    from mpquic.net.netlink import WanState

LOOK_AGAIN = 1.0
"""Seconds after which the state is read anew when netlink has failed."""


class WanWatch:
    """`on_change` is called when a device may have another state; `on_event` after everything that netlink told."""

    def __init__(
        self,
        devices: Sequence[str],
        kernel: Kernel,
        loop: asyncio.AbstractEventLoop,
        journal: Journal,
        on_change: Callable[[], None],
        on_event: Callable[[], None],
    ) -> None:
        self.again_at: float | None = None
        """When the state is read anew, since netlink failed."""
        self.monitor = kernel.monitor(devices)
        self._devices = ",".join(devices)
        self._loop = loop
        self._journal = journal
        self._on_change = on_change
        self._on_event = on_event
        if devices:
            loop.add_reader(self.monitor.fileno(), self.on_netlink)

    def state(self, device: str) -> WanState:
        """Return what is known of a device."""
        return self.monitor.state(device)

    def on_netlink(self) -> None:
        """Take what netlink tells."""
        self._look(self.monitor.read)
        self._on_event()

    def poll(self, now: float) -> None:
        """Read the state anew when that is due."""
        if self.again_at is not None and now >= self.again_at:
            self._look(self.monitor.refresh)

    def _look(self, look: Callable[[], object]) -> None:
        now = self._loop.time()
        try:
            look()
        except OSError as error:
            self.again_at = now + LOOK_AGAIN
            self._journal.limited("netlink", now, "wan.unknown", wan=self._devices, error=error)
            return
        self.again_at = None
        self._on_change()

    def close(self) -> None:
        """Close the netlink socket."""
        self._loop.remove_reader(self.monitor.fileno())
        self.monitor.close()
