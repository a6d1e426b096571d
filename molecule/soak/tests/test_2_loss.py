"""Loss on one class tunnel alone, beyond the host: its neighbours on the same WAN keep rate and every packet."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpqlab.testing import Lab

    from .conftest import Call

ISP = "isp5"
SECONDS = 5
RATE = 20
"""Mbit/s of what neighbours carry, in sum far below what the WAN does."""
TUNNELS = ("cr2", "br2", "df2")


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


def measure(tunnel: str, options: str) -> dict[str, Any]:
    """A speed test between the Internet and the network of the class's VLAN, a download."""
    program = (
        "import json; from mpqlab.speedtest import Speedtest; from mpqlab.topology import CLASS_VLANS; "
        f"vlan = CLASS_VLANS['{tunnel}']; source = vlan.host_address.partition('/')[0]; "
        f"print(json.dumps(Speedtest(vlan.lan, seconds={SECONDS}, reverse=True, source=source, {options}).run()))"
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
    neighbours = {tunnel: measure(tunnel, f"udp=True, rate={RATE}") for tunnel in TUNNELS if tunnel != victim}
    lost = {tunnel: end["lost"] for tunnel, end in ((each, call.end()) for each, call in calls.items()) if end["lost"]}
    own = measure(victim, "streams=1")
    print(json.dumps({"victim": victim, "loss_percent": percent, "tcp_mbit": own["mbit"], "lost": lost}))
    assert set(lost) <= {victim}
    for tunnel, found in neighbours.items():
        assert (found["loss_percent"], round(found["mbit"])) == (0.0, RATE), tunnel
