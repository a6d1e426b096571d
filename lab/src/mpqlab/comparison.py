"""A tunnel beside the bare link beneath it: from a host behind its LAN, and from the client's WAN device.

Runs, judgement and tables are those of `mpquicctl speedtest`. Each run has a server of its own.
"""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

from mpquic.speedtest import iperf3, report
from mpquic.speedtest.runs import Counters, Reading, Run, Transfer, measure, order, summary

from mpqlab import topology, tunnels
from mpqlab.errors import LabError
from mpqlab.iperf import fresh_server
from mpqlab.run import inside, ip_json
from mpqlab.topology import CLIENT, find_wan

if TYPE_CHECKING:
    from mpqlab.lab import Lab
    from mpqlab.topology import Lan, Wan

MAX_SECONDS = 25.0
"""Longest run: both runs of a pair are in the same minute, or they don't compare."""
_GRACE_SECONDS = 30.0
_PAUSE_SECONDS = 1.0
"""Before each run, for what the one before has left in queues."""


def compare(lab: Lab, lan: Lan, seconds: float, repetitions: int) -> dict[str, Any]:
    """Measure the tunnel of a LAN and its bare link, one and ten connections, both directions; return plain data.

    Raises:
        LabError: the LAN has no tunnel that is up, or the client's processor is an emulated one.
    """
    if lab.own_kernel:
        raise LabError("under qemu the client's processor is emulated: what would be measured is that")
    name = f"mpq{lan.number}"
    status = next((row for row in tunnels.instances(lab) if row["name"] == name), None)
    if status is None or status["state"] != "up":
        raise LabError(f"the tunnel {name} of LAN{lan.number} is {status['state'] if status else 'not there'}")
    wan = find_wan(str(status["wan"]))
    results = measure(
        order(repetitions),
        lambda: _read(name, wan),
        lambda run, _: _transfer(lab, run, lan, wan, seconds),
        wan.name,
    )
    return {
        "tunnel": name,
        "lan": lan.number,
        "wan": wan.name,
        "congestion": iperf3.CONGESTION,
        "runs": [result.plain() for result in results],
        "medians": summary(results),
    }


def render(facts: dict[str, Any]) -> str:
    """Return it as tables."""
    head = (
        f"{facts['tunnel']} (LAN{facts['lan']}) over {facts['wan']}, {facts['congestion']}, a fresh server for each run"
    )
    return f"{head}\n\n{report.render(facts['runs'], facts['medians'])}"


def problems(facts: dict[str, Any]) -> list[str]:
    """Return why runs aren't valid, a sentence each."""
    return [
        f"{run['way']} {run['direction']}, {run['connections']} connections: {problem}"
        for run in facts["runs"]
        for problem in run["problems"]
    ]


def _read(tun: str, wan: Wan) -> Reading:
    found = {
        link["ifname"]: Counters(link["stats64"]["tx"]["bytes"], link["stats64"]["rx"]["bytes"])
        for link in json.loads(ip_json(CLIENT, "-stats", "link"))
    }
    if tun not in found or wan.device not in found:
        raise LabError(f"the client has no {tun} or no {wan.device}")
    return Reading(found[tun], {wan.name: found[wan.device]})


def _transfer(lab: Lab, run: Run, lan: Lan, wan: Wan, seconds: float) -> Transfer | str:
    time.sleep(_PAUSE_SECONDS)
    with fresh_server() as port:
        if run.way == "tunnel":
            command = inside(lan.host, iperf3.command(run, topology.INTERNET_ADDRESS, port, seconds))
        else:
            source = tunnels.address_of(lab, wan.device)
            if source is None:
                return f"{wan.name} has no lease"
            own = source.partition("/")[0]
            bound = iperf3.command(run, topology.INTERNET_ADDRESS, port, seconds, source=own, device=wan.device)
            command = inside(CLIENT, bound)
        limit = seconds + _GRACE_SECONDS
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
            return iperf3.transfer(done.stdout)
        except subprocess.TimeoutExpired:
            return f"iperf3 didn't end within {limit:.0f} s"
        except iperf3.Iperf3Error as error:
            return f"iperf3 says: {error}"
