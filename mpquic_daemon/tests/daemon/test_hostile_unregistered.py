"""A real server process among peers that never register and do one kind of harm: its memory stays small."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Site

pytestmark = [pytest.mark.root, pytest.mark.waits]

TESTS = Path(__file__).parents[1]
ATTACKERS = "10.66.0.0/16"
CLIENTS = 120
GROWTH = 60 << 20
"""Bytes of resident memory that all of them together may cost: 1.8 MiB each would be 216 MiB."""


@pytest.fixture
def attacked(running: Site) -> Iterator[Site]:
    """A server whose client is up; the client's machine has many more addresses."""
    running.ip("middle", "route", "add", ATTACKERS, "via", "10.77.1.2")
    running.ip("client", "route", "add", "local", ATTACKERS, "dev", "lo")
    try:
        yield running
    finally:
        running.ip("client", "route", "del", "local", ATTACKERS, "dev", "lo")
        running.ip("middle", "route", "del", ATTACKERS)


@contextmanager
def unregistered_clients(site: Site, clients: int, *attacks: str) -> Iterator[None]:
    """Clients with an address each that attack until the end."""
    command = ["ip", "netns", "exec", site.namespace("client"), sys.executable]
    command += [str(TESTS / "hostile" / "unregistered.py"), "10.77.2.2:45009", "--addresses", ATTACKERS]
    command += ["--clients", str(clients), "--cores", "0.6", "--seconds", "60", "--attack", *attacks]
    environment = {**site.environment, "PYTHONPATH": str(TESTS)}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
        try:
            yield
            assert process.poll() is None
        finally:
            process.kill()


def is_full(site: Site) -> bool:
    """Whether somebody was refused or evicted for want of a place."""
    counters = site.ask("sv", "counters")["listener"]
    return any(reason in counters for reason in ("too_many_unregistered", "evicted_before_registration"))


@pytest.mark.parametrize("address", ["10.77.1.2", "10.77.1.3"], ids=["a known address", "an unknown address"])
def test_a_client_registers_while_a_crowd_takes_what_places_it_gets(attacked: Site, address: str) -> None:
    attacked.kill("cl")
    if address != "10.77.1.2":
        attacked.ip("client", "addr", "add", f"{address}/24", "dev", "wan0")
    try:
        with unregistered_clients(attacked, 300, "idle"):
            wait_for(lambda: is_full(attacked), 30, "all places taken")
            attacked.start("client", attacked.client_config(bind_ip=address))
            wait_for(lambda: attacked.state() is not None, 20, "the client's process")
            attacked.wait_state("up", 5.0)
            # The crowd has most of the processors: a packet may find the server's socket full, three in a row don't.
            wait_for(attacked.ping, 5.0, "a ping through the tunnel without loss")
    finally:
        if address != "10.77.1.2":
            attacked.ip("client", "addr", "del", f"{address}/24", "dev", "wan0")


def resident(site: Site) -> int:
    """Bytes of memory of the server's process, at their highest."""
    status = Path(f"/proc/{site.processes['sv'].pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


@pytest.mark.parametrize("name", ["wide_gaps", "crypto_gaps", "stream_gaps"])
def test_what_peers_that_never_register_leave_costs_little_memory(attacked: Site, name: str) -> None:
    before = resident(attacked)
    command = ["ip", "netns", "exec", attacked.namespace("client"), sys.executable]
    command += [str(TESTS / "hostile" / "unregistered.py"), "10.77.2.2:45009", "--addresses", ATTACKERS]
    command += ["--clients", str(CLIENTS), "--cores", "0.6", "--seconds", "4", "--attack", name]
    environment = {**attacked.environment, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    sent: dict[str, Any] = json.loads(done.stdout)
    assert sent["connections"] >= CLIENTS
    assert sent["handshakes"] > 20
    assert resident(attacked) - before < GROWTH, sent
    assert attacked.ping()
    assert (attacked.state(), attacked.ask("cl")["reconnects"]) == ("up", 0)
    assert "Traceback" not in attacked.log("sv")
    wait_for(lambda: attacked.ask("sv", "counters")["tables"]["unregistered"] == 0, 20, "the end of their connections")
