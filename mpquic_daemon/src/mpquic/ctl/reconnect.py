"""`mpquicctl reconnect`: a client's new connection, now."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from mpquic import control_client
from mpquic.ctl.instances import Row, add_directory, for_one

if TYPE_CHECKING:
    import argparse

    from mpquic.ctl.command import Commands

RECONNECT_POLL = 0.005


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    command = commands.add_parser("reconnect", help="have a client connect anew, now")
    command.add_argument("name", metavar="NAME")
    command.add_argument("--times", type=int, default=1, metavar="N", help="so many times, one after the other")
    command.add_argument("--silent", action="store_true", help="without telling the server, as a crash would")
    command.add_argument("--json", action="store_true", help="an object instead of a sentence")
    add_directory(command)
    command.set_defaults(run=_run)


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


def _run(options: argparse.Namespace) -> int:
    def tell(name: str) -> None:
        done = reconnect(name, times=options.times, silent=options.silent)
        sentence = f"{name}: {done} new connections"
        print(json.dumps({"name": name, "reconnects": done}) if options.json else sentence)

    return for_one(options, tell)
