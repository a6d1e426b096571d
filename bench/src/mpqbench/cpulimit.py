"""A limit on the processor time of single processes: the CPU bandwidth controller of control groups, version 1 or 2.

Kernel: Documentation/scheduler/sched-bwc.rst and Documentation/admin-guide/cgroup-v2.rst, "cpu".
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mpqbench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from mpqbench.processes import Process

PERIOD = 10_000
"""Microseconds. A process that has used up its share waits until the next period begins: with the kernel's usual 100 ms
that is a silence of most of a round trip, which a slow processor doesn't have."""
PREFIX = "mpqbench-"
WEIGHT = 10
"""How many times more than another process a limited one gets, until it meets its limit: so that this is what limits
it, and not the load generators beside it."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where the controller is mounted, and which version of control groups that is."""

    root: Path
    version: int

    def settings(self, cores: float) -> Mapping[str, str]:
        """Return what is written to which file of a group that may use so many cores."""
        quota = round(cores * PERIOD)
        if self.version == 1:
            return {
                "cpu.cfs_period_us": str(PERIOD),
                "cpu.cfs_quota_us": str(quota),
                "cpu.shares": str(1024 * WEIGHT),
            }
        return {"cpu.max": f"{quota} {PERIOD}", "cpu.weight": str(100 * WEIGHT)}


def mounted(mountinfo: str) -> list[Hierarchy]:
    """Return what may have the controller: `mountinfo` is the text of /proc/self/mountinfo (proc(5)).

    A hierarchy of version 1 that has it comes first: then none of version 2 can have it.
    """
    found: list[Hierarchy] = []
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split()[:3]
        if kind == "cgroup" and "cpu" in options.split(","):
            found.insert(0, Hierarchy(Path(fields.split()[4]), 1))
        elif kind == "cgroup2":
            found.append(Hierarchy(Path(fields.split()[4]), 2))
    return found


def _hierarchy() -> Hierarchy:
    for hierarchy in mounted(Path("/proc/self/mountinfo").read_text()):
        if hierarchy.version == 1:
            return hierarchy
        if "cpu" in (hierarchy.root / "cgroup.controllers").read_text().split():
            (hierarchy.root / "cgroup.subtree_control").write_text("+cpu")
            return hierarchy
    raise BenchError("no control group hierarchy with the controller cpu is mounted")


class CpuLimit:
    """Context manager: a control group whose processes may use so many cores together."""

    def __init__(self, cores: float) -> None:
        self._cores = cores
        self._group: Path | None = None

    def __enter__(self) -> Self:
        try:
            hierarchy = _hierarchy()
            _remove_left(hierarchy.root)
            group = hierarchy.root / f"{PREFIX}{os.getpid()}"
            group.mkdir(exist_ok=True)
            self._group = group
            for name, value in hierarchy.settings(self._cores).items():
                (group / name).write_text(value)
        except OSError as error:
            self._remove()
            raise BenchError(f"no limit on processor time: {error}") from error
        return self

    def add(self, process: Process) -> None:
        """Limit a process from here on, with what it starts."""
        if self._group is None:
            raise BenchError("the control group isn't made yet")
        try:
            (self._group / "cgroup.procs").write_text(str(process.pid))
        except OSError as error:
            raise BenchError(f"no limit on the processor time of {process.name}: {error}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        """Remove the group; what is still in it goes back to the root first."""
        group, self._group = self._group, None
        if group is None:
            return
        for member in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (group.parent / "cgroup.procs").write_text(member)
        group.rmdir()


def _remove_left(root: Path) -> None:
    """Remove empty groups of benches that were killed."""
    for old in root.glob(f"{PREFIX}*"):
        if not (Path("/proc") / old.name.removeprefix(PREFIX)).exists():
            with contextlib.suppress(OSError):
                old.rmdir()
