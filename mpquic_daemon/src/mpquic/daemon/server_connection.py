"""One connection at the server: unregistered until its registration is done, then a path of a client's tunnel."""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING

from mpquic.daemon.claims import Unproven
from mpquic.daemon.containment import Containment
from mpquic.daemon.path_mtu import BASE_FAILS
from mpquic.daemon.session import CloseCode, Inbox, Session, SessionError
from mpquic.proto.control.handshake import Admitted, Output, Rejected, Send
from mpquic.proto.control.messages import Bye, ControlError
from mpquic.proto.control.server_registration import ServerRegistration
from mpquic.proto.path.address import endpoint, plain_host
from mpquic.proto.path.budget import BudgetMember
from mpquic.proto.path.path import PathState
from mpquic.quic.events import Established, Terminated
from mpquic.release import RELEASE

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic.daemon.server_tunnel import ServerTunnel
    from mpquic.daemon.stripe_listener import ServerStripe
    from mpquic.proto.control.identity import ChainVerifier, Identity
    from mpquic.proto.control.messages import Register, Welcome
    from mpquic.quic.events import LinkEvent
    from mpquic.quic.link import QuicLink

REGISTRATION_DEADLINE = 5.0


class ServerConnection:
    """`admit(connection, identity, register)` authorises and enters a registration, as in ServerRegistration.

    Where it returned None, set `is_decided` and call `advance` once it can tell more.
    """

    def __init__(
        self,
        link: QuicLink,
        verifier: ChainVerifier,
        admit: Callable[[ServerConnection, Identity, Register], Welcome | None],
        now: float,
        *,
        probe_interval: float,
        down_after: float,
    ) -> None:
        self.link = link
        self.contain = Containment(self._fail)
        self.on_fault: Callable[[Exception], object] | None = None
        """Called when a fault ends this connection."""
        self.unproven = Unproven(self)
        self.session = Session(
            BudgetMember("", ""), link, now, probe_interval=probe_interval, down_after=down_after, probes=False
        )
        self.admitted: Admitted | None = None
        self.tunnel: ServerTunnel | None = None
        self.plane: ServerStripe | None = None
        """The striped data plane of the path, if one was granted."""
        self.stripe_granted_at = float("-inf")
        self.ending: tuple[CloseCode, str] | None = None
        """Why the connection is to be closed, with what the peer is told."""
        self.farewell: str | None = None
        """What the client said when it left on purpose."""
        self.is_silent = False
        """Whether it ended because nothing came from the client any more."""
        self.refusal: Rejected | None = None
        """Why the registration came to nothing."""
        self.is_decided = False
        """Whether `admit` is to be called again for the registration that waits."""
        self.over = False
        self.next_poll = float("-inf")
        """When `poll` has something to do at the latest, unless something comes from the client before."""
        self._verifier = verifier
        self._admit = admit
        self._registration: ServerRegistration | None = None

    @property
    def peer(self) -> str:
        """The client's outer address for people."""
        address = self.link.peer_address
        if address is None:
            return "-"
        return endpoint(plain_host(address), address[1])

    @property
    def wants_data_stream(self) -> bool:
        """Whether the client sends and expects frames on a stream that it hasn't opened yet."""
        reliable = self.admitted is not None and self.admitted.register.transport_mode == "reliable"
        return reliable and self.session.data_stream is None

    def advance(self, now: float) -> Inbox:
        """Take the connection's events; returns what they brought for the tunnel."""
        inbox = Inbox()
        self.next_poll = float("-inf")
        if self.over:
            return inbox
        events = self.link.pop_events()
        try:
            for event in events:
                if isinstance(event, Established):
                    self._expect_registration(now)
            inbox = self.session.take(events, now)
            if self.admitted is None and not self._is_ending(events):
                self._register(inbox, now)
        except (SessionError, ControlError) as error:
            self.end(CloseCode.PROTOCOL, str(error))
        if inbox.bye is not None:
            self.farewell = inbox.bye
            self.end(CloseCode.NONE, "goodbye")
        for event in events:
            if isinstance(event, Terminated):
                self.over = True
                self.is_silent = not event.by_peer and self.ending is None
        return inbox

    def _is_ending(self, events: list[LinkEvent]) -> bool:
        """Whether a registration would only take the place of a connection that carries for one that is over."""
        over = any(isinstance(event, Terminated) for event in events)
        return over or self.ending is not None or self.link.is_closing

    def _register(self, inbox: Inbox, now: float) -> None:
        """Go on with the registration, unless it is done."""
        if self._registration is None:
            return
        for _, message in inbox.messages:
            self._apply(self._registration.receive(message, now), now)
        if self.is_decided:
            self.is_decided = False
            self._apply(self._registration.decide(now), now)

    def poll(self, now: float) -> None:
        """Let time pass: the deadline of the registration, probes, the path's state."""
        if self._registration is not None and self.admitted is None:
            self._apply(self._registration.poll(now), now)
        self.session.poll(now)
        if self.link.base_fails:
            self.end(CloseCode.TOO_LARGE, f"{BASE_FAILS} to the client: the path's MTU is too small for QUIC")
        due = self.session.timer(now)
        self.next_poll = float("-inf") if due is None else due

    @property
    def received(self) -> tuple[float, ...]:
        """Numbers that grow with each authenticated packet of the client, by QUIC and by pipes."""
        heard = self.plane.session.heard_at if self.plane is not None else float("-inf")
        return float(self.link.newest_received), heard

    def round_trips(self) -> tuple[float, float]:
        """Return the round-trip time in seconds, the longest of those known, and the lowest measured; 0 for unknown."""
        rtt = self.session.estimators.rtt
        pipes = self.plane.session.rtt if self.plane is not None else None
        return max(rtt.smoothed or 0.0, pipes or 0.0), rtt.minimum or 0.0

    def ask(self, now: float) -> None:
        """Have the client send something, by the connection and by the pipes that carry."""
        self.session.ask(now)
        plane = self.plane
        if plane is not None and plane.session.state is PathState.UP:
            plane.contain(plane.session.ask, now)
            plane.contain(plane.push, now)

    def end(self, code: CloseCode, reason: str) -> None:
        """Mark the connection to be closed; the first reason counts."""
        if self.ending is None:
            self.ending = (code, reason)

    def _fail(self, error: Exception) -> None:
        self.end(CloseCode.INTERNAL, "internal error")
        if self.on_fault is None:
            raise error
        self.on_fault(error)

    def say_goodbye(self, reason: str) -> None:
        """Tell a registered client that the server leaves on purpose."""
        if self.session.active:
            self.session.send(Bye(reason=reason))

    def _expect_registration(self, now: float) -> None:
        certificate = self.link.server_certificate
        assert certificate is not None
        self._registration = ServerRegistration(
            self._verifier,
            certificate,
            lambda identity, register: self._admit(self, identity, register),
            lambda: dt.datetime.now(dt.UTC),
            os.urandom,
            now,
            timeout=REGISTRATION_DEADLINE,
            release=RELEASE,
        )

    def _apply(self, outputs: list[Output], now: float) -> None:
        for output in outputs:
            if isinstance(output, Send):
                self.session.send_bytes(output.encode())
            elif isinstance(output, Admitted):
                self.admitted = output
                self.session.path.name = output.register.path
                self.session.member.name, self.session.member.wan = output.register.tunnel, output.register.path
                self.session.activate(now)
            elif isinstance(output, Rejected):
                self.refusal = output
                # An unregistered peer learns from the REFUSE message what it may know, and nothing more here.
                self.end(CloseCode.REFUSED, "registration refused")
