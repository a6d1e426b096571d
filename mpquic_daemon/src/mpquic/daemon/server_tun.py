"""The TUN of a server: what it gives goes to the tunnels whose addresses it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.proto.tunnel.counters import Counters
from mpquic.proto.tunnel.dispatch import dispatch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from mpquic.daemon.journal import Journal
    from mpquic.daemon.processor_share import ProcessorShare
    from mpquic.daemon.server_connection import ServerConnection
    from mpquic.daemon.server_tunnels import ServerTunnels
    from mpquic.net.tun import TunDevice
    from mpquic.proto.control.groups import GroupTable

BATCH = 16
"""Packets that are read from the TUN at a time; four times as many while they are for several clients."""


class ServerTun:
    """Reads from now on. `on_useless` is called with the reason when the device has gone."""

    def __init__(
        self,
        device: TunDevice,
        loop: asyncio.AbstractEventLoop,
        table: GroupTable[ServerConnection],
        tunnels: ServerTunnels,
        share: ProcessorShare,
        journal: Journal,
        on_useless: Callable[[str], None],
    ) -> None:
        self.device = device
        self.unrouted = Counters()
        """Packets that were for no client."""
        self._loop = loop
        self._table = table
        self._tunnels = tunnels
        self._share = share
        self._journal = journal
        self._on_useless = on_useless
        self._batch = BATCH
        loop.add_reader(device.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        now = self._loop.time()
        buffers = self.device.read_batch(self._batch)
        if self.device.gone:
            self._on_useless(f"the TUN device {self.device.name} was deleted or made anew")
            return
        found = dispatch(buffers, self._table.owner_of, self.unrouted)
        self._batch = 4 * BATCH if len(found) > 1 else BATCH
        for group, packets in found:
            tunnel = self._tunnels.enqueue(group, packets, now)
            if tunnel is None:
                continue
            octets = sum([len(packet.payload) for packet in packets])
            if len(found) == 1:
                self._share.do(tunnel, tunnel.work, octets, now)
                return
            self._share.carry(tunnel, octets)
            self._share.add(tunnel, tunnel.work)
        self._share.start()

    def show_carrier(self) -> None:
        """Have the device show a carrier while any tunnel carries."""
        carrying = self._tunnels.is_carrying
        if carrying != self.device.carrier:
            self.device.set_carrier(carrying)
            self._journal.info("tun.carrier", device=self.device.name, on=carrying)

    def close(self) -> None:
        """Release the device."""
        self._loop.remove_reader(self.device.fileno())
        self.device.set_carrier(False)
        self.device.close()
