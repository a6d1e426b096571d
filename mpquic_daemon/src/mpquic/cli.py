"""`mpquic`: runs one instance, or checks its configuration.

mpquic --config FILE    run the instance until SIGTERM; SIGHUP reads FILE again
mpquic --check FILE     say what is wrong with FILE; exit status 0 when nothing is, 1 otherwise
"""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mpquic import manual
from mpquic.config import check_files, load
from mpquic.config.schema import ConfigError
from mpquic.manual import Manual
from mpquic.release import RELEASE

if TYPE_CHECKING:
    import argparse

MANUAL = Manual(
    exit_statuses=(
        ("0", "stopped by SIGTERM; with --check: nothing is wrong"),
        ("1", "the file is wrong, or the instance could not start or go on"),
        ("2", "the command line is wrong"),
    ),
    examples=(
        ("mpquic --check /etc/mpquic/instances/mpq5.yml", "say what is wrong with a file"),
        ("systemctl reload mpquic@mpq5", "have the running instance read its file again (SIGHUP)"),
    ),
    files=(
        ("/etc/mpquic/instances/NAME.yml", "The instance NAME, run by mpquic@NAME.service. Written by Ansible."),
        ("/run/mpquic/NAME.sock", "Its control socket, for root and the group mpquic."),
        ("/var/lib/mpquic-instances/NAME.json", "What it knows of its peers."),
        ("/var/lib/mpquic-linkd/holds/NAME.json", "Why and until when it is out of service on purpose."),
    ),
    see_also=("mpquicctl(1)", "mpquic-linkd(8)"),
)


def check(path: Path) -> int:
    """Print `FILE: ok`, or each problem of the instance file and of what it names on a line of standard error."""
    try:
        config = load(path)
    except ConfigError as error:
        problems = error.problems
    else:
        problems = check_files(config)
        if not problems:
            print(f"{path}: ok, {config.role} {config.name}")
            return 0
    for problem in problems:
        # A problem of the file as a whole names it.
        where = "" if not problem.key and str(path) in problem.message else f"{path}: "
        print(f"{where}{problem}", file=sys.stderr)
    return 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = manual.parser(
        "mpquic",
        "Tunnel daemon of the mpquic multi-WAN appliance: runs one end of a tunnel, client or server, until SIGTERM, "
        "or checks its configuration. systemd runs it; mpquicctl shows what it does.",
        MANUAL,
    )
    action = found.add_mutually_exclusive_group(required=True)
    action.add_argument("--config", metavar="FILE", type=Path, help="run the instance that FILE describes")
    action.add_argument("--check", metavar="FILE", type=Path, help="check FILE and exit")
    action.add_argument("--version", action="version", version=f"mpquic {RELEASE}")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parser().parse_args(arguments)
    if options.check is not None:
        return check(options.check)
    # Only the daemon pays for loading QUIC and the kernel interfaces; --check runs wherever the schema does.
    from mpquic.daemon.service import run
    from mpquic.net.event_loop import EventLoop

    try:
        config = load(options.config)
    except ConfigError as error:
        for problem in error.problems:
            print(f"<3>config.invalid file={options.config} problem={str(problem)!r}", file=sys.stderr)
        return 1
    # What is loaded now stays: the collector need not look at it again. Its thresholds remain Python's own, since a
    # closed connection is a cycle, and with rarer collections their memory adds up.
    gc.freeze()
    with asyncio.Runner(loop_factory=EventLoop) as runner:
        return runner.run(run(options.config, config))


if __name__ == "__main__":
    sys.exit(main())
