"""The striped data plane of one connection in the event loop: its sockets, its clock, its way to and from the tunnel.

It bypasses the iterations of the QUIC connection: at high rates these would cost more than the packets. The client owns
a socket for each pipe; all sessions of a server share one.
"""

from __future__ import annotations

import asyncio
import os
import select
from typing import TYPE_CHECKING

from mpquic.daemon.containment import Containment
from mpquic.daemon.path_mtu import ReportedErrors, payload
from mpquic.daemon.wan_socket import open_socket
from mpquic.net.event_loop import after_reading
from mpquic.net.kernel import KERNEL
from mpquic.net.send_status import SendStatus
from mpquic.net.udp import READ_BYTES
from mpquic.proto.path.path import PathState
from mpquic.proto.stripe.adaptive import FecMode
from mpquic.proto.stripe.config import MIN_DATAGRAM, StripeConfig
from mpquic.proto.stripe.keys import Suite
from mpquic.proto.stripe.merge import PipeMerge, pieces
from mpquic.proto.stripe.session import StripeSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mpquic.config import ClientConfig, PathConfig
    from mpquic.daemon.pump import Pump
    from mpquic.net.kernel import Kernel
    from mpquic.net.udp import Received, UdpSocket
    from mpquic.proto.control.messages import StripeGrant, StripeRequest
    from mpquic.proto.stripe.control import Outgoing
    from mpquic.proto.stripe.receiver import Datagrams

TIMER_SLACK = 0.001
"""Seconds: a timer that fires so soon isn't set anew for something that is due earlier. The event loop's own clock has
no finer steps."""


EARLY_TIMER = 0.1
"""Seconds: a timer that would fire so much too early is set anew; for less, firing once in vain is cheaper."""
MAX_BATCHED_READS = 16
"""Reads in an iteration that give more than one datagram."""
MAX_READS = 64
"""Reads in an iteration: without offload each gives one datagram."""


def stripe_config(request: StripeRequest, suite: int, largest: int, congestion_algorithm: str) -> StripeConfig:
    """Return the settings of a session of which this end sends UDP payloads of `largest` bytes at most.

    Each end finds out by itself what the path takes. Raises ValueError when a peer asks for what doesn't exist.
    """
    return StripeConfig(
        pipes=request.pipes,
        datagram_size=min(largest, request.datagram_size),
        initial_datagram_size=MIN_DATAGRAM,
        data_shards=request.data_shards,
        parity_shards=request.parity_shards,
        fec=FecMode(request.fec),
        max_overhead=request.max_overhead,
        suite=Suite(suite),
        congestion_algorithm=congestion_algorithm,
    )


