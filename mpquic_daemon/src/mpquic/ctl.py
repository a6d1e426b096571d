"""`mpquicctl`: what an operator asks of the instances on this host.

mpquicctl status|paths|version [--json]    of every instance in /etc/mpquic/instances, running or not
mpquicctl counters NAME                    everything that a running instance counts, as JSON
mpquicctl reconnect NAME                   a client's new connection, now
mpquicctl check FILE                       the same as `mpquic --check FILE`
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

if TYPE_CHECKING:
    from collections.abc import Sequence

INSTANCES_DIR = Path("/etc/mpquic/instances")
FIELDS = (
    "name", "role", "state", "since", "peer", "wan", "rtt_ms", "loss", "tx_bytes", "rx_bytes", "reconnects", "error",
)  # fmt: skip
JSON_FIELDS = (*FIELDS, "certificate")
PATH_FIELDS = (
    "instance", "path", "state", "stripe", "local", "peer", "device", "rtt_ms", "loss", "tx_bytes", "rx_bytes",
)  # fmt: skip
JSON_PATH_FIELDS = (*PATH_FIELDS, "identity", "peer_certificate")
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
        {"instance": path.stem, **{key: found.get(key) for key in JSON_PATH_FIELDS[1:]}}
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
                problem = f"connected {done} times, then not in {timeout:g} s: {status['error']}"
                raise control_client.ControlError(problem)
            time.sleep(RECONNECT_POLL)
            status = control_client.ask(name, {"op": "get", "what": "status"})
        done += status["reconnects"] - before
    return done


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
    return {"role": "server", "peer": "0 connected"}


def _row_of_stopped(path: Path) -> Row:
    """The row of an instance without a process: inactive when its WANs are absent, as it should be; down otherwise."""
    try:
        config = load(path)
    except ConfigError as error:
        return {"state": "down", "error": f"configuration: {error.problems[0]}"}
    row = _row_of_config(config)
    if isinstance(config, ClientConfig) and _is_wan_absent(config):
        return {**row, "state": "inactive"}
    return {**row, "state": "down", "error": "the process is not running"}


def _is_wan_absent(config: ClientConfig) -> bool:
    if not config.devices:
        return False
    monitor = LinkMonitor(config.devices)
    try:
        return not any(
            monitor.state(path.bind_device).usable_for(path.family) for path in config.paths if path.bind_device
        )
    finally:
        monitor.close()


def _version_row(path: Path, answer: Any) -> Row:
    if isinstance(answer, control_client.NotRunning):
        return {"name": path.stem, "version": None, "error": "not running"}
    if isinstance(answer, Exception):
        return {"name": path.stem, "version": None, "error": _reason(answer)}
    return {"name": path.stem, "version": answer.get("version"), "error": None}


def table(rows: Sequence[Row], fields: Sequence[str], now: float) -> str:
    """Return `rows` as aligned columns for people; a column that is empty everywhere but for its name is left out."""
    shown = [key for key in fields if key != "error" or any(row.get(key) for row in rows)]
    lines = [[key.upper() for key in shown]]
    lines += [[_cell(key, row.get(key), now) for key in shown] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(shown))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cell(key: str, value: object, now: float) -> str:
    if value is None:
        return "-"
    if key == "since" and isinstance(value, int | float):
        return f"{_duration(now - value)} ago"
    if key == "loss" and isinstance(value, int | float):
        return f"{value * 100:.1f}%"
    if key.endswith("_bytes") and isinstance(value, int):
        return _amount(value)
    if key == "stripe" and isinstance(value, dict):
        return "carries" if value.get("carries") else "silent"
    if key == "rtt_ms" and isinstance(value, int | float):
        return f"{value:.1f}"
    return str(value)


def _duration(seconds: float) -> str:
    whole = max(0, int(seconds))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // (size // (24 if unit == 'd' else 60)):02d}"
    return f"{whole}s"


def _amount(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f}{unit}" if unit == "B" else f"{size:.1f}{unit}"
        size /= 1000
    return f"{size:.1f}TB"


def _reason(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "no permission to ask it; run as root or as a member of the group mpquic"
    return str(error)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def _one(options: argparse.Namespace) -> int:
    """Carry out a command for one instance; 1 when it can't."""
    try:
        if options.command == "counters":
            print(json.dumps(control_client.ask(options.name, {"op": "get", "what": "counters"}), indent=2))
            return 0
        done = reconnect(options.name, times=options.times, silent=options.silent)
    except control_client.NotRunning:
        print(f"mpquicctl: {options.name} is not running on this host", file=sys.stderr)
        return 1
    except (control_client.ControlError, OSError) as error:
        print(f"mpquicctl: {options.name}: {_reason(error)}", file=sys.stderr)
        return 1
    sentence = f"{options.name}: {done} new connections"
    print(json.dumps({"name": options.name, "reconnects": done}) if options.json else sentence)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns 0, 1 for a wrong file, 2 when there is nothing to ask."""
    parser = argparse.ArgumentParser(
        prog="mpquicctl", description="Shows and checks the tunnel instances of this host."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, help_text in (
        ("status", "state of every instance"),
        ("paths", "paths of every running instance"),
        ("version", "version of this command and of every running instance"),
    ):
        command = commands.add_parser(name, help=help_text)
        command.add_argument("--json", action="store_true", help="a list of objects instead of a table")
        command.add_argument("--instances-dir", type=Path, default=INSTANCES_DIR, metavar="DIR")
    commands.add_parser("check", help="check an instance file").add_argument("file", type=Path, metavar="FILE")
    command = commands.add_parser("counters", help="everything that a running instance counts")
    command.add_argument("name", metavar="NAME")
    command = commands.add_parser("reconnect", help="have a client connect anew, now")
    command.add_argument("name", metavar="NAME")
    command.add_argument("--times", type=int, default=1, metavar="N", help="so many times, one after the other")
    command.add_argument("--silent", action="store_true", help="without telling the server, as a crash would")
    command.add_argument("--json", action="store_true", help="an object instead of a sentence")
    options = parser.parse_args(arguments)
    if options.command == "check":
        return cli.check(options.file)
    if options.command in ("counters", "reconnect"):
        return _one(options)
    try:
        files = instance_files(options.instances_dir)
    except OSError as error:
        print(f"mpquicctl: can't list {options.instances_dir}: {error.strerror}", file=sys.stderr)
        return 2
    question, fields = {
        "status": (status, FIELDS),
        "paths": (paths, PATH_FIELDS),
        "version": (versions, ("name", "version", "error")),
    }[options.command]
    rows = question(files)
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        print(table(rows, fields, time.time()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
