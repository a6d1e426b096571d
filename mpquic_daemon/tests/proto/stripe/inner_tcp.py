"""A TCP connection inside a striped session, as a Linux host drives it: CUBIC, HyStart, SACK, RACK, Eifel, timeouts.

It is a model for the virtual clock of `duplex`: windows in segments, times in seconds. What the kernel does besides
(delayed acknowledgements, undo by DSACK, F-RTO, tail loss probes) is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from struct import Struct
from typing import TYPE_CHECKING

from mpquic.proto.packet.superframe import Packet
from mpquic.proto.path.path import PathState
from mpquic.proto.tunnel.scheduler import FailoverScheduler
from mpquic.proto.tunnel.sender import TunnelSender

from ..recording import path_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mpquic.proto.path.path import FrameOrRun
    from mpquic.proto.stripe.session import StripeSession

    from .duplex import Duplex

_STAMP = Struct("!d")
_CLASS = 0
MSS = 1348
HEADERS = 52
INITIAL_WINDOW = 10
BETA, SCALE = 0.7, 0.4
BURST = 3
"""Segments of a superframe at the rates that this is for."""
MIN_TIMEOUT = 0.2
SEND_BUFFER = 3000


def _packet(sequence: int, length: int, *, back: bool = False) -> bytes:
    size = HEADERS + length
    ports = b"\x14\x51\x14\x52" if back else b"\x14\x52\x14\x51"
    head = b"\x45\0" + size.to_bytes(2, "big") + bytes((0, 0, 0, 0, 64, 6)) + bytes(10) + ports
    return (head + (sequence % 2**32).to_bytes(4, "big") + bytes((0, 0, 0, 0, 0x80, 0x10))).ljust(size, b"\0")


class Cubic:
    """Window and threshold in segments, after RFC 9438 and Linux's tcp_cubic.c (HyStart: delay and train of ACKs)."""

    def __init__(self) -> None:
        self.window = float(INITIAL_WINDOW)
        self.threshold = float("inf")
        self.reductions = 0
        self._most = 0.0
        self._epoch: float | None = None
        self._origin = self._period = self._friendly = 0.0
        self._delay_min = float("inf")
        self._round_end = 0
        self._round_at = self._last_ack = 0.0
        self._round_delay = float("inf")
        self._samples = 0

    @property
    def delay_min(self) -> float:
        """Least round trip seen."""
        return self._delay_min

    def on_ack(self, segments: int, rtt: float, now: float, *, acked: int, sent: int, limited: bool) -> None:
        self._delay_min = min(self._delay_min, rtt)
        if self.window < self.threshold:
            self._hystart(rtt, now, acked, sent)
        if not limited:
            return
        if self.window < self.threshold:
            step = min(float(segments), self.threshold - self.window)
            self.window += step
            segments -= int(step)
        if segments > 0:
            self._avoid(segments, now)

    def _hystart(self, rtt: float, now: float, acked: int, sent: int) -> None:
        if acked > self._round_end:
            self._round_end, self._round_at, self._last_ack = sent, now, now
            self._round_delay, self._samples = float("inf"), 0
        if self.window < 16:
            return
        found = False
        if now - self._last_ack <= 0.002:
            self._last_ack = now
            found = now - self._round_at > self._delay_min / 2
        self._round_delay = min(self._round_delay, rtt)
        if self._samples < 8:
            self._samples += 1
        else:
            found = found or self._round_delay > self._delay_min + min(max(self._delay_min / 8, 0.004), 0.016)
        if found:
            self.threshold = self.window

    def _avoid(self, segments: int, now: float) -> None:
        if self._epoch is None:
            self._epoch = now
            self._friendly = self.window
            if self.window < self._most:
                self._period = ((self._most - self.window) / SCALE) ** (1 / 3)
                self._origin = self._most
            else:
                self._period, self._origin = 0.0, self.window
        target = self._origin + SCALE * (now + self._delay_min - self._epoch - self._period) ** 3
        self._friendly += segments * 3 * (1 - BETA) / (1 + BETA) / self.window
        pace = (target - self.window) / self.window if target > self.window else 0.01 / self.window
        if self._friendly > self.window:
            pace = max(pace, (self._friendly - self.window) / self.window)
        self.window += segments * min(pace, 0.5)

    def on_loss(self) -> None:
        self.reductions += 1
        self._most = self.window * (1 + BETA) / 2 if self.window < self._most else self.window
        self._epoch = None
        self.window = self.threshold = max(2.0, self.window * BETA)

    def on_timeout(self) -> None:
        self.on_loss()
        self.window = 1.0

    def undo(self, window: float, threshold: float) -> None:
        """The loss was none."""
        self.window, self.threshold = max(self.window, window), max(self.threshold, threshold)


