"""One attempt of a client to reach its server over one WAN, from the socket to the registration, and what follows.

An attempt has a socket of its own: a new source port makes a new NAT mapping, and a socket outlives neither its device
nor its address.
"""

from __future__ import annotations

import datetime as dt
import os
from enum import Enum
from typing import TYPE_CHECKING

from aioquic.quic.packet import QuicErrorCode

from mpquic.daemon import credentials, incarnation, path_mtu
from mpquic.daemon.client_socket import ClientSocket
from mpquic.daemon.containment import Containment
from mpquic.daemon.server_chain import ServerChain
from mpquic.daemon.session import IDLE_TIMEOUT, CloseCode, Inbox, Session, SessionError
from mpquic.daemon.stripe_plane import ClientStripe
from mpquic.daemon.stripe_request import StripeRequests, stripe_request
from mpquic.daemon.wan_socket import mute_foreign
from mpquic.net.kernel import KERNEL
from mpquic.net.send_status import SendStatus
from mpquic.net.udp import split_segments
from mpquic.proto.control.client_registration import ClientRegistration, RegistrationRequest
from mpquic.proto.control.handshake import Output, Rejected, Send, Welcomed
from mpquic.proto.control.messages import Bye, ControlError, RefuseCode
from mpquic.proto.path.address import endpoint
from mpquic.proto.path.budget import BudgetMember
from mpquic.proto.path.ending import Ending, Failure
from mpquic.proto.path.retry import SILENCE
from mpquic.quic.configuration import LinkOptions
from mpquic.quic.connect import connect
from mpquic.quic.events import Established, Terminated
from mpquic.release import RELEASE, of_peer

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection

    from mpquic.config import ClientConfig, PathConfig
    from mpquic.daemon.credentials import ClientIdentity
    from mpquic.daemon.pump import Pump
    from mpquic.net.kernel import Kernel
    from mpquic.net.udp import UdpSocket
    from mpquic.proto.control.messages import StripeGrant, Welcome

ANSWERED_SILENCE = 3.0
"""The same at least, once the peer has answered: a server to which a thousand clients return at once is slow."""
DEADLINE = 10.0
"""Seconds in which an attempt that the peer has answered must have come to its end."""


class Phase(Enum):
    """How far an attempt is."""

    HANDSHAKE = "handshake"
    REGISTERING = "registering"
    REGISTERED = "registered"
    OVER = "over"


