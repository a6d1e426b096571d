"""`mpquicctl check`: the same as `mpquic --check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mpquic import cli

if TYPE_CHECKING:
    from mpquic.ctl.command import Commands


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "check",
        help="check an instance file",
        description="Says what is wrong with an instance file and the files that it names, as mpquic --check does.",
    )
    command.add_argument("file", type=Path, metavar="FILE", help="the instance file")
    command.set_defaults(run=lambda options: cli.check(options.file))
