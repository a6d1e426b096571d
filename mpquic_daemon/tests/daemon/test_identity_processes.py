"""Two machines with one certificate and key, in namespaces: real processes, real packets."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Site

pytestmark = pytest.mark.root
COPIES = Path(__file__).with_name("copies.py")
PIPES = 4
START = 20.0
"""Seconds that a process has to start, and to do what isn't measured here."""
PLANES: dict[str, dict[str, object]] = {
    "quic": {"transport": "quic"},
    "stripe": {"transport": "stripe", "pipes": PIPES},
}


@pytest.fixture(scope="module")
def machines(site: Site) -> Site:
    """The site with a machine more, which is a copy of the client at another address."""
    site.add_end("copy", "wan0", 3)
    return site


@pytest.fixture(scope="module", params=PLANES)
def plane(request: pytest.FixtureRequest) -> dict[str, object]:
    return PLANES[request.param]


@pytest.fixture(scope="module")
def first(machines: Site, plane: dict[str, object]) -> Iterator[Site]:
    """The first machine is up, and striped if it is to be. The last test gives its place away."""
    try:
        machines.start("server", machines.server_config())
        wait_for(lambda: machines.state("sv") == "up", START, "the server")
        machines.start("client", machines.client_config(**plane))
        machines.wait_state("up", START)
        wait_for(lambda: carries(machines, plane), START, "the data plane")
        yield machines
    finally:
        for name in list(machines.processes):
            machines.kill(name)


def carries(site: Site, plane: dict[str, object]) -> bool:
    if plane["transport"] == "quic":
        return site.ping(1)
    return all((site.ask(name, "paths")[0].get("stripe") or {}).get("carries") for name in ("cl", "sv"))


@contextmanager
def pings(site: Site) -> Iterator[set[int]]:
    """Send 50 pings a second through the tunnel of the first machine; then the set has the numbers of the replies."""
    command = ["ip", "netns", "exec", site.namespace("client"), "ping", "-n", "-i", "0.02", "10.200.9.2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    replies: set[int] = set()
    try:
        yield replies
        assert site.ping(3)
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=10)
        replies |= {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl=", text)}
    finally:
        process.kill()
        process.wait()


def ctl(site: Site, *arguments: str) -> str:
    command = [sys.executable, "-m", "mpquic.ctl", *arguments, "--instances-dir", str(site.directory / "instances")]
    environment = {**site.environment, "SUDO_USER": "alice"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=30)
    return done.stdout


def test_a_hundred_attempts_of_copies_cost_the_first_machine_no_packet(first: Site, plane: dict[str, object]) -> None:
    config = first.client_config("c2", bind_ip="10.77.3.2", **plane)
    with pings(first) as replies:
        outcomes = json.loads(first.run("copy", sys.executable, str(COPIES), str(config), "100", "4", timeout=60))
    assert outcomes == {"IN_USE": 100}
    assert len(replies) > 20
    # What comes after the last reply was on its way.
    assert replies == set(range(1, max(replies) + 1))
    status, tables = first.ask("cl"), first.ask("sv", "counters")["tables"]
    assert (status["state"], status["reconnects"], status["flaps"]) == ("up", 0, 0)
    assert (tables["registered"], tables["waiting_registrations"]) == (1, 0)
    (row,) = first.ask("sv")["peers"]
    assert row["second_machine"]["attempts"] == 100
    assert row["second_machine"]["peer"].startswith("10.77.3.2:")
    assert "10.77.3.2:" in first.log("sv")


def starved(process: subprocess.Popen[bytes]) -> float:
    """Seconds that a process has waited for a processor: others had it."""
    return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[1]) / 1e9


def test_a_killed_client_is_back_within_two_seconds(first: Site, plane: dict[str, object]) -> None:
    server = first.processes["sv"]
    began, busy = time.monotonic(), starved(server)
    first.kill("cl")
    process = first.start("client", first.client_config(**plane))
    first.wait_state("up", START)
    assert first.ping(1)
    assert time.monotonic() - began - starved(process) - (starved(server) - busy) < 2.0
    assert first.ask("cl", "counters")["attempts"] == 1
    assert first.ask("sv", "counters")["tables"]["registered"] == 1


def test_an_operator_hands_the_identity_over(first: Site, plane: dict[str, object]) -> None:
    first.start("copy", first.client_config("c2", bind_ip="10.77.3.2", **plane))
    wait_for(lambda: "another machine at 10.77.1.2:" in str((first.ask("c2") or {}).get("error")), START, "a refusal")
    said = ctl(first, "handover", "site1")
    assert said.startswith(
        "site1 mpq9: the next other machine within 600 s takes over, in place of the one at 10.77.1.2:"
    )
    first.ask("c2", op="reconnect")
    first.wait_state("up", START, "c2")
    first.wait_state("down")
    assert re.search(r"an operator has handed .* to another machine at 10\.77\.3\.2:", first.ask("cl")["error"])
    assert " 0% packet loss" in first.run("copy", "ping", "-n", "-c", "3", "-i", "0.05", "-W", "1", "10.200.9.2")
    assert "by=alice" in first.log("sv")
    assert json.loads(ctl(first, "status", "sv", "--json"))[0]["peers"][0]["peer"].startswith("10.77.3.2:")
