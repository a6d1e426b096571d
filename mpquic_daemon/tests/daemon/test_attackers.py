"""Whoever isn't a listed client with a good certificate gets nothing from the server and leaves nothing behind."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.root
Site = Any
EMPTY = dict.fromkeys(
    (
        "groups", "registered", "tunnels", "connections", "quic_connections", "unregistered", "stripe_sessions",
        "waiting_registrations",
    ), 0,
)  # fmt: skip


def tables(site: Site) -> dict[str, int]:
    found: dict[str, int] = site.ask("sv", "counters")["tables"]
    return found


@pytest.fixture
def server(site: Site) -> Iterator[Site]:
    """The server alone."""
    try:
        site.start("server", site.server_config())
        site.wait_server()
        yield site
    finally:
        for name in list(site.processes):
            site.kill(name)


def files(site: Site, certificate: Path, key: Path, ca: Path | None = None) -> dict[str, object]:
    return {
        "tls": {
            "ca_file": str(ca or site.ca.file),
            "cert_file": str(certificate),
            "key_file": str(key),
            "server_name": "vps1.example.net",
        }
    }


def foreign_authority(site: Site) -> Any:
    return type(site.ca)(site.directory, "foreign")


def expired(site: Site) -> dict[str, object]:
    day = dt.timedelta(days=1)
    return files(site, *site.ca.client("expired", age=3 * day, life=day)[:2])


def not_yet_valid(site: Site) -> dict[str, object]:
    return files(site, *site.ca.client("early", age=-dt.timedelta(days=1))[:2])


def of_a_foreign_ca(site: Site) -> dict[str, object]:
    return files(site, *foreign_authority(site).client("foreign")[:2])


def of_the_server(site: Site) -> dict[str, object]:
    return files(site, *site.ca.server("thief")[:2])


def of_nobody_we_know(site: Site) -> dict[str, object]:
    return files(site, *site.ca.client("unlisted", "urn:mpquic:site:elsewhere")[:2])


def with_a_foreign_address(_site: Site) -> dict[str, object]:
    return {"inner_addresses": ["10.200.9.7/32"]}


def with_a_prefix_around_its_own(_site: Site) -> dict[str, object]:
    return {"inner_addresses": ["10.200.9.0/24"]}


def with_another_tunnel(_site: Site) -> dict[str, object]:
    return {"tunnel": "mpq1"}


AUTHENTICATION = "authentication: client not authenticated: this machine's certificate "
ATTACKS = [
    (expired, f"{AUTHENTICATION}.* has ended at .*run site.yml"),
    (not_yet_valid, f"{AUTHENTICATION}.* isn't valid before .*clock is wrong"),
    (of_a_foreign_ca, rf"{AUTHENTICATION}.* is of another CA \(CN=test foreign\)"),
    (of_the_server, f"{AUTHENTICATION}.* isn't for clients"),
    (of_nobody_we_know, "authorization: urn:mpquic:site:elsewhere has no tunnel mpq9 here"),
    (with_a_foreign_address, "authorization: urn:mpquic:site:site1 may not use 10.200.9.7/32 in tunnel mpq9"),
    (with_a_prefix_around_its_own, "authorization: urn:mpquic:site:site1 may not use 10.200.9.0/24 in tunnel mpq9"),
    (with_another_tunnel, "authorization: urn:mpquic:site:site1 has no tunnel mpq1 here"),
]


@pytest.mark.parametrize(("attack", "reason"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
def test_a_client_with_a_wrong_certificate_or_claim_is_refused(
    server: Site, attack: Callable[[Site], dict[str, object]], reason: str
) -> None:
    server.start("client", server.client_config(**attack(server)))
    wait_for(lambda: re.match(reason, (server.ask("cl") or {}).get("error") or ""), 5, f"{reason} {server.ask('cl')}")
    assert server.state() in ("connecting", "down")
    assert not server.ping(1)
    server.kill("cl")
    wait_for(lambda: tables(server) == EMPTY, 8, "empty tables")
    assert server.run("server", "cat", "/sys/class/net/mpq9/carrier").strip() == "0"


def test_a_client_does_not_register_at_a_server_of_a_foreign_ca(server: Site) -> None:
    foreign = foreign_authority(server)
    server.start("client", server.client_config(**files(server, server.directory / "client.crt",
                                                        server.directory / "client.key", foreign.file)))  # fmt: skip
    wait_for(lambda: "certificate" in ((server.ask("cl") or {}).get("error") or ""), 5, "the refusal")
    assert server.ask("sv", "counters")["registrations"] == 0


# What unregistered peers write to the socket, run in the client's namespace: {name: code}. None of it is of our client.
PREAMBLE = """
import os, random, socket, sys, time
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect(("10.77.2.2", 45009)); sock.settimeout(0.05)
def connect(ca):
    configuration = QuicConfiguration(alpn_protocols=["mpquic/1"], max_datagram_frame_size=65535,
                                      server_name="vps1.example.net")
    configuration.load_verify_locations(cafile=ca)
    connection = QuicConnection(configuration=configuration)
    connection.connect(("10.77.2.2", 45009), time.monotonic())
    return connection
