"""Keeps rules, routes, addresses, TUN devices and kernel parameters in place."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import TYPE_CHECKING

from mpquic.guard.drift import KINDS, Drift, Present
from mpquic.guard.kernel import create_tun
from mpquic.guard.pauses import Pauses, is_told
from mpquic.guard.wanted import Address, Parameter, Route, Rule, Tun, TunState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mpquic.daemon.journal import Journal
    from mpquic.guard.drift import Device
    from mpquic.guard.kernel import Kernel
    from mpquic.guard.wanted import Thing, Wanted

SHOWN = 6
"""How many things a journal line names."""
_PROC = Path("/proc/sys")


class NetworkGuard:
    """Looks at what there is, and puts back what is missing."""

    def __init__(self, kernel: Kernel, owner: str, journal: Journal) -> None:
        self._kernel = kernel
        self._owner = owner
        self._journal = journal
        self._drift = Drift()
        self._pauses: Pauses[Thing] = Pauses()
        self._missing: dict[Thing, float] = {}

    def look(self, wanted: Wanted, now: float, *, forward: bool) -> None:
        """Compare and repair; OSError when netlink fails."""
        self._missing = {}  # Nothing is due when it can't be known.
        present = self._present(wanted)
        self._missing = self._drift.missing(wanted, present, forward=forward)
        due = self._pauses.due(self._missing, now)
        for kind, members in KINDS:
            things = [thing for thing in due if isinstance(thing, members)]
            if things:
                self._repair(kind, things, present.devices, now)

    def next_time(self) -> float | None:
        """Return when something that is missing is due; None when nothing is."""
        return self._pauses.next_time(self._missing)

    def _present(self, wanted: Wanted) -> Present:
        devices = self._kernel.devices()
        return Present(
            devices,
            self._kernel.rules(),
            self._kernel.routes(devices, wanted.routes),
            self._kernel.interfaces(devices),
            _values({**wanted.parameters, **wanted.forwarding}),
        )

    def _repair(self, kind: str, things: list[Thing], devices: Mapping[str, Device], now: float) -> None:
        done: set[str] = set()
        errors: dict[str, None] = {}
        for thing in things:
            try:
                done.add(self._put_back(thing, devices))
            except OSError as error:
                errors[f"{thing.words}: {error.strerror or error}"] = None
            except KeyError:
                errors[f"{thing.words}: there is no user {self._owner}"] = None
        attempts = self._pauses.repaired(things, now)
        if not any(map(is_told, attempts)):
            return
        words = sorted(thing.words for thing in things)
        shown = ", ".join(words[:SHOWN]) + (f" and {len(words) - SHOWN} more" if len(words) > SHOWN else "")
        fields: dict[str, object] = {"what": kind, "missing": shown, "done": ", ".join(sorted(done)) or "nothing"}
        if errors:
            fields["error"] = "; ".join(list(errors)[:SHOWN])
        self._journal.warning("guard.repaired" if done else "guard.repair_failed", **fields, attempt=max(attempts))

    def _put_back(self, thing: Thing, devices: Mapping[str, Device]) -> str:
        """Put one thing back; return what was done."""
        if isinstance(thing, Parameter):
            (_PROC / thing.name).write_text(f"{thing.value}\n")
            return "written"
        if isinstance(thing, Tun):
            # systemd-networkd configures it by its name; it keeps a TUN that it didn't make just as well.
            owner = pwd.getpwnam(self._owner)
            create_tun(thing.name, owner.pw_uid, owner.pw_gid)
            return "made"
        if isinstance(thing, TunState):
            self._kernel.set_up(devices[thing.name].index, thing.mtu)
            return "set"
        if isinstance(thing, Address):
            self._kernel.add_address(thing, devices[thing.device].index)
        elif isinstance(thing, Route):
            self._kernel.add_route(thing, devices[thing.device].index)
        elif isinstance(thing, Rule):
            self._kernel.add_rule(thing)
        return "added"


def _values(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = (_PROC / name).read_text().strip()
        except OSError:
            continue  # of a device that isn't there, or the host's alone
    return found
