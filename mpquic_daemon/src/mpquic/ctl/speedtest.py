"""`mpquicctl speedtest`: throughput of a tunnel and of the bare link beneath it, by iperf3."""

from __future__ import annotations

import argparse
import ipaddress
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mpquic import control_client
from mpquic.config import ClientConfig, load
from mpquic.config.schema import ConfigError
from mpquic.ctl.exit_status import FAILED, NOT_RUNNING, UNUSABLE
from mpquic.ctl.instances import add_directory, known_names, reason, row_of_stopped, tell_unknown
from mpquic.proto.control.printable import printable
from mpquic.speedtest import iperf3, report
from mpquic.speedtest.runs import Counters, Reading, Run, Transfer, measure, order, summary
from mpquic.trace import host

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mpquic.ctl.command import Commands
    from mpquic.trace.listing import Device

MAX_SECONDS: Final = 25.0
"""Longest run: both runs of a pair are in the same minute, or they don't compare."""
MAX_RUNS: Final = 20
RETRY_S: Final = 5.0
RETRY_PAUSE_S: Final = 0.2
GRACE_S: Final = 20.0
PAUSE_S: Final = 1.0
"""Before each run, for what the one before has left in queues."""


class Refusal(Exception):  # noqa: N818
    """It can't be measured; the text says why, `status` is the exit status."""

    def __init__(self, text: str, status: int = FAILED) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Ends:
    """What is measured: the TUN with its address, the device of each WAN by its name, and the WAN that carries."""

    tun: str
    tun_address: str
    wan_devices: Mapping[str, str]
    carrier: str


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "speedtest",
        help="throughput of a tunnel and of the bare link beneath it",
        description="Measures by iperf3 through a tunnel and on the bare link of the WAN that carries it, one after "
        "the other, one and ten connections, both directions, and shows the counters that prove the way.",
    )
    command.add_argument("name", metavar="TUNNEL")
    command.add_argument(
        "--server",
        type=_server,
        required=True,
        metavar="ADDRESS[:PORT]",
        help="IPv4 address of an iperf3 server on the far side",
    )
    command.add_argument(
        "--seconds", type=_seconds, default=10.0, metavar="S", help="of each run (default: 10, at most 25)"
    )
    command.add_argument(
        "--runs", type=_runs, default=1, metavar="N", help="so often, and the median of all (default: 1)"
    )
    command.add_argument("--json", action="store_true", help="an object instead of tables")
    add_directory(command)
    command.set_defaults(run=_run)


def _server(word: str) -> tuple[str, int]:
    address, _, port = word.partition(":")
    try:
        found = ipaddress.IPv4Address(address)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{word}: expected an IPv4 address, with a port behind it or without"
        ) from None
    if port and not (port.isdecimal() and 1 <= int(port) <= 65535):
        raise argparse.ArgumentTypeError(f"{word}: expected a port from 1 to 65535")
    return str(found), int(port) if port else iperf3.PORT


def _seconds(word: str) -> float:
    value = float(word)
    if not 1 <= value <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{word}: expected 1 to {MAX_SECONDS:g} seconds")
    return value


def _runs(word: str) -> int:
    value = int(word)
    if not 1 <= value <= MAX_RUNS:
        raise argparse.ArgumentTypeError(f"{word}: expected 1 to {MAX_RUNS}")
    return value


