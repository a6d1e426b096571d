"""Two ends of a tunnel in memory, joined by a simulated WAN, with a virtual clock and a seed.

Everything between TUN and wire is the real protocol: registration, liveness, frames, queues. Only sockets, QUIC and the
kernel are played: a datagram may be lost, reordered or doubled by the WAN; a stream is what QUIC makes of the same WAN,
complete and in order but late.
"""

from __future__ import annotations

import datetime as dt
import heapq
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mpquic.proto.control.client_registration import ClientRegistration, RegistrationRequest
from mpquic.proto.control.groups import GroupTable, Registration
from mpquic.proto.control.handshake import Admitted, Output, Rejected, Send, Welcomed
from mpquic.proto.control.identity import ChainVerifier, Identity
from mpquic.proto.control.messages import ControlDecoder, Message, Register, Welcome
from mpquic.proto.control.messages import encode as encode_message
from mpquic.proto.control.peers import PeerRule, PeerTable
from mpquic.proto.control.prefix import parse_prefix
from mpquic.proto.control.server_registration import ServerRegistration
from mpquic.proto.packet.frame import FrameStreamDecoder, encode_frames
from mpquic.proto.path.backoff import Backoff
from mpquic.proto.path.liveness import Liveness
from mpquic.proto.path.path import PathState
from mpquic.proto.path.probe import decode, is_probe
from mpquic.proto.tunnel.receiver import TunnelReceiver
from mpquic.proto.tunnel.scheduler import FailoverScheduler
from mpquic.proto.tunnel.sender import TunnelSender

from .pki import CA, CLIENT, NOW, SERVER, SITE1
from .recording import path_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mpquic.proto.packet.frame import Frame

TICK = 0.01
RETRANSMISSION = 0.2
INNER = ("10.200.5.1/32", "fd00::1/128")


@dataclass
class LinkProfile:
    """What the WAN does to packets in one direction. Times in seconds, shares 0.0 to 1.0, rate in bytes per second."""

    delay: float = 0.03
    jitter: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    cut: bool = False
    rate: float = 5e6


class Wire:
    """One direction of one connection."""

    def __init__(self, profile: LinkProfile, rng: random.Random) -> None:
        self.profile = profile
        self._rng = rng
        self._datagrams: list[tuple[float, int, bytes]] = []
        self._streams: dict[str, list[tuple[float, bytes]]] = {"control": [], "data": []}
        self._counter = 0

    def send_datagram(self, data: bytes, now: float) -> None:
        profile = self.profile
        if profile.cut:
            return
        copies = 2 if self._rng.random() < profile.duplicate else 1
        for _ in range(copies):
            if self._rng.random() >= profile.loss:
                self._counter += 1
                arrival = now + profile.delay + profile.jitter * self._rng.random()
                heapq.heappush(self._datagrams, (arrival, self._counter, data))

    def send_stream(self, name: str, data: bytes, now: float) -> None:
        queue, profile = self._streams[name], self.profile
        arrival = now + profile.delay + profile.jitter * self._rng.random()
        while self._rng.random() < profile.loss:
            arrival += RETRANSMISSION
        queue.append((max(arrival, queue[-1][0] if queue else 0.0), data))

    def datagrams(self, now: float) -> list[bytes]:
        out = []
        while self._datagrams and self._datagrams[0][0] <= now:
            out.append(heapq.heappop(self._datagrams)[2])
        return [] if self.profile.cut else out

    def stream(self, name: str, now: float) -> bytes:
        queue, out = self._streams[name], b""
        while queue and queue[0][0] <= now and not self.profile.cut:
            out += queue.pop(0)[1]
        return out


