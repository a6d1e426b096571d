"""Which UDP payload a path carries: packetization layer path MTU discovery for datagrams (RFC 8899).

Nothing that a router says is needed; it is a reason to look, and a size to try first. A PROBE of some size goes out,
and its PROBE_ACK shows that the size passes. With each goes a witness, a PROBE of the base size; silence shows that a
size doesn't pass only while the witnesses are answered. So neither an outage nor a lost pipe is taken for a small MTU.
`size` rises by proof only.

QUIC searches in the same way, by packets of its own (`mpquic.quic.pmtu`).

A path that shrinks loses whatever is larger and says nothing (a black hole). Suspicion comes from the shards: several
large ones lost in a row, or reports that stay out. It costs a few probes to look, and no more than one look a second.
"""

from __future__ import annotations

from enum import Enum
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from mpquic.proto.stripe.wire import OVERHEAD, REPAIR_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PROBES = 3
"""Probes of one size that are lost before it counts as too large (RFC 8899 section 5.1.2)."""
STEP = 8
"""The search ends when it knows the size to less than so many bytes."""
PROBE_INTERVAL = 0.25
"""Seconds from one probe of a size to the next: what loses probes for other reasons often does so for a while."""
DOUBT_INTERVAL = 0.1
"""The same for the size in use: large packets are lost until it is known not to pass."""
SILENT_INTERVAL = 1.0
"""The same, or 3 round trips, when the last `SILENT_PROBES` got no answer, nor their witnesses: it is an outage."""
SILENT_PROBES = 8
MAX_WITNESSES = 64
"""Probes of the base size whose answer may still come, for each size that is probed: a peer may answer none of them."""
OVERDUE = 0.25
"""Share of the round trip, but at least `MIN_OVERDUE` seconds, that an answer may be later than its witness's."""
MIN_OVERDUE = 0.05
RAISE_INTERVAL = 600.0
"""PMTU_RAISE_TIMER (RFC 8899 section 5.1.1): seconds after which a larger size is tried again."""
FIRST_RAISE = 10.0
"""Seconds to the first such trial, doubled each time up to `RAISE_INTERVAL`: a detour is often short, and a search on a
lossy path ends too low now and then."""
LARGE_LOSSES = 5
"""Large shards lost in a row, with no other of their size arriving, that raise suspicion."""
EVIDENCE_TIME = 2.0
"""Losses that are further apart say nothing together."""
TRUST_TIME = 1.0
"""Seconds for which a size is not doubted again after it was proven."""
_MAX_WAITING = 64
_COMMON = sorted({mtu - headers for mtu in (1280, 1400, 1420, 1460, 1480, 1492, 1500, 9000) for headers in (28, 48)})
"""UDP payloads by the MTUs that are met (IPv6's least, tunnels, PPPoE, Ethernet), over IPv4 and over IPv6."""

_PROBE = Struct("!BI")
_PROBE_ACK = Struct("!BIH")
_ASK, _ANSWER = 0, 1
MIN_PROBE = OVERHEAD + _PROBE_ACK.size
"""Bytes of the smallest datagram that is answered."""
PRESENCE = 0xFFFFFFFF
"""Number of a probe that isn't part of a search: its reply shows that the peer is there."""
MAX_REPLIES = 64
"""Probes that are answered in a second; a peer that probes faster than that is not searching."""


class Probe(NamedTuple):
    """A probe to send. `size` is the UDP payload in bytes."""

    number: int
    size: int


def encode_probe(probe: Probe) -> bytes:
    """Return the body of a PROBE packet that makes a datagram of the probe's size."""
    return _PROBE.pack(_ASK, probe.number).ljust(probe.size - OVERHEAD, b"\0")


def encode_probe_ack(probe: Probe) -> bytes:
    """Return the body of a PROBE_ACK packet; the size is that of the datagram that arrived."""
    return _PROBE_ACK.pack(_ANSWER, probe.number, probe.size)


def decode_probe(body: bytes) -> Probe | None:
    """Return the probe that a PROBE packet was; None when the body is malformed, or smaller than an answer."""
    if len(body) < _PROBE_ACK.size or body[0] != _ASK:
        return None
    return Probe(_PROBE.unpack_from(body)[1], len(body) + OVERHEAD)


def decode_probe_ack(body: bytes) -> Probe | None:
    """Return the probe that a PROBE_ACK packet answers; None when the body is malformed."""
    if len(body) != _PROBE_ACK.size or body[0] != _ANSWER:
        return None
    _, number, size = _PROBE_ACK.unpack(body)
    return Probe(number, size)


class AnswerLimit:
    """Says whether a probe is answered: `MAX_REPLIES` in any second that begins with one."""

    def __init__(self) -> None:
        self._since = float("-inf")
        self._count = 0

    def take(self, now: float) -> bool:
        """Count an answer; False when there were too many."""
        if now - self._since >= 1.0:
            self._since, self._count = now, 0
        self._count += 1
        return self._count <= MAX_REPLIES


