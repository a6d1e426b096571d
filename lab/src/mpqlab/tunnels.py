"""The table of WANs and tunnels: what `make lab` shows in the end."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from mpqlab import links, services, topology
from mpqlab.emulator.client import EmulatorError
from mpqlab.errors import LabError
from mpqlab.run import run
from mpqlab.speedtest import Speedtest
from mpqlab.table import columns, number
from mpqlab.topology import CLIENT, EMULATED_WANS, LANS, TUNNEL_VLANS, WANS

if TYPE_CHECKING:
    from mpqlab.lab import Lab
    from mpqlab.topology import Lan, Wan

PROBE_SECONDS = 2.0
PING_SECONDS = 1.0
CONNECT_SECONDS = 15.0
WAN_HEAD = ("WAN", "device", "state", "address", "RTT ms", "link Mbit/s down/up")
TUNNEL_HEAD = (
    "WAN",
    "class",
    "tunnel",
    "state",
    "RTT ms",
    "loss %",
    "down Mbit/s",
    "up Mbit/s",
    "WAN Mbit/s",
    "reconnects",
)
WAN_STATES = (
    "up",
    "no answer",
    "no lease",
    "no carrier",
    "no device",
    "unplugged",
    "cut",
    "cut up",
    "cut down",
    "carrier, no DHCP",
    "no emulator",
)
TUNNEL_STATES = ("up", "connecting", "down", "inactive")
_ONE_TO_ONE = re.compile(r"mpq(\d)")
_PING_TIME = re.compile(r"time=([\d.]+) ms")


def gather(lab: Lab, *, measure: bool) -> dict[str, Any]:
    """Return `wans` and `tunnels`; with `measure`, send TCP through each tunnel that is up, one after the other.

    `rtt_seconds` of a WAN is a ping from the client's device to the Internet, that of a tunnel the daemon's own figure;
    `down_mbit` is the download from the Internet to the host behind the tunnel's LAN, `up_mbit` the upload,
    `wan_mbit` what came in on the tunnel's own WAN during the download. A measurement first waits up to
    `CONNECT_SECONDS` for tunnels that are connecting.

    Raises:
        LabError: the lab isn't up, or mpquicctl gives no answer that can be read.
    """
    lab.require()
    with ThreadPoolExecutor(max_workers=len(WANS)) as pool:
        wans = list(pool.map(lambda wan: _wan(lab, wan), WANS))
    tunnels = [_tunnel(status) for status in (_connected(lab) if measure else instances(lab))]
    if measure:
        for tunnel in tunnels:
            if tunnel["state"] == "up":
                tunnel |= _measure(lab, tunnel)
    return {"wans": wans, "tunnels": tunnels}


def problems(table: dict[str, Any]) -> list[str]:
    """Return what is wrong with a measured table, a sentence each: traffic that doesn't flow where it should.

    An inactive tunnel is as it should be: its WAN isn't there.
    """
    tunnels = table["tunnels"]
    if not any(tunnel["state"] == "up" for tunnel in tunnels):
        return ["no tunnel is up: `mpqlab exec client -- mpquicctl status` tells why"]
    found = []
    for tunnel in tunnels:
        name, state = tunnel["name"], tunnel["state"]
        if state not in {"up", "inactive"}:
            found.append(f"the tunnel {name} is {state}, and its WAN is usable")
        elif tunnel.get("error"):
            found.append(f"the tunnel {name} is up and carries nothing: {tunnel['error']}")
        elif dead := [word for word in ("down", "up") if tunnel[f"{word}_mbit"] == 0]:
            found.append(f"the tunnel {name} is up and carried 0 Mbit/s {' and '.join(dead)}")
    return found


def _connected(lab: Lab) -> list[dict[str, Any]]:
    """Return `instances` once none of them is connecting, or the last answer after `CONNECT_SECONDS`."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        found = instances(lab)
        if all(status.get("state") != "connecting" for status in found) or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def instances(lab: Lab) -> list[dict[str, Any]]:
    """Return what `mpquicctl status --json` says on the client; nothing before the daemon is installed.

    Raises:
        LabError: it fails or prints something else than a list.
    """
    script = "command -v mpquicctl >/dev/null || { echo []; exit 0; }; exec mpquicctl status --json"
    text = run(lab.machines[CLIENT].enter(["sh", "-c", script]), timeout=20.0)
    try:
        answer = json.loads(text)
    except ValueError:
        raise LabError(f"mpquicctl on the client printed no JSON: {text.strip()[:200]}") from None
    if not isinstance(answer, list):
        raise LabError("mpquicctl status --json on the client printed no list")
    return answer


def _wan(lab: Lab, wan: Wan) -> dict[str, Any]:
    link = links.describe(lab, wan)
    facts: dict[str, Any] = {
        "name": wan.name,
        "device": wan.device,
        "state": links.link_state(link),
        "address": None,
        "rtt_seconds": None,
    }
    facts["mbit_limit"] = None
    if "settings" in link:
        facts["mbit_limit"] = {name: link["settings"][name]["rate_mbit"] or None for name in ("up", "down")}
    if link["plugged"]:
        facts["address"] = address_of(lab, wan.device)
    if facts["address"] is not None and link["carrier"]:
        # A cut WAN is asked too: it is the absence of an answer that shows the cut.
        facts["rtt_seconds"] = _ping(lab, wan.device)
    if facts["state"] == "plugged":
        facts["state"] = (
            "no lease" if facts["address"] is None else "up" if facts["rtt_seconds"] is not None else "no answer"
        )
    return facts


