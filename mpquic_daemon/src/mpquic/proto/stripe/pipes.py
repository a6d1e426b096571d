"""The pipes of a session: which of them are alive, where their peer is, which of them sends next.

A pipe is one UDP socket of the client. Each proves itself by REGISTER and KEEPALIVE, since a NAT or a firewall may lose
one of them. The peer's address follows authenticated packets only, and of those only the newest of the pipe (RFC 9000
section 9.3), so that a delayed packet doesn't move it back; and only once the peer has proven that it receives there
(return_path.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.proto.stripe.keepalive import PipeRtt
from mpquic.proto.stripe.pipe import DEAD_AFTER, Pipe
from mpquic.proto.stripe.return_path import (
    MAX_UNPROVEN,
    STILL_REACHED,
    TOKEN_SIZE,
    Obstruction,
    ProvenAddresses,
    UnprovenAddress,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic.proto.stripe.return_path import Address

KEEPALIVE_INTERVAL = 1.0
REGISTER_INTERVAL = 0.2
BUSY_TIME = 5.0
"""Seconds after the last shard for which there are requests on all pipes. Then on one, in turn, each `IDLE_INTERVAL`: a
thousand sessions that do nothing must not keep a server busy."""
IDLE_INTERVAL = 1.0
"""A round trip a second at least: so a change is seen within 3 s, and silence in time."""
SELDOM_INTERVAL = 1.7
"""The same while nothing has been carried, and nobody has looked at the client, for `LIVELY_TIME`."""
LIVELY_TIME = 60.0
OFTEN = 1.2 * IDLE_INTERVAL
"""Seconds between two requests up to which a server takes it that the client asks each `IDLE_INTERVAL`."""
RETRY_INTERVAL = 0.5
"""Seconds after which a pipe of an idle session that hasn't answered is followed by the next: so a single loss is no
outage, and an outage is still noticed in time."""
REPEAT_INTERVAL = 0.25
"""Seconds after which a request without reply is repeated, or the round-trip time where that is more: where one packet
in two is lost a pipe isn't dead."""
MOVING_TIME = 2.0
"""Seconds after a pipe's peer has moved in which overdue reports are put down to that."""
RTT_STEP = 0.005
"""Seconds by which a round trip differs from what it was, and from what it varies by, after which the next request
follows soon: the peer learns by it what the reply has taken, and a single sample isn't believed altogether."""
SAMPLE_INTERVAL = 0.25
"""Seconds between two looks at what was lost by each pipe."""
SHARDS_ROOM = 1 << 16
"""Bytes that an unproven address must have room for before shards go there: a run of full datagrams."""