class PathMtuState(Enum):
    """States of RFC 8899 section 5.2. ERROR is missing: no path is of use that doesn't carry the base size."""

    DISABLED = "disabled"
    BASE = "base"
    """Nothing has been answered yet, not even a probe of the base size."""
    SEARCHING = "searching"
    SEARCH_COMPLETE = "search_complete"


class _Trial:
    """One size, probed until it has arrived or failed."""

    __slots__ = ("_certain", "_interval", "_probed_at", "_unanswered", "_witnesses", "next_at", "size")

    def __init__(self, size: int, now: float, interval: float = PROBE_INTERVAL) -> None:
        self.size = size
        self._interval = interval
        self.next_at = now
        """When it is probed next."""
        self._probed_at = now
        self._unanswered = 0
        self._witnesses: dict[int, float] = {}
        # When each failure is certain: a witness has arrived, and the probe that left with it has had its time.
        self._certain: list[float] = []

    @property
    def failed_at(self) -> float | None:
        """When it has failed, if its answer doesn't come before; None while that is open."""
        return self._certain[MAX_PROBES - 1] if len(self._certain) >= MAX_PROBES else None

    @property
    def is_silent(self) -> bool:
        """Whether the last `SILENT_PROBES` got no answer, nor their witnesses."""
        return self._unanswered >= SILENT_PROBES

    def on_sent(self, witness: int, now: float, rtt: float) -> None:
        """It was probed, with probe `witness` of the base size."""
        self._witnesses[witness] = self._probed_at = now
        if len(self._witnesses) > MAX_WITNESSES:
            del self._witnesses[next(iter(self._witnesses))]
        self._unanswered += 1
        self.next_at = now + (max(SILENT_INTERVAL, 3 * rtt) if self.is_silent else self._interval)

    def on_acknowledged(self, number: int, now: float) -> None:
        """Another probe has arrived, perhaps a witness."""
        sent_at = self._witnesses.pop(number, None)
        if sent_at is not None:
            self._certain.append(now + max(MIN_OVERDUE, OVERDUE * (now - sent_at)))
            self._unanswered = 0
            self.next_at = self._probed_at + self._interval