def turn(connection, seconds):
    end = time.monotonic() + seconds
    events = []
    while time.monotonic() < end:
        for data, _ in connection.datagrams_to_send(time.monotonic()):
            sock.send(data)
        try:
            connection.receive_datagram(sock.recv(65536), ("10.77.2.2", 45009), time.monotonic())
        except (TimeoutError, ConnectionRefusedError):
            pass
        while (event := connection.next_event()) is not None:
            events.append(type(event).__name__)
    return events
"""
UNREGISTERED = {
    "noise": "for n in range(2000): sock.send(os.urandom(random.randrange(1, 1400)))",
    "noise that looks like QUIC": (
        "for n in range(500): sock.send(bytes([0xc0 | random.randrange(64)]) + b'\\0\\0\\0\\1\\x08'"
        " + os.urandom(1300))"
    ),
    "handshake without registration": (
        "c = connect(sys.argv[1]); turn(c, 0.5); print(turn(c, 7))"
    ),
    "data before registration": (
        "c = connect(sys.argv[1]); turn(c, 0.5)\n"
        "for n in range(50): c.send_datagram_frame(b'\\x10\\1\\0\\x1c' + bytes(4) + b'E' + bytes(27))\n"
        "s = c.get_next_available_stream_id(); c.send_stream_data(s, b'\\2' + bytes(2000)); turn(c, 1)"
    ),
    "noise on the control stream": (
        "c = connect(sys.argv[1]); turn(c, 0.5)\n"
        "c.send_stream_data(0, b'\\1' + os.urandom(4000)); print(turn(c, 2))"
    ),
    "endless control message": (
        "c = connect(sys.argv[1]); turn(c, 0.5)\n"
        "c.send_stream_data(0, b'\\1\\xff\\xff\\xff\\xff' + bytes(100000)); print(turn(c, 2))"
    ),
    "many connections at once": (
        "cs = [connect(sys.argv[1]) for n in range(60)]\n"
        "for c in cs: [sock.send(d) for d, _ in c.datagrams_to_send(time.monotonic())]"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREGISTERED)
def test_unregistered_peers_leave_no_state_and_do_not_disturb_a_client(server: Site, name: str) -> None:
    server.start("client", server.client_config())
    server.wait_state("up")
    registered = tables(server)
    command = ["ip", "netns", "exec", server.namespace("client"), sys.executable, "-c", PREAMBLE + UNREGISTERED[name]]
    done = subprocess.run([*command, str(server.ca.file)], check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "HandshakeCompleted" not in done.stdout or "ConnectionTerminated" in done.stdout
    assert server.ping()
    assert (server.state(), server.state("sv")) == ("up", "up")
    wait_for(lambda: tables(server) == registered, 15, f"the tables as before ({tables(server)})")
    assert server.ask("sv", "counters")["registrations"] == 1
    assert "Traceback" not in server.log("sv")


def test_a_registered_client_can_not_send_from_an_address_that_is_not_its_own(server: Site) -> None:
    server.start("client", server.client_config())
    server.wait_state("up")
    server.ip("client", "addr", "add", "10.200.9.77/32", "dev", "mpq9")
    try:
        command = ("ping", "-n", "-c", "3", "-i", "0.05", "-W", "1", "-I", "10.200.9.77", "10.200.9.2")
        assert "100% packet loss" in server.run("client", *command, check=False)
    finally:
        server.ip("client", "addr", "del", "10.200.9.77/32", "dev", "mpq9")
    assert server.ask("sv", "counters")["tunnel"]["refused"]["source"] == 3
    assert server.ping()
