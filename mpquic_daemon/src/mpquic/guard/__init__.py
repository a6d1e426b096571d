"""`mpquic-guard`: puts back what somebody has taken away of what the roles and systemd-networkd made in the kernel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mpquic import manual
from mpquic.daemon.journal import open_journal
from mpquic.guard.service import Guard, Places
from mpquic.manual import Manual
from mpquic.net.notify import Notifier

if TYPE_CHECKING:
    import argparse

MANUAL = Manual(
    exit_statuses=(
        ("0", "stopped by SIGTERM"),
        ("1", "it could not start or go on"),
        ("2", "the command line is wrong"),
    ),
    examples=(
        ("journalctl -u mpquic-guard", "what was put back, a line for each repair"),
        ("systemctl stop mpquic-guard", "before something is changed by hand for longer than a moment"),
    ),
    files=(("/etc/mpquic/guard.json", "What is kept in place. Written by Ansible."),),
    see_also=("mpquicctl(1)", "mpquic-linkd(8)"),
)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    places = Places()
    found = manual.parser(
        "mpquic-guard",
        "Puts back kernel state that has been taken away: the packet filter, rules, routes, TUN devices and parameters "
        "that the roles and systemd-networkd made. systemd runs it.",
        MANUAL,
    )
    found.add_argument("--wanted", type=Path, default=places.wanted, metavar="FILE", help="what is kept in place")
    found.add_argument("--note", type=Path, default=places.note, metavar="FILE", help="what the loaded table is like")
    found.add_argument("--owner", default=places.owner, metavar="USER", help="who may attach to TUN devices")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parser().parse_args(arguments)
    journal = open_journal("info")
    try:
        guard = Guard(Places(options.wanted, options.note, options.owner), journal, Notifier())
        guard.run()
    except OSError as error:
        journal.error("guard.failed", error=error)
        return 1
    return 0
