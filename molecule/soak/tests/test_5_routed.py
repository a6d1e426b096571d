"""Routed prefixes whose fallback is a tunnel of another listener: replies take the way of their connection."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from mpqlab import topology
from mpqlab.edited_site import EditedSite
from mpqlab.testing import INTERNET
from mpqlab.waiting import wait_for

from .conftest import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mpqlab.testing import Lab

COUNT = 20
VLAN = topology.CLASS_VLANS["cr3"]
FALLBACK = "cr1"
"""A tunnel of the listener of another WAN."""
CONNECTION = """
import socket, sys
connection = socket.create_connection((sys.argv[2], int(sys.argv[3])), 5, (sys.argv[1], 0))
connection.settimeout(10)
print("open", flush=True)
for line in sys.stdin:
    connection.sendall(bytes(1000))
    got = 0
    while got < 1000:
        data = connection.recv(65536)
        assert data, "closed"
        got += len(data)
    print(got, flush=True)
"""


def routed(site: dict[str, Any]) -> None:
    """Routed prefixes; a VLAN whose connections go by rules needs `nat`, so it goes."""
    site["lan_mode"] = "routed"
    for lan in site["lans"]:
        lan["vlans"] = [vlan for vlan in lan.get("vlans", []) if "class" in vlan]
        for vlan in lan["vlans"]:
            if vlan["id"] == VLAN.id:
                vlan["fallback"] = FALLBACK


@pytest.fixture
def routed_site(lab: Lab, tmp_path: Path) -> Iterator[None]:
    """The lab with routed prefixes; as before afterwards."""
    edited = EditedSite(tmp_path)
    done = edited(routed)
    assert done.status == 0, done.output[-3000:]
    for tunnel in ("cr3", FALLBACK):
        lab.wait_state(tunnel, "up", within=30)
    yield
    lab.run("client", "mpquicctl release cr3", check=False)
    lab.playbook()


def ask(lab: Lab, protocol: str) -> int:
    source = VLAN.host_address.partition("/")[0]
    words = [sys.executable, "-m", "mpqlab.echo", "send", protocol, source, INTERNET, str(PORT), str(COUNT)]
    return int(lab.run(VLAN.lan.host, " ".join(words)))


def by(lab: Lab, before: dict[str, int]) -> list[str]:
    """Tunnels that have carried more than a stray packet, both ways."""
    return [name for name, count in lab.carried().items() if count - before[name] > COUNT / 2]


@pytest.mark.usefixtures("routed_site")
def test_what_came_by_another_listener_goes_back_by_it(lab: Lab) -> None:
    source = VLAN.host_address.partition("/")[0]
    words = ["mpqlab", "exec", VLAN.lan.host, "--", sys.executable, "-c", CONNECTION, source, INTERNET, str(PORT)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as connection:
        assert connection.stdin is not None
        assert connection.stdout is not None

        def goes_on() -> bool:
            assert connection.stdin is not None
            assert connection.stdout is not None
            connection.stdin.write("go\n")
            connection.stdin.flush()
            return connection.stdout.readline() == "1000\n"

        assert connection.stdout.readline() == "open\n"
        for carrying, command in (
            ("cr3", "true"),
            (FALLBACK, "mpquicctl hold cr3 --reason soak"),
            ("cr3", "mpquicctl release cr3"),
        ):
            lab.run("client", command)
            lab.wait_state("cr3", "held" if carrying == FALLBACK else "up", within=20)
            wait_for(lambda: ask(lab, "udp") == COUNT, 10, "traffic")
            for protocol in ("udp", "tcp"):
                before = lab.carried()
                assert ask(lab, protocol) == COUNT
                assert by(lab, before) == [carrying]
            assert goes_on()
