"""The instances of this host: their files, and what each one answers."""

from __future__ import annotations

import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpquic import control_client, held
from mpquic.config import ClientConfig, InstanceConfig, load
from mpquic.config.schema import ConfigError
from mpquic.ctl.exit_status import FAILED, NOT_RUNNING, UNKNOWN
from mpquic.net.netlink import LinkMonitor
from mpquic.proto.control.printable import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

INSTANCES_DIR = Path("/etc/mpquic/instances")
Row = dict[str, Any]


def add_directory(command: argparse.ArgumentParser) -> None:
    """Give a command the option that names another directory of instances."""
    command.add_argument(
        "--instances-dir", type=Path, default=INSTANCES_DIR, metavar="DIR", help=f"instead of {INSTANCES_DIR}"
    )


def instance_files(directory: Path) -> list[Path]:
    """Return the instance files of `directory` in a natural order (mpq2 before mpq10); OSError as it comes."""
    return sorted((path for path in directory.iterdir() if path.suffix == ".yml"), key=lambda path: natural(path.stem))


def call_each(files: Sequence[Path], request: dict[str, object]) -> list[Any]:
    """Return each instance's answer, or the exception that came instead."""

    def call(path: Path) -> Any:
        try:
            return control_client.call(path.stem, request)
        except (control_client.NotRunning, control_client.ControlError, OSError) as error:
            return error

    # In parallel: one hung process must not make the whole table late. Nothing but calls is done in threads: msgspec
    # prepares a type at its first use, and crashes when two threads do so at once.
    with ThreadPoolExecutor(max_workers=min(16, len(files) or 1)) as pool:
        return list(pool.map(call, files))


def row_of_file(path: Path) -> Row:
    """Return what an instance's file tells of it."""
    try:
        config = load(path)
    except ConfigError as error:
        return {"error": f"configuration: {error.problems[0]}"}
    return _row_of_config(config)


def _row_of_config(config: InstanceConfig) -> Row:
    if isinstance(config, ClientConfig):
        paths = config.paths
        peer = paths[0].endpoint
        wan = ",".join(path.name for path in paths)
        return {"role": "client", "peer": peer, "wan": wan, "class": config.class_name}
    return {"role": "server", "peer": "-"}


def row_of_stopped(path: Path) -> Row:
    """The row of an instance without a process: held or inactive, as it should be, or down."""
    try:
        config = load(path)
    except ConfigError as error:
        return {"state": "down", "error": f"configuration: {error.problems[0]}"}
    row = _row_of_config(config)
    enabled = config.enabled if isinstance(config, ClientConfig) else True
    now = time.time()
    hold = held.find(path.stem, path, enabled=enabled, now=now)
    if hold is not None:
        report = held.report(hold)
        told = {"missing": "held", "hold": report, "hold_at": "here", "error": held.words(hold)}
        return {**row, "state": "held", "duration_seconds": held.lasting(hold, now), "since": report["since"], **told}
    lack = _lack(config) if isinstance(config, ClientConfig) else None
    if lack is not None:
        return {**row, "state": "inactive", **lack}
    return {**row, "state": "down", "error": f"the process is not running: journalctl -u mpquic@{path.stem} tells why"}


def _lack(config: ClientConfig) -> Row | None:
    """Return what every WAN of the client lacks, as `missing` and `error` of the first; None when one is usable.

    A running instance tells the same by itself.
    """
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


def reason(error: Exception) -> str:
    """Return why an instance gave no answer, in words."""
    if isinstance(error, PermissionError):
        return "no permission to ask it; run as root or as a member of the group mpquic"
    return str(error)


def natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts numbers in names by their value."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def known_names(directory: Path) -> list[str]:
    """Return the names of the instances of `directory`; none when it can't be read."""
    try:
        return [path.stem for path in instance_files(directory)]
    except OSError:
        return []


def tell_unknown(name: str, directory: Path) -> int:
    """Say that there is no such instance, and which there are; return the exit status."""
    known = ", ".join(known_names(directory)) or "none"
    print(printable(f"mpquicctl: there is no instance {name}; {directory} has {known}"), file=sys.stderr)
    return UNKNOWN


def for_one(options: argparse.Namespace, act: Callable[[str], None]) -> int:
    """Have `act` do something with the instance `options.name`; return the exit status.

    `act` raises what `control_client.call` does: it's told as a sentence that says what is wrong with the instance.
    """
    name, directory = options.name, options.instances_dir
    try:
        act(name)
    except control_client.NotRunning:
        if name not in known_names(directory):
            return tell_unknown(name, directory)
        why = row_of_stopped(directory / f"{name}.yml")["error"]
        print(printable(f"mpquicctl: {name} is not running: {why}"), file=sys.stderr)
        return NOT_RUNNING
    except (control_client.ControlError, OSError) as error:
        print(printable(f"mpquicctl: {name}: {reason(error)}"), file=sys.stderr)
        return FAILED
    return 0
