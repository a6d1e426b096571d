"""Loss on one class tunnel alone, beyond the host: its neighbours on the same WAN keep rate and every packet."""

from __future__ import annotations

import functools
import json
import re
import shlex
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from typing import IO, TYPE_CHECKING, Any

import pytest
from mpqlab import topology
from mpqlab.testing import INTERNET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mpqlab.testing import Lab

    from .conftest import Call, Kept

WAN = "wan5"
ISP = "isp5"
SERVER = "mt5"
"""The VPS's instance of the WAN's class tunnels."""
SECONDS = 5
RATE = 20
"""Mbit/s of what neighbours carry, in sum far below what the WAN does."""
PORT = 5061
ROUNDS = 3
PINGS = 20
PUSH_LIMIT = 30.0
"""Seconds after which a sender gives up that its receiver hasn't stopped."""
TUNNELS = {"cr2": "stripe", "br2": "quic, reliable", "df2": "quic, datagram"}
"""The class tunnels of a WAN by their data plane."""


@pytest.fixture
def provider(lab: Lab) -> Iterator[None]:
    """The provider's own packet filter goes in the end."""
    yield
    lab.run(ISP, "nft delete table inet loss", check=False)


def ports(lab: Lab, tunnel: str) -> list[str]:
    """Source ports of the sockets of a tunnel's process."""
    pid = lab.run("client", f"systemctl show -P MainPID mpquic@{tunnel}").strip()
    sockets = [line for line in lab.run("client", "ss -Hunap").splitlines() if f"pid={pid}," in line]
    return sorted({re.split(r"\s+", line)[3].rpartition(":")[2] for line in sockets})


def lose(lab: Lab, tunnel: str, percent: int) -> None:
    """Drop this share of a tunnel's packets at random, in both directions, in the provider's network."""
    chosen = "{ " + ", ".join(ports(lab, tunnel)) + " }"
    rules = [f"udp {end} {chosen} numgen random mod 100 < {percent} drop" for end in ("sport", "dport")]
    chain = "add chain inet loss forward { type filter hook forward priority -10; }"
    lines = ["add table inet loss", chain, *(f"add rule inet loss forward {rule}" for rule in rules)]
    lab.run(ISP, "nft -f - <<'END'\n" + "\n".join(lines) + "\nEND")


def losses(lab: Lab, tunnel: str) -> Counter[str]:
    """Packets that were lost up to now, by place: at both daemons, on the WAN, at the receiver's socket."""
    found: Counter[str] = Counter()
    for node, instance in (("client", tunnel), ("vps", SERVER)):
        counters = lab.daemon_counters(instance, node)["tunnel"]
        found[f"{node}: rx_missing_packets"] = counters["rx_missing_packets"]
        for queue in counters["queues"]:
            for what in ("overflow_drops", "codel_drops", "expired"):
                found[f"{node}: {what} of class {queue['traffic_class']}"] += queue[what]
    for direction, counters in lab.counters(WAN).items():
        found.update({f"{WAN}: {direction}, {reason}": packets for reason, packets in counters["dropped"].items()})
    sockets = lab.run(topology.CLASS_VLANS[tunnel].lan.host, "nstat -asz UdpRcvbufErrors")
    found["receiver: UdpRcvbufErrors"] = int(sockets.split()[-2])
    return found


def measure(tunnel: str) -> dict[str, Any]:
    """Datagrams at a steady rate from the Internet to the network of the class's VLAN."""
    program = (
        "import json; from mpqlab.speedtest import Speedtest; from mpqlab.topology import CLASS_VLANS; "
        f"vlan = CLASS_VLANS['{tunnel}']; source = vlan.host_address.partition('/')[0]; "
        f"test = Speedtest(vlan.lan, seconds={SECONDS}, reverse=True, source=source, udp=True, rate={RATE}); "
        "print(json.dumps(test.run()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.usefixtures("provider")
@pytest.mark.parametrize("percent", [10, 30])
@pytest.mark.parametrize("victim", TUNNELS)
def test_loss_on_one_class_is_nobody_elses(lab: Lab, calls: dict[str, Call], victim: str, percent: int) -> None:
    """Nobody fills the WAN: how classes share a full one is another matter."""
    lose(lab, victim, percent)
    before = {tunnel: losses(lab, tunnel) for tunnel in TUNNELS if tunnel != victim}
    neighbours = {tunnel: measure(tunnel) for tunnel in before}
    ends = {tunnel: call.end() for tunnel, call in calls.items()}
    assert {tunnel for tunnel, end in ends.items() if end["lost"]} <= {victim}
    for tunnel, found in neighbours.items():
        assert (found["loss_percent"], round(found["mbit"])) == (0.0, RATE), (
            f"{tunnel} among all tunnels of {WAN}: {losses(lab, tunnel) - before[tunnel]}"
        )


@pytest.fixture
def push(lab: Lab) -> Iterator[Callable[[str], float]]:
    """Mbit/s of one TCP connection from the network of a class's VLAN to the Internet."""
    with lab.echo("count", str(PORT), str(SECONDS)) as rates:
        yield functools.partial(_push, lab, rates)


def _push(lab: Lab, rates: IO[str], tunnel: str) -> float:
    vlan = topology.CLASS_VLANS[tunnel]
    source = vlan.host_address.partition("/")[0]
    words = [sys.executable, "-m", "mpqlab.echo", "push", source, INTERNET, str(PORT), str(PUSH_LIMIT)]
    lab.run(vlan.lan.host, shlex.join(words), timeout=PUSH_LIMIT + 40)
    return float(rates.readline())


def ping(lab: Lab, tunnel: str) -> tuple[float, float]:
    """Median round trip in ms from the network of a class's VLAN to the Internet, and how many percent were lost."""
    vlan = topology.CLASS_VLANS[tunnel]
    source = vlan.host_address.partition("/")[0]
    got = lab.run(vlan.lan.host, f"ping -n -I {source} -c {PINGS} -i 0.05 -W 1 {INTERNET}")
    times = [float(each) for each in re.findall(r"time=([0-9.]+)", got)]
    return statistics.median(times), 100 * (1 - len(times) / PINGS)


@pytest.mark.usefixtures("provider")
@pytest.mark.parametrize("victim", TUNNELS)
def test_what_tcp_makes_of_the_loss(lab: Lab, push: Callable[[str], float], kept: Kept, victim: str) -> None:
    """The figures of docs/performance.md: rates of TCP, one class at a time, and round trips of the others."""
    found: dict[int, dict[str, list[float]]] = {percent: defaultdict(list) for percent in (0, 10, 30)}
    for _ in range(ROUNDS):
        for percent, rates in found.items():
            lab.run(ISP, "nft delete table inet loss", check=False)
            if percent:
                lose(lab, victim, percent)
            for tunnel in TUNNELS:
                if tunnel != victim:
                    round_trip, lost = ping(lab, tunnel)
                    rates["ping"].append(round_trip)
                    rates["lost"].append(lost)
            for tunnel in TUNNELS:
                rates["own" if tunnel == victim else "neighbours"].append(push(tunnel))
    rows = {
        percent: {what: (max if what == "lost" else statistics.median)(values) for what, values in rates.items()}
        for percent, rates in found.items()
    }
    print(json.dumps(rows))
    for percent, row in rows.items():
        kept.add({"data_plane": TUNNELS[victim], "loss_percent": percent, **row})
        assert row["neighbours"] > 0.9 * rows[0]["neighbours"]
        assert row["ping"] < rows[0]["ping"] + 2
        assert row["lost"] == 0
    assert rows[30]["own"] > 0
