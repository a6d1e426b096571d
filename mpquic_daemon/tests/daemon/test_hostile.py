"""Honest clients keep what they have while 300 unregistered peers and a registered one do their worst.

`make hostile` runs it, for MPQUIC_HOSTILE_SECONDS, on a machine that has nothing else to do: where other processes take
the processors, what is measured is them. First it is the attackers' turn; then a
stand-in takes the processor time that they have taken, and what the clients get meanwhile is what they are compared
with.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from waiting import wait_for

from .conftest import SERVER_NAME, Site

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif("MPQUIC_HOSTILE_SECONDS" not in os.environ, reason="compares goodput: `make hostile` runs it"),
]

SECONDS = float(os.environ.get("MPQUIC_HOSTILE_SECONDS", "15"))
TESTS = Path(__file__).parents[1]
ATTACKERS = "10.66.0.0/16"
CORES = 0.4
"""Of a processor, for the 300 together."""
RATE = 40
"""How many times a second the registered client does each of its attacks."""
LOAD = 6
"""Mbit/s of each honest client in its direction: the tunnels take a quarter of a processor for all of them."""
HONEST = ("h1", "h2", "h3", "h4")
NEW = "new"
MALLORY = "mallory"
KEPT = 0.95
MAX_MEMORY = 200 << 20


@dataclass
class Phase:
    """What was measured while something went on: goodput in Mbit/s by client, the server's memory in bytes."""

    goodput: dict[str, float] = field(default_factory=dict)
    memory: int = 0
    cores: float = 0.0
    server_cores: float = 0.0


def number(name: str) -> int:
    return 10 + (*HONEST, NEW, MALLORY).index(name)


def transport(name: str) -> str:
    return "stripe" if name in ("h3", "h4", MALLORY) else "quic"


def identity(name: str) -> str:
    return f"urn:mpquic:site:{name}"


def wire(site: Site, name: str, network: int) -> None:
    """Make a namespace with a device towards the middle."""
    subprocess.run(["ip", "netns", "add", site.namespace(name)], check=True)
    site.ip(name, "link", "set", "lo", "up")
    site.ip("middle", "link", "add", f"m{network}", "type", "veth", "peer", "wan0", "netns", site.namespace(name))
    site.ip("middle", "addr", "add", f"10.77.{network}.1/24", "dev", f"m{network}")
    site.ip("middle", "link", "set", f"m{network}", "up")
    site.ip(name, "addr", "add", f"10.77.{network}.2/24", "dev", "wan0")
    site.ip(name, "link", "set", "wan0", "up")
    site.ip(name, "route", "add", "default", "via", f"10.77.{network}.1")


def start(site: Site, name: str) -> None:
    """Start a client's process, and wait until it runs, connected or not."""
    site.start(name, config(site, name))
    wait_for(lambda: site.state(name) is not None, 20, f"the process of {name}")


def config(site: Site, name: str) -> Path:
    tls = {
        "ca_file": str(site.ca.file),
        "cert_file": str(site.directory / f"{name}.crt"),
        "key_file": str(site.directory / f"{name}.key"),
        "server_name": SERVER_NAME,
    }
    return site.client_config(
        name, tls=tls, site=name, transport=transport(name), inner_addresses=[f"10.200.9.{number(name)}/32"]
    )


@pytest.fixture
def world(site: Site) -> Iterator[Site]:
    """A server, honest clients that are up, namespaces for the others."""
    names = (*HONEST, NEW, MALLORY)
    try:
        for name in names:
            wire(site, name, number(name))
            site.ip(name, "tuntap", "add", "dev", "mpq9", "mode", "tun", "vnet_hdr")
            site.ip(name, "link", "set", "mpq9", "mtu", "1400", "up")
            site.ip(name, "addr", "add", f"10.200.9.{number(name)}/32", "dev", "mpq9")
            site.ip(name, "route", "add", "10.200.9.0/24", "dev", "mpq9")
            site.ca.client(name, identity(name))
        wire(site, "attackers", 66)
        site.ip("attackers", "route", "add", "local", ATTACKERS, "dev", "lo")
        site.ip("middle", "route", "add", ATTACKERS, "via", "10.77.66.2")
        peers = [
            {"identity": identity(name), "tunnel": "mpq9", "allowed": [f"10.200.9.{number(name)}/32"]} for name in names
        ]
        site.start("server", site.server_config(peers=peers))
        wait_for(lambda: site.state("sv") == "up", 20, "the server")
        for name in HONEST:
            start(site, name)
        for name in HONEST:
            site.wait_state("up", 20, name)
        yield site
    finally:
        for name in list(site.processes):
            site.kill(name)
        for name in (*names, "attackers"):
            subprocess.run(["ip", "netns", "del", site.namespace(name)], check=False, capture_output=True)


