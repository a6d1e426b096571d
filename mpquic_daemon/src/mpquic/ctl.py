"""`mpquicctl`: what an operator asks of the instances on this host.

mpquicctl status|paths|version [NAME ...] [--json]    of every instance in /etc/mpquic/instances, or of those named
mpquicctl counters NAME                               everything that a running instance counts, as JSON
mpquicctl reconnect NAME                              a client's new connection, now
mpquicctl check FILE                                  the same as `mpquic --check FILE`

Exit status: 0, 1 for a wrong file or a refused request, 2 for a wrong command line or a directory that can't be listed,
3 when an instance that was named is not running, 4 when there is no instance of that name.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mpquic
from mpquic import cli, control_client
from mpquic.config import ClientConfig, InstanceConfig, load
from mpquic.net.netlink import LinkMonitor
from mpquic.net.udp import endpoint
from mpquic.schema import ConfigError
from mpquic.table import printable, table

if TYPE_CHECKING:
    from collections.abc import Sequence

INSTANCES_DIR = Path("/etc/mpquic/instances")
FIELDS = (
    "name", "role", "state", "duration_s", "peer", "wan", "rtt_ms", "loss", "tx_bytes", "rx_bytes", "reconnects",
    "error",
)  # fmt: skip
JSON_FIELDS = (*FIELDS, "since", "missing", "peers", "certificate")
PATH_FIELDS = (
    "instance", "path", "state", "stripe", "identity", "local", "peer", "device", "rtt_ms", "loss", "tx_bytes",
    "rx_bytes",
)  # fmt: skip
JSON_PATH_FIELDS = (*PATH_FIELDS, "peer_certificate")
FAILED, UNUSABLE, NOT_RUNNING, UNKNOWN = 1, 2, 3, 4
"""Exit statuses."""
RECONNECT_POLL = 0.005
Row = dict[str, Any]


def instance_files(directory: Path) -> list[Path]:
    """Return the instance files of `directory` in a natural order (mpq2 before mpq10); OSError as it comes."""
    return sorted((path for path in directory.iterdir() if path.suffix == ".yml"), key=lambda path: _natural(path.stem))


def status(files: Sequence[Path]) -> list[Row]:
    """Return one row of JSON_FIELDS for each instance; what isn't known is None."""
    answers = _ask_each(files, {"op": "get", "what": "status"})
    return [_status_row(path, answer) for path, answer in zip(files, answers, strict=True)]


def paths(files: Sequence[Path]) -> list[Row]:
    """Return one row of JSON_PATH_FIELDS for each path of each running instance."""
    answers = _ask_each(files, {"op": "get", "what": "paths"})
    # `status` tells why one doesn't answer; a process that isn't there has no paths.
    return [
        {"instance": path.stem, **{key: found.get(key) for key in JSON_PATH_FIELDS if key != "instance"}}
        for path, answer in zip(files, answers, strict=True)
        if not isinstance(answer, Exception)
        for found in answer
    ]


def versions(files: Sequence[Path]) -> list[Row]:
    """Return the version of this command and of each running instance: they differ until a restart."""
    answers = _ask_each(files, {"op": "get", "what": "version"})
    rows = [_version_row(path, answer) for path, answer in zip(files, answers, strict=True)]
    return [{"name": "mpquicctl", "version": mpquic.__version__, "error": None}, *rows]


def reconnect(name: str, *, times: int, silent: bool, timeout: float = 10.0) -> int:
    """Have the client `name` connect anew `times` times, each when the one before carries; return how many did.

    Raises NotRunning, ControlError (also when a connection doesn't carry in `timeout` seconds), PermissionError.
    """
    done = 0
    for _ in range(times):
        before = control_client.ask(name, {"op": "get", "what": "status"})["reconnects"]
        status = control_client.ask(name, {"op": "reconnect", "silent": silent})
        deadline = time.monotonic() + timeout
        while status["state"] != "up" or status["reconnects"] <= before:
            if time.monotonic() > deadline:
                raise control_client.ControlError(_why_not_connected(status, done, times, timeout))
            time.sleep(RECONNECT_POLL)
            status = control_client.ask(name, {"op": "get", "what": "status"})
        done += status["reconnects"] - before
    return done


def _why_not_connected(status: Row, done: int, times: int, timeout: float) -> str:
    reason = status["error"] or f"it is {status['state']}, and no reply has come from {status['peer']} yet"
    count = f"after {done} of {times} new connections " if times > 1 else ""
    return f"{count}no new connection in {timeout:g} s: {reason}"


def _ask_each(files: Sequence[Path], request: dict[str, object]) -> list[Any]:
    """Return each instance's answer, or the exception that came instead."""

    def ask(path: Path) -> Any:
        try:
            return control_client.ask(path.stem, request)
        except (control_client.NotRunning, control_client.ControlError, OSError) as error:
            return error

    # In parallel: one hung process must not make the whole table late. Nothing but asking is done in threads: msgspec
    # prepares a type at its first use, and crashes when two threads do so at once.
    with ThreadPoolExecutor(max_workers=min(16, len(files) or 1)) as pool:
        return list(pool.map(ask, files))


def _status_row(path: Path, answer: Any) -> Row:
    row: Row = dict.fromkeys(JSON_FIELDS)
    row["name"] = path.stem
    if isinstance(answer, control_client.NotRunning):
        row.update(_row_of_stopped(path))
    elif isinstance(answer, Exception):
        row.update(_row_of_file(path))
        row["state"], row["error"] = "down", _reason(answer)
    else:
        row.update({key: answer.get(key) for key in JSON_FIELDS if key in answer})
    return row


def _row_of_file(path: Path) -> Row:
    try:
        config = load(path)
    except ConfigError as error:
        return {"error": f"configuration: {error.problems[0]}"}
    return _row_of_config(config)


