"""The tunnels of a server's clients, one for each group, and the order in which they send what waits in them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from mpquic.daemon import iteration
from mpquic.daemon.processor_share import PIECE
from mpquic.daemon.server_tunnel import ServerTunnel
from mpquic.daemon.statistics import TunnelStatistics, tunnel_statistics
from mpquic.proto.packet.frame import class_octet
from mpquic.proto.path.memory import MemoryBudget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mpquic.daemon.processor_share import ProcessorShare
    from mpquic.daemon.server_connection import ServerConnection
    from mpquic.net.tun import TunDevice
    from mpquic.proto.control.groups import Group, GroupTable
    from mpquic.proto.control.peers import PeerRule
    from mpquic.proto.packet.superframe import Packet


class ServerTunnels:
    """Makes the tunnel of a group with its first registration, and forgets it with the last path.

    `on_quic` is called when QUIC is to be flushed soon, `on_forget` with a tunnel that has gone, and `on_fault` with
    one whose work has raised an exception, and with that.
    """

    def __init__(
        self,
        table: GroupTable[ServerConnection],
        share: ProcessorShare,
        tun: TunDevice,
        on_quic: Callable[[], None],
        on_forget: Callable[[ServerTunnel], None],
        on_fault: Callable[[ServerTunnel, Exception], None],
    ) -> None:
        self._table = table
        self._share = share
        self._tun = tun
        self._on_quic = on_quic
        self._on_forget = on_forget
        self._on_fault = on_fault
        self._tunnels: dict[Group[ServerConnection], ServerTunnel] = {}
        self._waiting: dict[ServerTunnel, None] = {}
        """Tunnels in which packets wait, in order of their turn."""
        self.has_queued = False
        """Whether packets have begun to wait for QUIC since this was set to False."""
        self.past = TunnelStatistics()
        """The sums of tunnels that have gone."""

    def __iter__(self) -> Iterator[ServerTunnel]:
        return iter(self._tunnels.values())

    def __len__(self) -> int:
        return len(self._tunnels)

    @property
    def is_carrying(self) -> bool:
        """Whether any tunnel has a path that isn't down."""
        return any(tunnel.is_carrying for tunnel in self)

    def of(self, group: Group[ServerConnection], rule: PeerRule) -> ServerTunnel:
        """Return the tunnel of a group that has a member; it begins with the first."""
        tunnel = self._tunnels.get(group)
        if tunnel is None:
            octet = class_octet(rule.traffic_class, low_latency=rule.low_latency)
            tunnel = ServerTunnel(
                octet,
                lambda source: self._table.owner_of(source) is group,
                self._tun.write,
                self._on_quic,
                self._memory_of(group.identity),
            )
            tunnel.work = partial(self._push, tunnel)
            tunnel.pump.on_fault = partial(self._fault, tunnel)
            tunnel.receiver.coalescer.uso = self._tun.uso
            self._tunnels[group] = tunnel
        return tunnel

    def _memory_of(self, identity: str) -> MemoryBudget:
        """Return the budget that all tunnels of an identity share."""
        shared = (tunnel.pump.memory for group, tunnel in self._tunnels.items() if group.identity == identity)
        return next(shared, None) or MemoryBudget()

    def enqueue(self, group: Group[ServerConnection], packets: list[Packet], now: float) -> ServerTunnel | None:
        """Give packets to the tunnel of a group; return it, None where there is nothing more to do for them."""
        tunnel = self._tunnels.get(group)
        if tunnel is None:
            return None
        try:
            tunnel.sender.enqueue_packets(packets, now)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is of this tunnel
            self._fault(tunnel, error)
            return None
        return tunnel

    def resume(self, tunnel: ServerTunnel) -> None:
        """What waits in a tunnel, or is in flight on a path that went silent, may leave by another path now."""
        self._waiting[tunnel] = None

    def fill(self, now: float) -> int:
        """Give the paths what they take of what waits; return its bytes. Of several, who had least comes first."""
        if not self._waiting:
            return 0
        waiting, limit = list(self._waiting), self._share.piece
        if len(waiting) > 1:
            waiting.sort(key=self._share.charged)
            limit = PIECE
        moved = 0
        for tunnel in waiting:
            if self._share.put_off(tunnel, tunnel.work):
                continue
            try:
                moved += tunnel.pump.send(now, limit)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is of this tunnel
                self._fault(tunnel, error)
                continue
            if not tunnel.sender.waiting:
                del self._waiting[tunnel]
            self._share.charge(tunnel)
            if moved >= iteration.ITERATION_BYTES and limit is not None:
                break
        return moved

    def next_allowance(self, now: float) -> float | None:
        """When the share of a WAN allows to send what waits for that; None when nothing does."""
        times = [tunnel.next_allowance(now) for tunnel in self._waiting]
        return min((time for time in times if time is not None), default=None)

    def forget_empty(self) -> None:
        """Forget the tunnels whose groups have no member any more."""
        for group in [group for group in self._tunnels if not group.members]:
            tunnel = self._tunnels.pop(group)
            tunnel.pump.close()
            self._waiting.pop(tunnel, None)
            self._share.forget(tunnel)
            self._on_forget(tunnel)
            self.past.add(tunnel_statistics(tunnel.sender, tunnel.receiver).drained())

    def _push(self, tunnel: ServerTunnel, now: float) -> None:
        try:
            carried = tunnel.push(now)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is of this tunnel
            self._fault(tunnel, error)
            return
        if not carried:
            self._waiting[tunnel] = None
            self.has_queued = True

    def _fault(self, tunnel: ServerTunnel, error: Exception) -> None:
        self._on_fault(tunnel, error)
        self._waiting.pop(tunnel, None)
