"""Retransmission: what is sent again, when, and until when it is worth it.

Selective repeat on what loss detection finds (RFC 8985), hybrid with FEC: of a group that lost n shards and has m of
parity, n - m retransmissions are enough, the receiver's decoder does the rest. So that another round trip is rarely
needed for those of them that are lost too, a few more are sent where much is lost. A retransmission is a new packet
with a new number.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush

from mpquic.proto.packet.frame import LOW_LATENCY
from mpquic.proto.path.memory import MAX_LOST
from mpquic.proto.stripe.adaptive import retransmissions_for

LOW_LATENCY_ROUND_TRIPS = 3
MAX_AT_ONCE = 4
"""Of one shard at a time."""
OUTCOME_RTTS = 1.25
OUTCOME_DELAY = 0.006
"""Round trips, and seconds besides, after which it is known whether a retransmission arrived and what FEC made of
it."""
EXPIRE_INTERVAL = 0.02
"""Seconds between two looks at everything that is lost."""
STALE = 1024
"""Numbers that were delivered and still wait for their time, at most, beside as many as are lost."""
LIFETIME = 1.0
"""Seconds after its first transmission for which a shard of the other classes is repeated."""


class SentGroup:
    """What a sender knows of a FEC group: `parity` losses that the decoder can make good, and what was lost so far."""

    __slots__ = ("arrived", "held", "lost", "outcome_at", "parity", "repairs")

    def __init__(self, parity: int) -> None:
        self.parity = parity
        self.lost = 0
        self.repairs = 0
        """Retransmissions that have arrived, are on their way or will be."""
        self.arrived = 0
        """Of these, those that have arrived."""
        self.outcome_at = 0.0
        """When it will be known what the last of the retransmissions did."""
        self.held: list[int] = []
        """Lost data shards that were left to the decoder."""

    @property
    def under_way(self) -> int:
        """Retransmissions that are on their way or will be."""
        return self.repairs - self.arrived

    @property
    def missing(self) -> int:
        """How many more retransmissions have to arrive until the decoder can do the rest."""
        return self.lost - self.parity - self.arrived


class Repair:
    """A lost shard that may be sent again."""

    __slots__ = (
        "attempts",
        "body",
        "counted",
        "data_shards",
        "deadline",
        "first_sent",
        "flying",
        "group",
        "index",
        "last_sent",
        "number",
    )

    def __init__(
        self,
        number: int,
        body: bytes,
        index: int,
        data_shards: int,
        group: SentGroup | None,
        sent_at: float,
        deadline: float,
    ) -> None:
        self.number = number
        self.body = body
        self.index = index
        self.data_shards = data_shards
        self.group = group
        self.first_sent = self.last_sent = sent_at
        self.deadline = deadline
        self.flying = 0
        """Retransmissions on their way."""
        self.counted = False
        """True when its group counts on its retransmission."""
        self.attempts = 0


class Retransmitter:
    """Keeps lost shards until they arrive, are repaired, or are of no more use. Bounded in shards."""

    def __init__(self, max_shards: int = MAX_LOST) -> None:
        self.max_shards = max_shards
        self._lost: dict[int, Repair] = {}
        self._waiting: list[tuple[float, int]] = []
        self._ready: deque[int] = deque()
        self.loss = 0.0
        """Share of shards that is lost of late."""
        self.proactive = True
        """Whether there is room for retransmissions that probably aren't needed: else they would be missed
        elsewhere."""
        self._rtt = 0.0
        self._expire_at = float("-inf")
        self.retransmitted = 0
        self.expired = 0
        self.overflowed = 0

    def __len__(self) -> int:
        return len(self._lost)

    @property
    def ready(self) -> int:
        """How many shards are ready to be sent again, or a few more: never more than are lost."""
        return min(len(self._ready), len(self._lost))

    @staticmethod
    def lifetime(traffic_class: int, rtt: float) -> float:
        """Seconds for which a shard of a class is worth repeating after it was first sent."""
        return LOW_LATENCY_ROUND_TRIPS * rtt if traffic_class & LOW_LATENCY else LIFETIME

    def bodies(self, since: float) -> dict[int, bytes]:
        """Return what is lost and was sent since then, by number."""
        return {number: repair.body for number, repair in self._lost.items() if repair.first_sent >= since}

    def on_lost(self, repair: Repair, now: float, rtt: float) -> None:
        """A DATA shard was lost."""
        self._rtt = rtt
        if repair.deadline <= now:
            self.expired += 1
            return
        if len(self._lost) >= self.max_shards:
            self.overflowed += 1
            return
        self._lost[repair.number] = repair
        group = repair.group
        if group is None:
            self._ready.append(repair.number)
            return
        group.held.append(repair.number)
        self.on_group_loss(group)
        if not repair.counted:
            # The decoder has what it needs. Should it have forgotten the group, the retransmission comes after a round
            # trip.
            heappush(self._waiting, (now + rtt, repair.number))

    def on_group_loss(self, group: SentGroup) -> None:
        """A group lost a shard: retransmissions of what was held back may be needed now."""
        missing = group.missing
        if missing <= 0:
            return
        wanted = retransmissions_for(missing, min(500, round(self.loss * 1000))) if self.proactive else missing
        while group.held and wanted > group.under_way:
            repair = self._lost.get(group.held.pop())
            if repair is not None and not repair.flying and not repair.counted:
                self._count(repair)
                self._ready.append(repair.number)

    @staticmethod
    def _count(repair: Repair) -> None:
        if repair.group is not None and not repair.counted:
            repair.counted = True
            repair.group.repairs += 1

    @staticmethod
    def _discount(repair: Repair) -> None:
        if repair.group is not None and repair.counted:
            repair.counted = False
            repair.group.repairs -= 1

    def _tidy(self) -> None:
        """Drop what waits or is ready and was delivered meanwhile, when it is much more than what is still lost."""
        lost = self._lost
        most = 2 * len(lost) + STALE
        if len(self._waiting) > most:
            latest = {number: time for time, number in sorted(self._waiting, reverse=True) if number in lost}
            self._waiting = [(time, number) for number, time in latest.items()]
            heapify(self._waiting)
        if len(self._ready) > most:
            self._ready = deque(dict.fromkeys(number for number in self._ready if number in lost))

    def on_delivered(self, number: int) -> None:
        """A shard arrived after all, by itself, by FEC or as a retransmission."""
        repair = self._lost.pop(number, None)
        if not self._lost:
            self._ready.clear()
            self._waiting.clear()
        if repair is None or repair.group is None:
            return
        if repair.flying:
            repair.group.arrived += repair.counted
        else:
            repair.group.lost -= 1
            self._discount(repair)

    def on_retransmission_lost(self, repair: Repair, now: float, rtt: float) -> None:
        """A retransmission was lost; the shard is due again, at most once a round trip."""
        if repair.number not in self._lost:
            return
        repair.flying -= 1
        if repair.flying > 0:
            return
        repair.flying = 0
        self._rtt = rtt
        self._discount(repair)
        heappush(self._waiting, (repair.last_sent + rtt, repair.number))
        self._wake(now)

    def _wake(self, now: float) -> None:
        """What has waited long enough is ready, unless its group only waits for retransmissions that are on their
        way."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= now:
            number = heappop(waiting)[1]
            repair = self._lost.get(number)
            if repair is None or repair.flying:
                continue
            group = repair.group
            if group is not None and not repair.counted:
                if now < group.outcome_at and group.missing <= group.under_way:
                    heappush(waiting, (group.outcome_at, number))
                    continue
                self._count(repair)
            self._ready.append(number)

    def next_time(self) -> float | None:
        """When something becomes ready; a time in the past when something is."""
        if not self._lost:
            return None  # What is still waiting has arrived or expired.
        if self._ready:
            return 0.0
        return self._waiting[0][0] if self._waiting else None

    def take(self, max_bytes: int, max_body: int, now: float) -> list[Repair]:
        """Return shards to send again now, worth about `max_bytes` of bodies. They count as sent.

        What has been sent again in vain twice comes more than once: each further round trip costs those who wait for it
        more than such retransmissions, which are few. One larger than `max_body` was made for a larger datagram and is
        given up.
        """
        lost, ready = self._lost, self._ready
        self._wake(now)
        taken: list[Repair] = []
        while ready and max_bytes > 0:
            number = ready.popleft()
            repair = lost.get(number)
            if repair is None or repair.flying:
                continue
            if repair.deadline <= now or len(repair.body) > max_body:
                del lost[number]
                self.expired += 1
                continue
            repair.attempts += 1
            repair.flying = max(1, min(repair.attempts - 1, MAX_AT_ONCE)) if self.proactive else 1
            repair.last_sent = now
            self._count(repair)
            if repair.group is not None:
                repair.group.outcome_at = now + OUTCOME_RTTS * self._rtt + OUTCOME_DELAY
            max_bytes -= len(repair.body) * repair.flying
            taken += [repair] * repair.flying
        self.retransmitted += len(taken)
        return taken

    def put_back(self, repairs: list[Repair]) -> None:
        """Take back shards that could not be sent after all, in order."""
        for repair in reversed(repairs):
            repair.flying -= 1
            if repair.flying > 0:
                continue
            repair.attempts -= 1
            self._ready.appendleft(repair.number)
        self.retransmitted -= len(repairs)

    def expire(self, now: float) -> None:
        """Forget what is of no more use. Cheap to call often."""
        if now < self._expire_at:
            return
        self._expire_at = now + EXPIRE_INTERVAL
        self._tidy()
        gone = [number for number, repair in self._lost.items() if repair.deadline <= now and not repair.flying]
        for number in gone:
            del self._lost[number]
        self.expired += len(gone)

    def clear(self) -> None:
        """Forget everything."""
        self._lost.clear()
        self._waiting.clear()
        self._ready.clear()
