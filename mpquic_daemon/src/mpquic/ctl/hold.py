"""`mpquicctl hold` and `release`: a tunnel out of service on purpose, and back. `linkd` shows what becomes of each."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpquic import control_client, held
from mpquic.ctl.exit_status import FAILED, NOT_RUNNING, UNKNOWN
from mpquic.ctl.instances import add_directory, known_names, reason, tell_unknown
from mpquic.hold import from_plain
from mpquic.proto.control.printable import printable
from mpquic.table import table

if TYPE_CHECKING:
    from mpquic.ctl.command import Commands

SOCKET_VARIABLE = "MPQUIC_LINKD_CONTROL"
DEFAULT_SOCKET = "/run/mpquic-linkd/control.sock"
TIMEOUT = 5.0
MAX_SECONDS = 10 * 365 * 86400
_DURATION = re.compile(r"(?P<count>[1-9][0-9]{0,8})(?P<unit>[smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
FIELDS = {"name": "NAME", "state": "STATE", "why": "WHY"}


def add(commands: Commands) -> None:
    """Add the commands to the parser."""
    hold = commands.add_parser("hold", help="take a tunnel out of service, across reboots, until its time or a release")
    hold.add_argument("name", metavar="NAME")
    hold.add_argument("--for", dest="duration", type=duration, metavar="TIME", help="as 90s, 30m, 2h, 3d; then it ends")
    hold.add_argument("--reason", required=True, metavar="TEXT", help="why, for whoever sees it")
    hold.set_defaults(run=_hold)
    release = commands.add_parser("release", help="put a tunnel that is held back into service")
    release.add_argument("name", metavar="NAME")
    release.set_defaults(run=_release)
    show = commands.add_parser("linkd", help="what mpquic-linkd does with each instance, and why")
    show.set_defaults(run=_show)
    for command in (hold, release, show):
        command.add_argument("--json", action="store_true", help="an object instead of a sentence")
        add_directory(command)


def duration(text: str) -> int:
    """Return the seconds of a duration as 90s, 30m, 2h or 3d."""
    found = _DURATION.fullmatch(text)
    seconds = int(found["count"]) * _UNITS[found["unit"]] if found else 0
    if not 0 < seconds <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{text}: expected a duration as 90s, 30m, 2h or 3d, of at most 3650 days")
    return seconds


def _hold(options: argparse.Namespace) -> int:
    request = {"op": "hold", "reason": options.reason, "for_seconds": options.duration}
    return _change(
        options, request, lambda row: f"{options.name} is held{_until(row['hold'])}: {row['hold']['reason']}"
    )


def _release(options: argparse.Namespace) -> int:
    return _change(options, {"op": "release"}, lambda row: f"{options.name} is in service again{_why_waiting(row)}")


def _change(options: argparse.Namespace, request: dict[str, object], sentence: Any) -> int:
    known = known_names(options.instances_dir)
    if known and options.name not in known:
        return tell_unknown(options.name, options.instances_dir)
    row = _ask({**request, "name": options.name, "user": os.environ.get("SUDO_USER")})
    if isinstance(row, int):
        return row
    print(json.dumps(_shown(row), indent=2) if options.json else printable(sentence(row)))
    return 0


def _show(options: argparse.Namespace) -> int:
    answer = _ask({"op": "get", "what": "instances"})
    if isinstance(answer, int):
        return answer
    rows = [_shown(row) for row in answer["instances"]]
    if options.json:
        print(json.dumps({**answer, "instances": rows}, indent=2))
    else:
        print(table([{**row, "why": _why(row)} for row in answer["instances"]], FIELDS))
        if answer["problem"]:
            print(printable(f"mpquicctl: {answer['problem']}"), file=sys.stderr)
    return FAILED if answer["problem"] else 0


def _ask(request: dict[str, object]) -> Any:
    """Return linkd's answer, or the exit status after it was said why there is none."""
    path = Path(os.environ.get(SOCKET_VARIABLE, DEFAULT_SOCKET))
    try:
        return control_client.call_socket(path, request, TIMEOUT)
    except control_client.NotRunning:
        print("mpquicctl: mpquic-linkd is not running, and it keeps the holds: systemctl start mpquic-linkd, or "
              "journalctl -u mpquic-linkd", file=sys.stderr)  # fmt: skip
        return NOT_RUNNING
    except (control_client.ControlError, OSError) as error:
        print(printable(f"mpquicctl: {reason(error)}"), file=sys.stderr)
        return UNKNOWN if "there is no instance" in str(error) else FAILED


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """The row of --json: times as RFC 3339 has them."""
    return row if row["hold"] is None else {**row, "hold": held.report(from_plain(row["hold"]))}


def _until(hold: dict[str, Any]) -> str:
    shown = held.report(from_plain(hold)) or {}
    return f" until {shown['until']}" if shown["until"] is not None else ""


def _why(row: dict[str, Any]) -> str | None:
    if row["hold"] is not None:
        return f"by {row['hold']['by']}{_until(row['hold'])}: {row['hold']['reason']}"
    if row["state"] == "waiting":
        return "; ".join(each["reason"] for each in row["missing"])
    words = {"disabled": "enabled: false in its file", "masked": f"systemctl unmask mpquic@{row['name']} ends that"}
    return row["error"] or words.get(row["state"])


def _why_waiting(row: dict[str, Any]) -> str:
    why = _why(row)
    return f", but {row['state']}: {why}" if why else ""