def address_of(lab: Lab, device: str) -> str | None:
    """Return the client's IPv4 address on a device with its prefix length, None without a lease."""
    words = ["ip", "-json", "-4", "address", "show", "scope", "global"]
    shown = json.loads(run(lab.machines[CLIENT].enter(words)) or "[]")
    for link in shown:
        if link.get("ifname") == device:
            for address in link["addr_info"]:
                return f"{address['local']}/{address['prefixlen']}"
    return None


def _ping(lab: Lab, device: str) -> float | None:
    command = f"ping -n -c 1 -W {PING_SECONDS:g} -I {device} {topology.INTERNET_ADDRESS} || true"
    found = _PING_TIME.search(run(lab.machines[CLIENT].enter(["sh", "-c", command]), timeout=PING_SECONDS + 5.0))
    return round(float(found[1]) / 1000, 6) if found else None


def _tunnel(status: dict[str, Any]) -> dict[str, Any]:
    keys = (
        "name",
        "state",
        "wan",
        "class",
        "since",
        "peer",
        "rtt_seconds",
        "loss_ratio",
        "tx_bytes",
        "rx_bytes",
        "reconnects",
    )
    return {key: status.get(key) for key in keys} | {"down_mbit": None, "up_mbit": None, "wan_mbit": None}


def _measure(lab: Lab, tunnel: dict[str, Any]) -> dict[str, Any]:
    """Download, then upload through a tunnel for `PROBE_SECONDS` each.

    Only a tunnel with a LAN or a VLAN of its own has a host to do it from.
    """
    found = _sender(str(tunnel["name"]))
    if found is None:
        return {}
    lan, source = found
    wan = next((wan for wan in EMULATED_WANS if tunnel["wan"] in {wan.name, wan.device}), None)
    before, started = _carried(lab, wan), time.monotonic()
    try:
        down = Speedtest(lan, seconds=PROBE_SECONDS, reverse=True, source=source).run()
        carried, seconds = _carried(lab, wan) - before, time.monotonic() - started
        up = Speedtest(lan, seconds=PROBE_SECONDS, source=source).run()
    except LabError as error:
        return {"error": str(error)}
    return {
        "down_mbit": down["mbit"],
        "up_mbit": up["mbit"],
        "wan_mbit": round(carried * 8 / seconds / 1e6, 1) if wan else None,
    }


def _sender(tunnel: str) -> tuple[Lan, str | None] | None:
    """Return the LAN whose host sends by a tunnel, and from which address if not from that of the LAN itself."""
    vlan = TUNNEL_VLANS.get(tunnel)
    if vlan is not None:
        return vlan.lan, vlan.host_address.partition("/")[0]
    one_to_one = _ONE_TO_ONE.fullmatch(tunnel)
    lan = next((lan for lan in LANS if one_to_one and lan.number == int(one_to_one[1])), None)
    return None if lan is None else (lan, None)


def _carried(lab: Lab, wan: Wan | None) -> int:
    """Return how many bytes the WAN's link has brought to the client."""
    if wan is None:
        return 0
    try:
        return int(services.emulator(lab.state, wan).counters()["down"]["out_bytes"])
    except EmulatorError as error:
        raise LabError(str(error)) from error


def render(table: dict[str, Any]) -> str:
    """Return the table as text."""
    lines = ["WANs"]
    lines += columns(WAN_HEAD, [_wan_row(wan) for wan in table["wans"]])
    lines += ["", "tunnels"]
    if not table["tunnels"]:
        return "\n".join([*lines, "  none: the client has no mpquicctl or no instance yet"])
    lines += columns(TUNNEL_HEAD, [_tunnel_row(tunnel) for tunnel in table["tunnels"]])
    lines += [f"  {tunnel['name']}: {tunnel['error']}" for tunnel in table["tunnels"] if tunnel.get("error")]
    return "\n".join(lines)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _wan_row(wan: dict[str, Any]) -> list[str]:
    limit = wan["mbit_limit"]
    rates = "/".join(number(limit[name]) if limit[name] else "free" for name in ("down", "up")) if limit else "-"
    return [
        wan["name"].upper(),
        wan["device"],
        wan["state"],
        wan["address"] or "-",
        number(_ms(wan["rtt_seconds"])),
        rates,
    ]


def _tunnel_row(tunnel: dict[str, Any]) -> list[str]:
    loss = tunnel["loss_ratio"]
    return [
        str(tunnel["wan"] or "-").upper(),
        str(tunnel.get("class") or "-"),
        str(tunnel["name"]),
        str(tunnel["state"]),
        number(_ms(tunnel["rtt_seconds"])),
        number(None if loss is None else 100.0 * loss),
        number(tunnel["down_mbit"]),
        number(tunnel["up_mbit"]),
        number(tunnel["wan_mbit"]),
        number(tunnel["reconnects"], 0),
    ]
