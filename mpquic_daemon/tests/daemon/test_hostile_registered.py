"""A real server process outlives a registered client that does its worst, and serves another client meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import IDENTITY, Site, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

PROGRAM = Path(__file__).parents[1] / "hostile" / "registered.py"
MALLORY = "urn:mpquic:site:mallory"
SPOOFED = ("198.51.100.7", "203.0.113.9")
MOST_MEMORY = 200 << 20


@pytest.fixture
def attacked(site: Site) -> Iterator[Site]:
    """A server that knows two clients; the honest one is up."""
    site.ca.client("mallory", MALLORY)
    peers = [
        {"identity": IDENTITY, "tunnel": "mpq9", "allowed": ["10.200.9.1/32", "fd09::1/128"]},
        {"identity": MALLORY, "tunnel": "mpq8", "allowed": ["10.200.9.8/32"]},
    ]
    try:
        site.start("server", site.server_config(peers=peers))
        wait_for(lambda: site.state("sv") == "up", 5, "the server")
        site.start("client", site.client_config(transport="stripe"))
        site.wait_state("up")
        yield site
    finally:
        for name in list(site.processes):
            site.kill(name)


def memory(site: Site, name: str = "sv") -> int:
    """Bytes of resident memory of a process and its children."""
    pid = site.processes[name].pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    pages = [int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in (str(pid), *children)]
    return max(pages) * 4096


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
    assert memory(attacked) < MOST_MEMORY
    log = attacked.log("sv")
    assert "fault" not in log, log[-3000:]
    wait_for(lambda: attacked.ask("sv", "counters")["tables"]["registered"] == 1, 10, "the end")
