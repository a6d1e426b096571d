"""The socket on which instances ask for leases: `renew DEV` and `works DEV`, a datagram each."""

from __future__ import annotations

import grp
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from mpquic.daemon.journal import Journal

GROUP = "mpquic"
MAX_DATAGRAM = 256


def open_request_socket(path: Path, journal: Journal) -> socket.socket:
    """Return the socket at `path`, for the daemons' group to write to; OSError."""
    requests = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    path.unlink(missing_ok=True)
    try:
        requests.bind(str(path))
        path.chmod(0o660)
        give_to_group(path, journal)
    except OSError:
        requests.close()
        raise
    return requests


def give_to_group(path: Path, journal: Journal) -> None:
    """Let the daemons' group write. Without CAP_CHOWN that works only for a group that this process is in; OSError."""
    try:
        group = grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return
    if path.stat().st_gid == group:
        return
    try:
        os.chown(path, -1, group)
    except PermissionError:
        journal.error(
            "linkd.socket_group", socket=path, hint=f"the unit needs Group={GROUP}, or nobody else can ask for anything"
        )
