"""Two ends of a striped session over a simulated link, with a virtual clock and a seed."""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mpquic.proto.packet.frame import BASE_HEADER_SIZE, Frame
from mpquic.proto.stripe.config import StripeConfig
from mpquic.proto.stripe.session import StripeSession
from mpquic.proto.stripe.wire import shard_number
from mpquic.proto.tunnel.reorder import ReorderBuffer

if TYPE_CHECKING:
    from mpquic.proto.path.path import FrameOrRun

SECRET = bytes(range(32))
SESSION = 0x5EC0DE01
UDP_OVERHEAD = 28


@dataclass
class LinkProfile:
    """One direction. Rate in bytes per second on the wire, times in seconds, shares 0.0 to 1.0.

    Packets above `mtu` bytes, IP header included, vanish beyond the bottleneck and nobody is told. What a pipe loses
    besides comes `pipe_burst` packets in a row on average (1.0: each by itself).
    """

    rate: float = 2.5e6
    delay: float = 0.015
    buffer: float = 0.1
    loss: float = 0.0
    jitter: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    pipe_rate: float | None = None
    mtu: int | None = None
    dead_pipes: set[int] = field(default_factory=set)
    pipe_loss: dict[int, float] = field(default_factory=dict)
    pipe_burst: float = 1.0
    pipe_delay: dict[int, float] = field(default_factory=dict)


class Link:
    """A queue with a rate, then a wire that loses. Loss comes after the bottleneck: what is lost has cost its time."""

    def __init__(self, profile: LinkProfile, rng: random.Random) -> None:
        self.profile = profile
        self._rng = rng
        self._busy_until = 0.0
        self._pipe_busy: dict[int, float] = {}
        self._arrivals: list[tuple[float, int, int, bytes]] = []
        self._count = 0
        self.sent = 0
        self.sent_bytes = 0
        self.tail_drops = 0
        self.too_large = 0
        self.pipe_shards: Counter[int] = Counter()
        self.pipe_lost: Counter[int] = Counter()
        """Of the shards of each pipe, those that were lost: not the copies that the network makes."""
        self._in_burst: set[int] = set()
        self.captured: deque[tuple[int, bytes]] = deque(maxlen=10_000)

    def send(self, pipe: int, datagram: bytes, now: float) -> None:
        profile, rng = self.profile, self._rng
        self.sent += 1
        self.sent_bytes += len(datagram) + UDP_OVERHEAD
        is_shard = shard_number(datagram) is not None
        self.pipe_shards[pipe] += is_shard
        if pipe in profile.dead_pipes or (pipe in profile.pipe_loss and self._loses(pipe)):
            self.pipe_lost[pipe] += is_shard
            return
        start = max(now, self._busy_until)
        if profile.pipe_rate is not None:
            start = max(start, self._pipe_busy.get(pipe, 0.0))
        if start - now > profile.buffer:
            self.tail_drops += 1
            self.pipe_lost[pipe] += is_shard
            return
        size = len(datagram) + UDP_OVERHEAD
        self._busy_until = max(now, self._busy_until) + size / profile.rate
        done = start + size / profile.rate
        if profile.pipe_rate is not None:
            done = self._pipe_busy[pipe] = start + size / profile.pipe_rate
        self.captured.append((pipe, datagram))
        if profile.mtu is not None and size > profile.mtu:
            self.too_large += 1
            return
        copies = 2 if rng.random() < profile.duplicate else 1
        for _ in range(copies):
            if rng.random() < profile.loss:
                self.pipe_lost[pipe] += is_shard and copies == 1
                continue
            arrival = done + profile.delay + profile.pipe_delay.get(pipe, 0.0) + profile.jitter * rng.random()
            if rng.random() < profile.reorder:
                arrival += 0.01 * rng.random()
            self._count += 1
            heapq.heappush(self._arrivals, (arrival, self._count, pipe, datagram))

    def _loses(self, pipe: int) -> bool:
        """E. N. Gilbert's model: nothing is lost outside of bursts, everything in one."""
        loss, burst = self.profile.pipe_loss[pipe], self.profile.pipe_burst
        bursts = self._in_burst
        leaves = 1 / burst if burst > 1 else 1 - loss
        enters = leaves * loss / (1 - loss) if burst > 1 else loss
        if self._rng.random() < (leaves if pipe in bursts else enters):
            bursts ^= {pipe}
        return pipe in bursts

    @property
    def next_arrival(self) -> float:
        return self._arrivals[0][0] if self._arrivals else float("inf")

    def receive(self, now: float) -> list[tuple[int, bytes]]:
        out = []
        while self._arrivals and self._arrivals[0][0] <= now:
            _, _, pipe, datagram = heapq.heappop(self._arrivals)
            out.append((pipe, datagram))
        return out