@contextmanager
def loads(site: Site, seconds: float, phase: Phase) -> Iterator[None]:
    """One TCP connection for each honest client, up or down in turn, paced, all the time; then their goodput."""
    ends: list[subprocess.Popen[str]] = []
    clients: dict[str, subprocess.Popen[str]] = {}
    try:
        for port in range(5301, 5301 + len(HONEST)):
            command = ["iperf3", "-s", "-1", "-B", "10.200.9.2", "-p", str(port)]
            ends.append(namespaced(site, "server", command))
            wait_for(lambda port=port: f":{port}" in site.run("server", "ss", "-Hltn"), 10, "iperf3")
        for place, name in enumerate(HONEST):
            command = ["iperf3", "-c", "10.200.9.2", "-p", str(5301 + place), "-C", "cubic", "-b", f"{LOAD}M"]
            command += ["-t", str(round(seconds)), "-J", *(["-R"] if place % 2 else [])]
            clients[name] = namespaced(site, name, command)
        began, used = time.monotonic(), processor_seconds(site.processes["sv"])
        yield
        for name, process in clients.items():
            output, errors = process.communicate(timeout=seconds + 30)
            assert process.returncode == 0, f"the TCP connection of {name} was lost: {output[-500:]}{errors}"
            phase.server_cores = (processor_seconds(site.processes["sv"]) - used) / (time.monotonic() - began)
            phase.goodput[name] = json.loads(output)["end"]["sum_received"]["bits_per_second"] / 1e6
    finally:
        for process in (*clients.values(), *ends):
            process.kill()
            process.communicate()


def namespaced(site: Site, role: str, command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["ip", "netns", "exec", site.namespace(role), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**site.environment, "PYTHONPATH": str(TESTS)},
    )


def processor_seconds(process: subprocess.Popen[Any]) -> float:
    """The processor time of a process so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(site: Site) -> int:
    status = Path(f"/proc/{site.processes['sv'].pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) << 10


def newcomer(site: Site) -> float:
    """Seconds in which a client that has never been there registers."""
    config(site, NEW)
    began = time.monotonic()
    start(site, NEW)
    ready = time.monotonic()
    try:
        site.wait_state("up", 5, NEW)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{site.ask('sv', 'counters')}") from None
    print(f"new client: process {ready - began:.1f} s, registration {time.monotonic() - ready:.2f} s")
    return time.monotonic() - ready


def attack(site: Site, phase: Phase) -> dict[str, Any]:
    """Let the attackers do their worst while the honest clients work; return what the attackers tell."""
    attackers = [sys.executable, str(TESTS / "hostile" / "unregistered.py"), "10.77.2.2:45009"]
    attackers += ["--addresses", ATTACKERS, "--cores", str(CORES), "--seconds", str(SECONDS)]
    programs = {"unregistered": ("attackers", attackers)}
    registered = [sys.executable, str(TESTS / "hostile" / "registered.py"), str(config(site, MALLORY))]
    registered += ["--rate", str(RATE), "--echo", "10.200.9.2", "--spoof", "198.51.100.7", "203.0.113.9"]
    programs["registered"] = (MALLORY, [*registered, "--seconds", str(SECONDS)])
    processes = {name: namespaced(site, role, command) for name, (role, command) in programs.items()}
    told: dict[str, Any] = {}
    used: dict[str, float] = {}
    registered_in: float | None = None
    began = time.monotonic()
    try:
        with loads(site, SECONDS, phase):
            while time.monotonic() < began + SECONDS:
                phase.memory = max(phase.memory, resident(site))
                used = {name: processor_seconds(process) for name, process in processes.items()}
                if registered_in is None and time.monotonic() > began + SECONDS / 2:
                    registered_in = newcomer(site)
                time.sleep(0.2)
            phase.cores = sum(used.values()) / (time.monotonic() - began)
        for name, process in processes.items():
            output, errors = process.communicate(timeout=30)
            assert process.returncode == 0, errors
            told[name] = json.loads(output)
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()
    site.kill(NEW)
    return told


def stand_in(site: Site, cores: float, phase: Phase) -> None:
    """Take the attackers' processor time, while the honest clients work."""
    seconds = min(SECONDS, 20.0)
    count = int(cores) + 1
    command = [sys.executable, "-m", "mpqbench.standin", str(cores / count)]
    processes = [namespaced(site, "middle", command) for _ in range(count)]
    try:
        with loads(site, seconds, phase):
            pass
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_honest_clients_keep_what_they_have_while_others_do_their_worst(world: Site) -> None:
    server = world.processes["sv"]
    attacked, calm = Phase(), Phase()
    told = attack(world, attacked)
    counters = world.ask("sv", "counters")
    stand_in(world, attacked.cores, calm)
    print(json.dumps({"attackers": told, "server": counters["listener"], "tables": counters["tables"]}))
    print(f"attackers' cores {attacked.cores:.2f}, server's memory {attacked.memory >> 20} MiB")
    print(f"server's cores attacked {attacked.server_cores:.2f}, calm {calm.server_cores:.2f}")
    print(f"goodput attacked {attacked.goodput}, calm {calm.goodput}")
    assert told["unregistered"]["handshakes"] > SECONDS
    assert told["registered"]["registrations"] >= 1
    assert server.poll() is None
    assert attacked.memory < MAX_MEMORY
    log = world.log("sv")
    assert "Traceback" not in log, log[-3000:]
    for name in HONEST:
        status = world.ask(name)
        assert (status["state"], status["reconnects"]) == ("up", 0), f"{name}: {status}\n{world.log(name)}\n{log}"
        assert attacked.goodput[name] >= KEPT * calm.goodput[name], name