@dataclass
class _Sent:
    at: float
    lost: bool = False
    again: bool = False
    sacked: bool = False


@dataclass
class _Ack:
    """Cumulative and selective acknowledgement, and the time stamp that it returns."""

    number: int
    sacked: tuple[int, ...]
    echo: float


@dataclass
class InnerTcp:
    """Both ends of a connection from the duplex's client to its server, and the tunnel's queue in front of the path."""

    duplex: Duplex
    cubic: Cubic = field(default_factory=Cubic)
    delivered: int = 0
    """Segments that the receiver has in order."""
    sent_again: int = 0
    timeouts: int = 0

    def __post_init__(self) -> None:
        duplex = self.duplex
        self._up, self._down = (self._tunnel(host.session) for host in (duplex.client, duplex.server))
        self.queue = self._up.queues[_CLASS]
        self._flight: dict[int, _Sent] = {}
        self._next = self._una = self._recover = 0
        self._in_recovery = self._timed_out = False
        self._before = (0.0, 0.0)
        self._again_at = -1.0
        """When something was sent again for the first time in this recovery."""
        self._reduced_delivered = self._reduced_out = self._reduced_from = 0
        self._srtt: float | None = None
        self._rttvar = 0.0
        self._backoff = 1
        self._armed = 0.0
        self._beyond: set[int] = set()
        """Received beyond a gap."""
        self._echo = duplex.now
        self._acks: dict[int, _Ack] = {}
        self._ack_number = 0
        self._newest_sacked_at = -1.0

    @staticmethod
    def _tunnel(session: StripeSession) -> TunnelSender:
        session.state = PathState.UP
        scheduler = FailoverScheduler()
        scheduler.add(path_of(session))
        return TunnelSender(scheduler)

    def run(self, seconds: float) -> None:
        """Advance the duplex's clock, from event to event."""
        duplex = self.duplex
        end = duplex.now + seconds
        ends = ((duplex.client, self._up, self.at_client), (duplex.server, self._down, self.at_server))
        while duplex.now < end:
            times = [duplex.up.next_arrival, duplex.down.next_arrival, end]
            if self._flight:
                times.append(self._armed + self._rto)
            for host, tunnel, _ in ends:
                times.append(host.session.next_time(duplex.now) or end)
                times.append(host.order.next_time() or end)
                if tunnel.waiting:
                    times.append(host.session.send_time(duplex.now) or end)
            duplex.now = now = max(min(times), duplex.now + 0.0005)
            for host, _, take in ends:
                frames: list[FrameOrRun] = []
                for pipe, datagram in host.incoming.receive(now):
                    address = None if host.session.client else ("192.0.2.1", 40000 + pipe)
                    frames += host.ordered(host.session.receive([(datagram, len(datagram), address)], now), now)
                host.session.poll(now)
                frames += host.order.expire(now)
                if frames:
                    take(frames, now)
            self.push(now)
            for host, _, _ in ends:
                host.transmit(now)

    def goodput(self, seconds: float) -> float:
        """Bytes per second that arrive in order in so many seconds from now on."""
        before = self.delivered
        self.run(seconds)
        return (self.delivered - before) * MSS / seconds

    def push(self, now: float) -> None:
        """Send what the window allows; let the tunnels send what the path takes."""
        self._timer(now)
        self._send(now)
        self._up.flush(now)
        self._down.flush(now)

    def at_server(self, frames: Sequence[FrameOrRun], now: float) -> None:
        """Segments have come out of the tunnel: one acknowledgement answers those that came together."""
        for frame in frames:
            number = int.from_bytes(frame.payload[24:28], "big") // MSS
            if number < self.delivered:
                continue
            if number == self.delivered:
                self._echo = _STAMP.unpack_from(frame.payload, HEADERS)[0]
            self._beyond.add(number)
            while self.delivered in self._beyond:
                self._beyond.discard(self.delivered)
                self.delivered += 1
        self._ack_number += 1
        self._acks[self._ack_number] = _Ack(self.delivered, tuple(self._beyond), self._echo)
        self._down.queues[_CLASS].push(Packet(_packet(self._ack_number, 0, back=True)), now)

    def at_client(self, frames: Sequence[FrameOrRun], now: float) -> None:
        """Acknowledgements have come out of the tunnel."""
        for frame in frames:
            ack = self._acks.pop(int.from_bytes(frame.payload[24:28], "big"), None)
            if ack is not None:
                self._on_ack(ack, now)

    @property
    def _rto(self) -> float:
        base = 1.0 if self._srtt is None else self._srtt + max(4 * self._rttvar, MIN_TIMEOUT)
        return base * self._backoff

    @property
    def _pipe(self) -> int:
        return sum(1 for sent in self._flight.values() if not sent.sacked and (not sent.lost or sent.again))

    def _on_ack(self, ack: _Ack, now: float) -> None:
        flight = self._flight
        fresh = 0
        window_used = len(flight)
        spurious = self._in_recovery and ack.number > self._una and ack.echo < self._again_at
        newest = oldest = None
        for number in [number for number in range(self._una, ack.number) if number in flight]:
            sent = flight.pop(number)
            if not sent.sacked and (not sent.lost or sent.again):
                newest = sent.at
                oldest = sent.at if oldest is None else oldest
            fresh += not sent.sacked
            self._newest_sacked_at = max(self._newest_sacked_at, sent.at)
        for number in ack.sacked:
            sent = flight.get(number)
            if sent is not None and not sent.sacked:
                sent.sacked = True
                fresh += 1
                self._newest_sacked_at = max(self._newest_sacked_at, sent.at)
        advanced = ack.number > self._una
        self._una = max(self._una, ack.number)
        if advanced:
            self._armed, self._backoff = now, 1
            if oldest is not None:
                self._sample(now - oldest)
        if spurious:
            # Eifel (RFC 3522): what was sent again had arrived.
            self._leave_recovery()
            self.cubic.undo(*self._before)
        elif self._in_recovery and self._una >= self._recover:
            self._leave_recovery()
        self._detect()
        self._reduced_delivered += fresh
        if advanced and newest is not None and (not self._in_recovery or self._timed_out):
            limited = window_used >= self.cubic.window - BURST or (
                self.cubic.window < self.cubic.threshold and self.cubic.window < 2 * window_used
            )
            self.cubic.on_ack(fresh, now - newest, now, acked=self._una, sent=self._next, limited=limited)

    def _sample(self, rtt: float) -> None:
        if self._srtt is None:
            self._srtt, self._rttvar = rtt, rtt / 2
        else:
            self._rttvar += (abs(rtt - self._srtt) - self._rttvar) / 4
            self._srtt += (rtt - self._srtt) / 8

    def _detect(self) -> None:
        """RACK: what left a quarter of the least round trip before something that has arrived is lost."""
        if not any(sent.sacked for sent in self._flight.values()):
            return
        horizon = self._newest_sacked_at - 0.25 * self.cubic.delay_min
        for sent in self._flight.values():
            if not sent.sacked and (not sent.lost or sent.again) and sent.at < horizon:
                sent.lost, sent.again = True, False
                if not self._in_recovery:
                    self._enter_recovery()
                    self.cubic.on_loss()

    def _enter_recovery(self) -> None:
        self._in_recovery, self._recover = True, self._next
        self._before = (self.cubic.window, self.cubic.threshold)
        self._again_at = -1.0
        self._reduced_delivered = self._reduced_out = 0
        self._reduced_from = len(self._flight)

    def _leave_recovery(self) -> None:
        self._in_recovery = self._timed_out = False
        for sent in self._flight.values():
            sent.lost = sent.again = False

    def _timer(self, now: float) -> None:
        if not self._flight or now < self._armed + self._rto:
            return
        self.timeouts += 1
        if not self._in_recovery:
            self._enter_recovery()
        self.cubic.on_timeout()
        self._timed_out = True
        self._backoff *= 2
        self._armed = now
        for sent in self._flight.values():
            if not sent.sacked:
                sent.lost, sent.again = True, False

    def _send(self, now: float) -> None:
        pipe = self._pipe
        room = int(self.cubic.window) - pipe
        if self._in_recovery and not self._timed_out:
            # Proportional rate reduction (RFC 6937).
            if pipe > self.cubic.threshold:
                share = self.cubic.threshold / max(1, self._reduced_from)
                room = math.ceil(self._reduced_delivered * share) - self._reduced_out
            else:
                room = min(room, max(self._reduced_delivered - self._reduced_out, 0) + 1)
            if self._again_at < 0:
                room = max(room, 1)
        if room <= 0:
            return
        if self._in_recovery:
            for number, sent in self._flight.items():
                if sent.lost and not sent.again and not sent.sacked:
                    sent.again, sent.at = True, now
                    if self._again_at < 0:
                        self._again_at = now
                    self.sent_again += 1
                    self._emit(number, now)
                    room -= 1
                    if room <= 0:
                        return
        while room > 0 and len(self._flight) < SEND_BUFFER:
            if not self._flight:
                self._armed = now
            self._flight[self._next] = _Sent(now)
            self._emit(self._next, now)
            self._next += 1
            room -= 1

    def _emit(self, number: int, now: float) -> None:
        payload = bytearray(_packet(number * MSS, MSS))
        _STAMP.pack_into(payload, HEADERS, now)
        self._reduced_out += 1
        self.queue.push(Packet(bytes(payload)), now)