def _run(options: argparse.Namespace) -> int:
    name, directory = options.name, options.instances_dir
    if name not in known_names(directory):
        return tell_unknown(name, directory)
    if shutil.which(iperf3.PROGRAM) is None:
        print("mpquicctl: iperf3 isn't installed; apt install iperf3 on this host, and on the server", file=sys.stderr)
        return UNUSABLE
    try:
        ends = find_ends(directory / f"{name}.yml")
        address, port = options.server
        results = measure(
            order(options.runs),
            lambda: read(ends),
            lambda run, link: transfer(run, ends, link, address, port, options.seconds),
            ends.carrier,
        )
    except Refusal as refusal:
        print(printable(f"mpquicctl: {name}: {refusal}"), file=sys.stderr)
        return refusal.status
    except host.HostError as error:
        print(printable(f"mpquicctl: {error}"), file=sys.stderr)
        return FAILED
    runs, medians = [result.plain() for result in results], summary(results)
    if options.json:
        facts = {
            "tunnel": name,
            "tun_device": ends.tun,
            "wans": [{"name": wan, "device": device} for wan, device in ends.wan_devices.items()],
            "server": f"{address}:{port}",
            "congestion": iperf3.CONGESTION,
            "runs": runs,
            "medians": medians,
        }
        print(json.dumps(facts, indent=2))
    else:
        wans = ", ".join(f"{wan} ({device})" for wan, device in ends.wan_devices.items())
        print(f"{name} over {wans}, server {address}:{port}, {iperf3.CONGESTION}\n")
        print(report.render(runs, medians))
    return 0 if all(result.valid for result in results) else FAILED


def find_ends(path: Path) -> Ends:
    """Return the ends of a client's tunnel that is up; Refusal, HostError."""
    try:
        config = load(path)
    except ConfigError as error:
        raise Refusal(f"configuration: {error.problems[0]}") from None
    if not isinstance(config, ClientConfig):
        raise Refusal("it is a server; measure from the client", UNUSABLE)
    try:
        status, rows = (control_client.call(path.stem, {"op": "get", "what": what}) for what in ("status", "paths"))
    except control_client.NotRunning:
        raise Refusal(f"it is not running: {row_of_stopped(path)['error']}", NOT_RUNNING) from None
    except (control_client.ControlError, OSError) as error:
        raise Refusal(reason(error)) from None
    if status["state"] != "up":
        raise Refusal(f"it is {status['state']}" + (f": {status['error']}" if status["error"] else ""))
    states = {row["path"]: row["state"] for row in rows}
    preferred = sorted(config.paths, key=lambda wan: (states.get(wan.name) != "up", wan.priority))
    return Ends(
        config.tun_name,
        _address(host.devices(), config.tun_name),
        {wan.name: wan.bind_device or "" for wan in config.paths},
        preferred[0].name,
    )


def _address(devices: Mapping[str, Device], name: str) -> str:
    device = devices.get(name)
    found = next((str(each.ip) for each in device.addresses if each.version == 4), None) if device is not None else None
    if found is None:
        raise Refusal(f"{name or 'its WAN'} has no IPv4 address to measure from")
    return found


def read(ends: Ends) -> Reading:
    """Return the counters of TUN and WANs, zeros of a WAN whose device isn't there; HostError, Refusal."""
    devices = host.devices()
    if ends.tun not in devices:
        raise Refusal("its TUN went away")
    return Reading(
        _counters(devices, ends.tun), {wan: _counters(devices, device) for wan, device in ends.wan_devices.items()}
    )


def _counters(devices: Mapping[str, Device], name: str) -> Counters:
    device = devices.get(name)
    return Counters(device.sent_bytes, device.received_bytes) if device is not None else Counters(0, 0)


def transfer(run: Run, ends: Ends, link: str, server: str, port: int, seconds: float) -> Transfer | str:
    """Have iperf3 measure, again while the server is between two tests; return a sentence when there is no figure.

    A bare run is on the WAN `link`.
    """
    if run.way == "tunnel":
        source, device = ends.tun_address, ends.tun
    else:
        device = ends.wan_devices[link]
        source = _address(host.devices(), device)
    command = iperf3.command(run, server, port, seconds, source=source, device=device)
    time.sleep(PAUSE_S)
    deadline = time.monotonic() + RETRY_S
    while True:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + GRACE_S, check=False)
            return iperf3.transfer(done.stdout or done.stderr)
        except subprocess.TimeoutExpired:
            return f"iperf3 didn't end within {seconds + GRACE_S:g} s"
        except iperf3.Iperf3Error as error:
            if time.monotonic() > deadline or not iperf3.is_between_tests(str(error)):
                return f"iperf3 says: {error}"
        time.sleep(RETRY_PAUSE_S)
