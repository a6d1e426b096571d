"""Whether a registration may take the place of a client that is connected: only where that one doesn't reply any more.

A client that was restarted and a second machine with the same certificate look alike, as a new boot id. What tells them
apart is the client that is connected: it is probed, and anything that arrives from it afterwards shows that it lives.

Pure: times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping  # noqa: TC003 (mypyc loads the types of fields)
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

from mpquic.proto.control.groups import MAX_PATHS_PER_GROUP

if TYPE_CHECKING:
    from collections.abc import Callable

Handle = TypeVar("Handle", bound="Hashable")

Key = tuple[str, str]
"""Identity and tunnel."""

MIN_WAIT = 0.3
MAX_WAIT = 3.0
"""Bounds in seconds of the time in which a reply is waited for. A registration has 5 s in all."""
ROUND_TRIPS = 3
"""Round trips of the old path for which a reply is waited for."""
PROBES = 6
"""Probes in that time: the loss of one of them is no silence."""
INTERVAL = 0.5
"""Least seconds between two series of probes to one client, whoever registers, and however often."""
POLL_INTERVAL = 0.1
ROUNDING = 1e-6
MAX_STEP = 0.2
"""Seconds of silence that are counted between two polls at most: more is a pause of this process, not of the client."""
MAX_TRANSIT = 0.1
"""Seconds after the first probe in which what arrives may have been sent by a client that is gone, at most."""
MAX_REFUSED = 4
"""Boot ids of second machines that are remembered for each client."""
RESTART_TIME = 5.0
"""Seconds that a client which has said goodbye has to come back before another machine gets its place."""


class Outcome(Enum):
    """What becomes of a registration."""

    WAIT = "wait"
    ADMIT = "admit"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Presence:
    """A client that is connected, as its server sees it; a client is there as long as any of its paths is."""

    heard: Mapping[Hashable, tuple[float, ...]]
    """For each of its connections numbers that grow with what arrives, authenticated packets and no others."""
    rtt: float = 0.0
    """Round-trip time in seconds of the slowest path; 0 when none is known."""
    lowest_rtt: float = 0.0
    """The lowest one that was measured on any path."""
    down: bool = False
    """Whether all paths are down."""


class _Pending(Generic[Handle]):
    """The registrations of one boot id that wait for what the old client does; the first probe is due at `begins`."""

    def __init__(self, boot_id: bytes, is_foreign: bool, begins: float) -> None:
        self.boot_id = boot_id
        self.is_foreign = is_foreign
        self.begins = begins
        self.connections: dict[Handle, None] = {}
        self.behind: dict[Handle, None] = {}
        """Registrations of other boot ids, which claim again once this one has the place or has given up."""
        self.before: Mapping[Hashable, tuple[float, ...]] | None = None
        """What had been heard before; None until the first probe."""
        self.transit_until = 0.0
        self.wait = MIN_WAIT
        self.waited = 0.0
        self.polled_at = 0.0
        self.next_probe = 0.0

    def poll(self, presence: Presence, now: float) -> tuple[bool, Outcome]:
        """Return whether a probe is to be sent, and the outcome so far; for a client that is connected."""
        if self.before is None:
            self.before = presence.heard
            self.wait = min(max(ROUND_TRIPS * presence.rtt, MIN_WAIT), MAX_WAIT)
            # A reply takes a round trip; what comes much sooner was on its way before.
            self.transit_until = now + min(presence.lowest_rtt / 2, MAX_TRANSIT)
            self.polled_at, self.next_probe = now, now + self.wait / PROBES
            return True, Outcome.WAIT
        polled_at, self.polled_at = self.polled_at, now
        self.waited += min(now - polled_at, MAX_STEP)
        if polled_at < self.transit_until:
            self.before = presence.heard
        elif _has_grown(self.before, presence.heard):
            return False, Outcome.REFUSE
        if self.waited > self.wait - ROUNDING:
            return False, Outcome.ADMIT
        if now < self.next_probe:
            return False, Outcome.WAIT
        self.next_probe = now + self.wait / PROBES
        return True, Outcome.WAIT

    @property
    def due(self) -> float:
        """When `poll` is to be called."""
        if self.before is None:
            return self.begins
        due = min(self.polled_at + min(self.wait - self.waited, POLL_INTERVAL), self.next_probe)
        return min(due, self.transit_until) if self.polled_at < self.transit_until else due


class Takeovers(Generic[Handle]):
    """The registrations that wait: for each client that is connected those of one boot id, and some behind them.

    A client that is killed again while it waits comes with a third boot id. It can't be told from one that was refused
    for a first client that is gone, so it waits until the second has the place, and then whether that one replies.

    A boot id that was refused while the old client replied is that of a second machine for certain: it isn't
    admitted by a short silence, but only when all paths of the old client are down as well.
    """

    def __init__(self) -> None:
        self._pending: dict[Key, _Pending[Handle]] = {}
        self._waiting: dict[Handle, Key] = {}
        self._outcomes: dict[Handle, Outcome] = {}
        self._probed_at: dict[Key, float] = {}
        self._refused: dict[Key, list[bytes]] = {}
        self._left_at: dict[Key, float] = {}
        self._due = float("inf")

    def __len__(self) -> int:
        """Return the number of registrations that wait."""
        return len(self._waiting)

    @property
    def due(self) -> float:
        """When `poll` has something to do; infinity while nobody waits."""
        return self._due

    def claim(self, key: Key, boot_id: bytes, connection: Handle, now: float, *, is_foreign: bool = True) -> Outcome:
        """Take a registration for the place of a client that is connected, or return what has become of it.

        `is_foreign` is false for the boot id of that client itself. After WAIT, `poll` tells when to ask again.
        """
        outcome = self._outcomes.pop(connection, Outcome.WAIT)
        if outcome is not Outcome.WAIT:
            return outcome
        pending = self._pending.get(key)
        if pending is not None and pending.boot_id != boot_id:
            refused = self._refused.get(key, ())
            if pending.boot_id not in refused:
                if boot_id in refused or len(pending.behind) >= MAX_PATHS_PER_GROUP:
                    return Outcome.REFUSE
                pending.behind[connection] = None
                self._waiting[connection] = key
                return Outcome.WAIT
            # A second machine keeps nobody else waiting.
            self._close(key, pending, Outcome.REFUSE)
            self._due = now
            pending = None
        if pending is None:
            begins = max(now, self._probed_at.get(key, float("-inf")) + INTERVAL)
            pending = self._pending[key] = _Pending(boot_id, is_foreign, begins)
        elif len(pending.connections) >= MAX_PATHS_PER_GROUP:
            return Outcome.REFUSE
        pending.connections[connection] = None
        self._waiting[connection] = key
        self._due = min(self._due, pending.due)
        return Outcome.WAIT

    def poll(self, look: Callable[[Key], Presence | None], now: float) -> tuple[list[Key], list[Handle]]:
        """Return which clients are to be probed, and whose registrations are decided: `claim` tells the outcome.

        Those are to claim in the order in which they are returned.

        `look` returns what is known of a client, None when it isn't connected any more.
        """
        if now < self._due:
            return [], []
        probes: list[Key] = []
        for key, pending in list(self._pending.items()):
            presence = look(key)
            if presence is None:
                self._close(key, pending, Outcome.ADMIT)
                continue
            if now < pending.due:
                continue
            probe, outcome = pending.poll(presence, now)
            if probe:
                probes.append(key)
                self._probed_at[key] = now
            if outcome is Outcome.ADMIT and not presence.down and pending.boot_id in self._refused.get(key, ()):
                outcome = Outcome.REFUSE
            elif outcome is Outcome.REFUSE and pending.is_foreign:
                self._remember(key, pending.boot_id)
            if outcome is not Outcome.WAIT:
                self._close(key, pending, outcome)
        self._due = min((pending.due for pending in self._pending.values()), default=float("inf"))
        return probes, list(self._outcomes)

    def abandon(self, connection: Handle) -> None:
        """Forget a registration that has come to its end by other means, or whose connection has ended."""
        self._outcomes.pop(connection, None)
        key = self._waiting.pop(connection, None)
        if key is None:
            return
        pending = self._pending[key]
        pending.connections.pop(connection, None)
        pending.behind.pop(connection, None)
        if not pending.connections:
            self._close(key, pending, Outcome.WAIT)

    def registered(self, key: Key, boot_id: bytes) -> None:
        """A client has its place by this boot id: it is no second machine any more."""
        self._left_at.pop(key, None)
        refused = self._refused.get(key)
        if refused is not None and boot_id in refused:
            refused.remove(boot_id)
        if not refused:
            self._refused.pop(key, None)

    def changed_hands(self, key: Key) -> None:
        """Another client than before is connected: what was heard of the former one says nothing of it."""
        self._probed_at.pop(key, None)
        pending = self._pending.get(key)
        if pending is not None:
            self._close(key, pending, Outcome.WAIT)

    def left(self, key: Key, now: float) -> None:
        """A client isn't connected any more. Call `poll` then, for those who wait for its place."""
        self._probed_at.pop(key, None)
        if key in self._refused:
            self._left_at[key] = now
        if key in self._pending:
            self._due = now

    def is_early(self, key: Key, boot_id: bytes, now: float) -> bool:
        """Whether a second machine comes while the client, which has left a moment ago, may only be restarting."""
        left_at = self._left_at.get(key)
        if left_at is None:
            return False
        if now - left_at < RESTART_TIME:
            return boot_id in self._refused.get(key, ())
        del self._left_at[key]
        self._refused.pop(key, None)
        return False

    def _remember(self, key: Key, boot_id: bytes) -> None:
        refused = self._refused.setdefault(key, [])
        if boot_id in refused:
            refused.remove(boot_id)
        refused.append(boot_id)
        del refused[:-MAX_REFUSED]

    def _close(self, key: Key, pending: _Pending[Handle], outcome: Outcome) -> None:
        """Decide what waits for a place. With WAIT all are to claim again, with ADMIT those behind are."""
        del self._pending[key]
        for connection in pending.connections:
            del self._waiting[connection]
            self._outcomes[connection] = outcome
        for connection in pending.behind:
            del self._waiting[connection]
            self._outcomes[connection] = Outcome.REFUSE if outcome is Outcome.REFUSE else Outcome.WAIT
        if outcome is Outcome.WAIT and (pending.connections or pending.behind):
            self._due = float("-inf")


def _has_grown(before: Mapping[Hashable, tuple[float, ...]], now: Mapping[Hashable, tuple[float, ...]]) -> bool:
    """Whether anything has arrived meanwhile; a new connection has registered, and one that ended tells nothing."""
    return any(
        connection not in before or any(late > early for early, late in zip(before[connection], heard, strict=False))
        for connection, heard in now.items()
    )
