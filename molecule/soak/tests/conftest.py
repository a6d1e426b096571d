"""The lab, calls in all class tunnels, and choices that can be made again."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mpqbench import conditions
from mpqlab import cgroup, topology
from mpqlab.fixtures import lab
from mpqlab.run import SERVICES
from mpqlab.testing import INTERNET

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpqlab.testing import Lab

__all__ = ["lab"]

PORT = 5060
PREFERRED = 64
"""How many times the processor time of a command of the tests a machine gets while calls run.

Each look at a tunnel is a start of Python. Without this, looks kept daemons waiting for up to 0.4 s, and the queue of a
far end dropped a packet.
"""


@pytest.fixture(scope="session")
def choices() -> random.Random:
    """Random choices; the seed is printed, and MPQUIC_SOAK_SEED gives it again."""
    seed = int(os.environ.get("MPQUIC_SOAK_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"\nMPQUIC_SOAK_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(scope="session", autouse=True)
def echo(lab: Lab) -> Iterator[None]:
    """What the Internet sends back."""
    with lab.echo("serve", str(PORT)):
        yield


class Kept:
    """Figures for the document of the performance, written where `MPQUIC_SOAK_RESULTS` says; nowhere without it."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row of a table."""
        self._rows.append(row)

    def save(self) -> None:
        """Write the rows, with the day and the processor that they were measured on."""
        name = os.environ.get("MPQUIC_SOAK_RESULTS")
        if name and self._rows:
            seen = conditions.observe(1, 0)
            about = {"date": seen.date, "processor": seen.processor, "kernel": seen.kernel}
            Path(name).write_text(json.dumps({**about, "rows": self._rows}, indent=1) + "\n")


@pytest.fixture(scope="session")
def kept() -> Iterator[Kept]:
    """What is kept of this run."""
    rows = Kept()
    yield rows
    rows.save()


class Call:
    """50 packets a second from the network that uses the VLAN of a class tunnel, to the Internet and back."""

    def __init__(self, tunnel: str) -> None:
        vlan = topology.CLASS_VLANS[tunnel]
        source = vlan.host_address.partition("/")[0]
        words = [sys.executable, "-m", "mpqlab.echo", "call", source, INTERNET, str(PORT)]
        self._process = subprocess.Popen(
            ["mpqlab", "exec", vlan.lan.host, "--", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def wait(self) -> None:
        """Return when it has begun."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "calling\n"

    def end(self) -> dict[str, float]:
        """Hang up; return what was sent and lost."""
        out, _ = self._process.communicate("\n", timeout=30)
        found: dict[str, float] = json.loads(out)
        return found

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait(timeout=10)


@pytest.fixture
def calls(lab: Lab) -> Iterator[dict[str, Call]]:
    """A call in each class tunnel, by the tunnel's name."""
    for tunnel in topology.CLASS_VLANS:
        lab.wait_state(tunnel, "up", within=30)
    running = {tunnel: Call(tunnel) for tunnel in topology.CLASS_VLANS}
    for each in running.values():
        each.wait()
    for name in (*topology.MACHINES, SERVICES):
        cgroup.prefer(name, PREFERRED)
    yield running
    for name in (*topology.MACHINES, SERVICES):
        cgroup.prefer(name, 1)
    for each in running.values():
        each.close()
