"""`mpquic-guard`: puts back what somebody has taken away of what the roles and systemd-networkd made in the kernel."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpquic.daemon.journal import open_journal
from mpquic.guard.service import Guard, Places
from mpquic.net.notify import Notifier


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    places = Places()
    parser = argparse.ArgumentParser(
        prog="mpquic-guard", description="Puts back kernel state that has been taken away."
    )
    parser.add_argument("--wanted", type=Path, default=places.wanted, metavar="FILE", help="what is kept in place")
    parser.add_argument("--note", type=Path, default=places.note, metavar="FILE", help="what the loaded table is like")
    parser.add_argument("--owner", default=places.owner, metavar="USER", help="who may attach to TUN devices")
    options = parser.parse_args(arguments)
    journal = open_journal("info")
    try:
        guard = Guard(Places(options.wanted, options.note, options.owner), journal, Notifier())
        guard.run()
    except OSError as error:
        journal.error("guard.failed", error=error)
        return 1
    return 0