def _row_of_config(config: InstanceConfig) -> Row:
    if isinstance(config, ClientConfig):
        peer = endpoint(config.remote_addr, config.remote_port)
        return {"role": "client", "peer": peer, "wan": config.paths[0].name}
    return {"role": "server", "peer": "-"}


def _row_of_stopped(path: Path) -> Row:
    """The row of an instance without a process: inactive when its WANs are absent, as it should be; down otherwise."""
    try:
        config = load(path)
    except ConfigError as error:
        return {"state": "down", "error": f"configuration: {error.problems[0]}"}
    row = _row_of_config(config)
    lack = _lack(config) if isinstance(config, ClientConfig) else None
    if lack is not None:
        return {**row, "state": "inactive", **lack}
    return {**row, "state": "down", "error": f"the process is not running: journalctl -u mpquic@{path.stem} tells why"}


def _lack(config: ClientConfig) -> Row | None:
    """Return what every WAN of the client lacks, as `missing` and `error` of the first; None when one is usable."""
    if not config.devices:
        return None
    monitor = LinkMonitor(config.devices)
    try:
        wans = [(monitor.state(path.bind_device), path.family) for path in config.paths if path.bind_device]
    finally:
        monitor.close()
    if any(wan.usable_for(family) for wan, family in wans):
        return None
    wan, family = wans[0]
    return {"missing": wan.missing_for(family), "error": wan.reason_for(family)}


def _version_row(path: Path, answer: Any) -> Row:
    if isinstance(answer, control_client.NotRunning):
        return {"name": path.stem, "version": None, "error": "not running"}
    if isinstance(answer, Exception):
        return {"name": path.stem, "version": None, "error": _reason(answer)}
    return {"name": path.stem, "version": answer.get("version"), "error": None}


def _reason(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "no permission to ask it; run as root or as a member of the group mpquic"
    return str(error)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def _known_names(directory: Path) -> list[str]:
    try:
        return [path.stem for path in instance_files(directory)]
    except OSError:
        return []


def _tell_unknown(name: str, directory: Path) -> int:
    known = ", ".join(_known_names(directory)) or "none"
    print(printable(f"mpquicctl: there is no instance {name}; {directory} has {known}"), file=sys.stderr)
    return UNKNOWN


def _one(options: argparse.Namespace) -> int:
    """Carry out a command for one instance; return the exit status."""
    name, directory = options.name, options.instances_dir
    try:
        if options.command == "counters":
            print(json.dumps(control_client.ask(name, {"op": "get", "what": "counters"}), indent=2))
            return 0
        done = reconnect(name, times=options.times, silent=options.silent)
    except control_client.NotRunning:
        if name not in _known_names(directory):
            return _tell_unknown(name, directory)
        reason = _row_of_stopped(directory / f"{name}.yml")["error"]
        print(printable(f"mpquicctl: {name} is not running: {reason}"), file=sys.stderr)
        return NOT_RUNNING
    except (control_client.ControlError, OSError) as error:
        print(printable(f"mpquicctl: {name}: {_reason(error)}"), file=sys.stderr)
        return FAILED
    sentence = f"{name}: {done} new connections"
    print(json.dumps({"name": name, "reconnects": done}) if options.json else sentence)
    return 0


def _several(options: argparse.Namespace) -> int:
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
            return _tell_unknown(name, directory)
    if options.names:
        files = [found[name] for name in dict.fromkeys(options.names)]
    question, fields = {
        "status": (status, FIELDS),
        "paths": (paths, PATH_FIELDS),
        "version": (versions, ("name", "version", "error")),
    }[options.command]
    rows = question(files)
    print(json.dumps(rows, indent=2) if options.json else table(rows, {key: _heading(key) for key in fields}))
    answers = _ask_each(files, {"op": "get", "what": "version"}) if options.names else []
    return NOT_RUNNING if any(isinstance(answer, control_client.NotRunning) for answer in answers) else 0


def _heading(key: str) -> str:
    return {"duration_s": "FOR", "identity": "PEER IDENTITY"}.get(key, key.upper())


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="mpquicctl", description="Shows and checks the tunnel instances of this host."
    )
    parser.add_argument("--version", action="version", version=f"mpquicctl {mpquic.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, help_text in (
        ("status", "state of every instance, or of those that are named"),
        ("paths", "paths of every running instance"),
        ("version", "version of this command and of every running instance"),
    ):
        command = commands.add_parser(name, help=help_text)
        command.add_argument("names", nargs="*", metavar="NAME", help="only these instances")
        command.add_argument("--json", action="store_true", help="a list of objects instead of a table")
        command.add_argument("--instances-dir", type=Path, default=INSTANCES_DIR, metavar="DIR")
    commands.add_parser("check", help="check an instance file").add_argument("file", type=Path, metavar="FILE")
    command = commands.add_parser("counters", help="everything that a running instance counts")
    command.add_argument("name", metavar="NAME")
    command.add_argument("--instances-dir", type=Path, default=INSTANCES_DIR, metavar="DIR")
    command = commands.add_parser("reconnect", help="have a client connect anew, now")
    command.add_argument("name", metavar="NAME")
    command.add_argument("--times", type=int, default=1, metavar="N", help="so many times, one after the other")
    command.add_argument("--silent", action="store_true", help="without telling the server, as a crash would")
    command.add_argument("--json", action="store_true", help="an object instead of a sentence")
    command.add_argument("--instances-dir", type=Path, default=INSTANCES_DIR, metavar="DIR")
    options = parser.parse_args(arguments)
    if options.command == "check":
        return cli.check(options.file)
    return _one(options) if options.command in ("counters", "reconnect") else _several(options)


if __name__ == "__main__":
    sys.exit(main())