class StripePlane:
    """One session in the loop. `transmit` sends what the session has made; subclasses have the sockets."""

    def __init__(self, name: str, session: StripeSession, pump: Pump) -> None:
        self.session = session
        session.name = f"{name}/stripe"
        self._pump = pump
        self._loop = asyncio.get_running_loop()
        self._after_reading = after_reading(self._loop)
        self._timer: asyncio.TimerHandle | None = None
        self._due = float("inf")
        self.closed = False
        self.on_change: Callable[[], object] | None = None
        """Called soon after the path has come up or gone down."""
        self.on_fault: Callable[[Exception], object] | None = None
        """Called soon after a fault has ended this session."""
        self.contain = Containment(self._end)

    @property
    def now(self) -> float:
        """Time of its event loop in seconds."""
        return self._loop.time()

    def _end(self, error: Exception) -> None:
        """A fault in this session ends it, and nobody else's."""
        self.close()
        if self.on_fault is None:
            raise error
        self._loop.call_soon(self.on_fault, error)

    def receive(self, batch: Iterable[Datagrams], now: float) -> None:
        """Take what was read, reply, and use the room that it made."""
        frames = self.session.receive(batch, now)
        if frames:
            self._pump.deliver(frames, now, self.session)
        if self.session.state is not PathState.UP and self.session.ready(now):
            self._set_state(PathState.UP)
        self.push(now)

    def push(self, now: float) -> None:
        """Send what waits in the tunnel, by whatever path, and what the session itself has to send."""
        if self.contain.failed:
            return
        if self._pump.waiting:
            self._fill(now)
        self.transmit_all(now)

    def transmit_all(self, now: float) -> None:
        """Send what the session has made, and have its clock set when what can be read has been read."""
        outgoing = self.session.take_outgoing()
        if outgoing:
            self.transmit(outgoing)
        if self.session.exhausted:
            self._set_state(PathState.DOWN)
        if self._due > now + TIMER_SLACK:
            self._schedule_soon(now)

    def _schedule_soon(self, now: float) -> None:  # noqa: ARG002 - for those who do it at once
        """Have the timer set when what can be read has been read."""
        self._after_reading(self._set_timer)

    def _fill(self, now: float) -> None:
        """Have the tunnel hand over what the paths take."""
        self._pump.send_from(self, now)

    def run(self, now: float) -> None:
        """Do what time asks for, then `push`."""
        session = self.session
        session.poll(now)
        self._set_state(PathState.UP if session.ready(now) else PathState.DOWN)
        self.push(now)

    def _set_state(self, state: PathState) -> None:
        if state is not self.session.state:
            self.session.state = state
            if self.on_change is not None:
                self._loop.call_soon(self.on_change)

    def transmit(self, outgoing: list[Outgoing]) -> None:
        """Send datagrams."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop the clock."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.session.state = PathState.DOWN
        self.session.close()

    def _set_timer(self) -> None:
        if not self.closed:
            self.contain(self._schedule, self._loop.time())

    def _schedule(self, now: float) -> None:
        """Set the timer to what is due first: the session's own business, or room for what waits."""
        if self._due <= now + TIMER_SLACK:
            return
        due = self.session.next_time(now)
        again = self._send_time(now) if self._pump.waits_for(self) else None
        if due is None or (again is not None and again < due):
            due = again
        if due is None or self._due <= due < self._due + EARLY_TIMER:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_at(due, self._on_timer)

    def _send_time(self, now: float) -> float | None:
        """When what waits may be sent: by the session, and by the path's share of its WAN."""
        again, allowed = self.session.send_time(now), self.session.next_allowance(now)
        return again if allowed is None or (again is not None and again > allowed) else allowed

    def _on_timer(self) -> None:
        self._timer = None
        self._due = float("inf")
        self.contain(self.run, self._loop.time())


