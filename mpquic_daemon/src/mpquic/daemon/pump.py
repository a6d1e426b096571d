"""Moves the packets of one tunnel: from its queues to every path that is given something, and from paths to the TUN."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic.daemon.stripe_plane import StripePlane
    from mpquic.proto.packet.coalescer import Write
    from mpquic.proto.path.data_plane import DataPlane
    from mpquic.proto.path.memory import MemoryBudget
    from mpquic.proto.path.path import FrameOrRun
    from mpquic.proto.tunnel.receiver import TunnelReceiver
    from mpquic.proto.tunnel.scheduler import FailoverScheduler
    from mpquic.proto.tunnel.sender import TunnelSender


class Pump:
    """Joins a tunnel to the sockets of its striped data planes. What QUIC is given leaves when its owner flushes it.

    `write` takes what is for the TUN. `on_quic` is called when an event of a pipe has given QUIC something: its owner
    is to flush it soon. A fault of a striped data plane ends its session, and nothing else.
    """

    def __init__(
        self,
        scheduler: FailoverScheduler,
        sender: TunnelSender,
        receiver: TunnelReceiver,
        write: Callable[[Write], object],
        on_quic: Callable[[], object],
    ) -> None:
        self._scheduler = scheduler
        self._sender = sender
        self._receiver = receiver
        self._write = write
        self._on_quic = on_quic
        self._striped: dict[DataPlane, StripePlane] = {}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.on_fault: Callable[[Exception], object] | None = None
        """Called with a fault in what the clock asks for; without it such a fault is the event loop's."""
        receiver.on_shed = self._on_shed

    def attach(self, plane: StripePlane) -> None:
        """Write to the sockets of a striped data plane what the tunnel gives it."""
        self._striped[plane.session] = plane

    def detach(self, plane: StripePlane) -> None:
        """Forget a striped data plane."""
        self._striped.pop(plane.session, None)

    @property
    def waiting(self) -> bool:
        """Whether packets wait in the tunnel."""
        return self._sender.waiting

    @property
    def is_striped(self) -> bool:
        """Whether all classes leave by pipes now."""
        choices = [self._scheduler.choose(each) for each in self._sender.queues]
        return all(choice is not None and all(map(self._striped.__contains__, choice.planes)) for choice in choices)

    @property
    def memory(self) -> MemoryBudget:
        """The budget of the peer, for what its planes keep."""
        return self._receiver.memory

    def waits_for(self, plane: StripePlane) -> bool:
        """Whether packets wait until a data plane takes them."""
        sender = self._sender
        if not sender.waiting:
            return False
        choices = [self._scheduler.choose(each) for each in sender.queues]
        return any(choice is not None and plane.session in choice.planes for choice in choices)

    def send(self, now: float, limit: int | None = None) -> int:
        """Give the paths what they take and send it, but for QUIC's part; return the bytes of frames."""
        return self._send(None, now, limit)[0]

    def send_from(self, plane: StripePlane, now: float, limit: int | None = None) -> int:
        """Do the same when an event of a data plane has made room; its caller sends that one's own part."""
        moved, is_quic_given = self._send(plane, now, limit)
        if is_quic_given:
            self._on_quic()
        return moved

    def _send(self, caller: StripePlane | None, now: float, limit: int | None) -> tuple[int, bool]:
        sender = self._sender
        try:
            moved = sender.flush(now, limit)
        except Exception as error:
            failed = None if sender.sending is None else self._striped.get(sender.sending)
            if failed is None:
                raise
            failed.contain.fail(error)
            moved = 0
        is_quic_given = False
        if sender.touched:
            touched, sender.touched = sender.touched, {}
            for each in touched:
                plane = self._striped.get(each)
                if plane is None:
                    is_quic_given = True
                elif plane is not caller:
                    plane.contain(plane.transmit_all, now)
        return moved, is_quic_given

    def deliver(self, frames: list[FrameOrRun], now: float, source: DataPlane) -> None:
        """Take frames that have come by a data plane, in the order in which it gives them."""
        self.put(self._receiver.receive(frames, now, source))

    def _expire(self) -> None:
        self._timer = None
        try:
            self.put(self._receiver.expire(self._loop.time()))
        except Exception as error:
            if self.on_fault is None:
                raise
            self.on_fault(error)

    def _on_shed(self) -> None:
        """Room was made for something else of the same peer: what has waited here goes on."""
        self._set_timer(self._loop.time())

    def _set_timer(self, due: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._expire)

    def close(self) -> None:
        """Forget what waits: the tunnel is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._receiver.close()

    def put(self, writes: list[Write]) -> None:
        """Write to the TUN, and set the clock for what waits."""
        write = self._write
        for buffers in writes:
            write(buffers)
        due = self._receiver.next_time
        if due is not None:
            self._set_timer(due)
