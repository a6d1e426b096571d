"""Decides which instances should run: pure, level-triggered, called as often as anybody likes.

An instance is needed when it has no WAN device (a server) or when at least one of its WAN devices is usable. One that
isn't needed is stopped only after a hold time, so that a modem which flaps doesn't cost a restart at each flap. What
was asked for and hasn't happened is asked again, with growing pauses: these end when the instance has run for a while,
or its file or what its WANs can do has changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Mapping, Set

HOLD = 10.0
FIRST_RETRY = 5.0
LAST_RETRY = 300.0
SETTLED = 10.0
"""Seconds for which an instance that was started must run, so that its next start isn't a repetition."""


@dataclass(frozen=True, slots=True)
class Action:
    """What to ask of the service manager: start or stop the unit of an instance."""

    verb: Literal["start", "stop"]
    instance: str


@dataclass(slots=True)
class _Asked:
    verb: Literal["start", "stop"]
    at: float
    pause: float


class Reconciler:
    """Compares what should run with what runs. Times are seconds of one monotonic clock."""

    def __init__(self, hold: float = HOLD) -> None:
        self._hold = hold
        self._unneeded_since: dict[str, float] = {}
        self._asked: dict[str, _Asked] = {}
        self._running_since: dict[str, float] = {}
        self._usable: dict[str, frozenset[Hashable]] = {}
        """The WANs of each instance that were usable when it was last looked at."""

    def decide(
        self,
        instances: Mapping[str, Collection[Hashable]],
        unknown: Set[str],
        usable: Set[Hashable],
        running: Set[str],
        now: float,
        changed: Set[str] = frozenset(),
    ) -> list[Action]:
        """Return what to do now.

        `instances` maps a name to its WANs, `usable` holds those of them that carry traffic now (both as whatever
        the caller tells WANs apart by), `unknown` are instances whose file can't be read (left as they are),
        `running` the instances whose unit is active or becoming so, `changed` those whose file is another than before.
        """
        self._note(instances, usable, running, now, changed)
        actions: list[Action] = []
        for name in sorted((instances.keys() | running) - unknown):
            devices = instances.get(name)
            needed = devices is not None and (not devices or any(device in usable for device in devices))
            if needed:
                self._unneeded_since.pop(name, None)
                if name not in running and self._may_ask(name, "start", now):
                    actions.append(Action("start", name))
                continue
            since = self._unneeded_since.setdefault(name, now)
            if name not in running:
                self._asked.pop(name, None)
            elif now - since >= self._hold and self._may_ask(name, "stop", now):
                actions.append(Action("stop", name))
        self._forget(instances.keys() | running | unknown)
        return actions

    def next_time(self, running: Set[str], now: float) -> float | None:
        """Return when `decide` has something to do without any event: the end of the earliest hold."""
        ends = (since + self._hold for name, since in self._unneeded_since.items() if name in running)
        return min((end for end in ends if end > now), default=None)

    def _note(
        self,
        instances: Mapping[str, Collection[Hashable]],
        usable: Set[Hashable],
        running: Set[str],
        now: float,
        changed: Set[str],
    ) -> None:
        """End the pauses of instances about which something is new."""
        for name, wans in instances.items():
            carrying = frozenset(wan for wan in wans if wan in usable)
            if self._usable.get(name) != carrying or name in changed:
                self._asked.pop(name, None)
            self._usable[name] = carrying
        for name in running:
            if now - self._running_since.setdefault(name, now) >= SETTLED:
                self._asked.pop(name, None)
        for name in self._running_since.keys() - running:
            del self._running_since[name]

    def _may_ask(self, name: str, verb: Literal["start", "stop"], now: float) -> bool:
        asked = self._asked.get(name)
        if asked is None or asked.verb != verb or now - asked.at > LAST_RETRY * 2:
            self._asked[name] = _Asked(verb, now, FIRST_RETRY)
            return True
        if now - asked.at < asked.pause:
            return False
        asked.at, asked.pause = now, min(asked.pause * 2, LAST_RETRY)
        return True

    def _forget(self, known: Set[str]) -> None:
        tables: tuple[dict[str, Any], ...] = (self._unneeded_since, self._asked, self._usable)
        for table in tables:
            for name in [name for name in table if name not in known]:
                del table[name]
