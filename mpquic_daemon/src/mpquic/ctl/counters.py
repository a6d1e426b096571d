"""`mpquicctl counters`: everything that a running instance counts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mpquic import control_client
from mpquic.ctl.instances import add_directory, for_one

if TYPE_CHECKING:
    import argparse

    from mpquic.ctl.command import Commands


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "counters",
        help="everything that a running instance counts",
        description="Prints everything that a running instance has counted since its process started, as JSON.",
    )
    command.add_argument("name", metavar="NAME", help="the instance")
    command.add_argument("--json", action="store_true", help="JSON, as without this option")
    add_directory(command)
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    return for_one(
        options, lambda name: print(json.dumps(control_client.ask(name, {"op": "get", "what": "counters"}), indent=2))
    )