class PathMtu:
    """What one direction of a path carries. All sizes are UDP payloads in bytes, all times seconds.

    `base` is what every path must carry: the search begins with it and falls back to it. `ceiling` is what the local
    link takes. If both are equal there is nothing to discover and nothing is ever due.

    Usage: at `due_at` send what `poll` returns; `on_acknowledged` and `on_too_large` for what became of it; `on_lost`,
    `weigh` and `on_stall` for what became of shards; `on_hint` for what routers say. After the first three `size` may
    have changed.

    Raises:
        ValueError: the base is above the ceiling.
    """

    def __init__(self, base: int, ceiling: int, now: float) -> None:
        if base > ceiling:
            raise ValueError(f"the base size of {base} bytes is above the ceiling of {ceiling}")
        self.base = base
        self.ceiling = ceiling
        self.size = base
        self.state = PathMtuState.DISABLED if base == ceiling else PathMtuState.BASE
        self.black_holes = 0
        """How often the path was found to have shrunk."""
        # When to choose a size for trial: while searching at once, after it when the path may have grown.
        self._timer: float | None = None if base == ceiling else now
        # What is on trial: more than `size` in a search, `size` itself when that is in doubt.
        self._trial: _Trial | None = None
        # The smallest size that seems not to pass; above the ceiling while nothing is known.
        self._failing = ceiling + 1
        self._hint: int | None = None
        self._waiting: dict[int, int] = {}
        self._next_number = 0
        self._raise_interval = FIRST_RAISE
        self._raising = False
        self._doubted = False
        self._trusted_until = now
        self._losses = 0
        self._first_loss_at = now
        self._first_lost = 0
        self._largest_lost = 0

    @property
    def due_at(self) -> float | None:
        """When `poll` has something to do; None when only time spent otherwise can change anything."""
        due = self._timer
        if self._trial is not None:
            failed_at = self._trial.failed_at
            due = self._trial.next_at if failed_at is None else failed_at
        if not self._doubted:
            return due
        return self._trusted_until if due is None else min(due, self._trusted_until)

    @property
    def is_silent(self) -> bool:
        """Whether not even probes of the base size were answered lately."""
        return self._trial is not None and self._trial.is_silent

    def poll(self, now: float, rtt: float) -> list[Probe]:
        """Do what time asks for; return the probes that leave now, on one pipe. `rtt` is the smoothed round trip."""
        due = self.due_at
        if due is None or now < due:
            return []
        if self._doubted and now >= self._trusted_until:
            self._doubted = False
            self._trial = _Trial(self.size, now, DOUBT_INTERVAL)
        if self._trial is not None and self._trial.failed_at is not None and now >= self._trial.failed_at:
            self._fail(self._trial.size, now)
        if self._trial is None:
            self._choose(now)
        trial = self._trial
        if trial is None or now < trial.next_at:
            return []
        witness, probe = self._probe(self.base), self._probe(trial.size)
        trial.on_sent(witness.number, now, rtt)
        # Where a policer has room for one of them, that mustn't be the witness alone.
        return [probe, witness]

    def on_acknowledged(self, probe: Probe, now: float) -> bool:
        """A probe arrived at the peer; False when it is none of ours, or was answered before."""
        if self._waiting.get(probe.number) != probe.size:
            return False
        del self._waiting[probe.number]
        if self.state is PathMtuState.BASE:
            self.state = PathMtuState.SEARCHING
        trial = self._trial
        if trial is not None and probe.size >= trial.size:
            if trial.size == self.size:
                self._trusted_until = now + TRUST_TIME
            self._end_trial(now)
        elif trial is not None:
            trial.on_acknowledged(probe.number, now)
        if probe.size > self.size:
            self.size = probe.size
            self._raise_interval = FIRST_RAISE
            if probe.size >= self._failing:
                self._failing = self.ceiling + 1  # it was late, not lost
        return True

    def on_too_large(self, size: int, now: float) -> None:
        """The local kernel refuses datagrams of this size (EMSGSIZE): known without waiting for a timeout."""
        if self.state is PathMtuState.DISABLED or size <= self.base or size >= self._failing:
            return
        self._fail(size, now)

    def on_hint(self, size: int) -> None:
        """Somebody says that no more than `size` bytes pass (ICMP). Anybody may say so: it is worth a look, no more."""
        self._hint = size
        if size < self.size or size < self.base:
            self.doubt()

    def on_lost(self, number: int, size: int, now: float) -> None:
        """Shard `number`, a datagram of `size` bytes, counts as lost."""
        if not self.base < size <= self.size:
            return
        if not self._losses or now - self._first_loss_at > EVIDENCE_TIME:
            self._losses, self._largest_lost = 0, 0
            self._first_lost, self._first_loss_at = number, now
        self._losses += 1
        self._first_lost = min(number, self._first_lost)
        self._largest_lost = max(size, self._largest_lost)

    def weigh(self, carried: Callable[[int, int], bool]) -> None:
        """Call after losses. `carried` tells if a shard of at least so many bytes, sent after that number, arrived."""
        if self._losses < LARGE_LOSSES:
            return
        self._losses = 0
        # A copy is larger than its shard by a prefix; the shard that arrived clears both.
        if not carried(self._largest_lost - REPAIR_PREFIX.size, self._first_lost):
            self.doubt()

    def on_stall(self, size: int) -> None:
        """Reports stay out, and the last shard that left has `size` bytes."""
        if self.base < size <= self.size:
            self.doubt()

    def doubt(self) -> None:
        """Find out whether the size in use still passes, at most once in `TRUST_TIME`."""
        self._doubted = self._trial is None or self._trial.size != self.size

    def _probe(self, size: int) -> Probe:
        probe = Probe(self._next_number, size)
        self._next_number = (self._next_number + 1) & 0xFFFFFFFF
        self._waiting[probe.number] = size
        if len(self._waiting) > _MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
        return probe

    def _fail(self, size: int, now: float) -> None:
        self._failing = min(self._failing, size)
        if size <= self.size:
            self.black_holes += 1
            self.size = self.base
            self.state = PathMtuState.SEARCHING
            self._raise_interval = FIRST_RAISE
            self._raising = self._doubted = False
            self._waiting.clear()  # an answer from before proves nothing now
            self._end_trial(now)
        elif self._trial is not None and self._trial.size >= size:
            self._end_trial(now)

    def _end_trial(self, now: float) -> None:
        self._trial = None
        if self.state not in (PathMtuState.SEARCH_COMPLETE, PathMtuState.DISABLED):
            self._timer = now

    def _choose(self, now: float) -> None:
        """Put the next size on trial, or end the search."""
        if self.state is PathMtuState.SEARCH_COMPLETE:
            self.state, self._failing, self._raising = PathMtuState.SEARCHING, self.ceiling + 1, True
        low, high = self.size, self._failing
        hint, self._hint = self._hint, None
        if low >= self.ceiling or (high <= self.ceiling and high - low <= STEP):
            self.state, self._raising = PathMtuState.SEARCH_COMPLETE, False
            self._timer = now + self._raise_interval if low < self.ceiling else None
            self._raise_interval = min(2 * self._raise_interval, RAISE_INTERVAL)
        elif hint is not None and low < hint < high:
            self._trial = _Trial(hint, now)
        elif high > self.ceiling:
            self._trial = _Trial(self.ceiling, now)  # most paths carry what the first link does
        elif self._raising:
            self._raising = False
            self._trial = _Trial(low + STEP, now)  # mostly nothing has changed, and this shows it
        else:
            middle = (low + high) // 2
            common = [size for size in _COMMON if low < size < high]
            self._trial = _Trial(min(common, key=lambda size: abs(size - middle), default=middle), now)