class SimulatedPath:
    """A `Path` over a wire, in either mode, with a token bucket in place of a congestion window."""

    def __init__(self, name: str, wire: Wire, liveness: Liveness, *, reliable: bool, capacity: int) -> None:
        self.name = name
        self.reliable = reliable
        self.takes_runs = False
        self.frame_capacity = capacity
        self.open = True
        self._wire = wire
        self._liveness = liveness
        self._tokens = 0.0
        self._filled_at = 0.0

    @property
    def state(self) -> PathState:
        return self._liveness.state if self.open else PathState.DOWN

    @property
    def rtt(self) -> float | None:
        return self._liveness.rtt.smoothed

    @property
    def loss(self) -> float:
        return self._liveness.loss

    @property
    def rate(self) -> float:
        return self._wire.profile.rate

    def unacknowledged(self, since: float) -> list[Frame]:
        del since
        return []

    def repair_time(self, traffic_class: int, now: float) -> float:
        del traffic_class, now
        return 0.0

    def budget(self, now: float) -> int:
        rate = self._wire.profile.rate
        self._tokens = min(rate * 0.05, self._tokens + (now - self._filled_at) * rate)
        self._filled_at = now
        return int(self._tokens)

    def send(self, frames: Sequence[Frame], now: float) -> int:
        taken = 0
        for frame in frames:
            if self._tokens <= 0:
                break
            self._tokens -= frame.size
            taken += 1
            if self.reliable:
                self._wire.send_stream("data", encode_frames([frame]), now)
            else:
                assert frame.size <= self.frame_capacity
                self._wire.send_datagram(encode_frames([frame]), now)
        return taken


@dataclass
class Half:
    """One end of one connection."""

    out: Wire
    path: SimulatedPath
    liveness: Liveness
    handshake: ClientRegistration | ServerRegistration
    control: ControlDecoder = field(default_factory=ControlDecoder)
    data: FrameStreamDecoder = field(default_factory=FrameStreamDecoder)
    registered: bool = False
    closed: bool = False

    def __post_init__(self) -> None:
        self.wan = path_of(self.path)

    def send(self, message: Message, message_id: int, now: float) -> None:
        self.out.send_stream("control", encode_message(message, message_id), now)


@dataclass
class Connection:
    number: int
    client: Half
    server: Half


