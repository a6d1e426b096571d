"""The server's socket for all striped sessions."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING

from mpquic.daemon.arrivals import Arrivals
from mpquic.daemon.claims import UNPROVEN, Unproven
from mpquic.daemon.processor_share import PIECE
from mpquic.daemon.statistics import snapshot
from mpquic.daemon.stripe_plane import StripePlane, stripe_config
from mpquic.net.aead import preferred_suites
from mpquic.net.kernel import KERNEL
from mpquic.net.send_status import SendStatus
from mpquic.proto.control.messages import StripeGrant
from mpquic.proto.stripe.keys import Suite
from mpquic.proto.stripe.merge import in_sending_order
from mpquic.proto.stripe.session import StripeSession
from mpquic.proto.stripe.table import SessionTable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from mpquic.config import ServerConfig
    from mpquic.daemon.processor_share import ProcessorShare
    from mpquic.daemon.pump import Pump
    from mpquic.net.kernel import Kernel
    from mpquic.net.udp import Received
    from mpquic.proto.control.messages import StripeRequest
    from mpquic.proto.path.address import Address
    from mpquic.proto.stripe.control import Outgoing
    from mpquic.proto.stripe.receiver import Datagrams


SINGLES = 56
"""Datagrams that are read in a row beside what comes in runs: without offload each read gives one."""


class ServerStripe(StripePlane):
    """The server's end of one session. Its work is done when it is `client`'s turn in `share`."""

    def __init__(
        self,
        name: str,
        session: StripeSession,
        pump: Pump,
        send: Callable[[list[bytes], Address, int], SendStatus],
        arrivals: Arrivals[Claim],
        share: ProcessorShare,
        client: Hashable,
    ) -> None:
        self._send = send
        self._arrivals = arrivals
        self._share = share
        self.client = client
        self.dscp = 0
        """DSCP of what is sent to the client."""
        self.unproven = Unproven(self)
        super().__init__(name, session, pump)

    def take(self, batch: list[Received], now: float) -> None:
        """Take what has come from addresses of the client."""
        if not self.closed:
            self.contain(self._receive_sorted, [*batch], now)

    def on_arrival(self) -> None:
        """Something waits in the queue of what has come from addresses of the client."""
        self._share.add(self.client, self._take_arrivals)

    def on_unproven(self) -> None:
        """Something waits in the queue of what has come from elsewhere."""
        self._share.add(UNPROVEN, self._take_unproven)

    def _take_arrivals(self, now: float) -> None:
        self._take(self, self._share.piece, self.on_arrival, now)

    def _take_unproven(self, now: float) -> None:
        self._take(self.unproven, PIECE, self.on_unproven, now)

    def _take(self, claim: Claim, limit: int | None, again: Callable[[], None], now: float) -> None:
        batch: list[Datagrams] = [*self._arrivals.take(claim, limit)]
        if not batch or self.closed:
            return
        if claim in self._arrivals:
            again()
        payer = _payer(claim)
        self._share.carry(payer, sum([len(read[0]) for read in batch]))
        self.contain(self._receive_sorted, batch, now)

    def _receive_sorted(self, batch: list[Datagrams], now: float) -> None:
        if len(batch) > 1:
            # The network may have changed the order of pipes, and their packets are in one queue here.
            batch = in_sending_order(batch, self.session.receiver.window.highest + 1)
        self.receive(batch, now)

    def _schedule_soon(self, now: float) -> None:
        if self._share.is_short:  # So that the client is charged for it.
            self._schedule(now)
        else:
            super()._schedule_soon(now)

    def _fill(self, now: float) -> None:
        limit = self._share.piece
        if self._pump.send_from(self, now, limit) >= (limit or float("inf")):
            self._share.add(self.client, self._push_more)

    def _push_more(self, now: float) -> None:
        if not self.closed:
            self.contain(self.push, now)

    def _on_timer(self) -> None:
        # `_due` stays in the past until then, so that no other timer is set meanwhile.
        self._share.do(self.client, self._run_due, 0, self._loop.time())

    def _run_due(self, now: float) -> None:
        if not self.closed:
            self._timer = None
            self._due = float("inf")
            self.contain(self.run, now)

    def transmit(self, outgoing: list[Outgoing]) -> None:
        """Send each run to where its pipe was heard from."""
        for _, address, datagrams in outgoing:
            if address is not None and self._send(datagrams, address, self.dscp) is SendStatus.TOO_LARGE:
                self.session.on_too_large(max(map(len, datagrams)), self._loop.time())


Claim = ServerStripe | Unproven[ServerStripe]
"""The session that a datagram names, when it comes from an address of its client, or its `unproven`."""


class StripeListener:
    """One UDP port for all sessions of a server. Raises OSError."""

    def __init__(self, config: ServerConfig, share: ProcessorShare, kernel: Kernel = KERNEL) -> None:
        self._loop = asyncio.get_running_loop()
        self._share = share
        self.port = config.stripe_bind_port
        self.socket = kernel.udp(
            (config.bind_address or "::", self.port),
            device=config.bind_device,
            gso=config.udp_gso,
            reads=8,
        )
        self._arrivals: Arrivals[Claim] = Arrivals(self.socket, self._claim, _on_first, singles=SINGLES)
        self._largest = config.max_datagram_size
        self._congestion_algorithm = config.congestion_algorithm
        self.table: SessionTable[ServerStripe] = SessionTable(os.urandom)
        self._writing = False
        self._loop.add_reader(self.socket.fileno(), self._on_readable)

    def grant(
        self,
        name: str,
        request: StripeRequest,
        pump: Pump,
        client: Hashable,
    ) -> tuple[StripeGrant, ServerStripe] | None:
        """Begin a session of a client; None when the table is full, or the client asks for what doesn't exist."""
        room = self.table.allocate()
        suite = _common_suite(request.suites)
        if room is None or suite is None:
            return None
        number, secret = room
        try:
            settings = stripe_config(request, suite, self._largest, self._congestion_algorithm)
        except ValueError:
            return None
        session = StripeSession(
            settings, number, secret, self._loop.time(), client=False, entropy=os.urandom, memory=pump.memory
        )
        plane = ServerStripe(name, session, pump, self._transmit, self._arrivals, self._share, client)
        self.table.add(session, plane)
        return StripeGrant(session=number, secret=secret, port=self.port, suite=suite), plane

    def remove(self, plane: ServerStripe) -> None:
        """Forget a session."""
        self.table.remove(plane.session)
        self._close(plane)

    def collect_idle(self, now: float) -> list[ServerStripe]:
        """Forget the sessions from which nothing authentic has come for long, and return them."""
        planes = [plane for _, plane in self.table.collect_idle(now)]
        for plane in planes:
            self._close(plane)
        return planes

    def _close(self, plane: ServerStripe) -> None:
        self._arrivals.forget(plane)
        self._arrivals.forget(plane.unproven)
        plane.close()

    def counters(self) -> dict[str, object]:
        """Return the numbers of the port."""
        return {
            "udp": snapshot(self.socket.counters),
            "refused": dict(self.table.refused),
            "dropped_waiting": self._arrivals.dropped,
        }

    def close(self) -> None:
        """Release the socket."""
        self._loop.remove_reader(self.socket.fileno())
        self._loop.remove_writer(self.socket.fileno())
        self.socket.close()

    def _on_readable(self) -> None:
        now = self._loop.time()
        alone = self._arrivals.read_alone(ServerStripe, now) if self._share.is_idle else None
        if alone is None:
            self._share.read(self._arrivals, _payer, now)
            self._share.start()
            return
        plane, batch = alone
        self._share.do(plane.client, partial(plane.take, batch), sum([len(read[0]) for read in batch]), now)

    def _claim(self, read: Received) -> Claim | None:
        found = self.table.find(read[0])
        if found is None:
            return None
        session, plane = found
        return plane if read[2] in session.pipes.sources else plane.unproven

    def _transmit(self, datagrams: list[bytes], address: Address, dscp: int) -> SendStatus:
        status = self.socket.send_batch(datagrams, address, dscp)
        if status is SendStatus.BLOCKED and not self._writing:
            self._writing = True
            self._loop.add_writer(self.socket.fileno(), self._on_writable)
        return status

    def _on_writable(self) -> None:
        if self.socket.resume() is not SendStatus.BLOCKED:
            self._writing = False
            self._loop.remove_writer(self.socket.fileno())


def _on_first(claim: Claim) -> None:
    if isinstance(claim, Unproven):
        claim.owner.on_unproven()
    else:
        claim.on_arrival()


def _payer(claim: Claim) -> Hashable:
    """Return who is charged for what waits under a claim."""
    return UNPROVEN if isinstance(claim, Unproven) else claim.client


def _common_suite(offered: list[int]) -> Suite | None:
    """Return the AEAD of a session: AES where both ends prefer it, else what both know, ChaCha20 first."""
    own = preferred_suites()
    if offered and offered[0] == own[0]:
        return own[0]
    known = [suite for suite in own if suite in offered]
    return max(known, key=lambda suite: suite is Suite.CHACHA20_POLY1305, default=None)
