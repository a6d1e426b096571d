"""Decides which instances should run: pure, level-triggered, called as often as anybody likes.

An instance is needed when it has no WAN device (a server) or when at least one of its WAN devices is usable. One that
isn't needed is stopped only after some time of grace, so that a modem which flaps doesn't cost a restart at each flap.
What was asked for and hasn't happened is asked again after a pause, which ends when the instance has run for a while,
or its file or what its WANs can do has changed.

One that systemd has given up, after five failures within 30 s, is *failing*: it is started every 10 s, once each time.

One that is out of service is stopped at once and left alone. A unit that runs all the same, after it had been stopped
for that, was started by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mpquic.linkd.units import ALIVE, STOPPED, Activity, Unit

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Mapping, Set

GRACE = 10.0
RETRY = 10.0
STABLE_TIME = 10.0
"""Seconds for which an instance that was started must run, so that its next start isn't a repetition."""

Verb = Literal["start", "stop", "reset", "by_hand"]


@dataclass(frozen=True, slots=True)
class Action:
    """What to do with an instance.

    `start`, `stop` and `reset` (forget that it failed) are asked of the service manager. `by_hand` says that somebody
    has started an instance that was held, which ends the hold. `why` is what makes one different from others.
    """

    verb: Verb
    instance: str
    why: Literal["", "stopped", "retry", "held"] = field(default="", compare=False)


@dataclass(slots=True)
class _Asked:
    verb: Verb
    at: float