class ClientStripe(StripePlane):
    """The client's end: a socket for each pipe, by the WAN's device from an address of `own`. OSError, ValueError."""

    def __init__(
        self,
        config: ClientConfig,
        path: PathConfig,
        request: StripeRequest,
        grant: StripeGrant,
        pump: Pump,
        own: tuple[str, ...] = (),
        kernel: Kernel = KERNEL,
    ) -> None:
        now = asyncio.get_running_loop().time()
        settings = stripe_config(request, grant.suite, config.max_datagram_size, config.congestion_algorithm)
        session = StripeSession(
            settings, grant.session, grant.secret, now, client=True, entropy=os.urandom, memory=pump.memory
        )
        super().__init__(path.name, session, pump)
        self.sockets: list[UdpSocket] = []
        # Of each pipe one read at most waits for its turn.
        self._free = [bytearray(READ_BYTES) for _ in range(MAX_BATCHED_READS + path.pipes)]
        self._merge = PipeMerge(path.pipes, runs=MAX_BATCHED_READS, most=MAX_READS)
        self._again: asyncio.Handle | None = None
        self._ready = select.epoll()
        port = path.stripe_port or grant.port
        try:
            for _ in range(path.pipes):
                pipe = open_socket(kernel, path, port, own, gso=config.udp_gso, dscp=config.dscp)
                self.sockets.append(pipe)
                self._ready.register(pipe.fileno(), select.EPOLLIN)
        except BaseException:
            self._close_sockets()
            raise
        self.on_path_mtu: Callable[[int], object] | None = None
        """Called with what the kernel believes to be the path's MTU when ICMP has come in for a pipe."""
        self._reported = [ReportedErrors(pipe, self._on_path_mtu) for pipe in self.sockets]
        self._family = path.family
        self._pipe_of = {pipe.fileno(): number for number, pipe in enumerate(self.sockets)}
        self._blocked: set[int] = set()
        self._loop.add_reader(self._ready.fileno(), self._on_readable)
        self.run(now)

    def _on_readable(self) -> None:
        self._again = None
        self.contain(self._receive_batch)
        if not self.contain.failed and self._merge.waiting and not self._ready.closed:
            self._again = self._loop.call_soon(self._on_readable)

    def _receive_batch(self) -> None:
        ready = self._ready.poll(0, len(self.sockets))
        if len(ready) == 1 and not self._merge.waiting and self._receive_alone(self._pipe_of[ready[0][0]]):
            return
        batch = self._merge.next_batch(self.session.receiver.window.highest + 1, self._read)
        try:
            if batch:
                self.receive([(piece.data, piece.segment, None) for piece in batch], self._loop.time())
        finally:
            self._free += [piece.buffer for piece in batch if piece.buffer is not None]

    def _receive_alone(self, number: int) -> bool:
        """Read a pipe once and take what came if that is one datagram, alone in all pipes: there is nothing to sort."""
        buffer = self._free.pop()
        reads = self.sockets[number].recv_batch((memoryview(buffer),))
        self._reported[number].look()
        is_alone = not reads or (len(reads[0][0]) <= reads[0][1] and not self._ready.poll(0, 1))
        if is_alone and reads:
            self.receive([(reads[0][0], reads[0][1], None)], self._loop.time())
        if is_alone or not self._keep(number, reads[0], buffer):
            self._free.append(buffer)
        return is_alone

    def _keep(self, number: int, read: Received, buffer: bytearray) -> bool:
        """Have what a read gave wait for its place; tell whether it stays in the buffer."""
        data, segment, _ = read
        cut = pieces(data if len(data) > segment else bytes(data), segment)
        self._merge.add(number, cut)
        return cut[0].buffer is buffer

    def _read(self) -> bool:
        """Read each pipe once that may have what is due; false when none has anything."""
        found = False
        for fd, _ in self._ready.poll(0, len(self.sockets)):
            number = self._pipe_of[fd]
            if not self._merge.lacks(number):
                continue
            buffer = self._free.pop()
            kept = False
            for read in self.sockets[number].recv_batch((memoryview(buffer),)):
                found = True
                kept = self._keep(number, read, buffer)
            self._reported[number].look()
            if not kept:
                self._free.append(buffer)
        return found

    def transmit(self, outgoing: list[Outgoing]) -> None:
        """Send each run on the socket of its pipe."""
        for number, _, datagrams in outgoing:
            pipe = self.sockets[number]
            status = pipe.send_batch(datagrams)
            self._reported[number].look()
            if status is SendStatus.TOO_LARGE:
                self.session.on_too_large(max(map(len, datagrams)), self._loop.time())
            elif status is SendStatus.BLOCKED and number not in self._blocked:
                self._blocked.add(number)
                self._loop.add_writer(pipe.fileno(), self._on_writable, number)

    def _on_path_mtu(self, mtu: int) -> None:
        self.session.on_path_mtu(payload(mtu, self._family))
        if self.on_path_mtu is not None:
            self.on_path_mtu(mtu)

    def _on_writable(self, number: int) -> None:
        pipe = self.sockets[number]
        if pipe.resume() is not SendStatus.BLOCKED:
            self._blocked.discard(number)
            self._loop.remove_writer(pipe.fileno())

    def close(self) -> None:
        """Stop the clock and close the sockets; doing it again is no error."""
        super().close()
        if self._ready.closed:
            return
        if self._again is not None:
            self._again.cancel()
        self._loop.remove_reader(self._ready.fileno())
        for number in self._blocked:
            self._loop.remove_writer(self.sockets[number].fileno())
        self._blocked.clear()
        self._close_sockets()

    def _close_sockets(self) -> None:
        self._ready.close()
        for pipe in self.sockets:
            pipe.close()