class Pair:
    """A client and a server that keep one tunnel up, whatever the links do. `run` advances time."""

    def __init__(self, seed: int = 0, *, reliable: bool = False, capacity: int = 1420) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.reliable = reliable
        self.capacity = capacity
        self.up = LinkProfile()
        self.down = LinkProfile()
        self.groups: GroupTable[int] = GroupTable(self.rng.randbytes)
        self.connections: dict[int, Connection] = {}
        self.backoff = Backoff(self.rng)
        self.epoch = 0
        self.retry_at: float | None = 0.0
        self.session = b""
        self.server_session = b""
        self.client_state: list[tuple[float, PathState]] = [(0.0, PathState.DOWN)]
        self.client_schedule, self.server_schedule = FailoverScheduler(), FailoverScheduler()
        self.client_sender, self.client_receiver = TunnelSender(self.client_schedule), TunnelReceiver()
        self.server_sender = TunnelSender(self.server_schedule)
        self.server_receiver = TunnelReceiver(permits=self._permits)
        self.at_client: list[bytes] = []
        self.at_server: list[bytes] = []
        self._peers = PeerTable([PeerRule(SITE1, "mpq5", tuple(parse_prefix(text) for text in INNER))])
        self._verifier = ChainVerifier([CA.certificate])

    def run(self, seconds: float) -> None:
        """Advance the virtual clock."""
        end = self.now + seconds
        while self.now < end - TICK / 2:
            self.now += TICK
            self._tick()

    def run_until_up(self, limit: float = 30.0) -> None:
        end = self.now + limit
        while self.state is not PathState.UP:
            assert self.now < end, "the tunnel did not come up"
            self.run(TICK)

    @property
    def state(self) -> PathState:
        """State of the tunnel as the client sees it."""
        return max(
            (one.client.path.state for one in self.connections.values() if one.client.registered),
            key=lambda state: (state is PathState.UP, state is PathState.SUSPECT),
            default=PathState.DOWN,
        )

    def _permits(self, source: bytes) -> bool:
        return self.groups.owner_of(source) is not None

    def _tick(self) -> None:
        now = self.now
        if self.retry_at is not None and now >= self.retry_at:
            self.retry_at = None
            self._connect()
        for connection in list(self.connections.values()):
            self._serve(connection)
        self.client_sender.flush(now)
        self.server_sender.flush(now)
        if self.client_state[-1][1] is not self.state:
            self.client_state.append((now, self.state))

    def _connect(self) -> None:
        now = self.now
        self.epoch += 1
        number = self.epoch
        up, down = Wire(self.up, self.rng), Wire(self.down, self.rng)
        halves = []
        request = RegistrationRequest("mpq5", "wan5", b"b" * 16, self.epoch, INNER)
        for wire in (up, down):
            liveness = Liveness(now, probes=wire is up)
            path = SimulatedPath("wan5", wire, liveness, reliable=self.reliable, capacity=self.capacity)
            handshake: ClientRegistration | ServerRegistration
            if wire is up:
                handshake = ClientRegistration(
                    request, CLIENT.credentials(), SERVER.der, self.rng.randbytes, now, timeout=3.0
                )
            else:

                def admit(identity: Identity, register: Register) -> Welcome:
                    return self._admit(number, identity, register)

                handshake = ServerRegistration(
                    self._verifier, SERVER.der, admit, self._wall_clock, self.rng.randbytes, now
                )
            halves.append(Half(wire, path, liveness, handshake))
        client, server = halves
        self.connections[number] = Connection(number, client, server)
        assert isinstance(client.handshake, ClientRegistration)
        self._perform(self.connections[number], client, client.handshake.start())

    def _wall_clock(self) -> dt.datetime:
        return NOW + dt.timedelta(seconds=self.now)

    def _admit(self, number: int, identity: Identity, register: Register) -> Welcome:
        _, prefixes = self._peers.authorize(identity.uri, register.tunnel, register.inner)
        wish = Registration(identity.uri, register.tunnel, register.path, register.boot_id, register.epoch, prefixes)
        joined = self.groups.register(wish, number, self.now)
        for handle in joined.replaced:
            self._close_server(self.connections[handle])
        if joined.new_session:
            self.server_sender.restart()
            self.server_receiver.restart()
        return Welcome(session=joined.group.session, inner=register.inner)

    def _serve(self, connection: Connection) -> None:
        now = self.now
        for half, incoming in ((connection.client, connection.server.out), (connection.server, connection.client.out)):
            if half.closed:
                continue
            outputs = half.handshake.poll(now)
            for _, message in half.control.feed(incoming.stream("control", now)):
                half.liveness.on_receive(now)
                outputs += half.handshake.receive(message, now)
            self._perform(connection, half, outputs)
            if half.closed or not half.registered:
                continue
            self._carry(half, incoming, client=half is connection.client)
            for probe in half.liveness.poll(now):
                half.out.send_datagram(probe.encode(), now)
            if half.liveness.answered and half.liveness.state is PathState.DOWN:
                # As a daemon goes on to do: it tells that it hears nothing.
                half.out.send_datagram(half.liveness.probe(now).encode(), now)
                if half is connection.client:
                    self._close_client(connection)
                else:
                    self._close_server(connection)
        if connection.client.closed and connection.server.closed:
            del self.connections[connection.number]

    def _carry(self, half: Half, incoming: Wire, *, client: bool) -> None:
        receiver, sink = (self.client_receiver, self.at_client) if client else (self.server_receiver, self.at_server)
        datagrams = incoming.datagrams(self.now)
        for found in map(decode, filter(is_probe, datagrams)):
            assert found is not None
            reply = half.liveness.on_probe(found, self.now)
            if reply is not None:
                half.out.send_datagram(reply.encode(), self.now)
        if self.reliable:
            writes = receiver.receive(half.data.feed(incoming.stream("data", self.now)), self.now)
        else:
            writes = receiver.receive_datagrams([each for each in datagrams if not is_probe(each)], self.now)
        if writes:
            half.liveness.on_receive(self.now)
        sink.extend(b"".join(write) for write in writes)

    def _perform(self, connection: Connection, half: Half, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Send):
                half.send(output.message, output.message_id, self.now)
            elif isinstance(output, Welcomed):
                half.registered = True
                self.backoff.connected(self.now)
                if output.welcome.session != self.session:
                    self.session = output.welcome.session
                    self.client_sender.restart()
                    self.client_receiver.restart()
                self.client_schedule.add(half.wan)
            elif isinstance(output, Admitted):
                half.registered = True
                self.server_schedule.add(half.wan)
            elif isinstance(output, Rejected):
                if half is connection.client:
                    self._close_client(connection)
                else:
                    self._close_server(connection)

    def _close_client(self, connection: Connection) -> None:
        connection.client.closed = True
        connection.client.path.open = False
        self.client_schedule.remove(connection.client.wan)
        self.retry_at = self.now + self.backoff.next_delay(self.now)

    def _close_server(self, connection: Connection) -> None:
        connection.server.closed = True
        connection.server.path.open = False
        self.server_schedule.remove(connection.server.wan)
        self.groups.remove(connection.number)
