"""`mpquicctl handover`: on a VPS, let another machine take the place of a site on purpose."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import sys
from typing import TYPE_CHECKING

from mpquic import control_client
from mpquic.ctl.exit_status import FAILED, NOT_RUNNING, UNUSABLE
from mpquic.ctl.hold import duration
from mpquic.ctl.instances import add_directory, call_each, instance_files, reason, row_of_file
from mpquic.proto.control.printable import printable
from mpquic.table import SITE_PREFIX

if TYPE_CHECKING:
    from mpquic.ctl.command import Commands
    from mpquic.ctl.instances import Row

DEFAULT = 600
"""Seconds in which the other machine has to come."""
MAX_SECONDS = 86400


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "handover",
        help="on a VPS: let another machine take the place of a site",
        description="Lets the next other machine, or restarted process, that registers as SITE take its place at once. "
        "The present one is told, and is refused until the identity is handed back the same way, or until its process "
        "is started anew and the other machine doesn't reply. Without this, a second machine is refused as long as the "
        "first one replies.",
    )
    command.add_argument("site", metavar="SITE", help="the site, or the URI of its certificate")
    command.add_argument("tunnel", nargs="?", metavar="TUNNEL", help="only this tunnel")
    command.add_argument(
        "--for", dest="seconds", type=_seconds, default=DEFAULT, metavar="TIME",
        help=f"in which it has to come, as 90s, 30m, 2h; {DEFAULT // 60}m if it isn't given",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="a list of objects instead of sentences")
    add_directory(command)
    command.set_defaults(run=_run)


def _seconds(text: str) -> int:
    seconds = duration(text)
    if seconds > MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{text}: a handover is open for a day at most")
    return seconds


def _run(options: argparse.Namespace) -> int:
    try:
        files = instance_files(options.instances_dir)
    except OSError as error:
        print(f"mpquicctl: can't list {options.instances_dir}: {error.strerror}", file=sys.stderr)
        return UNUSABLE
    servers = [path for path in files if row_of_file(path).get("role") == "server"]
    if not servers:
        print("mpquicctl: no instance of this host is a server: run it on the VPS of the site", file=sys.stderr)
        return FAILED
    user = os.environ.get("SUDO_USER") or _own_name()
    request = {
        "op": "handover",
        "who": options.site,
        "tunnel": options.tunnel,
        "for_seconds": options.seconds,
        "user": user,
    }
    answers = call_each(servers, request)
    rows: list[Row] = [row for answer in answers if not isinstance(answer, Exception) for row in answer]
    if not rows:
        for path, answer in zip(servers, answers, strict=True):
            what = "it is not running" if isinstance(answer, control_client.NotRunning) else reason(answer)
            print(printable(f"mpquicctl: {path.stem}: {what}"), file=sys.stderr)
        return NOT_RUNNING if all(isinstance(answer, control_client.NotRunning) for answer in answers) else FAILED
    print(json.dumps(rows, indent=2) if options.json else "\n".join(printable(_sentence(row)) for row in rows))
    return 0


def _own_name() -> str | None:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return None


def _sentence(row: Row) -> str:
    name = f"{str(row['identity']).removeprefix(SITE_PREFIX)} {row['tunnel']}"
    instead = f"in place of the one at {row['peer']}" if row["peer"] is not None else "(none is connected now)"
    return f"{name}: the next other machine within {row['for_seconds']:g} s takes over, {instead}"
