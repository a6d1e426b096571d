"""`mpquicctl`: what an operator asks of the instances on this host.

Each command is a module with a function `add`, which gives the parser its options and the function that carries it out.
Exit statuses: `mpquic.ctl.exit_status`.
"""

from __future__ import annotations

import argparse

import mpquic
from mpquic.ctl import check, counters, reconnect, speedtest, status, trace, watch

COMMANDS = (status, watch, counters, reconnect, trace, speedtest, check)
"""The modules of the commands, in the order in which the help lists them."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(prog="mpquicctl", description="Shows and checks the tunnel instances of this host.")
    found.add_argument("--version", action="version", version=f"mpquicctl {mpquic.__version__}")
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add(commands)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parser().parse_args(arguments)
    status: int = options.run(options)
    return status
