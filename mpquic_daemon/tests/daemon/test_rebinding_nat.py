"""Real daemons behind a real NAT that forgets its bindings: traffic goes on, and the server is as quick as before."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from waiting import wait_for

from .test_stripe import carries, stopped, wait_stripe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.root
__all__ = ["stopped"]
Site = Any

LONGEST_STOP = 2.0
REBINDINGS = 12
RULES = """
table ip nat9 {{
    chain post {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 10.77.1.2 udp dport 45000-46999 masquerade to :{low}-{high} random
    }}
    chain pre {{
        type filter hook prerouting priority raw; policy accept;
        udp dport 45000-46999 ct zone set {zone}
        udp sport 45000-46999 ct zone set {zone}
    }}
}}
"""
"""A zone has bindings of its own: another one is a NAT that has forgotten all, and knows none of the old ports."""


class Progress(threading.Thread):
    """Watches a number that grows; `longest` are the most seconds in which it did not."""

    def __init__(self, read: Callable[[], int]) -> None:
        super().__init__(daemon=True)
        self._read = read
        self._done = threading.Event()
        self.longest = 0.0

    def run(self) -> None:
        last, at = self._read(), time.monotonic()
        while not self._done.wait(0.05):
            value, now = self._read(), time.monotonic()
            if value != last:
                last, at = value, now
            self.longest = max(self.longest, now - at)

    def stop(self) -> float:
        self._done.set()
        self.join()
        return self.longest


def received(site: Site) -> int:
    """Octets that the client has from its tunnel."""
    return int(site.ask("cl", "paths")[0]["rx_bytes"])


@contextmanager
def download(site: Site) -> Iterator[None]:
    """A TCP transfer from the server's side to the client's that goes on until it is stopped."""
    source = (
        "import socket; s = socket.create_server(('10.200.9.2', 5556)); c, _ = s.accept()\n"
        "while True: c.send(bytes(1 << 16))"
    )
    sink = (
        "import socket, time\nfor _ in range(100):\n try: c = socket.create_connection(('10.200.9.2', 5556)); break\n"
        " except ConnectionRefusedError: time.sleep(0.05)\nwhile c.recv(1 << 20): pass"
    )
    processes = []
    try:
        for role, program in (("server", source), ("client", sink)):
            full = ["ip", "netns", "exec", site.namespace(role), sys.executable, "-c", program]
            processes.append(subprocess.Popen(full, stderr=subprocess.DEVNULL))
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait(10)


def rebind(site: Site, number: int) -> None:
    """Have the NAT forget all bindings and use other ports from now on."""
    low = 20000 + 1000 * number
    rules = RULES.format(low=low, high=low + 999, zone=number + 1)
    site.run("middle", "nft", "table ip nat9 {}\ndelete table ip nat9\n" + rules)


@pytest.mark.parametrize("transport", ["quic", "stripe"])
def test_a_transfer_and_pings_pass_a_nat_that_forgets_all_bindings(stopped: Site, transport: str) -> None:
    site = stopped
    site.start("server", site.server_config())
    site.wait_server()
    rebind(site, 0)
    try:
        site.start("client", site.client_config(transport=transport))
        site.wait_state("up")
        if transport == "stripe":
            wait_stripe(site)
        ports = {site.ask("sv", "paths")[0]["peer"]}
        with download(site):
            wait_for(lambda: received(site) > 1e6, 5, "a transfer")
            progress = Progress(lambda: received(site))
            progress.start()
            for number in range(1, REBINDINGS + 1):
                rebind(site, number)
                assert site.wait_ping(LONGEST_STOP) < LONGEST_STOP
                before = received(site)
                wait_for(lambda before=before: received(site) > before + 1e6, 5, "more of the transfer")
                ports.add(site.ask("sv", "paths")[0]["peer"])
            assert progress.stop() < LONGEST_STOP
        if transport == "quic":
            assert len(ports) > REBINDINGS // 2
        else:
            assert carries(site)
        assert site.ask("cl")["reconnects"] == 0
    finally:
        site.run("middle", "nft", "delete", "table", "ip", "nat9", check=False)
