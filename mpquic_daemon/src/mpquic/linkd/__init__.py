"""`mpquic-linkd`: starts and stops instances as their WAN devices come and go, and as operators hold and release them.

It renews the leases of dead paths, too.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from mpquic import manual
from mpquic.daemon.journal import Journal, open_journal
from mpquic.linkd.service import LinkDaemon, install_signals
from mpquic.linkd.systemd import Systemd
from mpquic.manual import Manual
from mpquic.net.notify import Notifier

if TYPE_CHECKING:
    import argparse

INSTANCES_DIR = Path("/etc/mpquic/instances")
RUNTIME_DIR = Path("/run/mpquic-linkd")

MANUAL = Manual(
    exit_statuses=(
        ("0", "stopped by SIGTERM"),
        ("1", "it could not start or go on"),
        ("2", "the command line is wrong"),
    ),
    examples=(("journalctl -u mpquic-linkd", "what was started and stopped, and why"),),
    see_also=("mpquicctl(1)", "mpquic(8)"),
)


async def _run(instances_dir: Path, runtime_dir: Path, journal: Journal) -> int:
    try:
        daemon = LinkDaemon(instances_dir, runtime_dir, Systemd, journal, Notifier())
        install_signals(daemon)
        await daemon.run()
    except OSError as error:
        journal.error("linkd.failed", error=error)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = manual.parser(
        "mpquic-linkd",
        "Lets tunnel instances follow their WAN devices: starts those whose WAN can be used, stops those whose WAN has "
        "gone, and has the lease of a dead path renewed. systemd runs it.",
        MANUAL,
    )
    found.add_argument("--instances-dir", type=Path, default=INSTANCES_DIR, metavar="DIR", help="instance files")
    found.add_argument("--runtime-dir", type=Path, default=RUNTIME_DIR, metavar="DIR", help="where its sockets are")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parser().parse_args(arguments)
    return asyncio.run(_run(options.instances_dir, options.runtime_dir, open_journal("info")))