class Pipes:
    """All pipes of one end. A client sends requests on each and knows it by the replies; a server by what they say.

    REGISTER says "I have no reply yet", KEEPALIVE "I have had replies", so the server too knows that both directions
    work, without asking. `entropy` returns so many random octets, for tokens.
    """

    def __init__(self, count: int, now: float, *, client: bool, entropy: Callable[[int], bytes]) -> None:
        self._client = client
        self._entropy = entropy
        self.unproven: dict[Address, UnprovenAddress] = {}
        """What pipes have in `unproven`, and what they had while a token is under way; mostly empty."""
        self.sources: set[Address] = set()
        """Where authentic packets have come from: the addresses of pipes, proven or not. Empty at a client."""
        self._proven = ProvenAddresses()
        self.now = now
        """When the packets that are being taken have arrived."""
        self._obstruction = Obstruction(now)
        self.overdue = False
        """Whether reports are overdue, so that what was sent may have been lost altogether."""
        self._moved_at = float("-inf")
        self.given_up = 0
        """Addresses that did not prove themselves."""
        self.all = [Pipe(number, now) for number in range(count)]
        self.moved = 0
        self._alive: list[Pipe] = []
        self._alive_until = now
        self._next_request = now
        self._sample_at = now
        self._busy_until = now + BUSY_TIME
        self._lively_until = now
        self._last_interval = float("inf")
        """Seconds between the last two requests that came to a server, by what the client said."""
        self._slept_at = float("-inf")
        self._rest_lost = 0
        """Requests since the last reply, of an idle session."""
        self.replies = 0
        self.lost_requests = 0
        """Of the requests on pipes that carry: the replies, and those that were given up."""

    def busy(self, now: float) -> None:
        """Shards come or go: all pipes are wanted."""
        if self._client and not self.is_busy(now):
            for pipe in self.all:
                pipe.next_request_at = min(pipe.next_request_at, max(now, pipe.requested_at + KEEPALIVE_INTERVAL))
            self._next_request = min(pipe.next_request_at for pipe in self.all)
        self._busy_until = now + BUSY_TIME
        self._lively_until = now + LIVELY_TIME

    def is_busy(self, now: float) -> bool:
        """Whether shards have come or gone of late."""
        return now < self._busy_until

    def looked_at(self, now: float) -> None:
        """Somebody looks, and may do so again soon: what is told of a path is not to be old."""
        self._lively_until = now + LIVELY_TIME

    def rest_interval(self, now: float) -> float:
        """Seconds from one request to the next of an idle session, as far as this end knows."""
        return IDLE_INTERVAL if now < self._lively_until or self._last_interval <= OFTEN else SELDOM_INTERVAL

    def alive(self, now: float) -> list[Pipe]:
        """The pipes that carry. Asked for with every packet, so it is found anew only when it may have changed."""
        if now >= self._alive_until:
            placed = self._client
            self._alive = [pipe for pipe in self.all if pipe.alive(now) and (placed or pipe.address is not None)]
            ends = [pipe.confirmed_at + DEAD_AFTER for pipe in self._alive if pipe.confirmed_at is not None]
            self._alive_until = min(ends, default=float("inf"))
        return self._alive

    def carrying(self, now: float) -> list[Pipe]:
        """The pipes that take shards: not those whose peer seems to have moved, until it has proven that."""
        alive = self.alive(now)
        if not self.unproven:
            return alive
        return [pipe for pipe in alive if pipe.unproven is None or _takes_shards(pipe, pipe.unproven, now)]

    def obstructed(self, now: float) -> bool:
        """Whether too little can be sent, since no pipe takes shards much of the time, so that QUIC is wanted."""
        self._judge(now)
        return self._obstruction.lasts

    def _judge(self, now: float) -> None:
        # A pipe that has said nothing since its NAT forgot it counts as one that carries.
        lost = self.overdue and now - self._moved_at < MOVING_TIME
        self._obstruction.update(now, blocked=lost or (bool(self.unproven) and not self.carrying(now)))

    def sample(self, now: float) -> None:
        """Note what was lost by each pipe, if it is time."""
        if now >= self._sample_at:
            self._sample_at = now + SAMPLE_INTERVAL
            for pipe in self.all:
                pipe.sending.sample(now)

    def on_shards(self, number: int, count: int, octets: int, packet: int, address: Address | None) -> None:
        """So many authenticated shards arrived on pipe `number`, of so many octets in all as UDP payload.

        The number of the last, `packet`, orders those of the pipe.
        """
        pipe = self.all[number]
        meter = pipe.receiving
        meter.shards += count
        meter.octets += octets
        meter.heard_at = self.now
        if packet > pipe.highest:
            pipe.highest = packet
            if address != pipe.address or pipe.unproven is not None:
                self._consider(pipe, address)

    def on_control(self, number: int, octets: int, packet: int, address: Address | None) -> None:
        """An authenticated packet of a control type arrived; their numbers are their own, and order them."""
        pipe = self.all[number]
        meter = pipe.receiving
        meter.control += 1
        meter.octets += octets
        meter.heard_at = self.now
        if packet > pipe.highest_control:
            pipe.highest_control = packet
            if address != pipe.address or pipe.unproven is not None:
                self._consider(pipe, address)

    def on_request(self, number: int, packet: int, now: float, *, registering: bool, told: PipeRtt | None) -> None:
        """A request that `told` of a round trip came in control packet `packet`; overtaken, it confirms nothing."""
        pipe = self.all[number]
        if told is not None:
            self._last_interval = told.ago + told.rtt
        if packet >= pipe.highest_control:
            self._confirm(pipe, None if registering else now)

    def _consider(self, pipe: Pipe, address: Address | None) -> None:
        """The newest packet of a pipe came from `address`."""
        if address is None or (pipe.unproven is not None and pipe.unproven.address == address):
            return
        pipe.unproven = None
        if address != pipe.address:
            if any(other.address == address for other in self.all) or self._proven.has(address, self.now):
                self._move(pipe, address)
            else:
                pipe.unproven = self.unproven.get(address) or UnprovenAddress(address, self._entropy(TOKEN_SIZE))
                pipe.unproven.pipes.add(pipe.number)
                if len(self.unproven) < MAX_UNPROVEN:
                    self.unproven[address] = pipe.unproven
        self._note_sources()

    def _note_sources(self) -> None:
        self.sources = {pipe.address for pipe in self.all if pipe.address is not None}
        self.sources.update(pipe.unproven.address for pipe in self.all if pipe.unproven is not None)

    def _move(self, pipe: Pipe, address: Address) -> None:
        self._leave(pipe, address)
        pipe.unproven = None

    def _leave(self, pipe: Pipe, address: Address) -> None:
        if pipe.address is not None:
            self.moved += 1
            self._moved_at = self.now
            self._proven.add(pipe.address, self.now)
        pipe.address = address
        self._alive_until = float("-inf")

    def challenges(self, now: float, rtt: float) -> list[tuple[Pipe, UnprovenAddress]]:
        """Return the addresses to which their token is sent now, each with a pipe; give up those that don't reply."""
        found: list[tuple[Pipe, UnprovenAddress]] = []
        wanted = self._wanted()
        for address, unproven in list(self.unproven.items()):
            if address not in wanted:
                if now >= unproven.keep_until:
                    del self.unproven[address]
            elif unproven.try_again(now, rtt):
                found.append((wanted[address], unproven))
            elif unproven.exhausted and now >= unproven.next_try:
                self.given_up += 1
                del self.unproven[address]
                for pipe in self.all:
                    if pipe.unproven is unproven:
                        pipe.unproven = None
                self._note_sources()
        for pipe in self.all:
            if pipe.unproven is not None and (
                pipe.unproven.address in self.unproven or len(self.unproven) < MAX_UNPROVEN
            ):
                pipe.unproven = self.unproven.setdefault(pipe.unproven.address, pipe.unproven)
        self._judge(now)
        return found

    def on_response(self, token: bytes, now: float) -> bool:
        """A token has returned, from wherever: that proves the address to which it was sent (RFC 9000 section 8.2.3).

        Return whether there is one. Pipes whose packets come from there move; those whose packets come from yet another
        unproven address go on with this one.
        """
        unproven = next((each for each in self.unproven.values() if each.tries and each.token == token), None)
        if unproven is None:
            return False
        del self.unproven[unproven.address]
        self._proven.add(unproven.address, now)
        for pipe in self.all:
            if pipe.unproven is unproven:
                self._move(pipe, unproven.address)
            elif pipe.unproven is not None and pipe.number in unproven.pipes:
                self._leave(pipe, unproven.address)
                pipe.reached_at = now
        self._note_sources()
        self._judge(now)
        return True

    def _wanted(self) -> dict[Address, Pipe]:
        """Return the addresses from which the newest packet of a pipe came, without a proof, each with a pipe."""
        return {pipe.unproven.address: pipe for pipe in self.all if pipe.unproven is not None}

    @staticmethod
    def route(pipe: Pipe, size: int) -> Address | None:
        """Return where `size` bytes of a pipe go: where its newest packet came from, as far as that may be used."""
        unproven = pipe.unproven
        return unproven.address if unproven is not None and unproven.take(size) else pipe.address

    def on_reply(self, number: int, stamp: float, now: float) -> float | None:
        """A client was answered on a pipe; return the round trip in seconds.

        None when it cannot be ours, or says nothing of now: the reply waited to be read while this process slept.
        """
        if not 0 <= now - stamp < DEAD_AFTER or stamp < self._slept_at:
            return None
        pipe = self.all[number]
        self.replies += 1
        self._rest_lost = 0
        pipe.next_request_at = max(pipe.next_request_at, pipe.requested_at + KEEPALIVE_INTERVAL)
        if pipe.registering:
            pipe.next_request_at = self._next_request = now  # tell the server at once that it may use this pipe
        elif not self.is_busy(now):
            self._next_request = max(self._next_request, pipe.requested_at + self.rest_interval(now))
        self._confirm(pipe, now)
        rtt = max(now - stamp, 1e-6)
        if pipe.rtt.deviates(rtt, RTT_STEP):
            pipe.next_request_at = min(pipe.next_request_at, now + REPEAT_INTERVAL)
            self._next_request = min(self._next_request, now + REPEAT_INTERVAL)
        pipe.rtt.add(rtt, now)
        pipe.untold_rtt = rtt
        return rtt

    def take_untold(self, now: float) -> PipeRtt | None:
        """Return what was measured last, on whichever pipe, of what the peer hasn't been told."""
        untold = [pipe for pipe in self.all if pipe.untold_rtt is not None]
        if not untold:
            return None
        pipe = max(untold, key=_confirmed_at)
        rtt, pipe.untold_rtt = pipe.untold_rtt, None
        return None if rtt is None else PipeRtt(pipe.number, rtt, now - _confirmed_at(pipe))

    def _confirm(self, pipe: Pipe, at: float | None) -> None:
        if pipe.confirmed_at is None and at is not None:
            # What it did not send while it was dead must not be made up for when it returns.
            self._put_last(pipe)
        pipe.confirmed_at = at
        self._alive_until = float("-inf")

    def pass_over(self, pipe: Pipe) -> None:
        """What was sent on a pipe is not answered: the others come first, before it is known to be dead."""
        self._put_last(pipe)
        pipe.charged_bytes += 1

    def _put_last(self, pipe: Pipe) -> None:
        pipe.charged_bytes = max(other.charged_bytes for other in self.all)

    @staticmethod
    def choose(alive: list[Pipe]) -> Pipe:
        """Return the pipe that is charged least."""
        return min(alive, key=_charged_bytes)

    def due(self, now: float) -> list[Pipe]:
        """Pipes on which a client sends a request now; each is then due again after its interval."""
        asking: list[Pipe] = []
        if not self._client or now < self._next_request:
            return asking
        if not self.is_busy(now) and self.alive(now):
            pipe = min(self.all, key=_requested_at)
            self._note_lost_request(pipe, now)
            pipe.registering = not (pipe.alive(now) or pipe.is_idle(now))
            pipe.requested_at = now
            self._rest_lost += 1
            wait = RETRY_INTERVAL if self._rest_lost == 1 else REPEAT_INTERVAL
            self._next_request = now + max(wait, min(pipe.rtt.timeout, IDLE_INTERVAL) if pipe.rtt.samples else 0.0)
            return [pipe]
        for pipe in self.all:
            if now < pipe.next_request_at:
                continue
            alive = pipe.alive(now) or pipe.is_idle(now)
            if not alive:
                pipe.confirmed_at = None
            self._note_lost_request(pipe, now)
            pipe.registering, pipe.requested_at = not alive, now
            repeat = max(REPEAT_INTERVAL, min(pipe.rtt.timeout, KEEPALIVE_INTERVAL))
            pipe.next_request_at = now + (repeat if alive else REGISTER_INTERVAL)
            asking.append(pipe)
        self._next_request = min(pipe.next_request_at for pipe in self.all)
        return asking

    def _note_lost_request(self, pipe: Pipe, now: float) -> None:
        if pipe.confirmed_at is not None and pipe.waits and now - pipe.requested_at >= pipe.rtt.timeout:
            self.lost_requests += 1

    def slept(self, seconds: float, now: float) -> None:
        """This process has slept: nothing that was not heard meanwhile tells against a pipe."""
        self._slept_at = now
        for pipe in self.all:
            if pipe.confirmed_at is not None:
                pipe.confirmed_at = min(now, pipe.confirmed_at + seconds)
        self._alive_until = float("-inf")

    def next_time(self, now: float) -> float | None:
        """When `due` has something, on a client; when the next pipe counts as dead unless it is heard, on a server."""
        if self._client:
            return self._next_request
        changes_at = self._obstruction.changes_at
        if not self.unproven and changes_at is None:
            return self._alive_until if self.alive(now) else None
        wanted = self._wanted()
        times = [each.next_try if each.address in wanted else each.keep_until for each in self.unproven.values()]
        if changes_at is not None:
            times.append(changes_at)
        if self.alive(now):
            times.append(self._alive_until)
        return min(times, default=None)


def _requested_at(pipe: Pipe) -> float:
    return pipe.requested_at


def _confirmed_at(pipe: Pipe) -> float:
    return pipe.confirmed_at or 0.0


def _charged_bytes(pipe: Pipe) -> int:
    return pipe.charged_bytes


def _takes_shards(pipe: Pipe, unproven: UnprovenAddress, now: float) -> bool:
    """Whether a pipe takes shards although its peer seems to have moved."""
    return unproven.room >= SHARDS_ROOM or now - pipe.reached_at < STILL_REACHED
