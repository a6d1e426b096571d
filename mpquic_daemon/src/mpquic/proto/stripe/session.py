"""One end of a striped session, a data plane of the tunnel: both halves, their pipes, reports and keepalives.

Sans-IO: datagrams and time come in, runs of datagrams with their pipe go out. A restarted end makes a new session, with
an id and a secret that the control connection hands out; nothing outlives the object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.proto.congestion.algorithms import controller_class
from mpquic.proto.packet.frame import LOW_LATENCY
from mpquic.proto.path.memory import MemoryBudget
from mpquic.proto.path.path import PathState
from mpquic.proto.path.traffic import Traffic
from mpquic.proto.stripe.config import check_datagram_size
from mpquic.proto.stripe.control import Control, Outgoing
from mpquic.proto.stripe.keys import KeyLimitError, Opener, Sealer, direction_secret
from mpquic.proto.stripe.pipes import Pipes
from mpquic.proto.stripe.receiver import StripeReceiver
from mpquic.proto.stripe.sender import StripeSender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mpquic.proto.congestion.controller import Controller
    from mpquic.proto.path.budget import PathBudget
    from mpquic.proto.path.estimators import PathEstimators
    from mpquic.proto.path.path import FrameOrRun
    from mpquic.proto.stripe.config import StripeConfig
    from mpquic.proto.stripe.receiver import ControlPacket, Datagrams

_INITIAL_RTT = 0.1
SLEPT = 1.0
"""Seconds by which a call is late after which this process, or its machine, has slept meanwhile."""


def within(frames: Sequence[FrameOrRun], budget: int) -> Sequence[FrameOrRun]:
    """Return the first frames until they have used up a budget in bytes; the last may overshoot it."""
    taken = size = 0
    for frame in frames:
        if size >= budget:
            break
        size += frame.size
        taken += 1
    return frames[:taken]


def repair_time(traffic_class: int, rtt: float) -> float:
    """Seconds in which a lost shard of a class comes again: as long as the peer is likely to repeat it."""
    return 3 * rtt + 0.01 if traffic_class & LOW_LATENCY else min(1.0, 8 * rtt + 0.05)


class StripeSession:
    """One end. Implements `mpquic.proto.path.data_plane.DataPlane`: `state` is set by whoever asks if it is `ready`.

    `client` asks on its pipes and the server learns their addresses. `entropy` returns random octets.

    Usage: `receive` what arrives, `poll` when `next_time` says, `send` while `budget` is positive; after any of them
    send what `take_outgoing` returns. `close` when it is over.

    With `config.initial_datagram_size` it finds out what the path carries (`pmtu`, with its state and size), and
    `frame_capacity` follows. Datagrams must then leave unfragmented and unjudged by the kernel's own idea of the path
    (IP_PMTUDISC_PROBE), and a refusal of the kernel goes to `on_too_large`.
    """

    reliable = False
    takes_runs = True

    def __init__(
        self,
        config: StripeConfig,
        session: int,
        secret: bytes,
        now: float,
        *,
        client: bool,
        entropy: Callable[[int], bytes],
        controller: Callable[[int, float], Controller] | None = None,
        memory: MemoryBudget | None = None,
    ) -> None:
        self.config = config
        self.name = "stripe"
        """That of its path, where it has one."""
        self.state = PathState.DOWN
        self.frames_sent = 0
        self._share: PathBudget | None = None
        """What the path's share of its WAN allows; None without a limit, which nothing is asked on the way."""
        self.session = session
        self.client = client
        self.pipes = Pipes(config.pipes, now, client=client, entropy=entropy)
        self._sealer = Sealer(config.suite, direction_secret(secret, from_client=client), session, now)
        self._opener = Opener(config.suite, direction_secret(secret, from_client=not client))
        make = controller or controller_class(config.congestion_algorithm, "bbr")
        self.sender = StripeSender(config, self._sealer, self.pipes, make(config.datagram_size, now), now)
        self.pmtu = self.sender.pmtu
        self.memory = memory if memory is not None else MemoryBudget()
        """The budget of the peer, of which this session may be one of several."""
        self.receiver = StripeReceiver(session, self._opener, self.pipes, extend=self.memory.extend)
        self.memory.add(self.receiver.decoder)
        self.memory.join(self)
        self.control = Control(self._sealer, self._opener, self.pipes, self.sender, self.receiver, client=client)
        self.traffic = Traffic()
        """What it has sent and received; that of its path as soon as there is one."""
        self.heard_at = now
        self._due = float("inf")
        """When `poll` was to be called at the latest."""
        self.exhausted = False
        """True when an epoch is used up and unconfirmed: the control connection has to hand out a new session."""

    @property
    def round_trip_at(self) -> float | None:
        """When the peer last answered, reported, or said that it is answered: proof that both directions work."""
        return self.control.round_trip_at

    @property
    def rtt(self) -> float | None:
        """Smoothed round-trip time in seconds: by reports, or by keepalives of the pipes; None before the first."""
        if self.sender.recovery.rtt.smoothed is not None:
            return self.sender.recovery.rtt.smoothed
        return min((pipe.rtt.smoothed for pipe in self.pipes.all if pipe.rtt.smoothed is not None), default=None)

    @property
    def estimators(self) -> PathEstimators:
        """Round-trip time and loss of the path, which other planes may feed as well."""
        return self.sender.recovery.estimators

    @estimators.setter
    def estimators(self, estimators: PathEstimators) -> None:
        self.sender.recovery.estimators = estimators

    @property
    def epochs(self) -> tuple[int, int]:
        """Key epochs of sending and receiving."""
        return self._sealer.epoch, self._opener.epoch

    @property
    def frame_capacity(self) -> int:
        """Largest encoded frame in bytes that one datagram takes now."""
        return self.sender.shard_capacity

    @property
    def loss(self) -> float:
        """Share of shards that the path loses, repaired or not, 0.0 to 1.0."""
        return self.sender.recovery.loss.loss

    @property
    def rate(self) -> float:
        """Bytes per second that the path delivers, 0.0 while unknown."""
        return self.sender.controller.bandwidth

    def unacknowledged(self, since: float) -> list[FrameOrRun]:
        """Return what was sent since then and isn't known to have arrived, in order."""
        return self.sender.unacknowledged(since)

    def repair_time(self, traffic_class: int, now: float) -> float:
        """Seconds in which it may yet bring what it has lost of a class; 0.0 while nothing is missing."""
        time = repair_time(traffic_class, self.rtt or _INITIAL_RTT)
        return time if now - self.receiver.gap_at < time else 0.0

    def limit_kept(self, in_flight_bytes: int, lost: int) -> None:
        """Keep no more than so many bytes on their way, and so many lost shards."""
        self.sender.max_in_flight = in_flight_bytes
        self.sender.recovery.arq.max_shards = lost

    def close(self) -> None:
        """Leave the budget of the peer to others; doing it again is no error."""
        self.memory.remove(self.receiver.decoder)
        self.memory.leave(self)

    def count_in(self, traffic: Traffic) -> None:
        """Count what is sent and received in `traffic` from now on, with what has been counted here so far."""
        traffic.add(self.traffic)
        self.traffic = traffic

    def resize(self, datagram_size: int) -> None:
        """The path carries UDP payloads of another size from now on. Copies of larger shards are not made any more.

        Discovery calls this; without it, whoever knows the path does.

        Raises:
            ValueError: it is out of range.
        """
        check_datagram_size(datagram_size)
        self.sender.datagram_size = datagram_size

    def on_too_large(self, size: int, now: float) -> None:
        """The kernel refused a datagram of `size` bytes (EMSGSIZE; of a run with GSO its segment size)."""
        self.pmtu.on_too_large(size, now)
        self.control.follow_path(now)

    def on_path_mtu(self, size: int) -> None:
        """ICMP says that the path carries UDP payloads of `size` bytes at most: a reason to look, no more."""
        self.pmtu.on_hint(size)

    def ready(self, now: float) -> bool:
        """True when at least one pipe carries, or is about to."""
        return bool(self.pipes.alive(now)) and not self.exhausted and not self.pipes.obstructed(now)

    def idle(self, now: float) -> bool:
        """True when nothing authentic has come for the idle timeout."""
        return now - self.heard_at - self._sleep(now) >= self.config.idle_timeout

    def _sleep(self, now: float) -> float:
        """Seconds for which this process has slept since it was to be called; 0.0 while it is on time."""
        late = now - self._due
        return late if late > SLEPT else 0.0

    def _notice_sleep(self, now: float) -> None:
        """What wasn't heard while this process slept is no silence of the peer."""
        slept = self._sleep(now)
        if slept:
            self._due = float("inf")
            self.heard_at = min(now, self.heard_at + slept)
            self.pipes.slept(slept, now)

    def limit_by(self, budget: PathBudget) -> None:
        """Send no more than the path's share of its WAN allows."""
        self._share = budget if budget.share is not None else None

    def next_allowance(self, now: float) -> float | None:
        """When the share of the WAN allows sending again; None when it isn't what packets wait for."""
        return None if self._share is None else self._share.next_allowance(now)

    def budget(self, now: float) -> int:
        """Bytes of encoded frames that may be handed over now."""
        room = 0 if self.exhausted else self.sender.budget(now)
        return room if room <= 0 or self._share is None else self._share.allowance(room, now)

    def send_time(self, now: float) -> float | None:
        """When `budget` is positive again as far as pacing knows; None when only a report can make it so."""
        return None if self.exhausted else self.sender.send_time(now)

    def send(self, frames: Sequence[FrameOrRun], now: float) -> int:
        """Take frames in order while the budget lasts; returns how many. Frames above `frame_capacity` are dropped."""
        if self.exhausted:
            return 0
        share = self._share
        if share is not None:
            frames = within(frames, self.budget(now))
        self.pipes.busy(now)
        try:
            sent = self.sender.send(frames, now)
        except KeyLimitError:
            self.exhausted = True
            return 0
        if share is not None:
            share.spend(sum([frame.size for frame in frames[:sent]]))
        self.frames_sent += sent
        return sent

    def receive(self, batch: Iterable[Datagrams], now: float) -> list[FrameOrRun]:
        """Take what some reads gave; return frames for the tunnel.

        Frames have the low 32 bits of their sequence number, and may repeat: the tunnel's window tells.
        """
        if now > self._due:
            self._notice_sleep(now)
        self.pipes.now = now
        frames, control = self.receiver.receive(batch, now)
        self.traffic.received(self.receiver.datagrams, self.receiver.octets)
        if frames or control:
            self.heard_at = now
        if frames:
            self.pipes.busy(now)
        if control or self.pipes.unproven:
            self._answer(control, now)
        return frames

    def poll(self, now: float) -> None:
        """Do what time asks for."""
        self._notice_sleep(now)
        self.receiver.decoder.expire(now)
        self._opener.expire(now)
        if not self.exhausted:
            self._poll(now)

    def _answer(self, control: list[ControlPacket], now: float) -> None:
        try:
            for packet in control:
                self.control.take(packet, now)
            if self.pipes.unproven:
                self.control.challenge(now, self.rtt or 0.0)
        except KeyLimitError:
            self.exhausted = True

    def _poll(self, now: float) -> None:
        try:
            self.sender.poll(now)
            self.control.poll(now, self.rtt)
        except KeyLimitError:
            self.exhausted = True

    def ask(self, now: float) -> None:
        """Have the peer reply on each pipe that carries, as either end may."""
        try:
            self.control.ask(now)
        except KeyLimitError:
            self.exhausted = True

    def next_time(self, now: float) -> float | None:
        """When `poll` is due; None when only a datagram can change anything."""
        due = self._next_time(now)
        self._due = float("inf") if due is None else due
        return due

    def _next_time(self, now: float) -> float | None:
        if self.exhausted:
            return None
        times = [
            time
            for time in (
                self.sender.next_time(now),
                self.pipes.next_time(now),
                self.receiver.reporter.next_time() if self.pipes.alive(now) else None,
                # Probes go where shards go: not to an address that is yet to prove itself.
                self.pmtu.due_at if self.pipes.carrying(now) else None,
            )
            if time is not None
        ]
        return max(now, min(times)) if times else None

    def take_outgoing(self) -> list[Outgoing]:
        """Return what is to leave, in order; nothing is kept."""
        outgoing = self.control.take_outgoing()
        for number, _, datagrams in outgoing:
            octets = sum(map(len, datagrams))
            meter = self.pipes.all[number].sending
            meter.control += len(datagrams)
            meter.octets += octets
            self.traffic.sent(len(datagrams), octets)
        for pipe, datagrams in self.sender.take_outgoing():
            octets = sum(map(len, datagrams))
            meter = pipe.sending
            meter.shards += len(datagrams)
            meter.octets += octets
            self.traffic.sent(len(datagrams), octets)
            address = pipe.address if pipe.unproven is None else self.pipes.route(pipe, octets)
            outgoing.append(Outgoing(pipe.number, address, datagrams))
        return outgoing
