"""The shape of an imitated program, and how it gets onto a machine and off it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mpqlab.errors import LabError
from mpqlab.run import run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mpqlab.machine import Machine


@dataclass(frozen=True, slots=True)
class File:
    """A file of a program: its text and mode."""

    text: str
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Program:
    """What a program is made of.

    `files` are named by their path below the root, and so are those that are `absent` where the program is. `unit` runs
    the program; `commands` apply its files at once.
    """

    files: Mapping[str, File] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    unit: str | None = None
    commands: tuple[tuple[str, ...], ...] = ()


def install(program: Program, machine: Machine) -> None:
    """Put a program onto a running machine, started and enabled."""
    for path in program.absent:
        (machine.root / path).unlink(missing_ok=True)
    for path, file in program.files.items():
        target = machine.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(file.text)
        target.chmod(file.mode)
    run(machine.enter(["systemctl", "daemon-reload"]))
    if program.unit is not None:
        run(machine.enter(["systemctl", "enable", "--quiet", program.unit]))
        # Again where it runs already: its files may have changed.
        run(machine.enter(["systemctl", "restart", program.unit]))
    for argv in program.commands:
        run(machine.enter(list(argv)))


def remove(program: Program, machine: Machine) -> None:
    """Take a program off a running machine; its unit takes away what it made.

    Raises:
        LabError: it consists of files of the host itself, which nothing can bring back.
    """
    if program.unit is None:
        raise LabError("only a program with a unit can be removed: make the machine anew with `mpqlab down` and `up`")
    if not (machine.root / "etc/systemd/system" / program.unit).exists():
        return
    run(machine.enter(["systemctl", "disable", "--quiet", "--now", program.unit]))
    for path in program.files:
        (machine.root / path).unlink(missing_ok=True)
    run(machine.enter(["systemctl", "daemon-reload"]))