class Host:
    """One end with a source of frames and a memory of what arrived. Frames have `frame_size` bytes, or what fits."""

    def __init__(self, session: StripeSession, out: Link, incoming: Link) -> None:
        self.session = session
        self.out = out
        self.incoming = incoming
        self.next_sequence = 0
        self.backlog = 0
        self.traffic_class = 1
        self.frame_size = 1380
        self.sizes: dict[int, int] = {}
        self.tcp = False
        self.order = ReorderBuffer()
        """The tunnel's, behind the session."""
        self.out_of_order = 0
        self.last_new = -1
        self.received: dict[int, float] = {}
        self.received_bytes = 0
        self.repeats = 0
        self.sent_at: list[float] = []
        self.latencies: list[float] = []

    def _payload(self, sequence: int) -> bytes:
        return (_segment if self.tcp else _datagram)(sequence, self.sizes.get(sequence, self.frame_size))

    def offer(self, count: int) -> None:
        """Put frames into the queue in front of the session."""
        self.backlog += count

    def pump(self, now: float) -> None:
        while self.backlog:
            budget = self.session.budget(now)
            if budget <= 0:
                break
            size = min(self.frame_size, self.session.frame_capacity - BASE_HEADER_SIZE)
            count = min(self.backlog, max(1, budget // size), 64)
            self.sizes.update(dict.fromkeys(range(self.next_sequence, self.next_sequence + count), size))
            frames = [
                Frame(
                    self._payload(self.next_sequence + place),
                    self.traffic_class,
                    self.next_sequence + place,
                )
                for place in range(count)
            ]
            taken = self.session.send(frames, now)
            self.next_sequence += taken
            self.sent_at += [now] * taken
            self.backlog -= taken
            if taken < count:
                break
        self.transmit(now)

    def transmit(self, now: float) -> None:
        for pipe, _, datagrams in self.session.take_outgoing():
            for datagram in datagrams:
                self.out.send(pipe, datagram, now)

    def hear(self, now: float, peer: Host) -> None:
        for pipe, datagram in self.incoming.receive(now):
            address = ("192.0.2.1", 40000 + pipe) if not self.session.client else None
            self.take(self.ordered(self.session.receive([(datagram, len(datagram), address)], now), now), now, peer)

    def ordered(self, frames: list[FrameOrRun], now: float) -> list[FrameOrRun]:
        """Return what goes on of what the session has brought."""
        return self.order.add(frames, now, self.session.repair_time(self.traffic_class, now))

    def take(self, frames: list[Frame], now: float, peer: Host) -> None:
        for frame in frames:
            assert frame.payload == peer._payload(frame.sequence)
            if frame.sequence in self.received:
                self.repeats += 1
            else:
                self.out_of_order += bool(self.received) and frame.sequence != self.last_new + 1
                self.last_new = frame.sequence
                self.received[frame.sequence] = now
                self.received_bytes += len(frame.payload)
                if frame.sequence < len(peer.sent_at):
                    self.latencies.append(now - peer.sent_at[frame.sequence])


def _datagram(sequence: int, size: int) -> bytes:
    return (b"\x45\0" + size.to_bytes(2, "big") + sequence.to_bytes(8, "big")).ljust(size, b"\x5a")


def _segment(sequence: int, size: int) -> bytes:
    """A segment of one TCP connection that sends equal pieces."""
    head = b"\x45\0" + size.to_bytes(2, "big") + bytes((0, 0, 0, 0, 64, 6)) + bytes(10) + b"\x14\x51\x14\x51"
    return (head + (sequence * (size - 40) % 2**32).to_bytes(4, "big") + bytes((0, 0, 0, 0, 0x50, 0x10))).ljust(
        size, b"\0"
    )


class Duplex:
    """A client and a server. `run` advances time to the next event, and again, for so many seconds."""

    def __init__(
        self,
        seed: int = 1,
        *,
        config: StripeConfig | None = None,
        up: LinkProfile | None = None,
        down: LinkProfile | None = None,
    ) -> None:
        self.rng = random.Random(seed)
        self._tokens = random.Random(seed)
        self.now = 100.0
        self.config = config or StripeConfig()
        self.up = Link(up or LinkProfile(), self.rng)
        self.down = Link(down or replace(self.up.profile, loss=0.0), self.rng)
        self.client = Host(self._session(client=True), self.up, self.down)
        self.server = Host(self._session(client=False), self.down, self.up)

    def _session(self, session: int = SESSION, secret: bytes = SECRET, *, client: bool) -> StripeSession:
        return StripeSession(self.config, session, secret, self.now, client=client, entropy=self._tokens.randbytes)

    def restart(self, session: int, secret: bytes) -> None:
        """Both ends get a new session from the control connection; what is on the wire stays there."""
        self.client.session = self._session(session, secret, client=True)
        self.server.session = self._session(session, secret, client=False)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        hosts = (self.client, self.server)
        while True:
            for host in hosts:
                host.transmit(self.now)
            times = [self.up.next_arrival, self.down.next_arrival]
            for host in hosts:
                due = host.session.next_time(self.now)
                times += [time for time in (due, host.order.next_time()) if time is not None]
                if host.backlog:
                    may = host.session.sender.send_time(self.now)
                    if may is not None:
                        times.append(may)
            # Timers of a real loop are late; half a millisecond also bounds the work of a run.
            self.now = max(min(times), self.now + 0.0005)
            if self.now >= end:
                self.now = end
                return
            self.client.hear(self.now, self.server)
            self.server.hear(self.now, self.client)
            for host in hosts:
                host.session.poll(self.now)
                host.take(host.order.expire(self.now), self.now, self.server if host is self.client else self.client)
                host.pump(self.now)

    def run_until_ready(self, limit: float = 10.0) -> None:
        end = self.now + limit
        while not (self.client.session.ready(self.now) and self.server.session.ready(self.now)):
            assert self.now < end, "the session did not come up"
            self.run(0.01)
