"""A real server process outlives a registered client that does its worst, and serves another client meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from waiting import wait_for

from .conftest import IDENTITY, Site

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

PROGRAM = Path(__file__).parents[1] / "hostile" / "registered.py"
MALLORY = "urn:mpquic:site:mallory"
SPOOFED = ("198.51.100.7", "203.0.113.9")
MAX_MEMORY = 200 << 20


@pytest.fixture
def attacked(site: Site) -> Iterator[Site]:
    """A server that knows two clients; the honest one is up."""
    site.ca.client("mallory", MALLORY)
    (site.directory / "sv.log").unlink(missing_ok=True)
    peers = [
        {"identity": IDENTITY, "tunnel": "mpq9", "allowed": ["10.200.9.1/32", "fd09::1/128"]},
        {"identity": MALLORY, "tunnel": "mpq8", "allowed": ["10.200.9.8/32"]},
    ]
    try:
        site.start("server", site.server_config(peers=peers))
        site.wait_server()
        site.start("client", site.client_config(transport="stripe"))
        site.wait_state("up")
        yield site
    finally:
        for name in list(site.processes):
            site.kill(name)


def memory(site: Site) -> int:
    """Bytes of memory of the server's process, at their highest."""
    status = Path(f"/proc/{site.processes['sv'].pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def processor_seconds(site: Site) -> float:
    """The processor time of the server's process so far."""
    fields = Path(f"/proc/{site.processes['sv'].pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


FLOOD = """
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    for _ in range(10):
        sock.sendto(bytes(1200), ("10.200.9.8", 9))
    time.sleep(0.002)
"""


@contextmanager
def flood(site: Site) -> Iterator[None]:
    """Have the server send to the attacker: some thousand large packets a second."""
    command = ["ip", "netns", "exec", site.namespace("server"), sys.executable, "-c", FLOOD]
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.kill()


def sent_shards(site: Site) -> int:
    """How many shards the server has sent to the attacker."""
    rows = [row for row in site.ask("sv", "paths") if row["identity"] == MALLORY]
    return sum(row["stripe"]["tx_data_shards"] for row in rows if row["stripe"] is not None)


def attack(site: Site, *arguments: str, seconds: float = 6.0) -> dict[str, Any]:
    files = {
        "tls": {
            "ca_file": str(site.ca.file),
            "cert_file": str(site.directory / "mallory.crt"),
            "key_file": str(site.directory / "mallory.key"),
            "server_name": "vps1.example.net",
        }
    }
    config = site.client_config(
        "mallory", transport="stripe", tunnel="mpq8", inner_addresses=["10.200.9.8/32"], stripe_fec="always", **files
    )
    command = ["ip", "netns", "exec", site.namespace("client"), sys.executable, str(PROGRAM), str(config)]
    command += ["--seconds", str(seconds), "--echo", "10.200.9.2", "--spoof", *SPOOFED, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=site.environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def counted(site: Site) -> dict[str, dict[str, int]]:
    """Packets and bytes that the middle has seen from and to the spoofed addresses, with their IP headers."""
    found = json.loads(site.run("middle", "nft", "-j", "list", "counters", "table", "ip", "seen"))["nftables"]
    return {each["counter"]["name"]: each["counter"] for each in found if "counter" in each}


def test_a_spoofed_address_gets_no_more_than_three_times_what_came_from_there(attacked: Site) -> None:
    spoofed = ", ".join(SPOOFED)
    rules = f"""
        table ip seen {{
            counter from {{ }}
            counter to {{ }}
            chain arrives {{
                type filter hook prerouting priority -300;
                ip protocol udp ip saddr {{ {spoofed} }} counter name from
                ip protocol udp ip daddr {{ {spoofed} }} counter name to
            }}
        }}"""
    attacked.run("middle", "nft", rules)
    try:
        with flood(attacked):
            attack(attacked, "--attack", "spoofed", "--rate", "20", seconds=4.0)
        seen = counted(attacked)
    finally:
        attacked.run("middle", "nft", "delete", "table", "ip", "seen")
    came, went = (seen[name]["bytes"] - 28 * seen[name]["packets"] for name in ("from", "to"))
    assert came > 1000
    assert 0 < went <= 3 * came
    assert "fault" not in attacked.log("sv")


def cost_of_reports(site: Site, rate: int) -> float:
    """Processor seconds of the server for some seconds of reports of all that was ever sent, `rate` times a second."""
    with ThreadPoolExecutor(1) as pool:
        arguments = ("--attack", "reports", "--rate", str(rate), "--after", "5.0")
        attacking = pool.submit(attack, site, *arguments, seconds=9.0)
        wait_for(lambda: site.ask("sv", "counters")["tables"]["stripe_sessions"] == 2, 5, "the attacker's session")
        with flood(site):
            wait_for(lambda: sent_shards(site) > 10_000 or attacking.done(), 20, "shards that were sent")
        before = processor_seconds(site)
        found = attacking.result()
    assert found["sent"]["reports"] > rate
    cost = processor_seconds(site) - before
    wait_for(lambda: site.ask("sv", "counters")["tables"]["stripe_sessions"] == 1, 10, "the attacker's end")
    return cost


def test_more_reports_of_all_that_was_ever_sent_do_not_cost_more(attacked: Site) -> None:
    # By then 20 a second have used up all the work that a client may cause.
    few, many = (cost_of_reports(attacked, rate) for rate in (20, 100))
    assert many < 2.5 * few


NAMES = ("reports", "jumps", "dead_pipes", "groups", "tiny", "keepalives", "spoofed", "control")


@pytest.mark.parametrize("name", [*NAMES, "all"])
def test_a_registered_client_that_does_its_worst_ends_nobody_else(attacked: Site, name: str) -> None:
    names = NAMES if name == "all" else (name,)
    pid = attacked.processes["sv"].pid
    before = attacked.ask("cl")["reconnects"]
    found = attack(attacked, "--attack", *names, "--rate", "100", seconds=2.0)
    assert found["registrations"] >= 1
    assert all(found["sent"][each] > 0 for each in names), found
    assert attacked.processes["sv"].poll() is None
    assert attacked.processes["sv"].pid == pid
    assert attacked.ping()
    assert (attacked.state(), attacked.ask("cl")["reconnects"]) == ("up", before)
    assert memory(attacked) < MAX_MEMORY
    log = attacked.log("sv")
    assert "fault" not in log, log[-3000:]
    wait_for(lambda: attacked.ask("sv", "counters")["tables"]["registered"] == 1, 10, "the end")
