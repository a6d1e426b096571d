"""`mpquicctl reconnect`: a client's new connection, now, and what came of it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING

from mpquic import control_client
from mpquic.ctl.exit_status import FAILED, NOT_RUNNING
from mpquic.ctl.instances import Row, add_directory, known_names, reason, row_of_stopped, tell_unknown
from mpquic.proto.control.printable import printable

if TYPE_CHECKING:
    from mpquic.ctl.command import Commands

RECONNECT_POLL = 0.005
TIMEOUT = 10.0
"""Seconds that each new connection has."""
JSON_FIELDS = ("name", "result", "reconnects", "error")


class NotConnectedError(control_client.ControlError):
    """No new connection carries; `done` did before, `state` is the tunnel's."""

    def __init__(self, text: str, state: str, done: int) -> None:
        super().__init__(text)
        self.state = state
        self.done = done


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "reconnect",
        help="have a client connect anew, now",
        description="Has a client connect anew, beside the present connection, and waits until the new one carries. "
        f"It says what came of it in every case, after {TIMEOUT:g} s for each connection at the latest.",
    )
    command.add_argument("name", metavar="NAME", help="the instance")
    command.add_argument("--times", type=_times, default=1, metavar="N", help="so many times, one after the other")
    command.add_argument("--silent", action="store_true", help="without telling the server, as a crash would")
    command.add_argument("--json", action="store_true", help="an object instead of a sentence")
    add_directory(command)
    command.set_defaults(run=_run)


def _times(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text[:9]) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a whole number of 1 or more")
    return int(text)


def reconnect(name: str, *, times: int, silent: bool, timeout: float = TIMEOUT) -> int:
    """Have the client `name` connect anew `times` times, each when the one before carries; return how many did.

    Raises NotRunning, NotConnectedError when a connection doesn't carry in `timeout` seconds or can't be made,
    ControlError, PermissionError.
    """
    done = 0
    for _ in range(times):
        before = control_client.call(name, {"op": "get", "what": "status"})
        try:
            status = control_client.call(name, {"op": "reconnect", "silent": silent})
        except control_client.ControlError as error:
            raise NotConnectedError(str(error), before.get("state", ""), done) from error
        deadline = time.monotonic() + timeout
        while status["state"] != "up" or status["reconnects"] <= before["reconnects"]:
            if time.monotonic() > deadline or status["state"] == "inactive":
                raise NotConnectedError(_why_not_connected(status, done, times, timeout), status["state"], done)
            time.sleep(RECONNECT_POLL)
            status = control_client.call(name, {"op": "get", "what": "status"})
        done += status["reconnects"] - before["reconnects"]
    return done


def _why_not_connected(status: Row, done: int, times: int, timeout: float) -> str:
    reason = status["error"] or f"it is {status['state']}, and no reply has come from {status['peer']} yet"
    count = f"after {done} of {times} new connections " if times > 1 else ""
    return f"{count}no new connection in {timeout:g} s: {reason}"


def _outcome(options: argparse.Namespace) -> tuple[Row, int]:
    """Return what came of it, as --json tells it, and the exit status."""
    name = options.name
    row: Row = {"name": name, "result": "failed", "reconnects": 0, "error": None}
    try:
        row["reconnects"] = reconnect(name, times=options.times, silent=options.silent)
    except control_client.NotRunning:
        stopped = row_of_stopped(options.instances_dir / f"{name}.yml")
        result = stopped["state"] if stopped["state"] in ("held", "inactive") else "not_running"
        return {**row, "result": result, "error": f"not running: {stopped['error']}"}, NOT_RUNNING
    except NotConnectedError as error:
        result = error.state if error.state in ("held", "inactive") else "failed"
        return {**row, "result": result, "reconnects": error.done, "error": str(error)}, FAILED
    except (control_client.ControlError, OSError) as error:
        return {**row, "error": reason(error)}, FAILED
    return {**row, "result": "up"}, 0


def _run(options: argparse.Namespace) -> int:
    if options.name not in known_names(options.instances_dir) and not control_client.socket_path(options.name).exists():
        return tell_unknown(options.name, options.instances_dir)
    row, status = _outcome(options)
    if options.json:
        print(json.dumps(row))
    elif row["error"] is None:
        noun = "connection carries" if row["reconnects"] == 1 else "connections, the last one carries"
        print(f"{options.name}: {row['reconnects']} new {noun}")
    else:
        verb = " is" if status == NOT_RUNNING else ":"
        print(printable(f"mpquicctl: {options.name}{verb} {row['error']}"), file=sys.stderr)
    return status
