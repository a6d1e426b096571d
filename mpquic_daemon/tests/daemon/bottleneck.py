"""A narrow link with a queue in virtual time, what else is in that queue, and one TCP connection through a tunnel."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from mpquic.quic.pmtu import IP_UDP_BYTES

from ..proto import packets
from .virtual import CLIENT, INNER_CLIENT, INNER_SERVER

if TYPE_CHECKING:
    from .virtual import Endpoint, Ends

MSS = 1300
HEADER = 20
TICK = 0.005
"""Seconds between two looks at what has come out of a tunnel."""
MIN_TIMEOUT = 0.2
INITIAL_WINDOW = 10.0
BETA = 0.7


class Direction:
    """A link of `rate` bit/s with a drop-tail queue of `queue` seconds, which loses a share of what enters it."""

    def __init__(self, rate: float, queue: float, loss: float, seed: str) -> None:
        self.rate, self.queue, self.loss = rate, queue, loss
        self._rng = random.Random(seed)
        self._busy_until = 0.0
        self.foreign = 0.0
        """Traffic of others that comes all the time, as a share of the rate."""
        self._at = 0.0

    def burst(self, seconds: float, now: float) -> None:
        """Traffic of others fills the queue up to so many seconds."""
        self._busy_until = max(self._busy_until, now + seconds)

    def wait(self, size: int, now: float) -> float | None:
        """Seconds until a datagram that enters now has left; None when it is lost."""
        if self.foreign:
            begin = max(self._busy_until, self._at)
            self._busy_until = min(begin + self.foreign * (now - self._at), now + self.queue)
        self._at = now
        waiting = max(0.0, self._busy_until - now)
        if self.foreign > 1.0 and waiting > self.queue - 0.05 and self._rng.random() < 1 - 1 / self.foreign:
            return None  # The queue is full, and who comes when there is room is chance.
        if waiting > self.queue or self._rng.random() < self.loss:
            return None
        self._busy_until = now + waiting + size * 8 / self.rate
        return self._busy_until - now


class Bottleneck:
    """Puts a link into the network of two ends, for packets from and to one address of the client."""

    def __init__(
        self, ends: Ends, *, rate: float, queue: float = 2.5, loss: float = 0.0, address: str = CLIENT, seed: str = ""
    ) -> None:
        self._ends, self._network, self._send = ends, ends.network, ends.network.send
        self._address = address
        self._delay = ends.network.delay
        self.up = Direction(rate, queue, loss, f"up {seed}")
        self.down = Direction(rate, queue, loss, f"down {seed}")
        ends.network.send = self.send  # type: ignore[method-assign]

    def send(self, source: Endpoint, destination: Endpoint, data: bytes) -> None:
        network = self._network
        if self._address not in (source[0], destination[0]):
            self._send(source, destination, data)
            return
        way = self.up if source[0] == self._address else self.down
        wait = way.wait(len(data) + IP_UDP_BYTES[4], self._ends.now)
        if wait is None:
            return
        network.delay = self._delay + wait
        self._send(source, destination, data)
        network.delay = self._delay


class TcpConnection:
    """A greedy sender and its receiver, at the two TUN devices: NewReno with CUBIC's factor, cumulative ACKs, RTO.

    What a kernel does beyond that makes it faster, not another kind of load.
    """

    def __init__(self, ends: Ends, *, down: bool) -> None:
        self._ends = ends
        self._from, self._to = ("sv", "cl") if down else ("cl", "sv")
        self._addresses = (INNER_SERVER, INNER_CLIENT) if down else (INNER_CLIENT, INNER_SERVER)
        self._read = {name: len(ends.tuns[name].received) for name in ("cl", "sv")}
        self._window, self._threshold = INITIAL_WINDOW, float("inf")
        self._next = self._una = self._recover = self._duplicates = 0
        self._sent_at: dict[int, float] = {}
        self._again: set[int] = set()
        self._srtt, self._rttvar, self._backoff = 0.0, 0.5, 1
        self._armed = ends.now
        self.sent = 0
        """Segments that it has sent, or sent again."""
        self.delivered = 0
        """Segments that the receiver has in order."""
        self._beyond: set[int] = set()

    def run(self, seconds: float) -> None:
        """Let time pass for both ends and the connection."""
        end = self._ends.now + seconds
        while self._ends.now < end - 1e-9:
            self._ends.run(min(TICK, end - self._ends.now))
            self._take()
            self._send()

    def _take(self) -> None:
        for number in self._numbers(self._to, self._addresses[0]):
            if number >= self.delivered:
                self._beyond.add(number)
                while self.delivered in self._beyond:
                    self._beyond.discard(self.delivered)
                    self.delivered += 1
            self._emit(self._to, self.delivered, b"", back=True)
        for number in self._numbers(self._from, self._addresses[1]):
            self._on_ack(number)

    def _numbers(self, name: str, source: bytes) -> list[int]:
        """Numbers in the segments that have come out of an end's TUN since the last call."""
        received = self._ends.tuns[name].received
        fresh, self._read[name] = received[self._read[name] :], len(received)
        found: list[int] = []
        for _, packet in fresh:
            if packet[9] != 6 or packet[12:16] != source:
                continue
            # TCP segments that follow each other come as one superframe.
            count = max(1, (len(packet) - 2 * HEADER) // MSS)
            first = int.from_bytes(packet[24:28], "big") // MSS
            found += range(first, first + count)
        return found

    def _on_ack(self, number: int) -> None:
        now = self._ends.now
        if number <= self._una:
            self._duplicates += 1
            if self._duplicates == 3 and self._una >= self._recover:
                self._threshold = self._window = max(2.0, self._window * BETA)
                self._recover = self._next
                self._resend(self._una)
            return
        self._duplicates, self._backoff, self._armed = 0, 1, now
        for each in range(self._una, number):
            sent = self._sent_at.pop(each, None)
            if sent is not None and each not in self._again:
                self._sample(now - sent)
            self._again.discard(each)
            self._window += 1.0 if self._window < self._threshold else 1 / self._window
        self._una = number
        if self._una < self._recover:
            self._resend(self._una)

    def _sample(self, rtt: float) -> None:
        if not self._srtt:
            self._srtt, self._rttvar = rtt, rtt / 2
        self._rttvar += (abs(rtt - self._srtt) - self._rttvar) / 4
        self._srtt += (rtt - self._srtt) / 8

    def _send(self) -> None:
        now = self._ends.now
        timeout = self._backoff * max(MIN_TIMEOUT, self._srtt + 4 * self._rttvar)
        if self._next > self._una and now - self._armed >= timeout:
            self._threshold, self._window = max(2.0, self._window / 2), 1.0
            self._backoff, self._armed = min(2 * self._backoff, 64), now
            self._recover, self._duplicates = self._next, 0
            self._resend(self._una)
        if self._next == self._una:
            self._armed = now
        while self._next - self._una < self._window:
            self._sent_at[self._next] = now
            self._emit(self._from, self._next, bytes(MSS))
            self._next += 1

    def _resend(self, number: int) -> None:
        self._again.add(number)
        self._emit(self._from, number, bytes(MSS))

    def _emit(self, name: str, number: int, payload: bytes, *, back: bool = False) -> None:
        """Give a segment to an end's TUN; that of an acknowledgement has its number in the same place."""
        self.sent += not back
        source, destination = self._addresses[::-1] if back else self._addresses
        ports = b"\x14\x52\x14\x51" if back else b"\x14\x51\x14\x52"
        sequence = (number * MSS % 2**32).to_bytes(4, "big")
        header = ports + sequence + bytes(4) + b"\x50\x10\xff\xff" + bytes(4)
        self._ends.tuns[name].give(packets.ipv4(6, header + payload, source=source, destination=destination))
