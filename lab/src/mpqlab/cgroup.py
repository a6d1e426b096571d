"""Control groups: one for each machine, one for services, one for the image's construction.

Two systemds in one group would manage each other's units, so a machine needs its own. The others let `down` find every
process of the lab even when its records are lost: what is in a group of the lab was started by the lab.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mpqlab.errors import LabError
from mpqlab.topology import LAB_NAME
from mpqlab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path("/sys/fs/cgroup")
KILL_SECONDS = 10.0
FREEZE_SECONDS = 10.0
# A controller that refuses a process until it was set up; nothing here needs it.
_SKIPPED_CONTROLLERS = {"cpuset"}
_JOIN = 'for group in {groups}; do echo $$ > "$group/cgroup.procs" || exit 1; done; exec "$@"'


def joining(name: str, argv: Sequence[str]) -> list[str]:
    """Make a group in every hierarchy and return the command that runs `argv` in it.

    Raises:
        LabError: no control groups are mounted, or none can be made.
    """
    groups = _groups(name)
    if not groups:
        raise LabError(f"no control groups are mounted below {ROOT}: boot with systemd, or mount them")
    for group in groups:
        try:
            group.mkdir(exist_ok=True)
        except OSError as error:
            raise LabError(
                f"the control group {group} can't be made ({error.strerror}): "
                "the lab needs writable control groups (in a container, run it with --privileged)"
            ) from None
    return ["sh", "-c", _JOIN.format(groups=" ".join(str(group) for group in groups)), "sh", *argv]


def freeze(name: str, *, frozen: bool) -> None:
    """Stop all processes of a group where they are, or let them go on; returns when that is done.

    Raises:
        LabError: there is no freezer, or it doesn't come to an end.
    """
    for group in _groups(name):
        for control, words, state, said in (
            # The freezer of version 1, and what every group of version 2 has.
            ("freezer.state", ("THAWED", "FROZEN"), "freezer.state", ("THAWED", "FROZEN")),
            ("cgroup.freeze", ("0", "1"), "cgroup.events", ("frozen 0", "frozen 1")),
        ):
            if (group / control).is_file():
                (group / control).write_text(words[frozen])
                _wait_for(group / state, said[frozen])
                return
    raise LabError(f"the control groups below {ROOT} have no freezer for {_full(name)}")


def prefer(name: str, times: int) -> None:
    """Give a group `times` the processor time of any other that competes with it; 1 is as it was made.

    To the scheduler a machine with all its processes is one beside each single process of the controller, whereas a
    machine of a site has its processors for itself. Nothing happens where groups have no such weight.
    """
    for group in _groups(name):
        for control, usual, most in (("cpu.shares", 1024, 262144), ("cpu.weight", 100, 10000)):
            if (group / control).is_file():
                (group / control).write_text(str(min(usual * times, most)))


def _wait_for(file: Path, text: str) -> None:
    wait_for(lambda: text in file.read_text().splitlines(), FREEZE_SECONDS, f"{text!r} in {file}")


def remove(name: str) -> None:
    """Kill what is left in a group, and remove it.

    Raises:
        LabError: a process can't be killed.
    """
    deadline = time.monotonic() + KILL_SECONDS
    groups = [group for group in _groups(name) if group.is_dir()]
    while members := {pid for group in groups for pid in _members(group)}:
        if time.monotonic() > deadline:
            raise LabError(f"the processes {sorted(members)} of the group {_full(name)} can't be killed")
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    for group in groups:
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()


def _full(name: str) -> str:
    return f"{LAB_NAME}-{name}"


def _groups(name: str) -> list[Path]:
    return [root / _full(name) for root in _hierarchies()]


def _members(group: Path) -> set[int]:
    found: set[int] = set()
    for folder, _, _ in os.walk(group):
        # The folder may vanish meanwhile: a group of the machine's own systemd.
        with contextlib.suppress(FileNotFoundError, OSError):
            found |= {int(line) for line in Path(folder, "cgroup.procs").read_text().split()}
    return found - {0}


def _hierarchies() -> list[Path]:
    """Return the root of each control group hierarchy that is mounted, v1 and v2."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split()[:3]
        if kind in {"cgroup", "cgroup2"} and not _SKIPPED_CONTROLLERS & set(options.split(",")):
            point = Path(fields.split()[4])
            if point.is_relative_to(ROOT):
                found.append(point)
    return found
