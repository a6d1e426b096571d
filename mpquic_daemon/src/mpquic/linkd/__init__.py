"""`mpquic-linkd`: starts and stops instances as their WAN devices come and go, and renews leases of dead paths."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from mpquic.daemon.journal import Journal, open_journal
from mpquic.linkd.service import LinkDaemon, install_signals
from mpquic.linkd.systemd import Systemd
from mpquic.net.notify import Notifier

INSTANCES_DIR = Path("/etc/mpquic/instances")
REQUEST_SOCKET = Path("/run/mpquic-linkd/request")


async def _run(instances_dir: Path, request_socket: Path, journal: Journal) -> int:
    try:
        daemon = LinkDaemon(instances_dir, request_socket, Systemd(), journal, Notifier())
        install_signals(daemon)
        await daemon.run()
    except OSError as error:
        journal.error("linkd.failed", error=error)
        return 1
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="mpquic-linkd", description="Lets tunnel instances follow their WAN devices.")
    parser.add_argument("--instances-dir", type=Path, default=INSTANCES_DIR, metavar="DIR")
    parser.add_argument("--request-socket", type=Path, default=REQUEST_SOCKET, metavar="PATH")
    options = parser.parse_args(arguments)
    return asyncio.run(_run(options.instances_dir, options.request_socket, open_journal("info")))
