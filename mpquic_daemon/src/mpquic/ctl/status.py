"""`mpquicctl status`, `paths` and `version`: tables of the instances of this host."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from mpquic import control_client
from mpquic.ctl import peers
from mpquic.ctl.exit_status import NOT_RUNNING, UNUSABLE
from mpquic.ctl.instances import (
    Row,
    add_directory,
    call_each,
    instance_files,
    natural,
    reason,
    row_of_file,
    row_of_stopped,
    tell_unknown,
)
from mpquic.release import RELEASE
from mpquic.table import table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from mpquic.ctl.command import Commands

FIELDS = (
    "name", "role", "state", "duration_seconds", "peer", "wan", "class", "rtt_seconds", "loss_ratio", "tx_bytes",
    "rx_bytes", "reconnects", "flaps", "release", "peer_releases", "error",
)  # fmt: skip
JSON_FIELDS = (*FIELDS, "since", "missing", "hold", "hold_at", "peers", "certificate")
PATH_FIELDS = (
    "instance", "path", "state", "stripe", "identity", "local", "peer", "device", "rtt_seconds", "loss_ratio",
    "tx_bytes", "rx_bytes", "release", "peer_release",
)  # fmt: skip
PIPE_FIELDS = (
    "instance", "path", "identity", "pipe", "rtt_seconds", "tx_bytes", "tx_loss_ratio", "tx_acked_age_seconds",
    "rx_bytes", "rx_loss_ratio", "rx_heard_age_seconds",
)  # fmt: skip
HEADINGS = {
    "duration_seconds": "FOR", "identity": "PEER IDENTITY", "rtt_seconds": "RTT_MS", "loss_ratio": "LOSS",
    "peer_release": "PEER RELEASE", "peer_releases": "PEER RELEASE", "tx_loss_ratio": "TX_LOSS",
    "tx_acked_age_seconds": "ACKED", "rx_loss_ratio": "RX_LOSS", "rx_heard_age_seconds": "HEARD",
}  # fmt: skip
"""Of columns that aren't called as their field."""
JSON_VERSION_FIELDS = ("name", "release", "peer_releases", "error")
JSON_PATH_FIELDS = (
    *PATH_FIELDS, "tunnel", "inner", "peer_certificate", "transport_mode", "rtt_latest_seconds",
    "rtt_variation_seconds", "rtt_min_seconds", "tx_datagrams", "rx_datagrams", "quic", "pipes",
)  # fmt: skip


def add(commands: Commands) -> None:
    """Add the commands to the parser."""
    for name, help_text, more in (
        (
            "status",
            "state of every instance, or of those that are named",
            "A server has a row for each site; of more than ten, those that are up have one where the server is named.",
        ),
        ("paths", "paths of every running instance", "A server has one for each client that is connected."),
        (
            "version",
            "release of this command and of every running instance, and what its peers run",
            "They differ after an upgrade until an instance has been restarted.",
        ),
    ):
        command = commands.add_parser(name, help=help_text, description=f"Shows the {help_text}. {more}")
        command.add_argument("names", nargs="*", metavar="NAME", help="only these instances")
        form = command.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="a list of objects instead of a table")
        if name == "paths":
            text = "a row for each pipe of their striped data planes, with what it carries and loses in each direction"
            form.add_argument("--pipes", action="store_true", help=text)
        add_directory(command)
        command.set_defaults(run=_run)


def status(files: Sequence[Path]) -> list[Row]:
    """Return one row of JSON_FIELDS for each instance; what isn't known is None."""
    answers = call_each(files, {"op": "get", "what": "status"})
    return [_status_row(path, answer) for path, answer in zip(files, answers, strict=True)]


def paths(files: Sequence[Path]) -> list[Row]:
    """Return one row of JSON_PATH_FIELDS for each path of each running instance."""
    answers = call_each(files, {"op": "get", "what": "paths"})
    # `status` tells why one doesn't answer; a process that isn't there has no paths.
    return [
        {"instance": path.stem, **{key: found.get(key) for key in JSON_PATH_FIELDS if key != "instance"}}
        for path, answer in zip(files, answers, strict=True)
        if not isinstance(answer, Exception)
        for found in answer
    ]


def pipes(files: Sequence[Path]) -> list[Row]:
    """Return one row of PIPE_FIELDS, and more, for each pipe of each path of each running instance."""
    return [
        {**{key: path[key] for key in ("instance", "path", "identity")}, **pipe}
        for path in paths(files)
        for pipe in path["pipes"] or ()
    ]


def versions(files: Sequence[Path]) -> list[Row]:
    """Return the release of this command, of each running instance and of its peers: they differ until a restart."""
    answers = call_each(files, {"op": "get", "what": "version"})
    rows = [_version_row(path, answer) for path, answer in zip(files, answers, strict=True)]
    return [{"name": "mpquicctl", "release": RELEASE, "peer_releases": None, "error": None}, *rows]


def _run(options: argparse.Namespace) -> int:
    """Show all instances, or those that are named; return the exit status."""
    directory = options.instances_dir
    try:
        files = instance_files(directory)
    except OSError as error:
        print(f"mpquicctl: can't list {directory}: {error.strerror}", file=sys.stderr)
        return UNUSABLE
    found = {path.stem: path for path in files}
    for name in options.names:
        if name not in found:
            return tell_unknown(name, directory)
    if options.names:
        files = [found[name] for name in dict.fromkeys(options.names)]
    question, fields = {
        "status": (status, FIELDS),
        "paths": (paths, PATH_FIELDS),
        "version": (versions, JSON_VERSION_FIELDS),
    }[options.command]
    if options.command == "paths" and options.pipes:
        question, fields = pipes, PIPE_FIELDS
    rows = question(files)
    if options.command == "status":
        rows.sort(key=_group)
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        if options.command == "status":
            rows = _with_peers(rows, complete=bool(options.names))
        print(table(rows, {key: _heading(key) for key in fields}))
    answers = call_each(files, {"op": "get", "what": "version"}) if options.names else []
    return NOT_RUNNING if any(isinstance(answer, control_client.NotRunning) for answer in answers) else 0


def _with_peers(rows: Sequence[Row], *, complete: bool) -> list[Row]:
    """Return `rows` with those of its peers below each server."""
    return [each for row in rows for each in (row, *peers.rows(row["name"], row["peers"], complete=complete))]


def _group(row: Row) -> tuple[bool, list[tuple[int, str]], bool, str]:
    """Order of rows: tunnels by WAN, those of a class behind the others of their WAN; what has no WAN comes last."""
    return row["wan"] is None, natural(row["wan"] or ""), row["class"] is not None, row["class"] or ""


def _heading(key: str) -> str:
    return HEADINGS.get(key, key.upper())


def _status_row(path: Path, answer: Any) -> Row:
    row: Row = dict.fromkeys(JSON_FIELDS)
    row["name"] = path.stem
    if isinstance(answer, control_client.NotRunning):
        row.update(row_of_stopped(path))
    elif isinstance(answer, Exception):
        row.update(row_of_file(path))
        row["state"], row["error"] = "down", reason(answer)
    else:
        row.update({key: answer.get(key) for key in JSON_FIELDS if key in answer})
    return row


def _version_row(path: Path, answer: Any) -> Row:
    row: Row = {**dict.fromkeys(JSON_VERSION_FIELDS), "name": path.stem}
    if isinstance(answer, control_client.NotRunning):
        return {**row, "error": "not running"}
    if isinstance(answer, Exception):
        return {**row, "error": reason(answer)}
    return {**row, "release": answer.get("release"), "peer_releases": answer.get("peer_releases")}
