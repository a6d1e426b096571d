"""What the lab is doing now, as plain data and as text."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from mpqlab import links, network
from mpqlab.errors import LabError
from mpqlab.run import run
from mpqlab.table import columns, number
from mpqlab.topology import MACHINES, NODES, WANS

if TYPE_CHECKING:
    from mpqlab.lab import Lab


def gather(lab: Lab) -> dict[str, Any]:
    """Return the lab's state: `up`, `suite`, `nodes`, `links`, and `stopped`, the processes that should run."""
    lab.require_names()
    if not lab.complete:
        return {"up": False, "suite": None, "nodes": [], "links": [], "stopped": []}
    with ThreadPoolExecutor(max_workers=8) as pool:
        nodes = list(pool.map(lambda node: _node(lab, node), NODES))
        wans = list(pool.map(lambda wan: links.describe(lab, wan), WANS))
    stopped = [process.name for process in lab.state.processes() if not process.alive]
    return {"up": True, "suite": lab.suite, "nodes": nodes, "links": wans, "stopped": stopped}


def _node(lab: Lab, node: str) -> dict[str, Any]:
    if node not in MACHINES:
        return {"name": node, "kind": "namespace", "state": "up" if network.namespace_exists(node) else "missing"}
    machine = lab.machines[node]
    leader = machine.leader
    facts = {"name": node, "kind": "machine", "hostname": machine.hostname}
    if leader is None:
        return facts | {"state": "off", "leader": None}
    try:
        state = run(machine.enter(["sh", "-c", "systemctl is-system-running || true"]), timeout=5.0).strip()
    except LabError:
        state = "unreachable"
    return facts | {"state": state, "leader": leader.pid}


def render(status: dict[str, Any]) -> str:
    """Return the text that `mpqlab status` prints."""
    if not status["up"]:
        return "The lab isn't up: start it with `mpqlab up`."
    machines = [node for node in status["nodes"] if node["kind"] == "machine"]
    missing = [node["name"] for node in status["nodes"] if node["state"] == "missing"]
    lines = [f"machines (Debian {status['suite']})"]
    lines += [f"  {node['name']:8} {node['hostname']:14} {node['state']}" for node in machines]
    if missing or status["stopped"]:
        lines.append(f"broken: {', '.join(missing + status['stopped'])}; `mpqlab up` starts processes again")
    lines += ["", "links"]
    head = [
        "WAN",
        "device",
        "state",
        "gateway",
        "public",
        "RTT ms",
        "up Mbit",
        "down Mbit",
        "packets up/down",
        "lost up/down",
    ]
    lines += columns(head, [_link_row(link) for link in status["links"]])
    return "\n".join(lines)


def _link_row(link: dict[str, Any]) -> list[str]:
    row = [
        link["wan"].upper(),
        link["device"],
        links.link_state(link),
        link.get("gateway", ""),
        link.get("public", ""),
    ]
    if "settings" not in link:
        return [*row, "", "", "", "", ""]
    up, down = link["settings"]["up"], link["settings"]["down"]
    counters = [link["counters"][name] for name in ("up", "down")]
    return [
        *row,
        number(up["delay_ms"] + down["delay_ms"]),
        number(up["rate_mbit"]) if up["rate_mbit"] else "free",
        number(down["rate_mbit"]) if down["rate_mbit"] else "free",
        "/".join(str(counter["in_packets"]) for counter in counters),
        "/".join(str(sum(counter["dropped"].values())) for counter in counters),
    ]