class Reconciler:
    """Compares what should run with what runs. Times are seconds of one monotonic clock."""

    def __init__(self, grace: float = GRACE) -> None:
        self._grace = grace
        self._unneeded_since: dict[str, float] = {}
        self._asked: dict[str, _Asked] = {}
        self._running_since: dict[str, float] = {}
        self._usable: dict[str, frozenset[Hashable]] = {}
        """The WANs of each instance that were usable when it was last looked at."""
        self._failing: dict[str, float] = {}
        """The instances that are started every RETRY seconds, and when each was started last."""
        self._cancelled: set[str] = set()
        """Those of them whose restart by systemd was cancelled since then."""
        self._pardoned: set[str] = set()
        """The instances about which something is new since they were started: an earlier failure says nothing."""
        self._alive: set[str] = set()
        """The instances that ran, or were about to, when they were last looked at, and that weren't to be stopped."""
        self._ordered: set[str] = set()
        """The instances that are out of service and were stopped for that."""
        self._quiet: set[str] = set()
        """Those of them that have been seen stopped since then."""

    def decide(
        self,
        instances: Mapping[str, Collection[Hashable]],
        unknown: Set[str],
        usable: Set[Hashable],
        units: Mapping[str, Unit],
        now: float,
        changed: Set[str] = frozenset(),
        held: Set[str] = frozenset(),
        disabled: Set[str] = frozenset(),
    ) -> list[Action]:
        """Return what to do now.

        `instances` maps a name to its WANs, `usable` holds those of them that carry traffic now (both as whatever
        the caller tells WANs apart by), `unknown` are instances whose file can't be read (left as they are), `units`
        what the units do (one that isn't named is stopped), `changed` the instances whose file is another than before.
        `held` are out of service until their hold ends, `disabled` by their file.
        """
        self._note(instances, usable, units, now, changed)
        actions: list[Action] = []
        for name in sorted(instances.keys() | units.keys() | held | disabled):
            unit = units.get(name, STOPPED)
            if name in held or name in disabled:
                actions += self._out_of_service(name, unit, now, by_hand_ends=name in held)
                continue
            self._ordered.discard(name)
            self._quiet.discard(name)
            if name in unknown:
                continue
            devices = instances.get(name)
            if devices is not None and (not devices or any(device in usable for device in devices)):
                self._unneeded_since.pop(name, None)
                actions += self._needed(name, unit, now)
            else:
                actions += self._unneeded(name, unit, now)
        self._forget(instances.keys() | units.keys() | unknown | held | disabled)
        return actions

    def not_done(self, action: Action) -> None:
        """What was asked for was refused: it doesn't count for what follows from it."""
        self._ordered.discard(action.instance)
        self._cancelled.discard(action.instance)

    def failing(self, name: str) -> bool:
        """Whether the instance is started every RETRY seconds only, since it failed too often."""
        return name in self._failing

    def next_time(self, now: float) -> float | None:
        """Return when `decide` has something to do without any event: an end of grace, another start."""
        ends = [since + self._grace for since in self._unneeded_since.values()]
        ends += [asked.at + RETRY for asked in self._asked.values()]
        ends += [last + RETRY for last in self._failing.values()]
        ends += [since + STABLE_TIME for name, since in self._running_since.items() if name in self._failing]
        return min((end for end in ends if end > now), default=None)

    def _note(
        self,
        instances: Mapping[str, Collection[Hashable]],
        usable: Set[Hashable],
        units: Mapping[str, Unit],
        now: float,
        changed: Set[str],
    ) -> None:
        """End the pauses of instances about which something is new."""
        for name, wans in instances.items():
            carrying = frozenset(wan for wan in wans if wan in usable)
            if self._usable.get(name) != carrying or name in changed:
                self._begin_anew(name)
                self._pardoned.add(name)
            self._usable[name] = carrying
        running = {name for name, unit in units.items() if unit.activity is Activity.RUNNING}
        for name in running:
            if now - self._running_since.setdefault(name, now) >= STABLE_TIME:
                self._begin_anew(name)
        for name in self._running_since.keys() - running:
            del self._running_since[name]

    def _begin_anew(self, name: str) -> None:
        self._asked.pop(name, None)
        self._failing.pop(name, None)
        self._cancelled.discard(name)

    def _out_of_service(self, name: str, unit: Unit, now: float, *, by_hand_ends: bool) -> list[Action]:
        self._unneeded_since.pop(name, None)
        self._failing.pop(name, None)
        self._alive.discard(name)
        if name not in self._ordered:
            # Also when it is stopped: a start that was asked for a moment ago may still be in the queue.
            self._ordered.add(name)
            self._asked[name] = _Asked("stop", now)
            return [Action("stop", name, "held")]
        if unit.activity in ALIVE:
            if by_hand_ends and name in self._quiet:
                return [Action("by_hand", name)]
            return [Action("stop", name, "held")] if self._may_ask(name, "stop", now) else []
        if unit.activity is Activity.STOPPING:
            return []
        self._quiet.add(name)
        return self._tidy(name, unit, now)

    def _needed(self, name: str, unit: Unit, now: float) -> list[Action]:
        if unit.masked:
            self._begin_anew(name)
            self._alive.discard(name)
            return self._tidy(name, unit, now)
        match unit.activity:
            case Activity.STARTING | Activity.RUNNING:
                self._alive.add(name)
                self._pardoned.discard(name)
                return []
            case Activity.STOPPING:
                return []
            case Activity.RESTARTING:
                self._alive.add(name)
                if name not in self._failing or name in self._cancelled:
                    return []
                self._cancelled.add(name)
                self._alive.discard(name)
                return [Action("stop", name, "retry")]
            case Activity.FAILED if name in self._pardoned:
                self._pardoned.discard(name)
                self._alive.discard(name)
                self._asked[name] = _Asked("start", now)
                return [Action("reset", name), Action("start", name)]
            case Activity.FAILED if name not in self._failing:
                self._failing[name] = now
                self._alive.discard(name)
                return []
        if name in self._failing:
            if now - self._failing[name] < RETRY:
                return []
            self._failing[name] = now
            self._cancelled.discard(name)
            self._asked.pop(name, None)
            actions = [Action("reset", name)] if unit.activity is Activity.FAILED else []
            return [*actions, Action("start", name, "retry")]
        if not self._may_ask(name, "start", now):
            return []
        # Nothing but a request stops a unit that systemd restarts after whatever end.
        stopped = name in self._alive
        self._alive.discard(name)
        return [Action("start", name, "stopped" if stopped else "")]

    def _unneeded(self, name: str, unit: Unit, now: float) -> list[Action]:
        since = self._unneeded_since.setdefault(name, now)
        self._alive.discard(name)
        if unit.activity not in ALIVE:
            if unit.activity is not Activity.FAILED:
                self._asked.pop(name, None)
            return self._tidy(name, unit, now)
        if now - since >= self._grace and self._may_ask(name, "stop", now):
            return [Action("stop", name)]
        return []

    def _tidy(self, name: str, unit: Unit, now: float) -> list[Action]:
        """A unit that isn't to run has no failure to show."""
        if unit.activity is Activity.FAILED and self._may_ask(name, "reset", now):
            return [Action("reset", name)]
        return []

    def _may_ask(self, name: str, verb: Verb, now: float) -> bool:
        asked = self._asked.get(name)
        if asked is not None and asked.verb == verb and now - asked.at < RETRY:
            return False
        self._asked[name] = _Asked(verb, now)
        return True

    def _forget(self, known: Set[str]) -> None:
        tables: tuple[dict[str, Any], ...] = (self._unneeded_since, self._asked, self._usable, self._failing)
        for table in tables:
            for name in [name for name in table if name not in known]:
                del table[name]
        for names in (self._cancelled, self._pardoned, self._alive, self._ordered, self._quiet):
            names &= known
