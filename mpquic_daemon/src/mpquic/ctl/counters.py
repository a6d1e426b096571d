"""`mpquicctl counters`: everything that a running instance counts, or what each LAN has sent and received."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from mpquic import control_client
from mpquic.ctl import lan_counters
from mpquic.ctl.exit_status import FAILED, UNUSABLE
from mpquic.ctl.instances import add_directory, for_one, instance_files
from mpquic.proto.control.printable import printable
from mpquic.table import table
from mpquic.trace import host

if TYPE_CHECKING:
    import argparse

    from mpquic.ctl.command import Commands


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "counters",
        help="everything that a running instance counts, or what LANs have sent and received",
        description="Prints everything that a running instance has counted since its process started, as JSON. Without "
        "NAME, on a client: packets and bytes of each LAN and VLAN by tunnel and class, since the filter was loaded; "
        "needs root.",
    )
    command.add_argument("name", nargs="?", metavar="NAME", help="the instance; default: the LANs of this client")
    command.add_argument("--json", action="store_true", help="JSON; with NAME as without this option")
    add_directory(command)
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.name is None:
        return _lans(options)
    return for_one(
        options, lambda name: print(json.dumps(control_client.call(name, {"op": "get", "what": "counters"}), indent=2))
    )


def _lans(options: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        print(
            "mpquicctl: counters of LANs are those of the packet filter, which root alone may read: sudo mpquicctl "
            "counters; or name an instance",
            file=sys.stderr,
        )
        return UNUSABLE
    try:
        rows = lan_counters.rows(host.listing_of(lan_counters.LISTING), instance_files(options.instances_dir))
    except (host.HostError, OSError) as error:
        print(printable(f"mpquicctl: {error}"), file=sys.stderr)
        return FAILED
    headings = {key: key.upper() for key in lan_counters.FIELDS}
    print(json.dumps(rows, indent=2) if options.json else table(rows, headings))
    return 0
