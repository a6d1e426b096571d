"""`mpquicctl`: what an operator asks of the instances on this host.

Each command is a module with a function `add`, which gives the parser its options and the function that carries it out.
Exit statuses: `mpquic.ctl.exit_status`. Man page and completion follow from the parser: `make docs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic import manual
from mpquic.ctl import check, counters, exit_status, handover, hold, reconnect, speedtest, status, trace, watch
from mpquic.manual import Manual
from mpquic.release import RELEASE

if TYPE_CHECKING:
    import argparse

COMMANDS = (status, watch, hold, handover, reconnect, trace, speedtest, counters, check)
"""The modules of the commands, in the order in which the help lists them."""

MANUAL = Manual(
    exit_statuses=(
        ("0", "done; status, paths and version without names always"),
        (str(exit_status.FAILED), "a file is wrong, a request was refused, or no new connection carries"),
        (str(exit_status.UNUSABLE), "the command line is wrong, or the folder of instances can't be listed"),
        (str(exit_status.NOT_RUNNING), "an instance that is named isn't running"),
        (str(exit_status.UNKNOWN), "there is no instance of that name"),
    ),
    examples=(
        ("mpquicctl status", "the state of each instance; on a VPS of each site, too"),
        ("mpquicctl status mpq5 --json", "everything that is known of one, for programs"),
        ("mpquicctl watch", "each change of state as it happens"),
        ("mpquicctl reconnect mpq5", "a new connection now, and what came of it"),
    ),
    files=(
        ("/etc/mpquic/instances/NAME.yml", "The instances of this host. Written by Ansible."),
        ("/run/mpquic/NAME.sock", "The control socket of a running instance, for root and the group mpquic."),
    ),
    see_also=("mpquic(8)", "mpquic-linkd(8)"),
)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = manual.parser(
        "mpquicctl",
        "Shows the tunnel instances of this host, says why one doesn't carry, and acts on them.",
        MANUAL,
    )
    found.add_argument("--version", action="version", version=f"mpquicctl {RELEASE}")
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for module in COMMANDS:
        module.add(commands)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parser().parse_args(arguments)
    status: int = options.run(options)
    return status