class ClientConnection:
    """A connection to the server. Raises OSError when the socket can't be made now.

    `own` are the addresses of the path's device, by which alone it sends; empty for a path without a device.
    """

    def __init__(
        self,
        config: ClientConfig,
        path: PathConfig,
        identity: ClientIdentity,
        *,
        boot_id: bytes,
        epoch: int,
        now: float,
        own: tuple[str, ...] = (),
        patience: float = SILENCE,
        kernel: Kernel = KERNEL,
    ) -> None:
        self._kernel = kernel
        self._own = own
        self._patience = patience
        self.contain = Containment(self._fail)
        self.on_fault: Callable[[Exception], object] | None = None
        """Called after a fault has ended this connection."""
        self.phase = Phase.HANDSHAKE
        self.ending: Ending | None = None
        self.welcome: Welcome | None = None
        self.peer_release: str | None = None
        """What the server runs, once registered."""
        self.server_chain: ServerChain | None = None
        """The server's certificates, once TLS has verified them."""
        self.started = now
        self.heard_at: float | None = None
        self.plane: ClientStripe | None = None
        """The striped data plane, once the server has granted one."""
        self.epoch = epoch
        self._config = config
        self._path = path
        self._identity = identity
        self._request = RegistrationRequest(
            tunnel=config.tunnel_name,
            path=path.name,
            boot_id=boot_id,
            epoch=epoch,
            inner=config.inner_addresses,
            weight=float(path.weight),
            priority=path.priority,
            transport_mode=config.transport_mode,
            stripe=stripe_request(config, path),
        )
        self._socket = ClientSocket(config, path, own, kernel, self._on_path_mtu)
        try:
            options = LinkOptions(config.congestion_algorithm, config.max_datagram_size, IDLE_TIMEOUT, DEADLINE)
            self.link = connect(
                self.socket.peer_address,
                ca_data=identity.ca_data,
                server_name=config.tls.server_name,
                options=options,
                now=now,
                wall_clock=_today,
            )
        except BaseException:
            self._socket.close()
            raise
        self._registration: ClientRegistration | None = None
        member = BudgetMember(config.name, path.name, float(path.weight), path.priority)
        self.session = Session(
            member,
            self.link,
            now,
            probe_interval=config.probe_interval,
            down_after=config.down_after,
            max_rate=config.max_rate,
        )
        self.session.path.keeps_sent = len(config.paths) > 1
        self.stripe_requests = StripeRequests(self.session, self._request.stripe, now)

    @property
    def socket(self) -> UdpSocket:
        """The socket of the QUIC connection."""
        return self._socket.udp

    @property
    def shortage(self) -> str | None:
        """That the path's MTU is too small for QUIC, as far as ICMP or the device says so, or probes have shown."""
        return self._socket.shortage

    @property
    def doubtful(self) -> bool:
        """Whether an ICMP error came back: nothing to rely on, but a reason to try another connection at once."""
        return self._socket.doubtful

    @property
    def server_name(self) -> str:
        """The name that the server's certificate is made for."""
        return self._config.tls.server_name

    @property
    def _no_answer(self) -> str:
        return f"no answer from {endpoint(self._path.remote_addr, self._path.remote_port)}"

    @property
    def _silence(self) -> float:
        """Seconds without a packet of the peer after which this attempt is given up."""
        if self.heard_at is None:
            return self._patience
        return max(self._patience, ANSWERED_SILENCE, 3 * (self.link.estimators.rtt.smoothed or 0.0))

    @property
    def silent_since(self) -> float:
        """When the peer was last heard, or the attempt began."""
        return self.started if self.heard_at is None else self.heard_at

    def read(self, now: float) -> None:
        """Take what the socket has."""
        for data, segment, address in self.socket.recv_batch():
            self.link.receive(split_segments(data, segment), address, now)
            self.heard_at = now
        self._socket.look_at_errors()

    def watch(
        self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], object], on_writable: Callable[[], object]
    ) -> None:
        """Have these called when the socket has something to `read`, and when it takes datagrams again."""
        self._socket.watch(loop, on_readable, on_writable)

    def advance(self, now: float) -> Inbox:
        """Let time pass and take the connection's events; returns what they brought for the tunnel."""
        if self.link.is_due(now):
            self.link.handle_timer(now)
        inbox = Inbox()
        if self.phase is Phase.OVER:
            return inbox
        events = self.link.pop_events()
        try:
            for event in events:
                if isinstance(event, Established):
                    self._register(now)
            inbox = self.session.take(events, now)
            self._talk(inbox, now)
        except (SessionError, ControlError) as error:
            self.close(CloseCode.PROTOCOL, str(error), now)
            self._end(Failure.REFUSED, str(error))
        for event in events:
            if isinstance(event, Terminated):
                self._on_terminated(event)
        if inbox.bye is not None:
            self._end(Failure.ENDED, inbox.bye or "the server said goodbye")
        self.session.poll(now)
        if self.link.base_fails and self.ending is None:
            self.close(CloseCode.TOO_LARGE, path_mtu.BASE_FAILS, now)
            self._end(Failure.ENDED, self._socket.base_fails())
        expired = self.server_chain.expired(now) if self.server_chain is not None else None
        if expired is not None:
            self._refuse_server(expired, now)
        self._give_up(now)
        return inbox

    def _on_terminated(self, event: Terminated) -> None:
        failure, reason = Failure.ENDED, event.reason or f"closed with code {event.code}"
        # During the handshake QUIC hides the codes of applications (RFC 9000 section 10.2.3).
        unheard = event.by_peer and self.phase is Phase.HANDSHAKE and event.code == QuicErrorCode.APPLICATION_ERROR
        if event.by_peer and event.code == CloseCode.TOO_LARGE:
            self._socket.shortage = reason = path_mtu.base_fails(None, self._path.family)
        elif unheard:
            reason = self._no_answer
        elif self.phase is not Phase.REGISTERED and event.code != CloseCode.SHUTDOWN:
            failure = Failure.REFUSED
        elif event.by_peer and event.code == CloseCode.REPLACED:
            failure = Failure.REPLACED
        elif event.by_peer and event.code == CloseCode.HANDED_OVER:
            failure = Failure.HANDED_OVER
        self._end(failure, reason, unheard=unheard)

    def flush(self, now: float) -> None:
        """Send what may leave now."""
        out = self.link.flush(now)
        if not out:
            return
        datagrams = [datagram for datagram, _ in out]
        status = self._socket.send(datagrams)
        if status is SendStatus.TOO_LARGE:
            self.link.on_too_large(max(map(len, datagrams)), now)
        elif status is SendStatus.NO_DEVICE:
            self._end(Failure.LOCAL, "the device has gone")

    def timer(self, now: float) -> float | None:
        """When `advance` is due."""
        timers = [self.link.timer(), self.session.timer(now)]
        if self._registration is not None:
            timers.append(self._registration.deadline)
        if self.phase in (Phase.HANDSHAKE, Phase.REGISTERING):
            timers.append(self.silent_since + self._silence)
        return min((timer for timer in timers if timer is not None), default=None)

    def close(self, code: CloseCode, reason: str, now: float) -> None:
        """Tell the peer that this is the end. `release` closes the socket."""
        if self.session.active:
            self.session.send(Bye(reason=reason))
        # What waits on a stream isn't sent any more once the connection is closing: send it first.
        self.flush(now)
        self.link.close(code, reason)
        self.flush(now)

    def open_plane(self, grant: StripeGrant, pump: Pump) -> ClientStripe:
        """Open the striped data plane that the server has granted. OSError, ValueError."""
        request = self._request.stripe
        if request is None:
            raise ValueError("the server grants a striped session that nobody has requested")
        self.plane = plane = ClientStripe(self._config, self._path, request, grant, pump, self._own, self._kernel)
        plane.on_path_mtu = self._on_path_mtu
        plane.session.count_in(self.link.traffic)
        plane.session.limit_by(self.session.budget)
        self.session.plane = plane
        return plane

    def keep_to(self, own: tuple[str, ...]) -> None:
        """Take over the addresses that the device has now: nothing leaves any more from another one."""
        self._own = own
        mute_foreign([self.socket, *(self.plane.sockets if self.plane is not None else ())], own)

    def close_plane(self) -> None:
        """Close the striped data plane, if there is one."""
        if self.plane is not None:
            self.plane.close()
        self.plane = self.session.plane = None

    def end_if_revoked(self, revoked: Collection[int], now: float) -> bool:
        """End the connection if a certificate of the server is among `revoked` (serial numbers); return whether."""
        reason = self.server_chain.revoked(revoked) if self.server_chain is not None else None
        if reason is not None:
            self._refuse_server(reason, now)
        return reason is not None

    def _refuse_server(self, reason: str, now: float) -> None:
        self.close(CloseCode.REVOKED, "", now)
        self._end(Failure.REFUSED, reason)

    def release(self) -> None:
        """Close the sockets without a word."""
        self.phase = Phase.OVER
        self.close_plane()
        self._socket.close()

    def _register(self, now: float) -> None:
        certificate = self.link.server_certificate
        assert certificate is not None
        self.server_chain = ServerChain(self.link.server_chain, now)
        if self.end_if_revoked(self._identity.revoked, now):
            return
        self.phase = Phase.REGISTERING
        self._registration = ClientRegistration(
            self._request,
            self._identity.credentials,
            certificate,
            os.urandom,
            now,
            timeout=DEADLINE,
            release=RELEASE,
        )
        self.session.open_control()
        self._apply(self._registration.start(), now)

    def _talk(self, inbox: Inbox, now: float) -> None:
        registration = self._registration
        if registration is None or self.phase is not Phase.REGISTERING:
            return
        for _, message in inbox.messages:
            self._apply(registration.receive(message, now), now)
        self._apply(registration.poll(now), now)

    def _apply(self, outputs: list[Output], now: float) -> None:
        for output in outputs:
            if isinstance(output, Send):
                self.session.send_bytes(output.encode())
            elif isinstance(output, Welcomed):
                self.welcome = output.welcome
                self.peer_release = of_peer(output.welcome.release)
                self.phase = Phase.REGISTERED
                self._registration = None
                self.session.activate(now)
                if self._config.transport_mode == "reliable":
                    self.session.open_data()
            elif isinstance(output, Rejected):
                self.close(CloseCode.REFUSED, output.reason, now)
                if output.code in incarnation.CONFLICTS:
                    failure = Failure.IN_USE if output.code == RefuseCode.IN_USE else Failure.HANDED_OVER
                    reason = incarnation.words(output, self._identity.credentials, self._config.tunnel_name)
                    self._end(failure, reason, output.retry_after)
                    continue
                reason = f"{output.code}: {output.reason}"
                if output.code == RefuseCode.AUTHENTICATION:
                    # The server tells nothing more to whom it does not know.
                    reason += f": {credentials.own_problem(self._config.tls, dt.datetime.now(dt.UTC))}"
                self._end(Failure.REFUSED, reason, output.retry_after)

    def _fail(self, error: Exception) -> None:
        self.ending = Ending(Failure.ENDED, "internal error")
        self.phase = Phase.OVER
        if self.on_fault is None:
            raise error
        self.on_fault(error)

    def _give_up(self, now: float) -> None:
        if self.phase in (Phase.HANDSHAKE, Phase.REGISTERING) and now - self.silent_since >= self._silence:
            self._socket.look_for_shortage()
            self._end(Failure.SILENT, self._no_answer)

    def _on_path_mtu(self, mtu: int) -> None:
        self.link.on_path_mtu(mtu, path_mtu.version_of(self._path.family))

    def _end(self, failure: Failure, reason: str, retry_after: float | None = None, *, unheard: bool = False) -> None:
        if self.ending is None:
            self.ending = Ending(failure, reason, retry_after, unheard)
        self.phase = Phase.OVER


def _today() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
