"""A server of iperf3 in the lab's Internet that serves one test: one that has served many gets slower."""

from __future__ import annotations

import random
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mpqlab.errors import LabError
from mpqlab.run import inside, listening
from mpqlab.state import Process
from mpqlab.topology import INTERNET, INTERNET_ADDRESS
from mpqlab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

PORTS = range(5600, 6000)
_ATTEMPTS = 5
_READY_SECONDS = 5.0


@contextmanager
def fresh_server(address: str = INTERNET_ADDRESS) -> Iterator[int]:
    """Have a server listen at an address of the Internet for one test; give its port.

    Raises:
        LabError: no server could be started.
    """
    for _ in range(_ATTEMPTS):
        port = random.choice(PORTS)
        server = _start(address, port)
        try:
            if _is_ready(server, port):
                yield port
                return
        finally:
            server.kill()
            server.wait()
    raise LabError(f"no iperf3 server in {INTERNET}: {_ATTEMPTS} ports between {PORTS[0]} and {PORTS[-1]} are taken")


def _start(address: str, port: int) -> subprocess.Popen[bytes]:
    # Bound to it, the server replies to UDP from the address that it was asked at.
    server = ["iperf3", "-s", "--one-off", "-B", address, "-p", str(port)]
    # Without its parent nobody would end it before the lab does.
    command = ["setpriv", "--pdeathsig", "KILL", *inside(INTERNET, server)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _is_ready(server: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until a server listens; False when it has ended, since the port is taken by another test."""
    try:
        process = Process.of("iperf3", server.pid)
        wait_for(lambda: server.poll() is not None or listening(process, "tcp", port), _READY_SECONDS, "iperf3 listens")
    except ProcessLookupError:
        return False
    # Whoever had the port before listens, too.
    return server.poll() is None
